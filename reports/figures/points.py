"""Figures of a single axis with a row per value: accuracy, distance between classes, costs.

Owns: their drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.reports.figures.frame import OURS, finish
from harness.reports.figures.style import COLOURS, line_look, style
from harness.reports.numbers.paper import Paper, paper_tables
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import COST_UNITS, Choice, at_preferred, by_value
from harness.study.figures import Points

PAPER_COLUMNS = ("head", "medium", "tail", "average")


@style()
def points(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """A line of points per value of one axis, in a panel per average and group.

    One table of the paper's stands beside them, several stand below, one per dataset.
    """
    if view.value == "distance":
        return _distances(run, summary, choice, view)
    if view.value == "cost":
        return _costs(run, summary, choice, view)
    values = run.order(view.rows)
    papers = [p for p in paper_tables(run, view.rows, "head") if p.dataset != "all"]
    panels = [(run.test, OURS)]
    panels += [(f"test_{group}", f"{group} classes") for group in run.groups]
    below = len(papers) > 1
    count = max(len(panels), len(papers)) if below else len(panels) + len(papers)
    height = 0.45 * len(values) + 2.2
    figure = Figure(
        figsize=(3.3 * count + 0.9 * below, height * (1.8 if below else 1)), layout="constrained"
    )
    lines = figure.subplots(1 + below, count, squeeze=False, sharey=True)
    rows, shown = by_value(run, summary, view), at_preferred(run)
    for axis, (name, title) in zip(lines[0], panels, strict=False):
        for y, value in enumerate(values):
            own = shown[shown[view.rows] == value]
            axis.plot(own[name], [y] * len(own), "o", color="0.25", alpha=0.3, markersize=3)
            for x in own[name][own["status"] == "DIVERGED"]:
                axis.plot(x, y, "x", color="red", ms=8)
            chosen = choice is not None and choice.cell[view.rows] == value
            mean, half = rows[name].iloc[y], rows[f"{name}_ci"].iloc[y]
            error = None if math.isnan(half) else half
            axis.errorbar(
                mean, y, xerr=error, fmt="D", ms=5, capsize=3, color="red" if chosen else "0.25"
            )
        axis.set_title(title)
        axis.set_xlabel("test accuracy (%)")
    free = list(lines[1] if below else lines[0][len(panels) :])
    for axis, paper in zip(free, papers, strict=False):
        _paper_points(axis, paper, values)
        axis.set_xlabel("accuracy (%)")
    if below:
        fullest = max(free, key=lambda axis: len(axis.get_lines()))
        handles, names = fullest.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right lower", title="paper")
    elif papers:
        free[0].legend(fontsize=7)
    for axis in lines.flat:
        axis.grid(alpha=0.3, axis="x")
    unused = free[len(papers) :] if below else []
    for axis in [*unused, *(lines[0][len(panels) :] if below else [])]:
        axis.set_axis_off()
    for axis in lines[:, 0]:
        _name_rows(axis, run, view)
    finish(figure, run, view, choice)
    return figure


def _costs(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """What training and inference took per value of one axis, a panel per kind of cost."""
    values = run.order(view.rows)
    rows, shown = by_value(run, summary, view), at_preferred(run)
    figure = Figure(figsize=(3.3 * len(COST_UNITS), 0.45 * len(values) + 2.2), layout="constrained")
    axes = figure.subplots(1, len(COST_UNITS), squeeze=False, sharey=True)[0]
    for axis, (name, unit) in zip(axes, COST_UNITS.items(), strict=True):
        for y, value in enumerate(values):
            own = shown[shown[view.rows] == value][name] / unit.size
            axis.plot(own, [y] * len(own), "o", color="0.25", alpha=0.3, markersize=3)
            axis.plot(rows[name].iloc[y], y, "D", color="0.25", ms=5)
        most = max(rows[name].max(), shown[name].max() / unit.size, 1e-9)
        is_wide = rows[name].max() > 50 * max(rows[name].median(), 1e-9)
        if is_wide:
            axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xlim(*((-0.2, 1.8 * most) if is_wide else (0, 1.08 * most)))
        axis.set_xlabel(unit.words.replace(" (", "\n("))
        axis.grid(alpha=0.3, axis="x")
    _name_rows(axes[0], run, view)
    finish(figure, run, view, choice)
    return figure


def _distances(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """Distance between classes per value of one axis, the groups in one panel to be compared."""
    values = run.order(view.rows)
    rows, shown = by_value(run, summary, view), at_preferred(run)
    papers = paper_tables(run, view.rows, "head")
    count = 1 + len(papers)
    figure = Figure(figsize=(3.1 * count + 1.6, 0.45 * len(values) + 2.2), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    step = 0.22
    for index, group in enumerate(run.groups):
        name = f"distance_{group}"
        y = np.arange(len(values)) + (index - 1) * step
        look = _marks(index)
        half = rows[f"{name}_ci"].to_numpy(float)
        axes[0].errorbar(
            rows[name], y, xerr=np.where(np.isnan(half), 0, half), label=group, capsize=2, **look
        )
        for value, height in zip(values, y, strict=True):
            own = shown[shown[view.rows] == value][name]
            axes[0].plot(own, [height] * len(own), "o", color=look["color"], alpha=0.35, ms=2.5)
    for axis, paper in zip(axes[1:], papers, strict=True):
        _paper_points(axis, paper, values, step)
    axes[0].set_title("ours, test set")
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
        axis.set_xlabel("cosine distance")
        for edge in range(1, len(values)):
            axis.axhline(edge - 0.5, color="0.85", linewidth=0.6)
    _name_rows(axes[0], run, view)
    if choice is not None:
        axes[0].get_yticklabels()[values.index(choice.cell[view.rows])].set_color("red")
    if run.groups:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right upper", title="classes"
        )
    finish(figure, run, view, choice)
    return figure


def _paper_points(axis: Axes, paper: Paper, values: list[Any], spread: float = 0.0) -> None:
    """The paper's numbers; with a `spread`, its columns one under the other in each row."""
    table = paper.table.reindex(values)
    for index, column in enumerate(PAPER_COLUMNS):
        if column in table.columns:
            y = np.arange(len(values)) + (index - 1) * spread
            axis.plot(table[column], y, label=column, **_marks(index))
    axis.set_title(f"paper, {paper.title}")


def _marks(index: int) -> dict[str, Any]:
    return line_look(index, COLOURS[index % len(COLOURS)]) | {"linestyle": "none", "markersize": 6}


def _name_rows(axis: Axes, run: Run, view: Points) -> None:
    """A row per value of the axis, the first at the top."""
    values = run.order(view.rows)
    axis.set_yticks(range(len(values)), [str(value) for value in values])
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_ylabel(run.axis(view.rows).label)
