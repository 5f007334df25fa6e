"""Ids of archived trials: they never change, whatever fields are added later."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
from pydantic import Field

from harness.data.contract import DATASETS
from harness.insertion.method import METHODS, get_method
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import (
    SEMANTICS,
    Added,
    DataSpec,
    Frozen,
    Placement,
    Recipe,
    TrialRequest,
    TrialSpec,
    identity,
)

STORED = json.loads((Path(__file__).parent / "stored_ids.json").read_text())
"""Values that differ from the defaults, and the id that the trial had when it was first archived.
Entries are added, for a new method or dataset or an added field, and never changed; `semantics` is
that under which it was, 1 if nothing is said."""


@pytest.fixture(autouse=True)
def packs(monkeypatch):
    """Packs of three bands and of one hash, so that datasets on disk need no files, and any number
    of bands of drawn ones, as the backbone alone was asked for when ids were stored."""
    pack = SimpleNamespace(channels=3, sha256="0" * 64)
    monkeypatch.setattr("harness.runner.resolve.refuse_bands", lambda *_: None)
    monkeypatch.setattr("harness.runner.resolve.pack_of", lambda *_: pack)


def trial(**values):
    return resolve(TrialRequest().with_values(values, source="test"), Runtime())


@pytest.mark.parametrize("entry", STORED, ids=lambda entry: entry["id"])
def test_archived_trials_keep_their_ids(entry):
    """If this fails after a field was added: mark it as `Added` (`harness.spec`)."""
    assert trial(**entry["values"]).id_under(entry.get("semantics", 1)) == entry["id"]


def test_the_ids_of_today_are_tested_too():
    """So that what is archived now is recognised by later versions."""
    assert [entry for entry in STORED if entry.get("semantics", 1) == SEMANTICS]


def test_every_method_and_dataset_has_a_stored_id():
    """So that a field added to its options later is noticed."""
    requests = [TrialRequest().with_values(e["values"], source="test") for e in STORED]
    for registry, stored in (
        (METHODS, {request.method for request in requests}),
        (DATASETS, {request.data.name for request in requests}),
    ):
        own = [n for n in registry.names() if registry.get(n).__module__.startswith("harness.")]
        assert set(own) <= stored


def with_added_option(monkeypatch, owner):
    """Give the options of a method or dataset another field, as a later version would."""

    class Later(owner.Options):
        later: Annotated[int, Field(ge=1), Added] = 3

    monkeypatch.setattr(owner, "Options", Later)


@pytest.mark.parametrize(
    "owner,values,field",
    [
        ("lora", {}, "options.later"),
        ("adapter", {"method": "adapter"}, "options.later"),
        ("metapeft", {"method": "metapeft"}, "options.later"),
        ("lora", {"method": "metapeft"}, "options.base_options.later"),
        ("lora", {"method": "lora+adapter"}, "options.lora.later"),
        (
            "adapter",
            {"method": "metapeft", "options": {"base": "lora+adapter"}},
            "options.base_options.adapter.later",
        ),
        ("synth-rs", {}, "data.options.later"),
        ("folder", {"data": "folder"}, "data.options.later"),
    ],
)
def test_an_added_option_leaves_ids_alone_until_it_is_used(monkeypatch, owner, values, field):
    before = trial(**values)
    is_method = owner in METHODS.names()
    with_added_option(monkeypatch, METHODS.get(owner) if is_method else DATASETS.get(owner))
    assert trial(**values) == before and trial(**values).trial_id == before.trial_id
    assert trial(**values, **{field: 3}).trial_id == before.trial_id
    used = trial(**values, **{field: 4})
    assert used.trial_id != before.trial_id
    again = TrialSpec.model_validate_json(used.model_dump_json())
    assert again.trial_id == used.trial_id
    if is_method:  # what is archived is complete: it means the same when it is read again
        method = get_method(before.method)
        assert identity(method.parse_options(used.options)) == used.options


def test_an_option_without_the_mark_changes_ids(monkeypatch):
    """The same as above, without `Added`: so the tests above can fail."""
    before = trial().trial_id

    class Later(METHODS.get("lora").Options):
        later: int = 3

    monkeypatch.setattr(METHODS.get("lora"), "Options", Later)
    assert trial().trial_id != before


class LaterRecipe(Recipe):
    patience: Annotated[int, Field(ge=1), Added] = 3
    weights: Annotated[tuple[float, ...], Added] = ()


class LaterData(DataSpec):
    noise: Annotated[float, Added] = 0.0


class LaterSpec(TrialSpec):
    data: LaterData
    recipe: LaterRecipe
    order: Annotated[Placement, Added] = Placement({})


@pytest.mark.parametrize(
    "path,value",
    [
        ("data.train_share", 0.5),
        ("recipe.patience", 4),
        ("recipe.weights", [0.5]),
        ("data.noise", 0.1),
        ("order", {"0.q": 1.0}),
    ],
)
def test_an_added_field_leaves_ids_alone_until_it_is_used(path, value):
    before = trial()
    whole = LaterSpec.model_validate_json(before.model_dump_json())
    assert whole.trial_id == before.trial_id
    stated = LaterSpec.model_validate_json(whole.model_dump_json())
    assert stated == whole and stated.trial_id == before.trial_id
    data = whole.model_dump(mode="json")
    *parents, last = path.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    assert last in node  # in the file it stands all the same
    node[last] = value
    assert LaterSpec.model_validate_json(json.dumps(data)).trial_id != before.trial_id


def test_an_added_field_is_left_out_however_deep_it_lies():
    class Part(Frozen):
        name: str
        size: Annotated[int, Added] = 1

    class Whole(Frozen):
        parts: tuple[Part, ...]
        by_name: dict[str, Part]
        one: Part | None = None

    parts = (Part(name="a"), Part(name="b", size=2))
    whole = Whole(parts=parts, by_name={"x": parts[0], "y": parts[1]}, one=parts[0])
    assert identity(whole) == {
        "parts": [{"name": "a"}, {"name": "b", "size": 2}],
        "by_name": {"x": {"name": "a"}, "y": {"name": "b", "size": 2}},
        "one": {"name": "a"},
    }


def test_an_added_field_needs_a_default():
    with pytest.raises(TypeError, match=r"Later\.size is marked as Added: give it a default"):

        class Later(Frozen):
            size: Annotated[int, Added]
