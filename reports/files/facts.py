"""What a run was given, as a page lists it: axes, every field of the base, places of the reader.

Owns: which facts these are. Must not know: how they are laid out.
"""

from __future__ import annotations

import pandas as pd

from harness.catalogue.rerun import places
from harness.reports.text.model import Table
from harness.spec import TrialRequest, TrialSpec, leaves
from harness.study.axes import Axis, Range, in_words
from harness.study.study import Study


def axes_of(study: Study) -> Table:
    rows: dict[str, dict[str, str]] = {}
    for axis in study.axes:
        values = ", ".join(in_words(value) for value in axis.values)
        rows[axis.field] = {"meaning": axis.label, "role": axis.role, "values": values}
    for part in study.space:
        if isinstance(part, Axis):
            values, label = ", ".join(in_words(value) for value in part.values), part.label
        elif isinstance(part, Range):
            scale = ", on a log scale" if part.log else ""
            values, label = f"{part.low:g} to {part.high:g}{scale}", part.label
        else:
            label = f"sites on or off, by {part.by}"
            values = (
                f"{', '.join(part.positions)}; alpha {part.alpha_low:g} to {part.alpha_high:g}, on "
                "a log scale"
            )
            if part.ranks:
                values += f"; rank {', '.join(map(str, part.ranks))}"
        name = "placement" if not isinstance(part, Axis | Range) else part.field
        rows[f"{name} (searches)"] = {"meaning": label, "role": "searched", "values": values}
    return Table(
        stem="axes", caption="Axes", corner="field", words=pd.DataFrame.from_dict(rows, "index")
    )


def base_of(request: TrialRequest, example: TrialSpec | None, varied: set[str]) -> dict[str, str]:
    """Every field of the base, with what a trial's spec made of defaults."""
    fields = request.model_dump(mode="json", exclude={"seed", "changes"})
    if example is not None:
        spec = example.model_dump(mode="json", include={"options", "backbone", "data", "recipe"})
        if example.method != request.method:
            del spec["options"]
        fields |= spec
    return {
        name: "varied" if name in varied else in_words(value)
        for name, value in leaves(fields, whole=frozenset({"placement"}))
        if value not in (None, {}) or name in varied
    }


def places_of(example: TrialSpec | None) -> dict[str, str]:
    return {} if example is None else places(example)


def precision_of(request: TrialRequest, example: TrialSpec | None) -> str | None:
    if request.recipe.precision != "auto" or example is None:
        return None
    return example.recipe.precision
