"""MetaPEFT: gradients, who trains what, D_val, a planted problem, the released code."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from support.methods import double, fill, images, setting
from test_store_and_sweep import TINY
from timm.models.vision_transformer import VisionTransformer

from harness.baselines.lora import LoRADelta, LoRAOptions
from harness.baselines.metapeft.hypergradient import Bilevel, InnerStep, parse_hypergradient
from harness.baselines.metapeft.sampling import ValSampler, quotas
from harness.data.dataset import Dataset, Images, Split, epoch_batches
from harness.insertion.attachment import Attachment, Delta
from harness.insertion.method import METHODS, PeftMethod, get_method
from harness.model.backbones import features
from harness.model.blocks import dims_of
from harness.model.heads import make_head
from harness.rng import generator
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import LINEAR_POSITIONS, Placement, Recipe, Site
from harness.store.store import Store
from harness.training.classifier import Classifier
from harness.training.evaluation import class_means
from harness.training.train import train

# A quadratic bi-level problem whose hypergradient has a closed form:
# inner ½ φᵀAφ − φᵀBγ (+ decay), outer ½|φ − c|² + dᵀγ + ½|γ|².


class Quadratic:
    def __init__(self, decay):
        rng = torch.Generator().manual_seed(3)

        def draw(*shape):
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        root = draw(5, 5)
        self.a = root @ root.T / 5 + torch.eye(5, dtype=torch.float64)
        self.b, self.c, self.d = draw(5, 3), draw(5), draw(3)
        self.gamma = draw(3).requires_grad_()
        self.decay = decay
        self.hessian = self.a + decay * torch.eye(5, dtype=torch.float64)
        self.solution = torch.linalg.solve(self.hessian, self.b @ self.gamma.detach())
        self.rate = 1 / float(torch.linalg.eigvalsh(self.hessian).max())

    def inner(self, params, batch):
        (phi,) = params
        return phi @ self.a @ phi / 2 - phi @ self.b @ self.gamma

    def outer(self, params, batch):
        return (
            (params[0] - self.c).square().sum() / 2
            + self.d @ self.gamma
            + self.gamma.square().sum() / 2
        )

    @property
    def direct(self):
        return self.d + self.gamma.detach()

    @property
    def exact(self):
        through = torch.linalg.solve(self.hessian, self.solution - self.c)
        return self.direct + self.b.T @ through

    def problem(self, phi, steps, momentum):
        return Bilevel(
            gamma=self.gamma,
            params=[phi.requires_grad_()],
            inner_loss=self.inner,
            outer_loss=self.outer,
            outer_batches=[(None, 0.25), (None, 0.75)],
            steps=steps,
            momentum=momentum,
            weight_decay=self.decay,
        )

    def trained(self, count, momentum):
        """φ after `count` steps of torch's own SGD, with the steps as they were taken."""
        phi = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        sgd = torch.optim.SGD([phi], lr=self.rate, momentum=momentum, weight_decay=self.decay)
        steps = []
        for _ in range(count):
            buffer = sgd.state[phi].get("momentum_buffer")
            velocity = torch.zeros(5, dtype=torch.float64) if buffer is None else buffer.clone()
            steps.append(InnerStep(None, self.rate, [phi.detach().clone()], [velocity]))
            sgd.zero_grad()
            torch.autograd.backward(self.inner([phi], None), inputs=[phi])
            sgd.step()
        return phi.detach(), steps


def error(got, wanted):
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_first_order_is_exactly_the_partial_derivative(decay):
    toy = Quadratic(decay)
    phi, steps = toy.trained(40, 0.0)
    loss, got = parse_hypergradient("first_order")(toy.problem(phi, steps, 0.0))
    assert torch.equal(got, toy.direct)
    assert loss == pytest.approx(float(toy.outer([phi], None).detach()))
    assert error(got, toy.exact) > 0.3  # what it leaves out is not small here


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum,steps", [(0.0, 40), (0.5, 40)])
def test_unrolled_converges_to_the_hypergradient(decay, momentum, steps):
    toy = Quadratic(decay)
    phi, taken = toy.trained(steps, momentum)
    errors = [
        error(parse_hypergradient(f"unrolled:{t}")(toy.problem(phi, taken[-t:], momentum))[1], w)
        for t, w in ((2, toy.exact), (8, toy.exact), (steps, toy.exact))
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_unrolled_is_the_derivative_of_training_itself():
    """Against finite differences of the outer loss after retraining with another γ."""
    toy = Quadratic(0.1)
    phi, steps = toy.trained(4, 0.9)
    _, got = parse_hypergradient("unrolled:4")(toy.problem(phi, steps, 0.9))
    for index in range(3):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                toy.gamma[index] += sign * 1e-5
            sides.append(float(toy.outer([toy.trained(4, 0.9)[0]], None).detach()))
            with torch.no_grad():
                toy.gamma[index] -= sign * 1e-5
        assert float(got[index]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_neumann_converges_to_the_hypergradient(decay):
    toy = Quadratic(decay)
    step = InnerStep(None, toy.rate, [toy.solution], [torch.zeros(5, dtype=torch.float64)])
    errors = [
        error(
            parse_hypergradient(f"neumann:{t}")(toy.problem(toy.solution.clone(), [step], 0.9))[1],
            toy.exact,
        )
        for t in (1, 5, 40)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_darts_is_one_unrolled_step():
    toy = Quadratic(0.3)
    phi, steps = toy.trained(10, 0.0)
    problem = toy.problem(phi, steps[-1:], 0.0)
    _, finite = parse_hypergradient("darts_fd")(problem)
    _, exact = parse_hypergradient("unrolled:1")(problem)
    assert torch.allclose(finite, exact, rtol=1e-8)


# On a ViT, in float64.


@pytest.mark.parametrize(
    "name,options",
    [
        ("metapeft", {}),
        ("metapeft", {"nonneg": "none"}),
        ("metapeft", {"gamma_form": "times_alpha"}),
        ("metapeft:lora+adapter+adaptformer", {}),
    ],
)
def test_gamma_gradient_equals_finite_differences_at_every_site(name, options, backbones):
    spec, _ = backbones["vit_pico"]
    model = double(spec)
    method, placement, parsed = setting(name, spec, alpha=1.5, options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    raw = attachment.raw.detach().clone()
    fill(attachment.double())
    x, y = images(spec).double(), torch.tensor([0, 1, 2])
    head = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss():
        return torch.nn.functional.cross_entropy(features(model, x) @ head, y)

    with torch.no_grad():
        attachment.raw.copy_(raw)
    (got,) = torch.autograd.grad(loss(), attachment.raw)
    width = 1e-4
    wanted = torch.zeros_like(got)
    for index in range(len(raw)):
        for sign in (1, -1):
            with torch.no_grad():
                attachment.raw.copy_(raw)
                attachment.raw[index] += sign * width
                wanted[index] += sign * float(loss()) / (2 * width)
    attachment.detach()
    assert len(raw) == len(placement) and float(got.abs().min()) > 0
    relative = (got - wanted).abs() / wanted.abs().clamp(min=1e-3 * float(wanted.abs().max()))
    assert float(relative.max()) < 1e-5


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
    request = TINY.with_values({"positions": None, "method": "metapeft", **values}, source="test")
    spec = resolve(request, Runtime())
    record = run_trial(spec, Runtime(keep_weights=True), Store(tmp_path))
    assert record.error is None
    folder = tmp_path / "trials" / record.trial_id
    rows = []
    if (folder / "trajectory.csv").exists():
        table = csv.DictReader((folder / "trajectory.csv").read_text().splitlines())
        rows = [{k: float(v) for k, v in row.items()} for row in table]
    return record, rows, (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("alpha", [1.0, 0.3, 3.0])
@pytest.mark.parametrize("base", ["lora", "adapter", "lora+adaptformer"])
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

    real_train, real_sgd = train, torch.optim.SGD

    def spy_train(classifier, *args, **kwargs):
        seen["classifier"] = classifier
        return real_train(classifier, *args, **kwargs)

    def spy_sgd(*args, **kwargs):
        seen["sgd"] = real_sgd(*args, **kwargs)
        return seen["sgd"]

    monkeypatch.setattr("harness.runner.trial.train", spy_train)
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


def test_the_trajectory_has_a_row_for_the_start_and_for_every_outer_step(tmp_path):
    record, rows, _ = trial(
        tmp_path, options={"inner_steps": 2, "warmup_steps": 3}, **{"recipe.epochs": 2}
    )
    # 728 images in batches of 128: 6 steps an epoch; outer steps after 5, 7, 9 and 11.
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
    assert cost == 2 * 728 + 4 * 128


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
def test_every_option_changes_the_result_and_repeats_exactly(tmp_path, options):
    common = {"recipe.epochs": 2, "recipe.lr": 0.1, "alpha": 2.0}
    plain, _, _ = trial(tmp_path, **common)
    first, rows, weights = trial(tmp_path / "a", options=options, **common)
    again, rows_again, weights_again = trial(tmp_path / "b", options=options, **common)
    assert (first.test, weights) == (again.test, weights_again)
    assert str(rows) == str(rows_again)
    assert first.learned != plain.learned
    assert all(math.isfinite(a) for _, a in first.learned.items())


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
        return ValSampler(LABELS, ratio=0.2, sampling="random", leave=0, seed=seed)

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
        assert len(ids) == 8 and not mask[ids].any()
    seen = torch.cat(batches)
    assert len(seen.unique()) == len(seen) >= n - 2 * 8
    assert len(list(epoch_batches(data, recipe, 0, 0, lambda: torch.ones(n) > 0))) == 0


# A planted problem: low-rank updates at two sites can help; at all others a module adds noise.

PLANTED = (Site(1, "mlp1"), Site(2, "out"))
SITES = [Site(block, position) for block in range(4) for position in ("out", "mlp1")]


class Noise(Delta):
    def __init__(self, width, rng):
        super().__init__()
        self.width, self.rng = width, rng

    def forward(self, x, strength):
        return strength * 0.2 * torch.randn(*x.shape[:-1], self.width, generator=self.rng)


class PlantedMethod(PeftMethod):
    Options = LoRAOptions
    positions = LINEAR_POSITIONS
    default_positions = LINEAR_POSITIONS
    additive = True
    summary = ""

    def attach(self, model, placement, options, *, seed):
        attachment = Attachment(model)
        for site, alpha in placement.items():
            d_in, d_out = dims_of(model).linear_io(site)
            rng = generator(seed, "init", site)
            delta = Noise(d_out, rng)
            if site in PLANTED:
                start = torch.empty(4, d_in).uniform_(-(d_in**-0.5), d_in**-0.5, generator=rng)
                delta = LoRADelta(start, d_out, 1.0)
            attachment.add_delta(site, delta, alpha, "parallel")
        return attachment

    def expected_params(self, dims, placement, options):
        raise NotImplementedError


def planted_gammas(seed, *, shuffled, **options):
    """γ after training a 4-block ViT on 5 classes, each made of two noisy prototypes."""
    rng = torch.Generator().manual_seed(100 + seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = VisionTransformer(
            img_size=8, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=0
        )
    for module in vit.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 5  # timm's start leaves every block close to the identity
    vit.requires_grad_(False).eval()
    labels = torch.arange(600) % 5
    prototypes = torch.randn(5, 2, 3, 8, 8, generator=rng)
    which = torch.randint(0, 2, (600,), generator=rng)
    noise = torch.randn(600, 3, 8, 8, generator=rng)
    pixels = (128 + 40 * prototypes[labels, which] + 60 * noise).clamp(0, 255).to(torch.uint8)
    order = torch.randperm(600, generator=rng)
    pixels, labels = pixels[order], labels[order]
    if shuffled:
        labels = labels[torch.randperm(600, generator=rng)]
    everything = Images(pixels=pixels, labels=labels)
    part, rest = everything.subset(torch.arange(450)), everything.subset(torch.arange(450, 600))
    groups = {"head": (0, 1), "tail": (2, 3, 4)}
    dataset = Dataset(train=part, test=rest, classes=tuple("abcde"), groups=groups)
    split = Split(train=part, select=rest, test=rest, train_counts=torch.bincount(part.labels))
    recipe = Recipe(batch_size=50, lr=0.05, augment="none", head_scale=10.0)
    method = get_method("metapeft")
    parsed = method.parse_options({"base": "planted", "outer_lr": 0.05, **options})
    placement = Placement({str(site): 1.0 for site in SITES})
    attachment = method.attach(vit, placement, parsed, seed=seed)
    head = make_head(recipe, class_means(vit, dataset, part), seed)
    train(
        Classifier(vit, attachment, head), dataset, split, recipe, seed=seed, log=lambda row: None
    )
    return dict(attachment.learned().items())


def claims(gammas):
    """Whether every planted site stands above every other."""
    others = [gamma for site, gamma in gammas.items() if site not in PLANTED]
    return min(gammas[site] for site in PLANTED) > max(others)


@pytest.fixture
def planted(monkeypatch):
    METHODS.names()
    monkeypatch.setitem(METHODS._entries, "planted", PlantedMethod)


def test_gamma_finds_the_planted_sites(planted):
    found = [planted_gammas(seed, shuffled=False) for seed in range(10)]
    assert sum(claims(gammas) for gammas in found) >= 9


@pytest.mark.parametrize("options", [{}, {"d_val": "held_out", "inner_steps": 1}])
def test_gamma_claims_no_structure_on_shuffled_labels(planted, options):
    """By chance alone two given sites of eight stand on top once in 28 seeds."""
    found = [planted_gammas(seed, shuffled=True, **options) for seed in range(10)]
    assert sum(claims(gammas) for gammas in found) <= 1
    mean = {site: sum(gammas[site] for gammas in found) / 10 for site in SITES}
    assert sum(mean[site] for site in PLANTED) / 2 <= sum(mean.values()) / len(SITES)


# The released code.


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
    assert few.cost.images_backward < 5 * 0.8 * 728 + 5 * 2 * 128 and plain.epochs_run == 4
    more, _, _ = trial(tmp_path, **common, **{"options.inner_steps": 4})
    assert more.test != few.test  # through the head alone, which the look-ahead steps keep


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
