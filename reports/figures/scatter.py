"""Figures of a single axis in the plane: tail against overall accuracy, and test images by t-SNE.

Owns: their drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from harness.reports.figures.frame import SHOWN_IN_FULL, finish
from harness.reports.figures.labels import Named, label_points
from harness.reports.figures.style import looks, style
from harness.reports.numbers.embedding import load_embedded
from harness.reports.numbers.paper import paper_tables
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice, bubbles_of
from harness.study.figures import Bubbles, Embedding

BUBBLE_POINTS = 55.0
"""Diameter of the largest bubble, in typographic points."""


@style()
def bubbles(run: Run, choice: Choice | None, view: Bubbles) -> Figure:
    """Tail against overall accuracy, a point per value of an axis; the paper's in a panel beside.

    A bubble's diameter is the standard deviation over seeds of the overall accuracy.
    """
    table = bubbles_of(run, view.rows)
    papers = paper_tables(run, view.rows, "class_mean", "tail")
    count = 1 + len(papers)
    figure = Figure(figsize=(4.6 * count + 0.6, 4.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    marks = {
        value: {"color": look["color"], "marker": look["marker"]}
        for value, look in looks(table.index).items()
    }
    ours = axes[0]
    unit = BUBBLE_POINTS / table["spread"].max() if table["spread"].max() > 0 else 0.0
    for value, row in table.iterrows():
        size = 0.0 if math.isnan(row["spread"]) else (unit * row["spread"]) ** 2
        look = marks[value]
        ours.scatter(
            row["overall"], row["tail"], s=size, color=look["color"], alpha=0.2, lw=0, zorder=1
        )
        ours.scatter(row["overall"], row["tail"], s=30, zorder=3, **look)
        if choice is not None and choice.cell[view.rows] == value:
            ours.scatter(
                row["overall"], row["tail"], s=120, marker="s", facecolor="none", edgecolor="red"
            )
        if row["DIVERGED"] > 0:
            ours.plot(row["overall"], row["tail"], "x", color="red", ms=9)
    ours.set_title("ours")
    if unit:
        widest = table["spread"].max()
        words = f"widest bubble: SD over seeds {widest:.1f} points"
        ours.text(0.98, 0.02, words, transform=ours.transAxes, ha="right", fontsize=8)
    for axis, paper in zip(axes[1:], papers, strict=True):
        for value in table.index:
            row = paper.table.loc[value]
            axis.scatter(row["class_mean"], row["tail"], s=30, **marks[value])
        axis.set_title(f"paper, {paper.title}")
    for axis in axes:
        axis.margins(0.18)
        axis.grid(alpha=0.3)
        axis.set_xlabel("test accuracy, mean over classes (%)")
        axis.set_ylabel("test accuracy, tail classes (%)")
    ours.set_xlabel(f"test accuracy, {SHOWN_IN_FULL} (%)")
    finish(figure, run, view, choice)
    places = [table.rename(columns={"overall": "class_mean"}), *(paper.table for paper in papers)]
    for axis, place in zip(axes, places, strict=True):
        shown = place.loc[table.index]
        label_points(
            axis,
            [
                Named(
                    float(row["class_mean"]), float(row["tail"]), str(value), marks[value]["color"]
                )
                for value, row in shown.iterrows()
            ],
        )
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
        for group, look in looks(run.groups).items():
            own = plane[plane["group"] == group]
            axis.scatter(
                own["x"], own["y"], s=9, lw=0, alpha=0.7, label=group, color=look["color"],
                marker=look["marker"],
            )  # fmt: skip
        mean = found.silhouettes.loc[value, "all"]
        axis.set_xlabel(f"silhouette of all classes {mean:.2f}")
    handles, names = axes[-1].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, loc="outside right upper", title="classes", markerscale=2)
    finish(figure, run, view, choice)
    return figure
