"""Everything that can change a trial's numbers, and its identity.

Owns: `TrialSpec`, its parts and `trial_id`. Must not know: how anything is trained, stored or
searched.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from harness.errors import UserError
from harness.spec.base import Added, Count, Frozen, Seed, identity
from harness.spec.recipe import Recipe
from harness.spec.sites import Placement

SEMANTICS = 3
"""Raised, with a CHANGELOG line, whenever a code change alters the numbers of an unchanged spec."""

VAL_FRACTION = 0.2
"""Share of the training images that is held out for choices, unless there is a dev set."""

WeightDtype = Literal["fp32", "bf16", "int8"]
"""How frozen weights are stored."""


class BackboneSpec(Frozen):
    """Which frozen network. `sha256` of its weights is filled in when the trial is resolved."""

    name: str = "vit_pico"
    weights: Literal["pretrained", "random", "file"] = "pretrained"
    """`file`: the local file that `--weights` names. Its hash is part of the trial's identity, its
    path is not."""
    img_size: Annotated[int, Field(gt=0, le=2**15)] | None = None
    in_chans: Annotated[Count, Added] = 3
    """Bands of an image; pretrained weights for three are adapted to them."""
    frozen: Annotated[WeightDtype, Added] = "fp32"
    """Data type of the frozen weights: bf16 computes in bf16; int8 (weights only) computes in the
    recipe's precision."""
    sha256: str | None = None


class DataSpec(Frozen):
    """Which data and how it is split; where the files lie is not part of a trial's identity."""

    name: str = "synth-rs"
    options: dict[str, JsonValue] = Field(default={})
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = VAL_FRACTION
    select_on: Literal["val", "test"] = "val"
    """`test` is the paper's protocol: train on everything, choose on test. Labelled everywhere."""
    train_share: Annotated[float, Field(gt=0, le=1), Added] = 1.0
    """Share of every class's training images that is trained on, at least one. What is held out,
    and the test set, stay whole; a smaller share is a part of a larger one."""
    sha256: Annotated[str | None, Added] = None
    """Of the packed images, filled in when the trial is resolved; None for data that is drawn."""

    @model_validator(mode="after")
    def _choices_are_made_on_one_set(self) -> Self:
        if self.dev_per_class and self.select_on == "test":
            raise UserError(
                "data.options.dev_per_class makes choices on a dev set and data.select_on=test on "
                "the test set: give one of them."
            )
        if self.dev_per_class and self.val_fraction != VAL_FRACTION:
            raise nothing_held_out(self.val_fraction)
        return self

    @property
    def dev_per_class(self) -> int:
        """Images of each class in the dev set; 0: there is none."""
        asked = self.options.get("dev_per_class", 0)
        return asked if isinstance(asked, int) else 0

    @property
    def selected_on(self) -> str:
        """The split that choices are made on, in files: `val`, `test` or `dev`."""
        return "dev" if self.dev_per_class else self.select_on

    @property
    def chosen_on(self) -> str:
        """The split that choices are made on, in words."""
        if self.dev_per_class:
            return "dev set"
        return "test" if self.select_on == "test" else "validation"

    @property
    def chosen_on_in_full(self) -> str:
        """The same, with its size where it is a dev set."""
        size = f", {self.dev_per_class} per class" if self.dev_per_class else ""
        return f"{self.chosen_on}{size}"


def nothing_held_out(fraction: object) -> UserError:
    """The error for a share to hold out beside a dev set."""
    return UserError(
        f"data.val_fraction={fraction} has no effect beside data.options.dev_per_class, with which "
        "nothing is held out from training: leave one of them out."
    )


class Change(Frozen):
    """New strengths and learning rate from some epoch on; weights and sites stay."""

    after: Count
    """Epochs trained before the change."""
    placement: Placement
    lr: Annotated[float, Field(gt=0)]
    """As `Recipe.lr`."""


class TrialSpec(Frozen):
    """Everything that can change a trial's numbers, and nothing that cannot."""

    method: str
    options: dict[str, JsonValue]
    placement: Placement
    backbone: BackboneSpec
    data: DataSpec
    recipe: Recipe
    changes: Annotated[tuple[Change, ...], Added] = ()
    seed: Seed

    @functools.cached_property
    def trial_id(self) -> str:
        """16 hex digits of the hash of the canonical JSON and of `SEMANTICS`."""
        return self.id_under(SEMANTICS)

    def id_under(self, semantics: int) -> str:
        """The `trial_id` that this spec had when `SEMANTICS` was another."""
        return _hash(self._canonical(semantics))

    def known_as(self, trial_id: str) -> Self:
        """The same spec, under the id that it had when it was trained."""
        copy = self.model_copy()
        copy.__dict__["trial_id"] = trial_id
        return copy

    def _canonical(self, semantics: int) -> str:
        content = {"semantics": semantics, "spec": identity(self)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def parent(self) -> TrialSpec | None:
        """The trial that this one continues at its last change; None without changes."""
        if not self.changes:
            return None
        return self.model_copy(update={"changes": self.changes[:-1]})

    def over_seeds(self, seeds: Sequence[int]) -> list[TrialSpec]:
        """Copies with other seeds, fast enough for a sweep of 100,000 trials."""
        # The seed comes last in the canonical JSON, so only the end of the text differs.
        head, text, tail = self._canonical(SEMANTICS).rpartition(f'"seed":{self.seed}')
        assert text and tail == "}}"
        copies = []
        for seed in seeds:
            copy = super().model_copy(update={"seed": seed})
            copy.__dict__["trial_id"] = _hash(f'{head}"seed":{seed}{tail}')
            copies.append(copy)
        return copies

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, with an id of its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("trial_id", None)
        return copy


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
