"""Identity, placements, depth expressions, and messages for wrong values."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from support.records import make_spec

from harness.baselines.lora import LoRA
from harness.data.contract import options_of
from harness.errors import UserError
from harness.insertion.method import get_method
from harness.spec import (
    SEMANTICS,
    BackboneSpec,
    DataSpec,
    Frozen,
    Placement,
    Recipe,
    TrialRequest,
    TrialSpec,
    explain,
    parse_depth,
)


def test_id_is_frozen():
    """Fails when a default or the hash changes: then raise SEMANTICS and say so in CHANGELOG."""
    assert make_spec().trial_id == "e6e0ea2e67d91cf7"
    assert make_spec().id_under(2) == "3c709b9791d9e503"
    assert make_spec().id_under(1) == "1d0932a60454a8f7"


def test_id_survives_json_and_ignores_order():
    spec = make_spec()
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.trial_id == spec.trial_id
    backwards = Placement({"11.mlp1": 4.0, "10.mlp1": 4.0})
    swapped = make_spec(placement=backwards, options={"scale": "alpha_over_r", "rank": 4})
    assert swapped.trial_id == spec.trial_id


@pytest.mark.parametrize(
    "change",
    [
        {"method": "bottleneck"},
        {"options": {"rank": 8, "scale": "alpha_over_r"}},
        {"placement": Placement.of(["mlp1"], [10, 11], 2.0)},
        {"placement": Placement.of(["mlp1"], [11], 4.0)},
        {"backbone": BackboneSpec(weights="random", sha256="0")},
        {"data": DataSpec(select_on="test")},
        {"recipe": Recipe(precision="bf16")},
        {"seed": 1},
    ],
)
def test_id_changes_with_everything_that_matters(change):
    assert make_spec(**change).trial_id != make_spec().trial_id


def test_id_changes_with_semantics(monkeypatch):
    before = make_spec().trial_id
    monkeypatch.setattr("harness.spec.trial.SEMANTICS", SEMANTICS + 1)
    assert make_spec().trial_id != before


@pytest.mark.parametrize(
    "text,blocks",
    [
        ("all", (0, 1, 2, 3)),
        ("last:1", (3,)),
        ("last:3", (1, 2, 3)),
        ("first:2", (0, 1)),
        ("block:2", (2,)),
        ("blocks:1-2", (1, 2)),
    ],
)
def test_depth(text, blocks):
    assert parse_depth(text, 4) == blocks


@pytest.mark.parametrize(
    "text",
    ["", "last", "last:0", "last:5", "first:0", "block:4", "blocks:2-1", "blocks:2-4", "last:-1"],
)
def test_bad_depth_names_the_forms(text):
    with pytest.raises(UserError, match=r"last:N.*blocks:A-B"):
        parse_depth(text, 4)


def test_placement_order_is_canonical():
    placement = Placement.of(["mlp2", "q"], [1, 0], 1.0)
    assert list(placement.root) == ["0.q", "0.mlp2", "1.q", "1.mlp2"]


@pytest.mark.parametrize("sites", [{"0.qq": 1.0}, {"q": 1.0}, {"x.q": 1.0}, {"0.q": float("inf")}])
def test_bad_placement(sites):
    with pytest.raises(ValidationError, match=r"Bad (site|alpha)"):
        Placement(sites)


@pytest.mark.parametrize(
    "field,value,words",
    [
        ("recipe.lrr", 1, ["'recipe.lrr'", "Did you mean 'recipe.lr'"]),
        ("recipee.lr", 1, ["recipe"]),
        ("positions", "mlp", ["'positions'", "'mlp'", "Did you mean 'mlp2'"]),
        ("recipe.head", "cosin", ["'cosin'", "'cosine'", "linear"]),
        ("recipe.epochs", "many", ["'recipe.epochs'", "'many'"]),
        ("recipe.epochs", 0, ["'recipe.epochs'", "0", "greater than or equal to 1"]),
        ("recipe.early_stop", 1, ["'recipe.early_stop'"]),
        ("alpha", float("inf"), ["'alpha'"]),
    ],
)
def test_wrong_values_are_named_in_one_sentence(field, value, words):
    with pytest.raises(UserError) as caught:
        TrialRequest().with_values({field: value}, source="my_study.py")
    message = str(caught.value)
    assert message.startswith("my_study.py: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_unknown_field_in_a_constructor_is_explained():
    with pytest.raises(ValidationError) as caught:
        Recipe(epoch=3)
    assert "Did you mean 'epochs'" in explain(caught.value)


@pytest.mark.parametrize("data", ["folder", "synth-rs"])
def test_an_option_of_data_is_answered_with_those_that_there_are(data):
    with pytest.raises(UserError, match="Did you mean 'dev_per_class'"):
        options_of(data, {"dev_per_clas": 3})


def test_an_option_of_a_method_is_answered_with_its_own():
    class Options(Frozen):
        pears: int = 0

    class Other(LoRA):
        class Options(Frozen):
            apples: int = 0

    with pytest.raises(UserError, match="Allowed: apples"):
        Other().parse_options({"bananas": 1})
    with pytest.raises(UserError, match="Did you mean 'rank'"):
        get_method("rslora").parse_options({"rnak": 1})


def test_with_values_reaches_nested_fields_and_leaves_the_original():
    base = TrialRequest()
    changed = base.with_values(
        {"recipe.lr": 0.5, "options.rank": 8, "positions": "q,v", "data.select_on": "test"},
        source="--set",
    )
    assert (changed.recipe.lr, changed.options, changed.positions) == (0.5, {"rank": 8}, ("q", "v"))
    assert changed.data.select_on == "test"
    assert base == TrialRequest()
    assert json.loads(changed.model_dump_json())["recipe"]["lr"] == 0.5


def test_nested_options_can_be_set_where_none_were():
    request = TrialRequest(method="metapeft").with_values(
        {"options.base_options.rank": 8, "options.base": "lora"}, source="--set"
    )
    assert request.options == {"base_options": {"rank": 8}, "base": "lora"}


def test_copies_over_seeds_are_the_specs_of_those_seeds():
    spec = make_spec()
    seeds = (0, 7, 123)
    copies = spec.over_seeds(seeds)
    slow = [TrialSpec.model_validate_json(s.model_dump_json()) for s in copies]
    assert [copy.seed for copy in copies] == list(seeds)
    assert copies == slow and [c.trial_id for c in copies] == [s.trial_id for s in slow]
    assert spec.trial_id == make_spec().trial_id  # the original keeps its own


def test_a_changed_copy_has_an_id_of_its_own():
    spec = make_spec()
    before = spec.trial_id
    other = spec.model_copy(update={"method": "other"})
    assert other.trial_id != before == spec.trial_id


@pytest.mark.parametrize(("select_on", "words"), [("val", "validation"), ("test", "test")])
def test_a_reader_is_told_what_choices_are_made_on(select_on, words):
    assert DataSpec(select_on=select_on).chosen_on == words
