"""Figures of a study's views: draws tables that `frames` computed, and computes nothing itself."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.reports.figures.style import COLOURS, MARKERS, heat_cells, line_look, style
from harness.reports.numbers.embedding import load_embedded
from harness.reports.numbers.paper import Paper, paper_grid, paper_tables
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import COST_UNITS, Choice, bubbles_of, by_value, grid
from harness.reports.text.captions import caption, legend
from harness.study.figures import AnyView, Bubbles, Embedding, Points, View

PAPER_COLUMNS = ("head", "medium", "tail", "average")
BUBBLE_POINTS = 55.0
"""Diameter of the largest bubble, in typographic points."""


def draw(run: Run, summary: pd.DataFrame, choice: Choice | None, view: AnyView) -> Figure:
    """The figure of one of the study's views."""
    if isinstance(view, Points):
        return points(run, summary, choice, view)
    if isinstance(view, Bubbles):
        return bubbles(run, summary, choice, view)
    if isinstance(view, Embedding):
        return embedding(run, choice, view)
    return {"heatmap": heatmap, "curves": curves}[view.kind](run, summary, choice, view)


@style()
def heatmap(run: Run, summary: pd.DataFrame, choice: Choice | None, view: View) -> Figure:
    """Rows x columns of test accuracy: a large overall panel, the paper's beside it, groups below.

    The cell chosen on the selection split is boxed, diverged cells carry a cross, and cells
    without a score are hatched.
    """
    metric = run.study.objective
    paper = paper_grid(run, view.rows, view.columns)
    panels = len(run.groups)
    figure = Figure(figsize=(13, 6.6 if panels else 4.2), layout="constrained")
    parts: Any = [figure, None]
    if panels:
        parts = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    top, bottom = parts
    axes = top.subplots(1, 2 if paper else 1, squeeze=False)[0]
    ours = grid(run, summary, view.rows, view.columns, f"test_{metric}")
    _heat(axes[0], run, summary, choice, view, ours, _name(run, metric))
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
    _finish(figure, run, view, choice)
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
    metric = run.study.objective
    paper = paper_grid(run, view.rows, view.columns)
    panels = [(f"test_{metric}", _name(run, metric))]
    panels += [(f"test_{group}", f"{group} classes") for group in run.groups]
    count = len(panels) + bool(paper)
    width = min(3, count)
    height = -(-count // width)
    figure = Figure(figsize=(4.2 * width, 3.1 * height + 1.1), layout="constrained")
    axes = list(figure.subplots(height, width, squeeze=False, sharey=True).flat)
    colours = dict(zip(run.order(view.rows), COLOURS, strict=False))
    for axis, (value, title) in zip(axes, panels, strict=False):
        _lines(axis, run, summary, view, value, colours)
        if choice is not None and value == panels[0][0]:
            score = choice.row[value]
            axis.plot(choice.cell[view.columns], score, "s", ms=11, mfc="none", mec="red", mew=1.8)
        axis.set_title(title)
    if paper:
        axis = axes[len(panels)]
        for index, row in enumerate(paper[0].index):
            line = paper[0].loc[row]
            axis.plot(line.index, line.to_numpy(float), **line_look(index, colours[row]))
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
    handles, names = axes[0].get_legend_handles_labels()
    room = axes[count] if count < len(axes) else figure
    place: dict[str, Any] = (
        {"loc": "center"} if count < len(axes) else {"loc": "outside right upper"}
    )
    room.legend(handles, names, title=run.axis(view.rows).label, **place)
    _finish(figure, run, view, choice)
    return figure


@style()
def points(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """A line of points per value of one axis, in a panel per average and group.

    One table of the paper's stands beside them, several stand below, one per dataset.
    """
    if view.value == "distance":
        return _distances(run, summary, choice, view)
    if view.value == "cost":
        return _costs(run, summary, choice, view)
    metric = run.study.objective
    values = run.order(view.rows)
    papers = [p for p in paper_tables(run, view.rows, "head") if p.dataset != "all"]
    panels = [(f"test_{metric}", _name(run, metric))]
    panels += [(f"test_{group}", f"{group} classes") for group in run.groups]
    below = len(papers) > 1
    count = max(len(panels), len(papers)) if below else len(panels) + len(papers)
    height = 0.45 * len(values) + 2.2
    figure = Figure(
        figsize=(3.3 * count + 0.9 * below, height * (1.8 if below else 1)), layout="constrained"
    )
    lines = figure.subplots(1 + below, count, squeeze=False, sharey=True)
    rows = by_value(run, summary, view)
    for axis, (name, title) in zip(lines[0], panels, strict=False):
        for y, value in enumerate(values):
            own = run.trials[run.trials[view.rows] == value]
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
        axis.set_yticks(range(len(values)), [str(value) for value in values])
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.set_ylabel(run.axis(view.rows).label)
    _finish(figure, run, view, choice)
    return figure


@style()
def _costs(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """What training and inference took per value of one axis, a panel per kind of cost."""
    values = run.order(view.rows)
    rows = by_value(run, summary, view)
    figure = Figure(figsize=(3.3 * len(COST_UNITS), 0.45 * len(values) + 2.2), layout="constrained")
    axes = figure.subplots(1, len(COST_UNITS), squeeze=False, sharey=True)[0]
    for axis, (name, unit) in zip(axes, COST_UNITS.items(), strict=True):
        for y, value in enumerate(values):
            own = run.trials[run.trials[view.rows] == value][name] / unit.size
            axis.plot(own, [y] * len(own), "o", color="0.25", alpha=0.3, markersize=3)
            axis.plot(rows[name].iloc[y], y, "D", color="0.25", ms=5)
        most = max(rows[name].max(), run.trials[name].max() / unit.size, 1e-9)
        is_wide = rows[name].max() > 50 * max(rows[name].median(), 1e-9)
        if is_wide:
            axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xlim(*((-0.2, 1.8 * most) if is_wide else (0, 1.08 * most)))
        axis.set_xlabel(unit.words.replace(" (", "\n("))
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(values)), [str(value) for value in values])
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    axes[0].set_ylabel(run.axis(view.rows).label)
    _finish(figure, run, view, choice)
    return figure


@style()
def embedding(run: Run, choice: Choice | None, view: Embedding) -> Figure:
    """The test images of the first seed in the plane, a panel per value, coloured by group."""
    found = load_embedded(run, view.rows)
    count = len(found.planes)
    figure = Figure(figsize=(3.4 * count, 4.1), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (value, plane) in zip(axes, found.planes.items(), strict=True):
        axis.set_title(str(value))
        axis.set_xticks([])
        axis.set_yticks([])
        if plane is None:
            axis.text(0.5, 0.5, "no features kept", transform=axis.transAxes, ha="center")
            continue
        for index, group in enumerate(run.groups):
            own = plane[plane["group"] == group]
            axis.scatter(
                own["x"], own["y"], s=9, lw=0, alpha=0.7, label=group, color=COLOURS[index],
                marker=MARKERS[index],
            )  # fmt: skip
        mean = found.silhouettes.loc[value, "all"]
        axis.set_xlabel(f"silhouette of all classes {mean:.2f}")
    handles, names = axes[-1].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, loc="outside right upper", title="classes", markerscale=2)
    _finish(figure, run, view, choice)
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
    return line_look(index, COLOURS[index]) | {"linestyle": "none", "markersize": 6}


@style()
def _distances(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points) -> Figure:
    """Distance between classes per value of one axis, the groups in one panel to be compared."""
    values = run.order(view.rows)
    rows = by_value(run, summary, view)
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
            own = run.trials[run.trials[view.rows] == value][name]
            axes[0].plot(own, [height] * len(own), "o", color=look["color"], alpha=0.35, ms=2.5)
    for axis, paper in zip(axes[1:], papers, strict=True):
        _paper_points(axis, paper, values, step)
    axes[0].set_title("ours, test set")
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
        axis.set_xlabel("cosine distance")
        for edge in range(1, len(values)):
            axis.axhline(edge - 0.5, color="0.85", linewidth=0.6)
    axes[0].set_yticks(range(len(values)), [str(value) for value in values])
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    axes[0].set_ylabel(run.axis(view.rows).label)
    if choice is not None:
        axes[0].get_yticklabels()[values.index(choice.cell[view.rows])].set_color("red")
    if run.groups:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right upper", title="classes"
        )
    _finish(figure, run, view, choice)
    return figure


@style()
def bubbles(run: Run, summary: pd.DataFrame, choice: Choice | None, view: Bubbles) -> Figure:
    """Tail against overall accuracy, a point per value of an axis; the paper's in a panel beside.

    A bubble's diameter is the standard deviation over seeds of the overall accuracy.
    """
    table = bubbles_of(run, view.rows)
    papers = paper_tables(run, view.rows, "class_mean", "tail")
    count = 1 + len(papers)
    figure = Figure(figsize=(3.7 * count + 1.9, 4.4), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    looks = {
        value: {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        for index, value in enumerate(table.index)
    }
    ours = axes[0]
    unit = BUBBLE_POINTS / table["spread"].max() if table["spread"].max() > 0 else 0.0
    for value, row in table.iterrows():
        size = 0.0 if math.isnan(row["spread"]) else (unit * row["spread"]) ** 2
        look = looks[value]
        ours.scatter(
            row["overall"], row["tail"], s=size, color=look["color"], alpha=0.2, lw=0, zorder=1
        )
        ours.scatter(row["overall"], row["tail"], s=30, label=str(value), zorder=3, **look)
        if choice is not None and choice.cell[view.rows] == value:
            ours.scatter(
                row["overall"], row["tail"], s=120, marker="s", facecolor="none", edgecolor="red"
            )
        if run.trials["status"][run.trials[view.rows] == value].eq("DIVERGED").any():
            ours.plot(row["overall"], row["tail"], "x", color="red", ms=9)
    ours.set_title("ours")
    if unit:
        widest = table["spread"].max()
        words = f"widest bubble: SD over seeds {widest:.1f} points"
        ours.text(0.98, 0.02, words, transform=ours.transAxes, ha="right", fontsize=8)
    for axis, paper in zip(axes[1:], papers, strict=True):
        for value in table.index:
            row = paper.table.loc[value]
            axis.scatter(row["class_mean"], row["tail"], s=30, **looks[value])
        axis.set_title(f"paper, {paper.title}")
    for axis in axes:
        axis.margins(0.18)
        axis.grid(alpha=0.3)
        axis.set_xlabel("test accuracy, mean over classes (%)")
        axis.set_ylabel("test accuracy, tail classes (%)")
    ours.set_xlabel(f"test accuracy, {_words(run.study.objective)} (%)")
    figure.legend(*ours.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    _finish(figure, run, view, choice)
    return figure


def _lines(
    axis: Axes, run: Run, summary: pd.DataFrame, view: View, value: str, colours: dict[Any, Any]
) -> None:
    table = grid(run, summary, view.rows, view.columns, value)
    half = grid(run, summary, view.rows, view.columns, f"{value}_ci")
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    for index, row in enumerate(table.index):
        x, y = table.columns.to_numpy(float), table.loc[row].to_numpy(float)
        axis.plot(x, y, label=str(row), **line_look(index, colours[row]))
        band = half.loc[row].to_numpy(float)
        if np.isfinite(band).any():
            axis.fill_between(x, y - band, y + band, color=colours[row], alpha=0.15, linewidth=0)
        ended = diverged.loc[row].to_numpy(float) > 0
        if ended.any():
            axis.plot(x[ended], y[ended], "x", color=colours[row], ms=9, mew=2)
    axis.axhline(run.chance, color="0.4", linestyle=(0, (1, 2)), linewidth=1, label="chance")


def _name(run: Run, metric: str) -> str:
    return f"ours, all classes ({_words(metric)})"


def _words(metric: str) -> str:
    words = {"class_mean": "mean over classes", "micro": "share of images"}
    return words.get(metric, metric.replace("_", " "))


def _finish(figure: Figure, run: Run, view: AnyView, choice: Choice | None) -> None:
    if run.selected_on_test:
        view = view.model_copy(update={"title": f"{view.title} (SELECTED ON TEST)"})
    figure.suptitle(view.title, fontsize=12, fontweight="bold")
    words = f"{caption(run, view)} {legend(run, choice, view)}"
    width = round(12 * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(words, width), fontsize=8, color="0.25")
