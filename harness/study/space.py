"""What a search ranges over: a study's space as named variables, and back to a trial's values.

Owns: size, default and enumeration of a space, which variables exist when others are set, and a
configuration as a key. Must not know: any search.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import JsonValue

from harness.errors import UserError
from harness.spec import Placement, Site, TrialRequest
from harness.study.axes import Axis, Range, Switches, request_values
from harness.study.study import Study

Params = dict[str, int | float]
"""Variables as a search sees them: an index for a choice, a number for a range."""
Values = dict[str, JsonValue]
"""Fields of the request, as in a study's cells."""


RANKS = "options.rank_at"
"""The field that has the ranks of single sites."""


class Domain(NamedTuple):
    """The values of one variable: so many choices by index, or the reals from low to high."""

    choices: int | None = None
    ordered: bool = False
    """Neighbouring choices are alike, as numbers and depths are and positions are not."""
    low: float = 0.0
    high: float = 1.0
    log: bool = False


Suggest = Callable[[str, Domain], int | float]
"""Gives a variable its value; called only for variables that exist, given those before."""


def cell_key(cell: dict[str, Any]) -> str:
    """A configuration as text, or its variables: what is equal is written alike."""
    return json.dumps(cell, sort_keys=True)


class SearchSpace:
    """The space of a study on a backbone of `num_blocks` blocks."""

    def __init__(self, study: Study, num_blocks: int) -> None:
        self._base = study.base
        self._parts = study.space or study.axes
        self._num_blocks = num_blocks

    @property
    def size(self) -> float:
        """Number of different configurations; infinite with a continuous variable."""
        return math.prod(
            len(part.values) if isinstance(part, Axis) else math.inf for part in self._parts
        )

    @property
    def is_continuous(self) -> bool:
        """Every variable is a range."""
        return all(isinstance(part, Range) for part in self._parts)

    @property
    def lengths(self) -> set[int]:
        """Epochs that whole trials of this space have."""
        for axis in (part for part in self._parts if isinstance(part, Axis)):
            if axis.fields_set & {"recipe", "recipe.epochs"}:  # no other axis may set them then
                return {self._length(axis.sets(value)) for value in axis.values}
        for part in self._parts:
            if isinstance(part, Range) and part.field == "recipe.epochs":
                return set(range(math.ceil(part.low), math.floor(part.high) + 1))
        return {self._base.recipe.epochs}

    def _length(self, settings: Values) -> int:
        names = ("recipe", "recipe.epochs")
        own: Values = {name: settings[name] for name in names if name in settings}
        return self._base.with_values(own, source="search space").recipe.epochs

    @property
    def fewest_epochs(self) -> int:
        """Of a whole trial of this space, or of the base."""
        return min(self.lengths | {self._base.recipe.epochs})

    def values(self, suggest: Suggest) -> Values:
        """The configuration that suggested variables make."""
        values: Values = {}
        for part in self._parts:
            if isinstance(part, Axis):
                values[part.field] = part.values[int(suggest(part.field, _choices(part)))]
            elif isinstance(part, Range):
                domain = Domain(low=part.low, high=part.high, log=part.log)
                values[part.field] = part.value(suggest(part.field, domain))
            else:
                values |= self._switched(part, suggest)
        return values

    def at(self, params: Params) -> Values:
        """The configuration at a point.

        Raises:
            KeyError: a variable that it has there is not given.
        """
        return self.values(lambda name, domain: params[name])

    def default_cell(self) -> Values:
        """The configuration at the default."""
        return self.at(self.default())

    def request(self, values: Values, seed: int) -> TrialRequest:
        """The base with a configuration's values; a placement stands instead of its sites."""
        base = self._base
        if "placement" in values:
            base = base.model_copy(update={"positions": None, "depth": "all", "alpha": 1.0})
        named = request_values(self._parts, values)
        return base.with_values({**named, "seed": seed}, source="search space")

    def _switched(self, part: Switches, suggest: Suggest) -> Values:
        strengths: dict[str, float] = {}
        ranks: dict[str, JsonValue] = {}
        alphas = Domain(low=part.alpha_low, high=part.alpha_high, log=True)
        for name, sites in part.groups(self._num_blocks).items():
            if suggest(f"{name} on", Domain(2)):
                alpha = float(suggest(f"{name} alpha", alphas))
                strengths.update({str(site): alpha for site in sites})
                if part.ranks:
                    place = int(suggest(f"{name} rank", Domain(len(part.ranks), ordered=True)))
                    ranks.update({str(site): part.ranks[place] for site in sites})
        placement: Values = {"placement": dict(Placement(strengths).root)}
        return placement | ({RANKS: ranks} if part.ranks else {})

    def params(self, values: Values) -> Params | None:
        """The variables that make a configuration; None for one that the space does not have."""
        found: Params = {}
        for part in self._parts:
            if isinstance(part, Switches):
                if not _add_switches(found, part, part.groups(self._num_blocks), values):
                    return None
                continue
            value = values.get(part.field)
            if isinstance(part, Axis):
                if value not in part.values:
                    return None
                found[part.field] = part.values.index(value)
            elif isinstance(value, int | float) and part.low <= value <= part.high:
                found[part.field] = value
            else:
                return None
        return found

    def default(self) -> Params:
        """The base's own values where the space has them, else the first; every group on."""
        data = self._base.model_dump(mode="json")
        axes = {part.field: part for part in self._parts if isinstance(part, Axis)}
        switches = [part for part in self._parts if isinstance(part, Switches)]
        ranks = {rank: place for part in switches for place, rank in enumerate(part.ranks)}
        rank = self._base.options.get("rank")
        first = ranks.get(rank, 0) if isinstance(rank, int) else 0
        params: Params = {}

        def suggest(name: str, domain: Domain) -> int | float:
            value: JsonValue = self._base.alpha if name.endswith(" alpha") else data
            for key in name.split(".") if value is data else []:
                value = value.get(key) if isinstance(value, dict) else None
            if name in axes:
                params[name] = _place(axes[name], value)
            elif domain.choices is not None:
                params[name] = first if name.endswith(" rank") else 1
            else:
                inside = isinstance(value, int | float) and domain.low <= value <= domain.high
                params[name] = value if inside and isinstance(value, int | float) else domain.low
            return params[name]

        self.values(suggest)
        return params

    def one_at_a_time(self) -> Iterator[Params]:
        """The default, then every value of a list and both ends of a range, all else as there."""
        default = self.default()
        yield default
        for part in self._parts:
            if isinstance(part, Axis):
                others: Iterable[int | float] = range(len(part.values))
            elif isinstance(part, Range):
                others = (part.low, part.high)
            else:
                continue
            yield from ({**default, part.field: v} for v in others if v != default[part.field])

    def enumerate(self) -> Iterator[Params]:
        """Every configuration of a finite space, in the order of its axes.

        Raises:
            UserError: the space is not finite.
        """
        axes = [part for part in self._parts if isinstance(part, Axis)]
        if len(axes) < len(self._parts):
            raise UserError("A space with a continuous variable has no list of all its points.")
        for indices in itertools.product(*(range(len(axis.values)) for axis in axes)):
            yield {axis.field: index for axis, index in zip(axes, indices, strict=True)}


def _add_switches(
    found: Params, part: Switches, groups: dict[str, tuple[Site, ...]], values: Values
) -> bool:
    """Add the variables of a placement; False if its groups are not each of one α, or off.

    The same of ranks, where groups have one.
    """
    placement, given = values.get("placement"), values.get(RANKS) or {}
    if not isinstance(placement, dict) or not isinstance(given, dict):
        return False
    left, ranks = dict(placement), dict(given)
    for name, sites in groups.items():
        alphas = [left.pop(str(site), None) for site in sites]
        if len(set(alphas)) > 1:
            return False
        found[f"{name} on"] = int(alphas[0] is not None)
        if isinstance(alphas[0], int | float):
            found[f"{name} alpha"] = alphas[0]
            of_group = {ranks.pop(str(site), None) for site in sites} if part.ranks else set()
            if len(of_group) > 1 or not of_group <= set(part.ranks):
                return False
            found.update({f"{name} rank": part.ranks.index(rank) for rank in of_group})
    return not left and not ranks


def _place(axis: Axis, value: JsonValue) -> int:
    """Which of an axis's values the base has; where that is all blocks, the deepest."""
    values = list(axis.values)
    if value in values:
        return values.index(value)
    if axis.field != "depth" or value != "all":
        return 0
    counts = [str(each).removeprefix("last:").removeprefix("first:") for each in values]
    return max(range(len(values)), key=lambda i: int(counts[i]) if counts[i].isdigit() else -1)


def _choices(axis: Axis) -> Domain:
    numbers = all(isinstance(value, int | float) for value in axis.values)
    return Domain(len(axis.values), ordered=axis.field == "depth" or numbers)
