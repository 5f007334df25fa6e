"""MetaPEFT: gradients, who trains what, D_val, a planted problem, the released code."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from support.few import FEW
from support.methods import double, fill, images, setting

from harness.baselines.metapeft.sampling import ValSampler, quotas
from harness.data.dataset import Images, epoch_batches
from harness.insertion.method import get_method
from harness.model.backbones import features
from harness.rng import generator
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import Placement, Recipe
from harness.store.store import Store
from harness.training.train import TrainingLoop

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.mark.parametrize("name", ["metapeft", "metapeft:adapter", "metapeft:lora+adaptformer"])
def test_gamma_near_zero_is_the_frozen_model_and_one_is_the_base(name, backbones):
    spec, _ = backbones["vit_pico"]
    model = double(spec)
    x = images(spec).double()
    frozen = features(model, x)
    method, placement, options = setting(name, spec, alpha=1.0)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.base.double())
    one = features(model, x)
    with torch.no_grad():
        attachment.raw.fill_(-60.0)
    assert torch.allclose(features(model, x), frozen, rtol=1e-12)
    assert all(0 < a < 1e-20 for _, a in attachment.learned().items())
    attachment.detach()
    base, placement, options = setting(options.base, spec, alpha=1.0)
    plain = base.attach(model, placement, options, seed=0)
    fill(plain.double())
    assert torch.equal(features(model, x), one)
    plain.detach()


# Whole trials.


def trial(tmp_path, **values):
    steps = {"recipe.batch_size": 16}  # six in an epoch
    values = {"positions": None, "method": "metapeft", **steps, **values}
    request = FEW.with_values(values, source="test")
    spec = resolve(request, Runtime())
    record = run_trial(spec, Runtime(keep_weights=True), Store(tmp_path))
    assert record.error is None
    folder = tmp_path / "trials" / record.trial_id
    rows = []
    if (folder / "trajectory.csv").exists():
        table = csv.DictReader((folder / "trajectory.csv").read_text().splitlines())
        rows = [{k: float(v) for k, v in row.items()} for row in table]
    return record, rows, (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    "alpha", [1.0, *(pytest.param(a, marks=pytest.mark.slow) for a in (0.3, 3.0))]
)
@pytest.mark.parametrize(
    "base",
    ["lora", *(pytest.param(b, marks=pytest.mark.slow) for b in ("adapter", "lora+adaptformer"))],
)
def test_a_gamma_that_stays_at_alpha_is_the_base_bit_for_bit(tmp_path, base, alpha):
    positions = [p for p in get_method(base).positions if p != "dw"]
    common = {"positions": positions, "alpha": alpha}
    plain, _, _ = trial(tmp_path, method=base, **common)
    options = {"base": base, "outer_lr": 0.0, "l2": 0.0}
    meta, rows, _ = trial(tmp_path, options=options, **common)
    assert len(rows) > 1  # outer steps were taken, at rate 0
    assert meta.test == plain.test and meta.select == plain.select
    assert meta.trainable_params == plain.trainable_params + len(meta.spec.placement)
    assert [a for _, a in meta.learned.items()] == pytest.approx([alpha] * len(meta.learned))


@pytest.mark.slow
def test_inner_and_outer_steps_keep_to_their_own(tmp_path, monkeypatch):
    """Through the optimisers themselves: what differs after each of their steps."""
    steps = []

    def watched(optimiser):
        plain = optimiser.step

        def step(self, *args, **kwargs):
            before = snapshot()
            result = plain(self, *args, **kwargs)
            after = snapshot()
            steps.append((optimiser.__name__, {k for k in before if before[k] != after[k]}))
            return result

        return step

    seen = {}

    def snapshot():
        classifier, sgd = seen["classifier"], seen.get("sgd")
        tensors = dict(classifier.named_parameters())
        if sgd is not None:
            for index, state in enumerate(sgd.state.values()):
                if state.get("momentum_buffer") is not None:
                    tensors[f"momentum {index}"] = state["momentum_buffer"]
        return {k: v.detach().clone().numpy().tobytes() for k, v in tensors.items()}

    real_loop, real_sgd = TrainingLoop, torch.optim.SGD

    def spy_loop(classifier, *args, **kwargs):
        seen["classifier"] = classifier
        return real_loop(classifier, *args, **kwargs)

    def spy_sgd(*args, **kwargs):
        seen["sgd"] = real_sgd(*args, **kwargs)
        return seen["sgd"]

    monkeypatch.setattr("harness.runner.trial.TrainingLoop", spy_loop)
    monkeypatch.setattr(real_sgd, "step", watched(real_sgd))
    monkeypatch.setattr(torch.optim.Adam, "step", watched(torch.optim.Adam))
    monkeypatch.setattr(torch.optim, "SGD", spy_sgd)
    options = {"inner_steps": 2, "hypergradient": "unrolled:2"}
    trial(tmp_path, options=options, **{"recipe.epochs": 2})
    raw = "attachment.raw"
    inner = [changed for name, changed in steps if name == "SGD"]
    outer = [changed for name, changed in steps if name == "Adam"]
    assert len(inner) == 2 * 6 and len(outer) == 6
    assert all(raw not in changed and "head.weight" in changed for changed in inner)
    assert all(changed == {raw} for changed in outer)
    assert [name for name, _ in steps[:3]] == ["SGD", "SGD", "Adam"]


@pytest.mark.slow
def test_the_trajectory_has_a_row_for_the_start_and_for_every_outer_step(tmp_path):
    record, rows, _ = trial(
        tmp_path, options={"inner_steps": 2, "warmup_steps": 3}, **{"recipe.epochs": 2}
    )
    # 84 images in batches of 16: 6 steps an epoch; outer steps after 5, 7, 9 and 11.
    assert [row["inner_step"] for row in rows] == [0, 5, 7, 9, 11]
    assert [row["outer_step"] for row in rows] == [0, 1, 2, 3, 4]
    sites = [str(site) for site, _ in record.spec.placement.items()]
    assert len(sites) == 6 and all(rows[0][site] == pytest.approx(1) for site in sites)
    assert [rows[-1][site] for site in sites] == [a for _, a in record.learned.items()]
    assert math.isnan(rows[0]["outer_loss"]) and rows[1]["outer_loss"] > 0
    # Adam's first step moves every γ by its rate, times softplus' at 1.
    moves = [abs(rows[1][site] - 1) for site in sites]
    assert moves == pytest.approx([0.01 * (1 - math.exp(-1))] * 6, rel=0.02)
    cost = record.cost.images_backward
    assert cost == 2 * 84 + 4 * 16


OF_OPTIONS = {"recipe.lr": 0.1, "alpha": 2.0}


@pytest.fixture(scope="module")
def plain(few_images, tmp_path_factory):
    """What comes of no option."""
    return trial(tmp_path_factory.mktemp("plain"), **OF_OPTIONS)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"hypergradient": "unrolled:2"},
        {"hypergradient": "darts_fd"},
        {"hypergradient": "neumann:2"},
        {"d_val": "held_out"},
        {"sampling": "class_balanced"},
        {"sampling": "tail_heavy"},
        {"inner_trains": "peft"},
        {"outer_batches": "all"},
        {"outer_batches": 2},
        {"l2_target": "raw", "l2": 10.0},
        {"l2": 10.0},
        {"nonneg": "none"},
        {"gamma_form": "times_alpha"},
        {"ratio": 0.5},
        {"inner_steps": 1},
        {"variant": "released"},
    ],
)
def test_every_option_changes_the_result_and_repeats_exactly(tmp_path, plain, options):
    first, rows, weights = trial(tmp_path / "a", options=options, **OF_OPTIONS)
    again, rows_again, weights_again = trial(tmp_path / "b", options=options, **OF_OPTIONS)
    assert (first.test, weights) == (again.test, weights_again)
    assert str(rows) == str(rows_again)
    assert first.learned != plain.learned
    assert all(math.isfinite(a) for _, a in first.learned.items())


@pytest.mark.slow
def test_a_diverged_search_is_a_result(tmp_path):
    record, rows, _ = trial(tmp_path, **{"recipe.lr": 1e30, "recipe.epochs": 3})
    assert record.status == "DIVERGED" and record.learned is None and rows


def test_fp16_is_refused(tmp_path):
    from harness.errors import UserError

    with pytest.raises(UserError, match="bf16 or fp32"):
        trial(tmp_path, **{"recipe.precision": "fp16"})


# D_val.

LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor([400, 100, 10, 1]))


@pytest.mark.parametrize(
    "sampling,leave,wanted",
    [
        ("random", 0, [80, 20, 2, 1]),
        ("random", 1, [80, 20, 2, 0]),
        ("class_balanced", 0, [46, 46, 10, 1]),
        ("class_balanced", 1, [47, 47, 9, 0]),
        ("tail_heavy", 0, [18, 73, 10, 1]),
    ],
)
def test_quotas_by_hand(sampling, leave, wanted):
    """20 % of 511 is 102.2: equal shares are 25.55, and what 10 + 1 images cannot fill goes to the
    others; inverse frequency shares it 1 : 4 among the two large classes."""
    got = quotas(torch.bincount(LABELS), 0.2, sampling, leave=leave)
    assert got.tolist() == pytest.approx(wanted, abs=1)
    assert got[3] == 1 - leave


def test_d_val_is_stratified_fresh_and_reproducible():
    def sampler(seed):
        return ValSampler(LABELS, classes=4, ratio=0.2, sampling="random", leave=0, seed=seed)

    draws = [sampler(0).draw(loop) for loop in range(20)]
    for draw in draws:
        assert torch.bincount(LABELS[draw]).tolist() == [80, 20, 2, 1]
        assert len(draw.unique()) == len(draw)
    assert torch.equal(draws[3], sampler(0).draw(3))
    assert not torch.equal(draws[3], sampler(1).draw(3))
    together = torch.cat(draws)
    assert len(together.unique()) > 0.95 * len(LABELS)  # 0.8²⁰ of a class is never drawn
    chosen = torch.bincount(together, minlength=len(LABELS))[:400]
    assert chosen.float().mean() == pytest.approx(4)
    # The first batch of D_val is a random part of it, not its first classes.
    assert all(len(LABELS[draw[:32]].unique()) > 1 for draw in draws)


def test_held_out_images_are_not_trained_on_until_later():
    """Which images a step sees, against the D_val of its loop; ids are written in the pixels."""
    n = 64
    data = Images(
        pixels=torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 2, 2),
        labels=torch.zeros(n, dtype=torch.long),
    )
    recipe = Recipe(batch_size=8, augment="none")
    masks = [torch.rand(n, generator=generator(0, i)) < 0.2 for i in range(20)]
    asked = iter(masks)
    batches = [
        batch.pixels[:, 0, 0, 0].long()
        for batch in epoch_batches(data, recipe, 0, 0, lambda: next(asked))
    ]
    for ids, mask in zip(batches, masks, strict=False):
        assert not mask[ids].any()
    sizes = [len(ids) for ids in batches]
    assert sizes == [8] * (len(sizes) - 1) + [sizes[-1]] and 0 < sizes[-1] <= 8
    seen = torch.cat(batches)
    assert len(seen.unique()) == len(seen) >= n - 2 * 8
    assert len(list(epoch_batches(data, recipe, 0, 0, lambda: torch.ones(n) > 0))) == 0


def test_the_images_that_fill_no_batch_are_the_last_one_and_the_epoch_ends_there():
    """Also where others, deferred until then, would fill more: they would be ever fewer."""
    n = 20
    data = Images(pixels=torch.zeros(n, 3, 2, 2, dtype=torch.uint8), labels=torch.arange(n))
    recipe = Recipe(batch_size=8, augment="none")

    def sizes(*held):
        masks = iter([torch.arange(n) < count for count in held])
        return [len(batch) for batch in epoch_batches(data, recipe, 0, 0, lambda: next(masks))]

    assert sizes(0, 0, 0) == [8, 8, 4]
    assert sizes(9, 9) == [8, 3]
    assert sizes(4, 4, 4) == [8, 8]  # nothing is left but what is deferred
    assert sizes(15, 0) == [5]


# The released code.


@pytest.mark.slow
def test_released_never_uses_gamma_but_changes_data_epochs_and_head(tmp_path):
    common = {"recipe.epochs": 4, "positions": "q,v", "options.variant": "released"}
    few, rows, _ = trial(tmp_path, **common, **{"options.inner_steps": 1})
    assert few.epochs_run == 5 and len(rows) == 6  # ceil(4 / 0.8); the start and each epoch
    rates = [
        float(line.split('"lr": ')[1].split(",")[0])
        for line in (tmp_path / "trials" / few.trial_id / "history.jsonl").read_text().splitlines()
    ]
    assert rates[4] == pytest.approx(0) and rates[1] < rates[0]  # T_max stayed at 4
    # γ moves, though slowly, and even below what softplus would allow nothing else depends on it.
    assert few.learned != Placement({str(s): 1.0 for s, _ in few.spec.placement.items()})
    plain, _, _ = trial(tmp_path, method="lora", positions="q,v", **{"recipe.epochs": 4})
    assert few.cost.images_backward < 5 * 0.8 * 84 + 5 * 2 * 16 and plain.epochs_run == 4
    more, _, _ = trial(tmp_path, **common, **{"options.inner_steps": 4})
    assert more.test != few.test  # through the head alone, which the look-ahead steps keep


@pytest.mark.slow
def test_released_puts_phi_back_and_keeps_the_head(tmp_path, monkeypatch):
    from harness.baselines.metapeft.released import ReleasedLoop

    plain, changes = ReleasedLoop.after_epoch, []

    def watched(self):
        inner, raw = self._inner.parameters, self._attachment.raw

        def now():
            return {k: v.detach().clone() for k, v in [*inner.items(), ("raw", raw)]}

        before = now()
        plain(self)
        after = now()
        changes.append({k for k in before if not torch.equal(before[k], after[k])})

    monkeypatch.setattr(ReleasedLoop, "after_epoch", watched)
    trial(tmp_path, **{"options.variant": "released", "positions": "q,v", "recipe.epochs": 2})
    # The inner rate is 0 in the last epoch, so there only γ moves, by its own rate.
    assert changes == [{"head.weight", "raw"}, {"head.weight", "raw"}, {"raw"}]


def test_released_gamma_does_not_reach_the_output(backbones):
    spec, _ = backbones["vit_pico"]
    model = double(spec)
    method, placement, options = setting("metapeft", spec, options={"variant": "released"})
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.base.double())
    classifier = torch.nn.ModuleDict({"attachment": attachment})
    attachment.training_hook().freeze(classifier)
    x = images(spec).double()
    before = features(model, x)
    attachment.raw.data.fill_(3.0)
    assert torch.equal(features(model, x), before)
    attachment.modulating = True
    assert not torch.allclose(features(model, x), before)
    attachment.detach()
