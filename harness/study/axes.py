"""What a study varies: axes, ranges, and groups of sites that are on or off.

Owns: these types and a cell's values in words. Must not know: studies, searches.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from harness.errors import UserError, unknown
from harness.spec import Added, Count, Frozen, Position, Site, TrialRequest

COLUMNS = frozenset(
    {
        *("trial_id", "cell", "status", "selected_on", "epochs_run", "tested_epoch"),
        *("trainable_params", "head_params", "images_forward", "images_backward"),
        *("wall_s", "device_s", "peak_memory_mb"),
        *("flops", "training_flops", "selection_flops", "inference_flops"),
    }
)
COLUMNS_OF_SCORES = ("select_", "test_", "binomial_", "distance_")
"""Of the table of a run's trials, beside its axes; of those of scores how they begin."""


class Axis(Frozen):
    """One varied field of the request, or variants of it that have names.

    `scientific` axes are what the study asks about; the best value over `nuisance` axes is chosen
    by the objective's mean over seeds before anything is compared.
    """

    field: str
    values: Annotated[tuple[JsonValue, ...], Field(min_length=1)]
    label: str
    role: Literal["scientific", "nuisance"] = "scientific"
    settings: dict[str, dict[str, JsonValue]] = Field(default={})
    """Of named variants: value -> the request's fields that it sets. `field` is then a name that
    the request does not have, such as `variant`, which cells and reports keep."""

    @field_validator("values", mode="before")
    @classmethod
    def _as_json(cls, values: object) -> object:
        """Tuples in values, such as positions, are what JSON calls a list."""
        return tuple(map(_listed, values)) if isinstance(values, list | tuple) else values

    @model_validator(mode="after")
    def _each_value_once(self) -> Self:
        for one, other in itertools.combinations(self.values, 2):
            if _same(one, other):
                raise UserError(f"Axis {self.field!r} has the value {in_words(one)} twice.")
        return self

    @model_validator(mode="after")
    def _variants_are_known(self) -> Self:
        is_column = self.field in COLUMNS or self.field.startswith(COLUMNS_OF_SCORES)
        if self.settings and (is_column or self.field in TrialRequest.model_fields):
            raise UserError(
                f"Axis {self.field!r} has settings, so it needs a name that is no field of a "
                "trial and no column of its results, such as 'variant'."
            )
        for value in self.values if self.settings else ():
            if value not in self.settings:
                raise unknown(f"variant of {self.field}:", str(value), list(self.settings))
        if "seed" in self.fields_set:
            raise UserError(
                f"Axis {self.field!r} sets the seed, which each cell gets in turn: give the study "
                "its `seeds` instead."
            )
        return self

    @classmethod
    def named(cls, field: str, label: str, settings: dict[str, dict[str, JsonValue]]) -> Axis:
        """An axis of named variants, in their order."""
        return cls(field=field, values=tuple(settings), label=label, settings=settings)

    def only(self, wanted: str | Sequence[JsonValue]) -> Axis:
        """This axis with some of its values, in its own order.

        As text they stand with commas between them, and as they do in reports (`q+v`).

        Raises:
            UserError: the axis has no such value, or one is named twice; names the nearest.
        """
        parts = self._parts(wanted)
        places = {self._place(value) for value in parts}
        if len(places) < len(parts):
            named = ", ".join(map(in_words, parts))
            raise UserError(f"Values of {self.field}: one is named twice in {named}.")
        kept = tuple(value for place, value in enumerate(self.values) if place in places)
        return self.model_copy(update={"values": kept})

    def _parts(self, wanted: str | Sequence[JsonValue]) -> Sequence[JsonValue]:
        if not isinstance(wanted, str):
            return wanted
        if wanted in self.values:
            return [wanted]
        if wanted.startswith("["):
            with suppress(ValueError):
                return list(json.loads(wanted))
        return [each.strip() for each in wanted.split(",")]

    def _place(self, wanted: JsonValue) -> int:
        names = [in_words(value) for value in self.values]
        for place, value in enumerate(self.values):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if wanted in (value, names[place]) or (is_number and _number(wanted) == value):
                return place
        raise unknown(f"value of {self.field}:", in_words(wanted), names)

    def sets(self, value: JsonValue) -> dict[str, JsonValue]:
        """The request's fields that a value of this axis stands for."""
        return self.settings[str(value)] if self.settings else {self.field: value}

    @property
    def fields_set(self) -> set[str]:
        """Every field of the request that some value sets."""
        return {field for value in self.values for field in self.sets(value)}


def _listed(value: object) -> object:
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def _number(value: JsonValue) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two values are one; 1 and 1.0 are, 1 and true are not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def request_values(
    parts: Iterable[Axis | Range | Switches], cell: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    """The request's fields that a cell sets: the names of variants replaced by their settings."""
    axes = {part.field: part for part in parts if isinstance(part, Axis)}
    values: dict[str, JsonValue] = {}
    for field, value in cell.items():
        values.update(axes[field].sets(value) if field in axes else {field: value})
    return values


class Range(Frozen):
    """One continuous field of the request, for searches; the grid cannot walk it."""

    field: str
    low: float
    high: float
    log: bool = False
    label: str
    whole: Annotated[bool, Added] = False
    """Its values are the whole numbers in it, such as ranks: what is proposed is rounded."""

    @model_validator(mode="after")
    def _has_width(self) -> Self:
        if self.field == "seed":
            raise UserError("Range of seed: a study has its seeds in `seeds`.")
        if not (0 if self.log else float("-inf")) < self.low < self.high:
            raise UserError(f"Range of {self.field}: write low < high, and low > 0 where log.")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise UserError(f"Range of {self.field}: it is whole, so low and high must be.")
        return self

    def value(self, number: float) -> int | float:
        """The field's value at a number of the range."""
        return round(number) if self.whole else float(number)


class Switches(Frozen):
    """Groups of sites that are on or off, each with an α of its own where it is on (Eq. 5).

    A group is one site, all sites of a position, or those of `blocks_per_group` blocks in a row.
    """

    positions: Annotated[tuple[Position, ...], Field(min_length=1)]
    by: Literal["site", "position", "blocks"] = "site"
    blocks_per_group: Annotated[int, Field(ge=1)] = 3
    alpha_low: Annotated[float, Field(gt=0)] = 2.0**-4
    alpha_high: Annotated[float, Field(gt=0)] = 2.0**4
    ranks: Annotated[tuple[Count, ...], Added] = ()
    """Ranks, one of which each group that is on has at its sites (`options.rank_at`); empty: all
    have that of the method's options."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.alpha_low >= self.alpha_high:
            raise UserError(
                f"alpha_low={self.alpha_low:g} must be below alpha_high={self.alpha_high:g}."
            )
        return self

    def groups(self, num_blocks: int) -> dict[str, tuple[Site, ...]]:
        """Name -> sites of every group, on a backbone of `num_blocks`."""
        sites = [Site(block, p) for block in range(num_blocks) for p in self.positions]
        names: dict[str, list[Site]] = {}
        for site in sites:
            first = site.block - site.block % self.blocks_per_group
            last = min(first + self.blocks_per_group, num_blocks) - 1
            name = {
                "site": str(site),
                "position": site.position,
                "blocks": f"blocks:{first}-{last}",
            }[self.by]
            names.setdefault(name, []).append(site)
        return {name: tuple(group) for name, group in names.items()}


def in_words(value: JsonValue) -> str:
    """A cell's value for a sentence: a placement by the number of its sites, options by name,
    changes in turn."""
    if isinstance(value, dict):
        if value and all(name[:1].isdigit() for name in value):  # as in `11.mlp1`
            ranks = sorted({rank for rank in value.values() if isinstance(rank, int)})
            return f"{'+'.join(map(str, ranks))} at sites" if ranks else f"{len(value)} sites"
        return ", ".join(f"{name} {in_words(each)}" for name, each in value.items())
    if not isinstance(value, list | tuple):
        return "none" if value is None else str(value)
    parts = []
    for part in value:
        if isinstance(part, dict):
            changed = part["values"]
            assert isinstance(changed, dict)
            new = " and ".join(f"{field} {in_words(each)}" for field, each in changed.items())
            parts.append(f"{new} after {part['after']} epochs")
        else:
            parts.append(str(part))
    return (", then " if value and isinstance(value[0], dict) else "+").join(parts)


def cell_words(cell: Mapping[str, JsonValue]) -> str:
    """A cell for a sentence: every field with its value."""
    return ", ".join(f"{field} = {in_words(value)}" for field, value in cell.items())


def in_a_list(value: JsonValue) -> str:
    """As `in_words`, and marked as code where its own comma would read as the list's."""
    words = in_words(value)
    return f"`{words}`" if "," in words else words
