"""A study: one question, the axes that answer it, and how the answer is shown.

Owns: the `Study` type. Must not know: torch, searches, stores, how a study is found by its name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from harness.errors import UserError, unknown
from harness.metrics import Goal, Objective, goals_of
from harness.spec import Frozen, TrialRequest
from harness.study.axes import Axis, Range, Switches, in_words, request_values
from harness.study.figures import AnyView, Embedding, View


class Study(Frozen):
    """A question with everything needed to answer it and to show the answer."""

    name: str
    """Of small letters, digits and `_`: folders are named after it."""
    question: str
    paper: str = "none"
    """The table or figure of the paper that asks the same, e.g. `Fig. 1(c)`."""
    base: TrialRequest
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    space: tuple[Axis | Range | Switches, ...] = ()
    """What searches other than the grid range over; empty: the axes."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    objective: Objective = "class_mean"
    """What choices are made by, on the selection split; the test split's class mean is shown."""
    further: tuple[Goal, ...] = ()
    """Objectives beside that one, of a sweep or a comparison of searches that take several."""
    views: tuple[AnyView, ...]
    fixed: str
    """What was held fixed and why, for the captions."""
    reference: str | tuple[str, ...] | None = None
    """Files of the paper's numbers in `baselines/paper`, without `.csv`."""
    searches: str | None = None
    """Searches that are compared on the space, instead of every cell being run: `all`, or names
    with commas between them."""
    trains: bool = True
    """False: the cells' trainable parameters are counted, and nothing is trained."""
    smoke: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]] = Field(default={})
    """Field -> values: the small version that `--smoke` runs (axes shortened, fields set)."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if re.fullmatch(r"[a-z0-9_]+", name) is None:
            raise UserError(f"name {name!r}: write small letters from a to z, digits and _ alone.")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fields = [axis.field for axis in self.axes]
        if len(set(fields)) < len(fields):
            raise UserError(f"axes: a field appears twice in {', '.join(fields)}.")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds: one appears twice in {', '.join(map(str, self.seeds))}.")
        for parts in (self.axes, self.space):
            _refuse_fields_set_twice(parts)
        for view in self.views:
            _refuse_view(view, self.axes)
        if goals_of(",".join(self.objectives)) != (self.objective, self.further):
            raise UserError(
                f"objectives: {', '.join(self.objectives)} stand in another order; use goals_of."
            )
        list(self.cell_requests())  # a cell that makes no valid request is refused here
        self._refuse_ranges()
        return self

    def _refuse_ranges(self) -> None:
        """Whether both ends of every range are values of its field, which takes real numbers.

        Raises:
            UserError: one is not; names the range.
        """
        for part in self.space:
            if isinstance(part, Range):
                for end in (part.low, part.high):
                    source = f"space, range of {part.field}"
                    self.base.with_values({part.field: part.value(end)}, source=source)

    @property
    def objectives(self) -> tuple[Goal, ...]:
        """All that a search is told, the one that choices are made by first."""
        return (self.objective, *self.further)

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the files of the paper's numbers."""
        if self.reference is None:
            return ()
        return (self.reference,) if isinstance(self.reference, str) else self.reference

    @property
    def needs_features(self) -> bool:
        """Whether a figure is made of the features of test images, which trials must then keep."""
        return any(isinstance(view, Embedding) for view in self.views)

    def derive(self, **changes: Any) -> Study:
        """A copy with fields replaced and checked again: how one study is made from another."""
        return Study(**{**dict(self), **changes})

    def only(self, wanted: Mapping[str, str | Sequence[JsonValue]]) -> Study:
        """The study with some values of its axes: field -> those that are left.

        Raises:
            UserError: it does not vary a field, or has no such value.
        """
        parts = {part.field: part for part in (*self.axes, *self.space) if isinstance(part, Axis)}
        for field in wanted:
            if field not in parts:
                raise unknown(f"axis of study {self.name}:", field, list(parts))

        def restricted(part: Any) -> Any:
            is_named = isinstance(part, Axis) and part.field in wanted
            return part.only(wanted[part.field]) if is_named else part

        return self.derive(
            axes=tuple(map(restricted, self.axes)),
            space=tuple(map(restricted, self.space)),
            smoke={field: values for field, values in self.smoke.items() if field not in wanted},
        )

    def varied_by(self, field: str) -> Axis | None:
        """The axis that sets a field of the trial, or a part of it; None if no axis does."""
        for axis in self.axes:
            for own in axis.fields_set:
                if own == field or own.startswith(f"{field}.") or field.startswith(f"{own}."):
                    return axis
        return None

    def at_smoke_scale(self) -> Study:
        """The study's small version: shortened axes, single values set on the base, one seed.

        Raises:
            UserError: an axis has no such value, a trial no such field, or a field that no axis
                varies has several values.
        """
        parts = [part for part in (*self.axes, *self.space) if isinstance(part, Axis)]
        for axis in parts:
            for value in self.smoke.get(axis.field, ()):
                if value not in axis.values:
                    what = f"value of {axis.field} in the smoke of study {self.name}:"
                    raise unknown(what, in_words(value), list(map(in_words, axis.values)))

        def shortened(part: Any) -> Any:
            values = self.smoke.get(part.field) if isinstance(part, Axis) else None
            return part if values is None else part.model_copy(update={"values": values})

        varied = [part.field for part in parts]
        for field, values in self.smoke.items():
            if field not in varied and len(values) > 1:
                raise UserError(
                    f"study {self.name}, smoke: {field} has {len(values)} values, and no axis "
                    f"varies it ({', '.join(varied) or 'there is none'}); give it one."
                )
        lengths = {a.field for a in parts if a in self.axes or a.settings}
        axes, space = tuple(map(shortened, self.axes)), tuple(map(shortened, self.space))
        fixed = {field: values[0] for field, values in self.smoke.items() if field not in lengths}
        base = self.base.with_values(fixed, source=f"study {self.name}, smoke")
        return self.derive(axes=axes, space=space, base=base, seeds=self.seeds[:1])

    def cells(self) -> list[dict[str, JsonValue]]:
        """Every combination of axis values, in axis order: field -> value."""
        names = [axis.field for axis in self.axes]
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(axis.values for axis in self.axes))
        ]

    def cell_requests(self) -> Iterator[tuple[dict[str, JsonValue], TrialRequest]]:
        """Every cell with its request for the first seed."""
        source = f"study {self.name}, axes"
        for cell in self.cells():
            values = request_values(self.axes, cell)
            yield cell, self.base.with_values({**values, "seed": self.seeds[0]}, source=source)

    def requests(self) -> Iterator[tuple[dict[str, JsonValue], TrialRequest]]:
        """Every cell with its request, for each seed; seeds outermost, so maps fill evenly."""
        cells = list(self.cell_requests())
        for seed in self.seeds:
            for cell, request in cells:
                yield cell, request.model_copy(update={"seed": seed})


def _refuse_view(view: AnyView, axes: tuple[Axis, ...]) -> None:
    """Whether a figure is of axes that there are, and of as many as it can show.

    Raises:
        UserError: it is not.
    """
    fields = [axis.field for axis in axes]
    named = [view.rows, view.columns] if isinstance(view, View) else [view.rows]
    for name in named:
        if name not in fields:
            raise UserError(f"views: {unknown('axis', name, fields)}")
    if len(set(named)) < len(named):
        raise UserError(f"views: {view.title!r} has {view.rows} as its rows and its columns.")
    asked = [axis.field for axis in axes if axis.role == "scientific"]
    if not isinstance(view, View) and asked != [view.rows]:
        raise UserError(
            f"views: {view.title!r} ({view.kind}) shows one axis, {view.rows}, and the study asks "
            f"about {', '.join(asked) or 'none'}; make it a heatmap, or the other axes nuisance."
        )


def _refuse_fields_set_twice(parts: Sequence[Axis | Range | Switches]) -> None:
    named = [
        ("switches", {"placement", "positions", "depth", "alpha"})
        if isinstance(part, Switches)
        else (part.field, part.fields_set if isinstance(part, Axis) else {part.field})
        for part in parts
    ]
    for (one, own), (other, others) in itertools.combinations(named, 2):
        for a, b in itertools.product(sorted(own), sorted(others)):
            if a == b or a.startswith(f"{b}.") or b.startswith(f"{a}."):
                raise UserError(f"axes: {one} sets {a} and {other} sets {b}; one must.")
