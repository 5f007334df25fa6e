"""The options against which MetaPEFT's γ is judged, on a problem small enough to do by hand."""

from __future__ import annotations

import json
import math
import multiprocessing
from dataclasses import replace

import pytest
import torch
import torch.distributed
from timm.models.vision_transformer import VisionTransformer
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from harness.baselines.lora import LoRADelta, LoRAOptions
from harness.baselines.metapeft.sampling import ValSampler
from harness.data.dataset import Dataset, Images, Split, epoch_batches, normalised
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import METHODS, PeftMethod, get_method
from harness.model.blocks import columns_at, dims_of, layer_at
from harness.model.heads import make_head
from harness.rng import generator
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import LINEAR_POSITIONS, Placement, Recipe, TrialRequest
from harness.training.classifier import Classifier
from harness.training.distributed import ALONE, DistributedContext
from harness.training.evaluation import class_means, flops_of
from harness.training.train import TrainingLoop

COUNTS = (40, 20, 12)
SITES = ("0.q", "0.mlp1", "1.q", "1.mlp1")
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.1, augment="none", head_scale=10.0)
RATE = 0.1 * math.sqrt(16 / 128)
LOGIT_SHIFT = (torch.tensor(COUNTS) / sum(COUNTS)).log()


class Problem:
    """Three classes of random images, and a ViT of two blocks with a method at four sites."""

    def __init__(self, options, alpha=1.0):
        rng = torch.Generator().manual_seed(3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            vit = VisionTransformer(
                img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0
            )
        vit.requires_grad_(False).eval()
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
        pixels = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=rng, dtype=torch.uint8)
        self.images = Images(pixels=pixels, labels=labels)
        counts = torch.bincount(labels)
        few = self.images.subset(torch.arange(0, 72, 6))
        self.split = Split(train=self.images, select=few, test=few, train_counts=counts)
        self.dataset = Dataset(
            train=self.images, test=few, classes=tuple("abc"), groups={"head": (0,), "tail": (1, 2)}
        )
        method = get_method("metapeft")
        self.attachment = method.attach(
            vit,
            Placement(dict.fromkeys(SITES, alpha)),
            method.parse_options(options),
            seed=0,
        )
        head = make_head(RECIPE, class_means(vit, self.dataset, self.images), 0)
        self.classifier = Classifier(vit, self.attachment, head)

    def train(self, world=ALONE, **changes):
        recipe = RECIPE.model_copy(update=changes)
        parts = self.classifier, self.dataset, self.split, recipe
        return TrainingLoop(*parts, seed=0, distributed=world).run([].append)

    def loss(self, batch, shift=LOGIT_SHIFT):
        return cross_entropy(
            self.classifier(normalised(batch.pixels, self.dataset)) + shift, batch.labels
        )

    @property
    def tensors(self):
        """What the inner steps train."""
        return [*self.attachment.base.parameters(), *self.classifier.head.parameters()]


def adam(steps, rate=0.02):
    """Adam written out: the moves that a row of gradients makes."""
    first = second = torch.zeros_like(steps[0])
    moves = []
    for count, gradient in enumerate(steps, 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**count), second / (1 - 0.999**count)
        moves.append(-rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8))
    return moves


def test_single_level_is_joint_descent_of_the_training_loss():
    """γ by Adam and the rest by SGD with momentum, on the gradients of the same batches."""
    options = {"variant": "single_level", "inner_steps": 2, "outer_lr": 0.02, "l2": 0.1}
    trained = Problem(options)
    result = trained.train()
    problem = Problem(options)
    raw, tensors = problem.attachment.raw, problem.tensors
    velocity = [torch.zeros_like(tensor) for tensor in tensors]
    gradients, steps = [], 0
    for epoch in range(2):
        rate = RATE * (1 + math.cos(math.pi * epoch / 2)) / 2
        for batch in epoch_batches(problem.images, RECIPE, 0, epoch):
            of_gamma, *rest = torch.autograd.grad(problem.loss(batch), [raw, *tensors])
            steps += 1
            with torch.no_grad():
                for tensor, gradient, v in zip(tensors, rest, velocity, strict=True):
                    v.mul_(0.9).add_(gradient + 5e-4 * tensor)
                    tensor -= rate * v
                if steps % 2 == 0:  # γ · dγ/draw is the gradient of its penalty
                    gamma = torch.nn.functional.softplus(raw)
                    gradients.append(of_gamma + 0.1 * gamma * torch.sigmoid(raw))
                    raw += adam(gradients)[-1]
    assert steps == 10 and len(result.trajectory) == 1 + 5
    assert not torch.allclose(raw, Problem(options).attachment.raw, atol=0.01)
    torch.testing.assert_close(trained.attachment.raw, raw, rtol=1e-5, atol=1e-6)
    for one, other in zip(trained.tensors, tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # Its gradient comes with the backward pass of the inner step.
    assert result.images_backward == 2 * 72
    bilevel = Problem({"inner_steps": 2}).train()
    assert bilevel.images_backward == 2 * 72 + 5 * (8 + 4 + 2)  # D_val, 20 %
    assert len(bilevel.trajectory) == len(result.trajectory)


@pytest.mark.parametrize("sampling", ["random", "class_balanced", "tail_heavy"])
@pytest.mark.parametrize("prior", ["train", "d_val"])
def test_the_outer_loss_is_adjusted_by_the_prior_that_is_asked_for(sampling, prior):
    options = {"sampling": sampling, "ratio": 0.5, "outer_batches": "all", "inner_steps": 5}
    problem = Problem({**options, "outer_prior": prior})
    still = Problem(options)
    result = problem.train(epochs=1, lr=1e-9)  # so that all stays as it was at the outer step
    sampler = ValSampler(
        problem.images.labels, classes=3, ratio=0.5, sampling=sampling, leave=0, seed=0
    )
    d_val = problem.images.subset(sampler.draw(0))
    own = torch.bincount(d_val.labels)
    if sampling == "class_balanced":
        assert own.tolist() == [12, 12, 12]
    shift = LOGIT_SHIFT if prior == "train" else (own / own.sum()).log()
    with torch.no_grad():
        wanted = float(still.loss(d_val, shift))
    assert result.trajectory[1]["outer_loss"] == pytest.approx(wanted, rel=1e-5)
    others = [float(still.loss(d_val, other).detach()) for other in (LOGIT_SHIFT, 0 * LOGIT_SHIFT)]
    if sampling == "class_balanced":  # of an even prior nothing is left
        assert wanted == pytest.approx(others[0 if prior == "train" else 1], rel=1e-5)
        assert abs(others[0] - others[1]) > 0.01


def test_an_outer_step_sees_the_whole_of_d_val_if_asked_to():
    whole = Problem({"ratio": 0.5, "outer_batches": "all"}).train(epochs=1)
    part = Problem({"ratio": 0.5}).train(epochs=1)
    assert whole.images_backward - 72 == 36 and part.images_backward - 72 == 16


@pytest.mark.parametrize(
    "per,same",
    [
        ("position", [("0.q", "1.q"), ("0.mlp1", "1.mlp1")]),
        ("block_group", [SITES]),
        ("model", [SITES]),
    ],
)
def test_sites_share_a_gamma_and_its_gradient(per, same):
    options = {"inner_steps": 1, "outer_lr": 0.05}
    shared, apart = Problem({**options, "gamma_per": per}), Problem(options)
    assert len(shared.attachment.raw) == len(same)
    batch = shared.images.subset(torch.arange(0, 72, 4))
    for problem in (shared, apart):
        for name, tensor in problem.attachment.base.named_parameters():
            rng = generator(0, "fill", name)
            tensor.data = 0.3 * torch.randn(tensor.shape, generator=rng)
    own = torch.autograd.grad(apart.loss(batch), apart.attachment.raw)[0]
    summed = torch.autograd.grad(shared.loss(batch), shared.attachment.raw)[0]
    of_site = dict(zip(SITES, own.tolist(), strict=True))
    assert summed.tolist() == pytest.approx([sum(of_site[s] for s in group) for group in same])
    shared.train()
    learned = shared.attachment.learned().root
    assert list(learned) == list(SITES)
    values = [{learned[site] for site in group} for group in same]
    assert all(len(each) == 1 for each in values) and set.union(*values) != {1.0}
    assert len(set.union(*values)) == len(same)


class Uneven(PeftMethod):
    """LoRA whose Δ at one site counts ten times as much as at the others."""

    Options = LoRAOptions
    positions = default_positions = LINEAR_POSITIONS
    additive = True
    summary = ""

    def attach(self, model, placement, options, *, seed):
        attachment = Attachment(model)
        for site, alpha in placement.items():
            d_in, d_out = dims_of(model).linear_io(site)
            down = torch.randn(4, d_in, generator=generator(seed, "init", site)) / d_in**0.5
            factor = 1.0 if str(site) == "0.mlp1" else 0.1
            attachment.add_delta(site, LoRADelta(down, d_out, factor), alpha, "parallel")
        return attachment

    def expected_params(self, dims, placement, options):
        raise NotImplementedError


def test_the_gradient_norm_is_that_of_the_mean_loss_and_finds_the_planted_site(monkeypatch):
    METHODS.names()
    monkeypatch.setitem(METHODS._entries, "uneven", Uneven)
    options = {"variant": "gradient_norm", "base": "uneven"}
    problem, untouched = Problem(options, alpha=2.0), Problem(options, alpha=2.0)
    result = problem.train(epochs=3)
    norms = problem.attachment.learned().root
    assert max(norms, key=norms.get) == "0.mlp1"
    # By hand: batches of 16 and one of 8 make up the mean over all images.
    tensors = untouched.attachment.base.site_parameters()
    loss = untouched.loss(untouched.images)
    for site, own in tensors.items():
        gradients = torch.autograd.grad(loss, own, retain_graph=True)
        wanted = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert norms[str(site)] == pytest.approx(float(wanted), rel=1e-4)
    # One pass, in which nothing is trained.
    assert result.epochs_run == 1 and result.images_backward == 72 and not result.trajectory
    for one, other in zip(problem.tensors, untouched.tensors, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", ["snip", "fisher"])
def test_snip_and_fisher_are_what_their_formulas_say(variant):
    options = {"variant": variant}
    problem, untouched = Problem(options, alpha=2.0), Problem(options, alpha=2.0)
    result = problem.train(epochs=3, batch_size=1 if variant == "fisher" else 16)
    scores, images = problem.attachment.learned().root, untouched.images
    for site, own in untouched.attachment.base.site_parameters().items():
        if variant == "snip":
            layer = layer_at(untouched.classifier.backbone, site)
            (gradient,) = torch.autograd.grad(untouched.loss(images), layer.weight)
            first, last = columns_at(untouched.classifier.backbone, site)
            wanted = (layer.weight * gradient)[first:last].abs().sum()
        else:
            wanted = torch.zeros(())
            for index in range(len(images)):
                loss = untouched.loss(images.subset(torch.tensor([index])))
                wanted += sum(g.square().sum() for g in torch.autograd.grad(loss, own)) / 72
        assert scores[str(site)] == pytest.approx(float(wanted.detach()), rel=1e-3)
    assert result.epochs_run == 1 and result.images_backward == 72
    for one, other in zip(problem.tensors, untouched.tensors, strict=True):
        assert torch.equal(one, other)
    backbone = problem.classifier.backbone
    problem.attachment.detach()
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


def learned_by_one_of_two(rank, folder, options):
    torch.set_num_threads(1)
    file = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=file, rank=rank, world_size=2)
    problem = Problem(options)
    problem.train(DistributedContext(rank, 2, torch.device("cpu")))
    (folder / str(rank)).write_text(json.dumps(problem.attachment.learned().root))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "single_level", "gradient_norm", "snip"])
def test_two_processes_learn_what_one_does(tmp_path, variant):
    options = {"variant": variant}
    context = multiprocessing.get_context("spawn")
    asked = [(rank, tmp_path, options) for rank in (0, 1)]
    both = [context.Process(target=learned_by_one_of_two, args=each) for each in asked]
    for process in both:
        process.start()
    problem = Problem(options)
    problem.train()
    for process in both:
        process.join()
        assert process.exitcode == 0
    for rank in (0, 1):
        found = json.loads((tmp_path / str(rank)).read_text())
        assert found == pytest.approx(problem.attachment.learned().root, rel=1e-4)


def test_a_strength_that_lies_on_another_device_keeps_no_group_from_training(monkeypatch):
    """As γ on the CPU does beside a model on a GPU; `meta` stands for the GPU."""
    problem = Problem({})
    problem.attachment.raw.requires_grad_(False)
    for name, tensor in list(problem.classifier.named_parameters()):
        if name != "attachment.raw":
            owner = problem.classifier.get_submodule(name.rpartition(".")[0])
            made = torch.nn.Parameter(tensor.to("meta"), requires_grad=tensor.requires_grad)
            setattr(owner, name.rpartition(".")[2], made)
    made = []
    monkeypatch.setattr(
        DistributedDataParallel,
        "__init__",
        lambda self, module, **rest: made.append(module._ddp_params_and_buffers_to_ignore),
    )
    DistributedContext(0, 2, torch.device("meta")).wrap(problem.classifier)
    assert made == [["attachment.raw"]]


def test_snip_is_charged_for_the_gradients_of_the_frozen_maps():
    def backward(variant):
        problem = Problem({"variant": variant})
        return flops_of(problem.classifier, torch.zeros(1, 3, 8, 8)).backward

    tokens = 5
    maps = 2 * tokens * (16 * 48 + 16 * 64) * 2  # qkv as a whole and mlp1, of two blocks
    assert backward("snip") - backward("gradient_norm") == maps


def test_the_gradient_norm_counts_every_part_of_a_sum():
    spec = {"variant": "gradient_norm", "base": "lora+bottleneck"}
    both = Problem(spec).attachment.base.site_parameters()
    alone = Problem({"variant": "gradient_norm"}).attachment.base.site_parameters()
    assert list(map(str, both)) == list(SITES)
    for site, tensors in alone.items():
        assert len(both[site]) > len(tensors) == 2


@pytest.mark.parametrize(
    "values,words",
    [
        ({"options.variant": "single_level", "options.ratio": 0.5}, "options.ratio has no effect"),
        (
            {"options.variant": "single_level", "options.hypergradient": "darts_fd"},
            "options.hypergradient has no effect in the single_level variant",
        ),
        ({"options.variant": "gradient_norm", "options.outer_lr": 1.0}, "outer_lr has no effect"),
        ({"options.variant": "released", "options.gamma_per": "model"}, "gamma_per has no effect"),
        (
            {"options.outer_prior": "d_val", "recipe.loss": "cross_entropy"},
            "no effect without a logit-adjusted loss",
        ),
        ({"options.outer_prior": "d_val", "recipe.tau": 0.0}, "a recipe.tau above 0"),
        (
            {"placement": {"0.q": 1.0, "1.q": 2.0}, "options.gamma_per": "position"},
            "start at one alpha",
        ),
        ({"recipe.precision": "fp16"}, "γ is not learned in fp16"),
        ({"options.variant": "snip", "recipe.clip_norm": 1.0}, "ranked by their whole gradients"),
        ({"options.variant": "snip", "backbone.frozen": "bf16"}, "give backbone.frozen=fp32"),
        (
            {
                "options.variant": "single_level",
                "options.base": "lotr",
                "recipe.layer_decay": 0.9,
            },
            "recipe.layer_decay: the factors of LoTR",
        ),
        ({"placement": {}}, "'metapeft' needs a site"),
    ],
)
def test_what_has_no_effect_is_refused_before_anything_runs(values, words):
    request = TrialRequest(method="metapeft").with_values(values, source="test")
    with pytest.raises(UserError, match=words):
        resolve(request, Runtime())


def test_the_new_options_at_their_defaults_are_no_part_of_an_id():
    options = resolve(TrialRequest(method="metapeft"), Runtime()).options
    assert not {"gamma_per", "outer_prior"} & set(options)
    spelt = {"gamma_per": "site", "outer_prior": "train"}
    assert resolve(TrialRequest(method="metapeft", options=spelt), Runtime()).options == options


@pytest.mark.parametrize("prior", ["train", "d_val"])
def test_a_class_may_have_no_images_in_the_part_that_is_trained_on(prior):
    """As in an estimate from a few batches: D_val's prior has one place for each class still."""
    problem = Problem({"sampling": "tail_heavy", "inner_steps": 2, "outer_prior": prior})
    part = problem.images.subset(problem.images.labels < 2)
    problem.split = replace(problem.split, train=part)
    assert len(problem.train(epochs=1).trajectory) == 3  # 60 images in batches of 16
