"""A study: one question, the axes that answer it, and how the answer is shown.

Owns: the `Study` type and finding studies by name or path. Must not know: torch, searches, stores.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from harness.errors import UserError, unknown
from harness.spec import Frozen, Position, Site, TrialRequest, explain

Metric = Literal["class_mean", "group_mean", "flat_mean", "micro"]


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

    @model_validator(mode="after")
    def _variants_are_known(self) -> Self:
        if self.settings and self.field in TrialRequest.model_fields:
            raise UserError(
                f"Axis {self.field!r} has settings, so it needs a name that is no field of a "
                "trial, such as 'variant'."
            )
        for value in self.values if self.settings else ():
            if value not in self.settings:
                raise unknown(f"variant of {self.field}:", str(value), list(self.settings))
        return self

    @classmethod
    def named(cls, field: str, label: str, settings: dict[str, dict[str, JsonValue]]) -> Axis:
        """An axis of named variants, in their order."""
        return cls(field=field, values=tuple(settings), label=label, settings=settings)

    def sets(self, value: JsonValue) -> dict[str, JsonValue]:
        """The request's fields that a value of this axis stands for."""
        return self.settings[str(value)] if self.settings else {self.field: value}

    @property
    def fields_set(self) -> set[str]:
        """Every field of the request that some value sets."""
        return {field for value in self.values for field in self.sets(value)}


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

    @model_validator(mode="after")
    def _has_width(self) -> Self:
        if not (0 if self.log else float("-inf")) < self.low < self.high:
            raise UserError(f"Range of {self.field}: write low < high, and low > 0 where log.")
        return self


class Switches(Frozen):
    """Groups of sites that are on or off, each with an α of its own where it is on (Eq. 5).

    A group is one site, all sites of a position, or those of `blocks_per_group` blocks in a row.
    """

    positions: Annotated[tuple[Position, ...], Field(min_length=1)]
    by: Literal["site", "position", "blocks"] = "site"
    blocks_per_group: Annotated[int, Field(ge=1)] = 3
    alpha_low: Annotated[float, Field(gt=0)] = 2.0**-4
    alpha_high: Annotated[float, Field(gt=0)] = 2.0**4

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


class View(Frozen):
    """One figure: a heatmap (rows x columns) or curves (one line per row value over columns)."""

    kind: Literal["heatmap", "curves"]
    rows: str
    columns: str
    title: str


class Points(Frozen):
    """One figure of a single axis: a line of points and intervals for each of its values.

    `distance` is that between classes in the test features (Table 5), by group; `cost` is what
    training and inference take.
    """

    kind: Literal["points"] = "points"
    rows: str
    title: str
    value: Literal["accuracy", "distance", "cost"] = "accuracy"


class Bubbles(Frozen):
    """One figure of a single axis: tail against overall accuracy, as wide as the seeds' spread."""

    kind: Literal["bubbles"] = "bubbles"
    rows: str
    title: str


class Embedding(Frozen):
    """One figure: the test images in the plane by t-SNE, a panel for each value of an axis."""

    kind: Literal["embedding"] = "embedding"
    rows: str
    title: str


AnyView = View | Points | Bubbles | Embedding


class Study(Frozen):
    """A question with everything needed to answer it and to show the answer."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    question: str
    paper: str
    """The table or figure of the paper that asks the same, e.g. `Fig. 1(c)`."""
    base: TrialRequest
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    space: tuple[Axis | Range | Switches, ...] = ()
    """What searches other than the grid range over; empty: the axes."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    objective: Metric = "class_mean"
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fields = [axis.field for axis in self.axes]
        named = [view.rows for view in self.views]
        named += [view.columns for view in self.views if isinstance(view, View)]
        for name in named:
            if name not in fields:
                raise UserError(f"views: {unknown('axis', name, fields)}")
        if len(set(fields)) < len(fields):
            raise UserError(f"axes: a field appears twice in {', '.join(fields)}.")
        for parts in (self.axes, self.space):
            _refuse_fields_set_twice([part for part in parts if isinstance(part, Axis)])
        list(self.cell_requests())  # a cell that makes no valid request is refused here
        return self

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

    def at_smoke_scale(self) -> Study:
        """The study's small version: shortened axes, single values set on the base, one seed."""
        lengths = {a.field for a in self.axes}
        axes = tuple(
            a.model_copy(update={"values": self.smoke.get(a.field, a.values)}) for a in self.axes
        )
        fixed = {field: values[0] for field, values in self.smoke.items() if field not in lengths}
        base = self.base.with_values(fixed, source=f"study {self.name}, smoke")
        return self.derive(axes=axes, base=base, seeds=self.seeds[:1])

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


def _refuse_fields_set_twice(axes: list[Axis]) -> None:
    for one, other in itertools.combinations(axes, 2):
        for a, b in itertools.product(sorted(one.fields_set), sorted(other.fields_set)):
            if a == b or a.startswith(f"{b}.") or b.startswith(f"{a}."):
                raise UserError(f"axes: {one.field} sets {a} and {other.field} sets {b}; one must.")


def in_words(value: JsonValue) -> str:
    """A cell's value for a sentence: a placement by the number of its sites, options by name,
    changes in turn."""
    if isinstance(value, dict):
        if all(name[:1].isdigit() for name in value):  # as in `11.mlp1`
            return f"{len(value)} sites"
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


def study_names() -> list[str]:
    """Names of the studies that ship with the harness."""
    package = importlib.import_module("studies")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_study(name_or_path: str) -> Study:
    """Load a shipped study by name or a user's study file by path; it defines `study() -> Study`.

    Raises:
        UserError: no such study or file, or the file's study is not valid; names the file.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"Study file {name_or_path} does not exist.")
    elif name_or_path in study_names():
        found = importlib.util.find_spec(f"studies.{name_or_path}")
        assert found is not None and found.origin is not None
        path = Path(found.origin)
    else:
        raise unknown("study", name_or_path, study_names())
    spec = importlib.util.spec_from_file_location(f"_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "study"):
            raise UserError("it must define a function study() that returns a Study.")
        made = module.study()
    except ValidationError as error:
        raise UserError(f"{path.name}: {explain(error)}") from error
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    except Exception as error:
        raise UserError(f"{path.name} cannot be read as Python: {error!r}.") from error
    if not isinstance(made, Study):
        raise UserError(f"{path.name}: study() returned {type(made).__name__}, not a Study.")
    return made
