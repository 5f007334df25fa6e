"""What a GPU would do, as far as it can be seen without one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from support.few import FEW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.dataset import Dataset, Images, Split, normalised
from harness.errors import UserError
from harness.insertion.method import get_method
from harness.model.backbones import load_backbone
from harness.model.heads import make_head
from harness.runner.prepare import attached, fix_arithmetic
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, Placement, Recipe
from harness.store.store import Store
from harness.training.arithmetic import evaluated_in, evaluating
from harness.training.classifier import Classifier
from harness.training.evaluation import embed, evaluate
from harness.training.train import TrainingLoop

pytestmark = pytest.mark.usefixtures("few_images")

CPU, META = torch.device("cpu"), torch.device("meta")
SPEC = BackboneSpec(weights="random")


def trial(**values):
    values = {name.replace("__", "."): value for name, value in values.items()}
    return resolve(FEW.with_values(values, source="test"), Runtime())


def run(folder, spec):
    return run_trial(spec, Runtime(), Store(folder))


# The precision of evaluation.


def test_evaluation_is_in_the_precision_of_training_unless_it_is_named():
    found = {
        (train_in, eval_in): evaluated_in(Recipe(precision=train_in, eval_precision=eval_in))
        for train_in in ("fp32", "bf16", "fp16")
        for eval_in in ("auto", "fp32", "bf16")
    }
    for (train_in, eval_in), precision in found.items():
        assert precision == (train_in if eval_in == "auto" else eval_in)


def test_it_is_part_of_the_identity_and_its_default_is_not():
    plain = trial()
    assert plain.recipe.eval_precision == "auto"
    assert trial(recipe__eval_precision="auto").trial_id == plain.trial_id
    others = {trial(recipe__eval_precision=word).trial_id for word in ("fp32", "bf16")}
    assert len({plain.trial_id, *others}) == 3
    with pytest.raises(UserError, match="tf32 is of CUDA devices, not of cpu"):
        trial(recipe__eval_precision="tf32")


def test_features_are_computed_in_it_and_the_head_in_fp32():
    dtypes = []
    with attached(trial(), Runtime()) as (classifier, prepared):
        part = prepared.split.test.subset(torch.arange(40))
        block = classifier.attachment.model.blocks[0].mlp.fc1
        handles = [
            block.register_forward_hook(lambda m, a, y: dtypes.append(y.dtype)),
            classifier.head.register_forward_hook(lambda m, a, y: dtypes.append(y.dtype)),
        ]
        full, half = (
            evaluate(classifier, prepared.dataset, part, word) for word in ("fp32", "bf16")
        )
        exact, rounded = (
            embed(classifier, prepared.dataset, part, word) for word in ("fp32", "bf16")
        )
        for handle in handles:
            handle.remove()
    assert dtypes[:4] == [torch.float32, torch.float32, torch.bfloat16, torch.float32]
    assert full.loss != half.loss and full.loss == pytest.approx(half.loss, rel=0.02)
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.02


@pytest.mark.slow
def test_a_trial_in_bf16_is_scored_in_bf16(tmp_path):
    base = {"recipe__precision": "bf16"}
    auto, same, full = (
        run(tmp_path / word, trial(**base, recipe__eval_precision=word))
        for word in ("auto", "bf16", "fp32")
    )
    assert auto.status == "COMPLETE" and auto.select == same.select and auto.test == same.test
    assert auto.test.loss != full.test.loss
    assert auto.test.loss == pytest.approx(full.test.loss, rel=0.05)


def test_tf32_is_off_unless_evaluation_asks_for_it():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        fix_arithmetic()
        assert not any(backend.allow_tf32 for backend in backends)
        with evaluating("tf32", CPU):
            assert all(backend.allow_tf32 for backend in backends)
            with evaluating("fp32", CPU):
                assert not any(backend.allow_tf32 for backend in backends)
        assert not any(backend.allow_tf32 for backend in backends)
    finally:
        for backend, was in zip(backends, before, strict=True):
            backend.allow_tf32 = was


# Frozen weights in bf16 where every pass rounds them anyway.


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "adapter", "vpt_deep", "bitfit", "full", "metapeft"])
def test_weights_held_in_bf16_change_no_number(tmp_path, monkeypatch, method):
    spec = trial(method=method, positions=None, depth="all", recipe__precision="bf16")
    dtypes = set()

    @contextmanager
    def watching(*arguments):
        with attached(*arguments) as found:
            dtypes.add(found[0].attachment.model.blocks[0].mlp.fc1.weight.dtype)
            yield found

    monkeypatch.setattr("harness.runner.trial.attached", watching)
    fast = run(tmp_path / "fast", spec)
    expected = torch.float32 if method == "full" else torch.bfloat16
    assert dtypes == {expected} and fast.status == "COMPLETE", fast.error
    monkeypatch.setattr("harness.runner.prepare._is_all_bf16", lambda spec: False)
    slow = run(tmp_path / "slow", spec)
    assert (fast.select, fast.test) == (slow.select, slow.test)
    assert fast.cost.flops == slow.cost.flops
    with attached(spec, Runtime()) as (classifier, _):
        weight = classifier.attachment.model.blocks[0].attn.qkv.weight
    assert weight.dtype == torch.float32


def test_weights_keep_their_bits_where_a_pass_is_in_fp32():
    for values in (
        {"recipe__precision": "bf16", "recipe__eval_precision": "fp32"},
        {"recipe__precision": "fp32", "recipe__eval_precision": "bf16"},
    ):
        with attached(trial(**values), Runtime()) as (classifier, _):
            assert classifier.attachment.model.blocks[0].attn.qkv.weight.dtype == torch.float32


# The fused optimiser, which torch has for CPUs too.


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recipe__precision": "fp16"},
        {"method": "metapeft", "options": {"hypergradient": "unrolled:2"}},
        {"method": "metapeft", "positions": ["q", "v"], "options": {"variant": "released"}},
    ],
    ids=["fp32", "fp16", "unrolled", "released"],
)
def test_a_fused_optimiser_takes_the_same_steps(tmp_path, monkeypatch, values):
    spec = trial(**values)
    apart = run(tmp_path / "apart", spec)
    monkeypatch.setattr("harness.training.optimiser.is_fused", lambda device: True)
    fused = run(tmp_path / "fused", spec)
    assert fused.status == "COMPLETE", fused.error
    assert fused.test.loss == pytest.approx(apart.test.loss, rel=1e-3)
    assert fused.test.micro == pytest.approx(apart.test.micro, abs=0.02)


# What waits for the device, on one that only has shapes.


class Waiting(TorchDispatchMode):
    """Counts what makes the CPU wait for the device, and answers for it with zeros."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item") and args[0].is_meta:
            self.count += 1
            return 0.5
        to = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.device)), None)
        if name in ("_to_copy", "to") and to is not None and args[0].device != to:
            if args[0].is_meta:  # values leave the device: that always waits
                self.count += 1
                dtype = kwargs.get("dtype") or args[0].dtype
                return torch.zeros(args[0].shape, dtype=dtype)
            self.count += not kwargs.get("non_blocking", False)
        if name == "copy_" and args[0].device != args[1].device:
            self.count += not (len(args) > 2 and args[2])
        if name in ("nonzero", "masked_select", "equal", "is_nonzero"):
            self.count += any(isinstance(a, torch.Tensor) and a.is_meta for a in args)
        return function(*args, **kwargs)


@pytest.fixture
def on_shapes(monkeypatch):
    """torch has no autocast for a device that only has shapes."""
    for name in ("train.autocast", "evaluation.evaluating"):
        monkeypatch.setattr(f"harness.training.{name}", lambda *_: nullcontext())


class Making(TorchFunctionMode):
    """Counts tensors made of Python's numbers on the device, which wait for it too."""

    def __init__(self, waiting):
        super().__init__()
        self.waiting = waiting

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.tensor and torch.device((kwargs or {}).get("device") or "cpu") == META:
            self.waiting.count += 1
        return function(*args, **(kwargs or {}))


def waits(batches, **changes):
    """Of one epoch of so many batches, its evaluation included."""
    model = load_backbone(SPEC, META)
    method = get_method("lora")
    placement = Placement.of(["q", "v", "mlp1"], range(2), 1.0)
    attachment = method.attach(model, placement, method.parse_options({}), seed=0)
    recipe = Recipe(epochs=1, batch_size=4, precision="fp32", **changes)
    head = make_head(recipe, torch.zeros(15, 64, device=META), 0)
    count = 4 * batches
    images = Images(
        pixels=torch.zeros(count, 3, 32, 32, dtype=torch.uint8), labels=torch.arange(count) % 15
    ).to(META)
    one = Images(pixels=images.pixels[:4], labels=images.labels[:4])
    split = Split(train=images, select=one, test=one, train_counts=torch.ones(15, device=META))
    classes = tuple(str(number) for number in range(15))
    groups = {"all": tuple(range(15))}
    data = Dataset(train=images, test=one, classes=classes, groups=groups)
    normalised(one.pixels, data)  # constants are sent once
    with Waiting() as waiting, Making(waiting):
        classifier = Classifier(model, attachment, head)
        result = TrainingLoop(classifier, data, split, recipe, seed=0).run(lambda row: None)
    assert result.images_backward == count
    return waiting.count


@pytest.mark.parametrize("augment", ["crop_flip", "none"])
def test_no_step_waits_for_the_device(on_shapes, augment):
    assert waits(3, augment=augment) == waits(1, augment=augment) > 0


@pytest.mark.slow
def test_a_step_that_waits_would_be_counted(on_shapes, monkeypatch):
    """So that the test above can fail: constants made at every step, indices sent the slow way."""
    import harness.data.dataset as module

    before = waits(3) - waits(1)
    with monkeypatch.context() as patched:
        patched.setattr(module, "sent", lambda values, device: values.to(device))
        assert waits(3) - waits(1) == before + 2 * 2  # order and crops of two batches
    monkeypatch.setattr(module, "_per_channel", module._per_channel.__wrapped__)
    assert waits(3) - waits(1) == before + 2 * 2  # mean and standard deviation


def test_constants_made_while_evaluating_serve_training():
    values = (0.25, 0.5, 0.125)
    images = torch.zeros(1, 3, 4, 4)
    part = Images(pixels=images, labels=torch.zeros(1).long())
    data = replace(
        Dataset(train=part, test=part, classes=("a",), groups={}), mean=values, std=values
    )
    with torch.inference_mode():
        first = normalised(images, data)
    x = images.clone().requires_grad_()
    again = normalised(x, data)
    again.square().sum().backward()
    assert torch.equal(first, again.detach()) and x.grad is not None
