"""Names of metrics, splits and configurations, as they stand in sentences and tables.

Owns: these words. Must not know: which sentences use them.
"""

from __future__ import annotations

from typing import Any

from harness.metrics import SHOWN, Objective, scale_of
from harness.reports.numbers.run import Run
from harness.spec import DataSpec
from harness.store.comparisons import MOST_REPEATS, SearchComparison
from harness.study.figures import View

SHOWN_WORDS = scale_of(SHOWN).words
"""What is shown of the test split."""


def metric_words(objective: Objective) -> str:
    """What choices are made by: `class mean` for `class_mean`."""
    return scale_of(objective).words


def split_words(run: Run) -> str:
    """The part of the data that choices are made on."""
    return run.study.base.data.chosen_on


def data_words(data: DataSpec) -> str:
    """A dataset in a sentence; of one that is drawn, that it is."""
    return f"{data.name} (SYNTHETIC)" if data.name == "synth-rs" else data.name


def beside_test(data: DataSpec) -> str:
    """The part of the data that choices are made on, in a table that has a column of test too."""
    return "test (selected on)" if data.select_on == "test" else data.chosen_on


def cell_words(run: Run, cell: dict[str, Any]) -> str:
    """A configuration in a sentence; of a search whose cells differ in their fields, its own."""
    own = {f: v for f, v in cell.items() if run.on_axes or not (v is None or v != v)}
    return ", ".join(f"{run.label(field)} = {run.words(value)}" for field, value in own.items())


def corner_words(run: Run, view: View) -> str:
    r"""The corner of a table over two axes, `row \ column`."""
    return f"{run.axis(view.rows).label} \\ {run.axis(view.columns).label}"


def repeats_words(plan: SearchComparison) -> str:
    """How often each search was run: `500 repeats (gp 200)`."""
    words = f"{plan.repeats} repeat{'s' if plan.repeats > 1 else ''}"
    others = ", ".join(f"{name} {count}" for name, count in plan.repeats_by.items())
    words = f"{words} ({others})" if others else words
    if plan.half_width is None:
        return words
    return (
        f"{words}, until chance left ± {plan.half_width:g} points to each mean or there were "
        f"{MOST_REPEATS}"
    )
