"""Figures over two axes: a map of cells, and curves.

Owns: their drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.reports.figures.frame import OURS, finish
from harness.reports.figures.labels import Named, label_ends
from harness.reports.figures.style import heat_cells, looks, style
from harness.reports.numbers.paper import paper_grid
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice, grid
from harness.study.figures import View


@style()
def heatmap(run: Run, summary: pd.DataFrame, choice: Choice | None, view: View) -> Figure:
    """Rows x columns of test accuracy: a large overall panel, the paper's beside it, groups below.

    The cell chosen on the selection split is boxed, diverged cells carry a cross, and cells
    without a score are hatched.
    """
    paper = paper_grid(run, view.rows, view.columns)
    panels = len(run.groups)
    figure = Figure(figsize=(13, 6.6 if panels else 4.2), layout="constrained")
    parts: Any = [figure, None]
    if panels:
        parts = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    top, bottom = parts
    axes = top.subplots(1, 2 if paper else 1, squeeze=False)[0]
    ours = grid(run, summary, view.rows, view.columns, run.test)
    _heat(axes[0], run, summary, choice, view, ours, OURS)
    if paper:
        table = paper[0]
        heat_cells(axes[1], table, size=6.5)
        axes[1].set_title(f"paper, {run.study.paper}, on DOTA with ViT-B/16 (own colour scale)")
        _axis_labels(axes[1], run, view)
    if bottom is not None:
        for axis, group in zip(
            bottom.subplots(1, panels, squeeze=False)[0], run.groups, strict=True
        ):
            table = grid(run, summary, view.rows, view.columns, f"test_{group}")
            _heat(axis, run, summary, choice, view, table, f"{group} classes")
    finish(figure, run, view, choice)
    return figure


def _heat(
    axis: Axes,
    run: Run,
    summary: pd.DataFrame,
    choice: Choice | None,
    view: View,
    table: pd.DataFrame,
    title: str,
) -> None:
    heat_cells(axis, table, size=5.5 if title.endswith("classes") else 6.5)
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    for y, row in enumerate(table.index):
        for x, column in enumerate(table.columns):
            if diverged.loc[row, column] > 0:
                axis.text(
                    x + 0.86, y + 0.22, "×", ha="center", va="center", color="red", fontsize=8
                )
    if choice is not None:
        x = list(table.columns).index(choice.cell[view.columns])
        y = list(table.index).index(choice.cell[view.rows])
        axis.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="red", linewidth=2))
    axis.set_title(title)
    _axis_labels(axis, run, view)


def _axis_labels(axis: Axes, run: Run, view: View) -> None:
    axis.set_xlabel(run.axis(view.columns).label)
    axis.set_ylabel(run.axis(view.rows).label)


@style()
def curves(run: Run, summary: pd.DataFrame, choice: Choice | None, view: View) -> Figure:
    """One line per row value over a numeric column axis (log2), for all classes and each group.

    Bands are 95 % intervals over seeds; a cross marks diverged trials; the paper's curves have
    their own panel.
    """
    paper = paper_grid(run, view.rows, view.columns)
    panels = [(run.test, OURS)]
    panels += [(f"test_{group}", f"{group} classes") for group in run.groups]
    count = len(panels) + bool(paper)
    width = 2 if count == 4 else min(3, count)
    height = -(-count // width)
    figure = Figure(figsize=(4.6 * width, 3.1 * height + 1.1), layout="constrained")
    axes = list(figure.subplots(height, width, squeeze=False, sharey=True).flat)
    by_row = looks(run.order(view.rows))
    ends = []
    for axis, (value, title) in zip(axes, panels, strict=False):
        ends.append(_lines(axis, run, summary, view, value, by_row))
        if choice is not None and value == panels[0][0]:
            score = choice.row[value]
            axis.plot(choice.cell[view.columns], score, "s", ms=11, mfc="none", mec="red", mew=1.8)
        axis.set_title(title)
    if paper:
        axis = axes[len(panels)]
        for row in paper[0].index:
            line = paper[0].loc[row]
            axis.plot(line.index, line.to_numpy(float), **by_row[row])
        table = paper[0]
        ends.append([_end(table.loc[row], by_row[row]["color"]) for row in table.index])
        axis.set_title(f"paper, {run.study.paper}, on DOTA with ViT-B/16")
    for axis in axes[:count]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(run.order(view.columns))
        axis.xaxis.set_major_formatter(lambda v, _: f"$2^{{{round(np.log2(v))}}}$")
        axis.minorticks_off()
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.3)
        axis.set_xlabel(run.axis(view.columns).label)
    for axis in axes[:count:width]:
        axis.set_ylabel("test accuracy (%)")
    for axis in axes[count:]:
        axis.set_axis_off()
    finish(figure, run, view, choice)
    for axis, named in zip(axes, ends, strict=False):
        label_ends(axis, named, size=7)
    return figure


def _lines(
    axis: Axes, run: Run, summary: pd.DataFrame, view: View, value: str, by_row: dict[Any, Any]
) -> list[Named]:
    """A panel's lines with their bands and marks; their ends with the rows' names."""
    table = grid(run, summary, view.rows, view.columns, value)
    half = grid(run, summary, view.rows, view.columns, f"{value}_ci")
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    for row, look in by_row.items():
        x, y = table.columns.to_numpy(float), table.loc[row].to_numpy(float)
        axis.plot(x, y, label=str(row), **look)
        band = half.loc[row].to_numpy(float)
        if np.isfinite(band).any():
            axis.fill_between(x, y - band, y + band, color=look["color"], alpha=0.15, linewidth=0)
        ended = diverged.loc[row].to_numpy(float) > 0
        if ended.any():
            axis.plot(x[ended], y[ended], "x", color=look["color"], ms=9, mew=2)
    axis.axhline(run.chance, color="0.4", linestyle=(0, (1, 2)), linewidth=1, label="chance")
    ends = [_end(table.loc[row], look["color"]) for row, look in by_row.items()]
    return [*ends, Named(float(table.columns[-1]), run.chance, "chance", "0.4")]


def _end(line: pd.Series[float], colour: Any) -> Named:
    """The last known point of a row, and the row's name; nowhere if none is known."""
    known = line.dropna()
    if known.empty:
        return Named(float("nan"), float("nan"), str(line.name), colour)
    return Named(float(known.index[-1]), float(known.iloc[-1]), str(line.name), colour)
