"""Mistakes in a method, dataset or backbone of one's own are one sentence, before any trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.data.contract import DATASETS, DrawnDataset, FileDataset, drawn_images, listing_of
from harness.data.listing import Item, Listing
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import METHODS, PeftMethod
from harness.model.backbones import BACKBONES
from harness.model.own import OwnBackbone
from harness.runner.prepare import attached
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import Frozen, Recipe, TrialRequest

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test registers is gone afterwards."""
    for registry in (METHODS, DATASETS, BACKBONES):
        registry.names()
        for name in ("_entries", "_sources"):
            monkeypatch.setattr(registry, name, getattr(registry, name).copy())


class Whole(PeftMethod[Frozen]):
    """A method that lacks nothing."""

    Options = Frozen
    positions = default_positions = ("q",)
    additive = False
    summary = "nothing"

    def attach(self, model, placement, options, *, seed):
        raise NotImplementedError

    def expected_params(self, dims, placement, options):
        return 0


def like(base, **parts):
    return type("Mine", (base,), parts)


class NoParams(PeftMethod[Frozen]):
    Options = Frozen
    positions = default_positions = ("q",)

    def attach(self, model, placement, options, *, seed):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("registry", "entry", "words"),
    [
        (METHODS, NoParams, "a class without additive, expected_params, summary"),
        (METHODS, like(Whole, Options=dict), "whose Options are not a class from Frozen"),
        (METHODS, Whole(), "not a class from PeftMethod"),
        (DATASETS, like(DrawnDataset, summary="x"), "a class without Options, load"),
        (DATASETS, like(FileDataset, Options=Frozen), "a class without layout, listing, summary"),
        (DATASETS, Whole, "not a class from DrawnDataset or FileDataset"),
        (BACKBONES, nn.Identity, "not an OwnBackbone"),
    ],
)
def test_what_an_entry_lacks_is_said_when_it_is_registered(registry, entry, words):
    with pytest.raises(UserError) as caught:
        registry.add("mine", entry)
    assert str(caught.value).endswith(f", {words}.")
    assert "mine" not in registry.names()


def fails(*_given, **_named):
    int("two")  # line that a message names


def line_of(words: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if f"# {words}" in line)


AT = f"raised ValueError (invalid literal for int() with base 10: 'two') in {{}}, at {HERE}, line "


def refused(part: str, call) -> None:
    with pytest.raises(UserError) as caught:
        call()
    sentence = AT.format(part) + f"{line_of('line that a message names')}."
    assert str(caught.value).endswith(sentence) and "Mine" not in str(caught.value)


def resolved(**values):
    return resolve(TrialRequest().with_values(values, source="test"), Runtime())


@pytest.mark.parametrize("part", ["expected_params", "check_recipe"])
def test_a_method_whose_code_fails_is_named_with_the_line(part):
    METHODS.add("mine", like(Whole, **{part: fails}))
    refused(part, lambda: resolved(method="mine"))


def test_a_method_with_another_signature_is_named_without_a_line():
    METHODS.add("mine", like(Whole, expected_params=lambda self: 0))
    with pytest.raises(UserError, match=r"^Method 'mine' raised TypeError .* in expected_params"):
        resolved(method="mine")


def test_a_backbone_whose_build_fails_is_named_with_the_line():
    BACKBONES.add("mine", OwnBackbone(build=fails, summary="x", input_size=32))
    refused("build", lambda: resolved(backbone="mine", **{"backbone.weights": "random"}))


def test_a_backbone_that_builds_something_else_is_refused():
    BACKBONES.add("mine", OwnBackbone(build=lambda spec: {}, summary="x", input_size=32))
    with pytest.raises(UserError, match=r"^Backbone 'mine' builds dict, not an nn\.Module\.$"):
        resolved(backbone="mine", **{"backbone.weights": "random"})


def test_a_dataset_whose_code_fails_is_named_with_the_line(tmp_path):
    parts = {"Options": Frozen, "summary": "x", "layout": "mine: x"}
    DATASETS.add("listed", like(FileDataset, listing=staticmethod(fails), **parts))
    DATASETS.add("drawn", like(DrawnDataset, load=staticmethod(fails), **parts))
    refused("listing", lambda: listing_of("listed", Frozen(), tmp_path))
    refused("load", lambda: drawn_images("drawn", Frozen()))


def test_a_dataset_that_gives_something_else_is_refused(tmp_path):
    parts = {"Options": Frozen, "summary": "x", "layout": "mine: x"}
    empty = staticmethod(lambda *_given: {})
    DATASETS.add("listed", like(FileDataset, listing=empty, **parts))
    DATASETS.add("drawn", like(DrawnDataset, load=empty, **parts))
    with pytest.raises(UserError, match=r"^Dataset 'listed' gives dict, not a Listing\.$"):
        listing_of("listed", Frozen(), tmp_path)
    with pytest.raises(UserError, match=r"^Dataset 'drawn' gives dict, not a Dataset\.$"):
        drawn_images("drawn", Frozen())


def test_a_copy_with_a_field_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"^Unknown field of Recipe: 'epoch'\. .*'epochs'"):
        Recipe().model_copy(update={"epoch": 3})


def listed(train, test, **more):
    def listing(options, root):
        return Listing(classes=("a", "b"), train=train, test=test, **more)

    return like(FileDataset, Options=Frozen, summary="x", layout="x", listing=staticmethod(listing))


ONE, OTHER = Item("a/1.png", 0), Item("b/1.png", 1)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (([ONE], [("b", 1)]), "lists ('b', 1), not an Item with a number as label."),
        (([ONE], [Item("b", "1")]), "not an Item with a number as label."),
        (([ONE, Item("c", 2)], [OTHER]), "gives 'c' the label 2, and has 2 classes"),
        (([ONE], [OTHER], {"x": (0, 1), "y": (1,)}), "class 1 in the groups 'x' and 'y'."),
        (([ONE], [OTHER], {"x": (0, 2)}), "class 2 in group 'x', and 2 classes"),
        (([ONE], [OTHER], {"test": (0, 1)}), "calls a group 'test', as a column of the tables"),
    ],
)
def test_a_listing_that_contradicts_itself_is_refused(tmp_path, parts, words):
    train, test, *groups = parts
    DATASETS.add("mine", listed(train, test, groups=groups[0] if groups else None))
    with pytest.raises(UserError, match=r"^Dataset 'mine' ") as caught:
        listing_of("mine", Frozen(), tmp_path)
    assert words in str(caught.value)


def test_a_method_that_trains_other_values_than_it_says_is_refused():
    def attach(self, model, placement, options, *, seed):
        attachment = Attachment(model)
        attachment.extra = nn.Parameter(torch.zeros(3))
        attachment.kept = nn.Parameter(torch.zeros(5), requires_grad=False)
        return attachment

    METHODS.add("mine", like(Whole, attach=attach))
    words = "^Method 'mine' trains 3 values, and its expected_params says 0: one of them is wrong"
    with pytest.raises(UserError, match=words), attached(resolved(method="mine"), Runtime()):
        pass
    METHODS.add("whole", like(Whole, attach=attach, expected_params=lambda *_: 3))
    with attached(resolved(method="whole"), Runtime()) as (classifier, _):
        assert classifier.attachment.kept.numel() == 5
