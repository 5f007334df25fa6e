"""What a recipe asks of the optimiser, the schedule and the batches; LoRA's rates and ranks."""

from __future__ import annotations

import json
import math

import pytest
import torch
from support.records import TINY
from timm.optim import param_groups_layer_decay
from torch import nn

from harness.data.dataset import Images
from harness.data.mixing import mixed
from harness.errors import UserError
from harness.insertion.method import get_method
from harness.model.backbones import load_backbone
from harness.rng import generator
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, Placement, Recipe, Site
from harness.store.store import Store
from harness.training.classifier import Classifier
from harness.training.optimiser import by_factor, make_optimiser, make_schedule

PICO = BackboneSpec(weights="random")


def spec(**values):
    return resolve(TINY.with_values(values, source="test"), Runtime())


NO_SITES = {"positions": None, "depth": "all"}


def run(tmp_path, **values):
    return run_trial(spec(**values), Runtime(), Store(tmp_path))


def classifier(method="lora", *, positions=("q", "mlp1"), blocks=range(12), options=None):
    model = load_backbone(PICO, torch.device("cpu"))
    found = get_method(method)
    sites = Placement.of(positions, blocks, 1.0) if positions else Placement({})
    attachment = found.attach(model, sites, found.parse_options(options or {}), seed=0)
    return Classifier(model, attachment, nn.Linear(model.num_features, 3))


def trained(made):
    return {name: p for name, p in made.named_parameters() if p.requires_grad}


def test_a_warm_up_is_torchs_linear_one_before_its_cosine():
    recipe = Recipe(epochs=7, warmup_epochs=3)
    one, other = (torch.optim.SGD([torch.zeros(1)], lr=1.0) for _ in range(2))
    linear = torch.optim.lr_scheduler.LinearLR(other, start_factor=1 / 4, total_iters=3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(other, T_max=4)
    theirs = torch.optim.lr_scheduler.SequentialLR(other, [linear, cosine], milestones=[3])
    ours = make_schedule(recipe, one)
    for _ in range(recipe.epochs):
        assert one.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"])
        one.step(), other.step()
        ours.step(), theirs.step()


@pytest.mark.parametrize("name", ["vit_pico", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_layers_decay_as_in_timm(name):
    backbone = BackboneSpec(name=name, weights="random")
    model = load_backbone(backbone, torch.device("cpu"))
    full = get_method("full")
    attachment = full.attach(model, Placement({}), full.parse_options({}), seed=0)
    made = Classifier(model, attachment, nn.Linear(model.num_features, 3))
    found = by_factor(made, trained(made), Recipe(layer_decay=0.5))
    places = attachment.places()
    ours = {places[p]: f for f, group in found.items() for p in group if p in places}
    attachment.detach()

    model.requires_grad_(True)
    model.reset_classifier(3)  # their highest layer, as our head is
    names = {id(p): each for each, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    theirs = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert ours and ours == {each: theirs[each] for each in ours}


def test_a_backbone_that_does_not_name_its_layers_has_no_rates_by_layer(monkeypatch):
    made = classifier()
    monkeypatch.delattr(type(made.backbone), "group_matcher")
    with pytest.raises(UserError, match=r"^recipe\.layer_decay: a .* has no method group_matcher"):
        by_factor(made, trained(made), Recipe(layer_decay=0.5))


def test_modules_decay_with_their_blocks():
    made = classifier(blocks=(0, 11))
    found = by_factor(made, trained(made), Recipe(layer_decay=0.5))
    factors = {id(p): factor for factor, group in found.items() for p in group}
    assert {factors[id(p)] for p in made.head.parameters()} == {1.0}
    at = made.attachment.site_parameters()
    assert {factors[id(p)] for p in at[Site(11, "q")]} == {0.5}
    assert {factors[id(p)] for p in at[Site(0, "mlp1")]} == {0.5**12}


def test_prompts_and_strengths_have_their_layers_too():
    made = classifier("vpt_deep", positions=("block",))
    found = by_factor(made, trained(made), Recipe(layer_decay=0.5))
    assert sorted(found) == sorted([1.0, *(0.5**n for n in range(1, 13))])
    with pytest.raises(UserError, match="shared by layers"):
        spec(method="lotr", **{"recipe.layer_decay": 0.5})


def test_lora_plus_moves_b_by_its_ratio():
    moved = {}
    for method in ("lora", "lora_plus"):
        made = classifier(method, positions=("q",), blocks=(11,))
        optimiser = make_optimiser(made, trained(made), Recipe(weight_decay=0.0))
        for parameter in made.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = {name: p.detach().clone() for name, p in made.named_parameters()}
        optimiser.step()
        moved[method] = {
            n: float((before[n] - p.detach()).mean()) for n, p in made.named_parameters()
        }
    for name, plain in moved["lora"].items():
        ratio = 16 if name.endswith(".up") else 1
        assert moved["lora_plus"][name] == pytest.approx(ratio * plain, rel=1e-4)


def test_the_first_group_has_the_recipes_rate():
    made = classifier("lora_plus", positions=("q",), blocks=(11,))
    optimiser = make_optimiser(made, trained(made), Recipe(lr=0.1, batch_size=128))
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.1, 1.6])


def test_ranks_by_position_and_site():
    options = {"rank": 2, "rank_at": {"mlp1": 3, "11.mlp1": 5}}
    made = classifier("lora", options=options)
    ranks = {site: len(down) for site, (down, *_) in made.attachment.site_parameters().items()}
    assert ranks[Site(11, "mlp1")] == 5 and ranks[Site(0, "mlp1")] == 3
    assert {ranks[Site(block, "q")] for block in range(12)} == {2}
    resolved = spec(options=options, positions="q,mlp1", depth="last:2")

    assert resolved.options["rank_at"] == options["rank_at"]


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({"mlp2": 2}, "options.rank_at.mlp2 has no effect"),
        ({"3.mlp1": 2}, "options.rank_at.3.mlp1 has no effect"),
        ({"mpl1": 2}, "mpl1"),
        ({"mlp1": 0}, "greater than or equal to 1"),
    ],
)
def test_a_rank_for_no_site_is_refused(ranks, said):
    with pytest.raises(UserError, match=said):
        spec(**{"options.rank_at": ranks})


def test_the_scale_of_rslora():
    made = classifier("rslora", positions=("q",), blocks=(3,), options={"rank": 16})
    (delta,) = made.attachment.deltas.values()
    assert delta.factor == 1 / 4


def a_batch(n=6):
    rng = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8)
    return Images(pixels=pixels, labels=torch.arange(n) % 3)


@pytest.mark.parametrize("n", [1, 5, 6])
@pytest.mark.parametrize("recipe", [Recipe(mixup=0.8), Recipe(cutmix=1.0)])
def test_mixed_batches_are_shares_of_neighbours(recipe, n):
    batch = a_batch(n)
    before = torch.get_rng_state()
    made = mixed(batch, recipe, 3, generator(0, "mix", 0))
    again = mixed(batch, recipe, 3, generator(0, "mix", 0))
    other = mixed(batch, recipe, 3, generator(1, "mix", 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made.pixels, again.pixels) and torch.equal(made.labels, again.labels)
    assert n == 1 or not torch.equal(made.pixels, other.pixels)
    assert made.labels.shape == (n, 3)
    torch.testing.assert_close(made.labels.sum(dim=1), torch.ones(n))
    own, rolled = batch.pixels.float(), batch.pixels.float().roll(1, 0)
    if recipe.cutmix:
        assert ((made.pixels == own) | (made.pixels == rolled)).all()
        share = float((made.pixels == own).all(dim=1).float().mean())
    else:
        one_hot = nn.functional.one_hot(batch.labels, 3).float()
        share = float(made.labels[0, batch.labels[0]]) if n > 1 else 1.0
        torch.testing.assert_close(made.pixels, share * own + (1 - share) * rolled)
        torch.testing.assert_close(made.labels, share * one_hot + (1 - share) * one_hot.roll(1, 0))
    assert 0 <= share <= 1


def test_with_both_a_batch_gets_either():
    recipe, batch = Recipe(mixup=1.0, cutmix=1.0), a_batch()
    rng = generator(0, "mix", 0)
    pasted = [bool((mixed(batch, recipe, 3, rng).pixels % 1 == 0).all()) for _ in range(20)]
    assert {*pasted} == {True, False}


@pytest.mark.slow
def test_a_deit_like_recipe_trains_and_gives_the_same_again(tmp_path):
    values = {"recipe": "deit", "recipe.epochs": 2, "recipe.clip_norm": 1.0}
    values |= {"recipe.layer_decay": 0.75, "options": {"dropout": 0.1}}
    one, other = run(tmp_path / "a", **values), run(tmp_path / "b", **values)
    assert one.status == "COMPLETE" and one.test == other.test
    without = run(tmp_path / "a", **{**values, "options": {}})
    assert without.test.loss != one.test.loss


@pytest.mark.slow
def test_a_small_clip_keeps_what_is_trained_where_it_was(tmp_path):
    values = {"recipe.weight_decay": 0.0, "recipe.lr": 0.5}
    still = run(tmp_path, **values, **{"recipe.clip_norm": 1e-12})
    slow = run(tmp_path, **{**values, "recipe.lr": 1e-12})
    free = run(tmp_path, **values)
    assert still.test.loss == pytest.approx(slow.test.loss, rel=1e-6)
    assert abs(free.test.loss - slow.test.loss) > 1e-3


@pytest.mark.slow
def test_smoothing_spreads_the_label(tmp_path):
    """The loss of a training that does not move is linear in the share, up to that of chance."""
    losses = []
    for number, share in enumerate((0.0, 0.2, 0.4)):
        values = {"recipe.lr": 1e-12, "recipe.loss": "cross_entropy", "recipe.augment": "none"}
        record = run(tmp_path / str(number), **values, **{"recipe.label_smoothing": share})
        history = Store(tmp_path / str(number)).trials / record.trial_id / "history.jsonl"
        losses.append(json.loads(history.read_text().splitlines()[0])["train_loss"])
    assert losses[1] - losses[0] > 1e-3
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"recipe.optimiser": "adamw", "recipe.momentum": 0.5}, "recipe.momentum=0.5 is of SGD"),
        ({"recipe.warmup_epochs": 1}, "recipe.warmup_epochs=1 must be below recipe.epochs=1"),
        ({"recipe": "diet", "recipe.epochs": 2}, "Did you mean 'deit'"),
        ({"method": "full", **NO_SITES, "backbone.frozen": "bf16"}, "give backbone.frozen=fp32"),
        ({"method": "lora+lotr", "recipe.layer_decay": 0.9}, "recipe.layer_decay: the factors"),
        (
            {"backbone.frozen": "bf16", "recipe.eval_precision": "fp32"},
            "recipe.eval_precision=fp32 has no effect with backbone.frozen=bf16",
        ),
        ({"method": "vpt_deep", **NO_SITES, "placement": {}}, "'vpt_deep' needs a site"),
        ({"method": "metapeft", "recipe.optimiser": "adamw"}, "plain SGD"),
        ({"method": "metapeft", "recipe.clip_norm": 1.0}, "recipe.clip_norm=1: γ is learned"),
        ({"method": "metapeft", "recipe.layer_decay": 0.5}, "recipe.layer_decay=0.5: γ"),
        ({"method": "metapeft", "options": {"base": "lora_plus"}}, "base_options.rate_ratio"),
        (
            {"method": "metapeft", "options": {"base_options": {"dropout": 0.5}}},
            "options.base_options.dropout: γ",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, said):
    with pytest.raises(UserError) as caught:
        spec(**values)
    assert said in str(caught.value)


def test_a_single_level_gamma_goes_with_any_optimiser(tmp_path):
    values = {"method": "metapeft", "options": {"variant": "single_level"}}
    record = run(tmp_path, **values, **{"recipe.optimiser": "adamw", "recipe.clip_norm": 1.0})
    assert record.status == "COMPLETE" and math.isfinite(record.test.loss)
