"""Figures of a report: draws tables that `frames` computed, and computes nothing itself."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.index import OVERALL
from harness.spec import TrialRequest
from harness.study import AnyView, Bubbles, Embedding, Points, View
from reports.comparison_frames import Arms, front
from reports.embedding_frames import load_embedded
from reports.frames import (
    COST_UNITS,
    Choice,
    Paper,
    Run,
    bubbles_of,
    by_value,
    grid,
    paper_grid,
    paper_tables,
    projected,
)
from reports.gamma_frames import Learned, block_map, positions_of
from reports.search_frames import Searches

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "svg.hashsalt": "harness",  # the same SVG for the same numbers
    "svg.fonttype": "none",
}
MARKED = " ×: diverged; hatched: no result."
DPI = 200
"""Pixels per inch of a figure's PNG."""

MAP = "cividis"
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#56b4e9", "#333333", "#d55e00", "#949494")
"""Told apart by the colour-blind as well; dashes and markers tell them apart without colour."""
DISTANCE = (
    "Mean cosine distance of a class's mean test feature to those of all other classes, averaged "
    "over the group's classes."
)
MARKERS = "osD^vPX*<>"
PAPER_COLUMNS = ("head", "medium", "tail", "average")
BUBBLE_POINTS = 55.0
"""Diameter of the largest bubble, in typographic points."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))


@contextmanager
def style() -> Iterator[None]:
    """For what draws or saves a figure, so that a notebook's own style stays as it is."""
    with matplotlib.rc_context(STYLE):
        yield


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
        _cells(axes[1], table, size=6.5)
        axes[1].set_title(f"paper, {run.study.paper}, on DOTA with ViT-B/16 (own colour scale)")
        _axis_labels(axes[1], run, view)
    if bottom is not None:
        for axis, group in zip(
            bottom.subplots(1, panels, squeeze=False)[0], run.groups, strict=True
        ):
            table = grid(run, summary, view.rows, view.columns, f"test_{group}")
            _heat(axis, run, summary, choice, view, table, f"{group} classes")
    _finish(figure, run, view, legend(run, choice, view))
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
    _cells(axis, table, size=5.5 if title.endswith("classes") else 6.5)
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


def _cells(
    axis: Axes,
    table: pd.DataFrame,
    *,
    size: float,
    fmt: str = ".1f",
    unit: str = "accuracy (%)",
) -> None:
    values = table.to_numpy(dtype=float)
    known = values[np.isfinite(values)]
    axis.set_facecolor("0.85")
    axis.patch.set(hatch="////", edgecolor="0.6")
    sns.heatmap(
        pd.DataFrame(values, index=table.index, columns=[_tick(c) for c in table.columns]),
        ax=axis,
        cmap=MAP,
        vmin=known.min() if len(known) else 0,
        vmax=known.max() if len(known) else 100,
        annot=True,
        fmt=fmt,
        annot_kws={"size": size},
        linewidths=0.3,
        linecolor="white",
        cbar_kws={"label": unit, "pad": 0.02},
    )
    axis.tick_params(axis="both", rotation=0, length=0)


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
            axis.plot(line.index, line.to_numpy(float), **_look(index, colours[row]))
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
    _finish(figure, run, view, legend(run, choice, view))
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
    _finish(figure, run, view, legend(run, choice, view))
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
        if rows[name].max() > 50 * max(rows[name].median(), 1e-9):
            axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xlim(0, 1.08 * max(rows[name].max(), run.trials[name].max() / unit.size, 1e-9))
        axis.set_xlabel(unit.words.replace(" (", "\n("))
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(values)), [str(value) for value in values])
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    axes[0].set_ylabel(run.axis(view.rows).label)
    _finish(figure, run, view, legend(run, choice, view))
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
    _finish(figure, run, view, legend(run, choice, view))
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
    return _look(index, COLOURS[index]) | {"linestyle": "none", "markersize": 6}


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
    _finish(figure, run, view, legend(run, choice, view))
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
    _finish(figure, run, view, legend(run, choice, view))
    return figure


def _look(index: int, colour: Any) -> dict[str, Any]:
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.4}


def _lines(
    axis: Axes, run: Run, summary: pd.DataFrame, view: View, value: str, colours: dict[Any, Any]
) -> None:
    table = grid(run, summary, view.rows, view.columns, value)
    half = grid(run, summary, view.rows, view.columns, f"{value}_ci")
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    for index, row in enumerate(table.index):
        x, y = table.columns.to_numpy(float), table.loc[row].to_numpy(float)
        axis.plot(x, y, label=str(row), **_look(index, colours[row]))
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


def _tick(value: Any) -> str:
    return str(value).removeprefix("last:") if isinstance(value, str) else f"{value:g}"


def shows_accuracy(view: AnyView) -> bool:
    """Whether a figure's numbers are test accuracies."""
    is_other = isinstance(view, Points) and view.value != "accuracy"
    return not is_other and not isinstance(view, Embedding)


def legend(run: Run, choice: Choice | None, view: AnyView) -> str:
    """What is marked in red."""
    if choice is None:
        return "No trial has finished yet."
    if isinstance(view, Embedding):
        return (
            "t-SNE keeps neighbours, not distances: compare the silhouettes, which are taken in "
            "the space of the features."
        )
    if isinstance(view, Points) and view.value == "cost":
        return "Diamonds: mean over seeds. Nothing is merged for inference."
    where = "the TEST set (the paper's protocol)" if run.selected_on_test else "validation"
    mark = {"points": "Red: the value", "bubbles": "Red box: the value"}.get(view.kind)
    mark = mark or "Red box: the cell"
    further = projected(run, view.rows, view.columns) if isinstance(view, View) else []
    over = f" Everywhere the {' and '.join(further)} that is best on {where}." if further else ""
    return f"{mark} chosen on {where}.{over}"


def _finish(figure: Figure, run: Run, view: AnyView, box: str) -> None:
    if run.selected_on_test:
        view = view.model_copy(update={"title": f"{view.title} (SELECTED ON TEST)"})
    figure.suptitle(view.title, fontsize=12, fontweight="bold")
    words = f"{caption(run)} {box}"
    width = round(12 * figure.get_figwidth())
    if isinstance(view, Points) and view.value == "distance":
        words = words.replace("Test accuracy.", DISTANCE)
    elif not shows_accuracy(view):
        words = words.replace("Test accuracy. ", "").replace(MARKED, "")
    figure.supxlabel(textwrap.fill(words, width), fontsize=8, color="0.25")


def caption(run: Run) -> str:
    """What was held fixed, on what, with how many seeds: the words under every figure."""
    where = setting(run.study.base, len(run.seeds))
    return f"Test accuracy. Fixed: {run.study.fixed}. {where}{MARKED}"


def setting(base: TrialRequest, seeds: int) -> str:
    """Backbone, data, recipe and number of seeds in one sentence."""
    recipe = base.recipe
    data = f"{base.data.name} (SYNTHETIC)" if base.data.name == "synth-rs" else base.data.name
    return (
        f"{base.backbone.name} on {data}, lr {recipe.lr:g}, batch {recipe.batch_size}, "
        f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}."
    )


@style()
def gamma(learned: Learned, title: str) -> Figure:
    """Learned strengths: maps of block x position along the run, and the paths of the positions."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    top, bottom = parts
    moments = (0.0, 0.25, 0.5, 1.0)
    maps = [block_map(learned, moment) for moment in moments]
    values = np.concatenate([table.to_numpy(dtype=float).ravel() for table in maps])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axes = top.subplots(1, len(moments), sharey=True)
    for axis, moment, table in zip(axes, moments, maps, strict=True):
        axis.set_facecolor("0.85")
        sns.heatmap(
            table,
            ax=axis,
            cmap=MAP,
            vmin=low,
            vmax=high,
            cbar=False,
            linewidths=0.3,
            linecolor="white",
        )
        names = {0.0: "start", 1.0: "end"}
        axis.set_title(names.get(moment, f"{100 * moment:.0f} % of the outer steps"))
        axis.set_xlabel("block (0 is next to the input)")
        axis.set_ylabel("position" if axis is axes[0] else "")
        axis.tick_params(axis="both", rotation=0, length=0)
    top.colorbar(axes[0].collections[0], ax=list(axes), label="strength γ", pad=0.01)
    paths, ends = bottom.subplots(1, 2, width_ratios=[1.4, 1])
    for index, position in enumerate(positions_of(learned)):
        own = learned.paths[learned.paths["position"] == position]
        sites = own.groupby(["outer_step", "site"])["strength"].mean().unstack("site")
        paths.plot(sites.index, sites, color=COLOURS[index], linewidth=0.5, alpha=0.35)
        look = _look(index, COLOURS[index]) | {"markevery": max(1, len(sites) // 8)}
        paths.plot(sites.index, sites.mean(axis=1), label=position, **look)
        last = learned.final[learned.final["position"] == position]
        look = _look(index, COLOURS[index])
        ends.errorbar(last["block"], last["strength"], yerr=last["sd"], capsize=2, **look)
    count = len(learned.trials)
    mean = f", mean over {count} seeds" if count > 1 else ""
    paths.set_title(f"every site (thin) and the mean of a position (thick){mean}")
    paths.set_xlabel("outer step")
    paths.set_ylabel("strength γ")
    paths.legend(title="position", ncols=2, fontsize=8)
    ends.set_title("at the end" + (f", mean ± SD of {count} seeds" if count > 1 else ""))
    ends.set_xlabel("block")
    for axis in (paths, ends):
        axis.axhline(learned.final["start"].mean(), color="0.4", linestyle=(0, (1, 2)), linewidth=1)
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


@style()
def gamma_and_sweep(learned: Learned, compared: Arms) -> Figure:
    """The strengths where learning ended, and the map of the sweep that they stand in for."""
    swept, found = compared.swept, compared.comparison.swept
    assert swept is not None and found is not None
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _cells(left, block_map(learned, 1.0), size=6.5, fmt=".2f", unit="strength γ")
    left.set_title(f"learned: {compared.comparison.arms[0].name}")
    left.set_xlabel("block (0 is next to the input)")
    left.set_ylabel("position")
    _cells(right, swept, size=6.5)
    right.set_title(f"swept: test accuracy, {found.study} ({found.fixed})")
    rows, columns = found.labels.values()
    right.set_xlabel(columns)
    right.set_ylabel(rows)
    seeds = len(compared.comparison.seeds)
    figure.suptitle("What is learned beside what is swept", fontsize=12, fontweight="bold")
    words = (
        f"Means over the same {seeds} seed{'s' if seeds > 1 else ''}; each map has a colour scale "
        f"of its own. {setting(compared.comparison.request, seeds)}"
    )
    figure.supxlabel(words, fontsize=8, color="0.25")
    return figure


@style()
def arms(compared: Arms) -> Figure:
    """Test accuracy of every arm, all classes and by group, with intervals and every seed's dot."""
    table, scores = compared.table, compared.scores
    names = [compared.comparison.objective, *compared.groups]
    figure = Figure(figsize=(13, 0.42 * len(table) + 1.6), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, width_ratios=[1.5] + [1] * (len(names) - 1))
    for axis, name in zip(axes, names, strict=True):
        for y, (_, row) in enumerate(table.iterrows()):
            colour = COLOURS[0] if y == 0 else "0.25"
            own = scores[scores["arm"] == row["arm"]][f"test_{name}"]
            axis.plot(own, [y] * len(own), "o", color=colour, alpha=0.3, markersize=3)
            half = row[f"{name}_ci"]
            error = None if math.isnan(half) else half
            axis.errorbar(row[name], y, xerr=error, fmt="D", color=colour, ms=5, capsize=3)
        axis.axvline(table[name].iloc[0], color=COLOURS[0], linestyle=":", linewidth=1)
        axis.set_title("all classes" if name in OVERALL else f"{name} classes")
        axis.set_xlabel("test accuracy (%)")
        axis.grid(alpha=0.3, axis="x")
    labels = [f"{row['arm']}  [{row['runs_per_seed']:.1f} runs]" for _, row in table.iterrows()]
    axes[0].set_yticks(range(len(table)), labels)
    axes[0].invert_yaxis()
    figure.suptitle(compared.comparison.title, fontsize=12, fontweight="bold")
    return figure


@style()
def pareto(compared: Arms) -> Figure:
    """Test accuracy of every arm against what finding it and training it cost, and its front."""
    table, score = compared.table, compared.comparison.objective
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axis = figure.subplots()
    best = front(table, "runs_per_seed", score)
    for index, (_, row) in enumerate(table.iterrows()):
        half = row[f"{score}_ci"]
        axis.errorbar(
            row["runs_per_seed"],
            row[score],
            yerr=None if math.isnan(half) else half,
            fmt=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            ms=8 if row["arm"] in best else 5,
            elinewidth=0.8,
            capsize=2,
            label=row["arm"],
        )
    line = table.set_index("arm").loc[best]
    axis.step(line["runs_per_seed"], line[score], where="post", color="0.4", lw=0.9, zorder=0)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    is_narrow = table["runs_per_seed"].max() < 10 * table["runs_per_seed"].min()
    axis.xaxis.set_minor_formatter(
        lambda value, _: f"{value:g}" if is_narrow or _leads(value) else ""
    )
    axis.tick_params(axis="x", which="minor", labelsize=7)
    axis.set_xlabel("cost per seed (full runs)")
    axis.set_ylabel("test accuracy, all classes (%)")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    title = f"{compared.comparison.title}: accuracy and cost"
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


@style()
def anytime(compared: Searches) -> Figure:
    """Incumbents against cost: test accuracy and, with a table, regret; medians and quartiles."""
    fields = [("test", "test accuracy of the incumbent (%)")]
    if compared.exhaustive is not None:
        fields.append(("regret", "regret on validation (points)"))
    figure = Figure(figsize=(5.2 * len(fields) + 2.2, 4.6), layout="constrained")
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    end = float(compared.curves["runs"].max())
    for axis, (field, label) in zip(axes, fields, strict=True):
        for index, (name, own) in enumerate(compared.curves.groupby("search", sort=False)):
            _anytime_line(axis, compared, str(name), own, field, end, index)
        if compared.random is not None:
            line = compared.random[compared.random["runs"] <= end]
            axis.plot(
                *(line["runs"], line[field]),
                color="black",
                linewidth=1,
                label="random, expected (closed form)",
            )
        if field == "test":
            _restart_lines(axis, compared)
        axis.axvline(compared.at, color="0.4", linestyle=(0, (1, 2)), linewidth=1)
        _note(axis, compared.at, 0.02, "compared here", rotation=90, va="bottom", ha="right")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leads(value) else "")
        axis.tick_params(axis="x", which="minor", labelsize=7)
        axis.set_xlabel("cost (full runs)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    # Collapsed first choices would flatten everything else; bands may leave the frame.
    lowest, highest = compared.curves["test"].min(), compared.curves["test_high"].max()
    if compared.exhaustive is not None:
        best = compared.exhaustive
        highest = max(highest, best.best_test)
        axes[0].axhline(best.best_test, color="0.4", linestyle="--", linewidth=0.8)
        _note(axes[0], 0.02, best.best_test, "best cell on test, by hindsight", va="bottom")
        axes[1].axhline(best.target, color="0.4", linestyle="--", linewidth=0.8)
        _note(axes[1], 0.02, best.target, f"found: {best.target:.1f} points", va="top")
        axes[1].set_yscale("symlog", linthresh=1, linscale=0.5)
        axes[1].set_yticks([0, 1, 2, 5, 10, 20, 50], ["0", "1", "2", "5", "10", "20", "50"])
        # Empty space below the target says nothing when no search comes near it.
        nearest = compared.curves["regret"].min()
        bottom = 0.0 if nearest <= best.target else 0.8 * best.target
        axes[1].set_ylim(bottom, 1.5 * max(1.0, compared.curves["regret"].max()))
    room = max(0.5, 0.08 * (highest - lowest))
    axes[0].set_ylim(lowest - room, highest + room)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{compared.study.name}: chosen on validation, shown on test",
        fontsize=12,
        fontweight="bold",
    )
    figure.supxlabel(textwrap.fill(searches_caption(compared), 140), fontsize=8, color="0.25")
    return figure


def _anytime_line(
    axis: Axes,
    compared: Searches,
    name: str,
    own: pd.DataFrame,
    field: str,
    end: float,
    index: int,
) -> None:
    colour = COLOURS[index % len(COLOURS)]
    x = np.append(own["runs"].to_numpy(float), end)
    middle, low, high = (
        np.append(own[column].to_numpy(float), own[column].iloc[-1])
        for column in (field, f"{field}_low", f"{field}_high")
    )
    look = _look(index, colour) | {"marker": "", "linewidth": 1.6}
    is_one = name in compared.comparison.learned
    words = f"{name} (one trial)" if is_one else name
    axis.step(x, middle, where="post", label=words, **look)
    axis.fill_between(x, low, high, step="post", color=colour, alpha=0.1, linewidth=0)
    axis.plot(x[0], middle[0], MARKERS[index % len(MARKERS)], color=colour, markersize=5)
    if is_one and compared.comparison.tuning:
        tuned = x[0] + compared.comparison.tuning_s / compared.comparison.reference.device_s
        axis.plot(
            *(tuned, middle[0]),
            marker="s",
            linestyle="none",
            mfc="none",
            color=colour,
            label=f"{name}, with its tuning",
        )


def _restart_lines(axis: Axes, compared: Searches) -> None:
    """Of each search that ends after one trial: what starting it again is expected to bring."""
    order = list(compared.curves["search"].unique())
    for name, own in compared.restarts.groupby("search", sort=False):
        axis.plot(
            *(own["runs"], own["test"]),
            marker=".",
            linestyle=":",
            color=COLOURS[order.index(name) % len(COLOURS)],
            label=f"{name}, best of n starts (expected)",
        )


def _note(axis: Axes, x: float, y: float, words: str, **place: Any) -> None:
    """Small words at a line: along the axis it crosses in its units, else as a share."""
    across = place.get("rotation") is not None
    transform = axis.get_xaxis_transform() if across else axis.get_yaxis_transform()
    axis.text(x, y, words, transform=transform, fontsize=7, color="0.3", **place)


def _leads(value: float) -> bool:
    """A minor tick that is labelled: 2 or 5 times a power of ten."""
    return round(value / 10 ** math.floor(math.log10(value))) in (2, 5)


def finals(compared: Searches) -> Figure:
    """Test accuracy of every search's choice at the common cost: all classes and by group."""
    table, final = compared.table, compared.final
    names = ["test", *compared.groups]
    figure = Figure(figsize=(13, 0.42 * len(table) + 1.9), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, width_ratios=[1.5] + [1] * (len(names) - 1))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for y, search in enumerate(table.index):
            colour = COLOURS[y % len(COLOURS)]
            own = final[final["search"] == search][name]
            axis.plot(own, [y + 0.2] * len(own), "o", color=colour, alpha=0.35, markersize=3)
            half = table[f"{name}_ci"].loc[search]
            error = None if math.isnan(half) else half
            mean = table[name].loc[search]
            axis.errorbar(mean, y, xerr=error, fmt="D", color=colour, ms=5, capsize=3)
        axis.axvline(table[name].loc[compared.reference], color="0.4", linestyle=":", linewidth=1)
        if name == "test":
            axis.set_title(f"all classes ({compared.study.objective.replace('_', ' ')})")
        else:
            error = table[f"binomial_{name}"].mean()
            axis.set_title(f"{name} classes\nbinomial s.e. of one trial {error:.1f}", fontsize=9)
        axis.set_xlabel("test accuracy (%)")
        axis.grid(alpha=0.3, axis="x")
    axis = np.atleast_1d(axes)[0]
    axis.set_yticks(
        range(len(table)), [f"{s}  [{table['runs'].loc[s]:.1f} runs]" for s in table.index]
    )
    axis.set_ylim(len(table) - 0.5, -0.5)
    figure.suptitle(
        f"{compared.study.name}: choices at the cost of {compared.at:.1f} full runs",
        fontsize=12,
        fontweight="bold",
    )
    figure.supxlabel(textwrap.fill(searches_caption(compared), 170), fontsize=8, color="0.25")
    return figure


def searches_caption(compared: Searches) -> str:
    """How searches were compared, on what, and how often: the words under their figures."""
    plan = compared.comparison
    how = "Live" if plan.table is None else "Replayed from a table of every cell"
    seeds = f"{len(plan.seeds)} training seed{'s' if len(plan.seeds) > 1 else ''}"
    labels = {axis.field: axis.label for axis in compared.study.axes}
    cell = plan.reference.cell.items()
    one_run = ", ".join(f"{labels.get(field, field)} {value}" for field, value in cell)
    base = setting(compared.study.base, len(plan.seeds)).rsplit(", ", 1)[0]
    return (
        f"{how}: {plan.repeats} repeat{'s' if plan.repeats > 1 else ''} over {seeds}, "
        f"budget {plan.budget}, "
        f"{plan.workers} worker{'s' if plan.workers > 1 else ''}. "
        f"A full run: {one_run} ({plan.reference.device_s:.1f} device s). {base}."
    )
