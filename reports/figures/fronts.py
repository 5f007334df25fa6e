"""The figure of a run with several objectives: its front, and what was dominated by which trial.

Owns: its drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.metrics import COSTS, Goal, scale_of
from harness.reports.figures.style import COLOURS, MARKERS, line_look, style
from harness.reports.numbers.fronts import Fronts
from harness.reports.text.fronts import fronts_caption, goal_words

RANDOM = "random, closed form"


@style()
def fronts(found: Fronts) -> Figure:
    """Every trial by its objectives with the front, a panel per further one; and hypervolume."""
    count = len(found.goals)
    figure = Figure(figsize=(5.4 * count, 4.9), layout="constrained")
    *panels, volumes = figure.subplots(1, count, squeeze=False)[0]
    for axis, goal in zip(panels, found.goals[1:], strict=True):
        _front(axis, found, goal)
    _volumes(volumes, found)
    is_on_test = found.study.base.data.select_on == "test"
    title = f"{found.study.name}: {' against '.join(map(goal_words, found.goals))}"
    figure.suptitle(
        title + (" (SELECTED ON TEST)" if is_on_test else ""), fontsize=12, fontweight="bold"
    )
    words = textwrap.fill(fronts_caption(found), round(13 * figure.get_figwidth()))
    figure.supxlabel(words, fontsize=8, color="0.25")
    return figure


def _front(axis: Axes, found: Fronts, goal: Goal) -> None:
    first = found.goals[0]
    known = found.points if found.space is None else found.space
    axis.scatter(known[goal], known[first], s=9, lw=0, color="0.75", zorder=1)
    front = found.front.sort_values(goal)
    if len(found.goals) == 2 and len(front):
        # From one point to the next both objectives that either reaches are met by the earlier.
        where: Any = "post" if goal in COSTS else "pre"
        axis.step(front[goal], front[first], where=where, color="black", lw=1.2, zorder=2)
    axis.scatter(front[goal], front[first], s=34, color="black", zorder=3)
    if len(front):
        last = front.iloc[-1]
        whole = f"{len(known)} cells" if found.space is not None else f"{len(known)} trials"
        axis.annotate(
            f"front of all {whole}",
            (last[goal], last[first]),
            xytext=(8, 4),
            textcoords="offset points",
            fontsize=8,
        )
    if found.space is not None:
        _found_first(axis, found, goal)
    axis.margins(x=0.12, y=0.1)
    axis.set_xlabel(_axis_words(found, goal))
    axis.set_ylabel(_axis_words(found, first))
    axis.set_title(f"{len(front)} trials on the front")
    axis.grid(alpha=0.3)


def _found_first(axis: Axes, found: Fronts, goal: Goal) -> None:
    """The trials of each search's first repeat, where all cells are grey."""
    first = found.goals[0]
    for index, arm in enumerate(found.volumes.index):
        own = found.points[(found.points["arm"] == arm) & (found.points["repeat"] == 0)]
        axis.scatter(
            own[goal],
            own[first],
            s=26,
            marker=MARKERS[index % len(MARKERS)],
            facecolor="none",
            edgecolor=COLOURS[index % len(COLOURS)],
            linewidth=1.0,
            zorder=4,
            label=f"{arm}, its first repeat",
        )
    axis.legend(fontsize=7, loc="lower right")


def _volumes(axis: Axes, found: Fronts) -> None:
    ends: list[tuple[float, float, str, Any]] = []
    for index, arm in enumerate(found.volumes.index):
        own = found.points[found.points["arm"] == arm]
        by = own.pivot_table(index="number", columns="repeat", values="volume").ffill()
        look = line_look(index, COLOURS[index % len(COLOURS)]) | {"markersize": 3}
        mean = by.mean(axis=1)
        axis.plot(mean.index, mean, **look)
        if by.shape[1] > 1:
            low, high = by.quantile(0.25, axis=1), by.quantile(0.75, axis=1)
            axis.fill_between(mean.index, low, high, color=look["color"], alpha=0.15, lw=0)
        ends.append((float(mean.index[-1]), float(mean.iloc[-1]), str(arm), look["color"]))
    if found.random is not None and len(found.random):
        numbers = np.arange(1, len(found.random) + 1)
        axis.plot(numbers, found.random, color="black", lw=1.6)
        ends.append((float(numbers[-1]), float(found.random[-1]), RANDOM, "black"))
    _label_ends(axis, ends)
    axis.set_xlabel("trials trained")
    axis.set_ylabel("hypervolume (%)")
    times = int(found.volumes["repeats"].max())
    spread = f", mean and quartiles of {times} repeats" if times > 1 else ""
    axis.set_title(f"what has been dominated{spread}")
    axis.grid(alpha=0.3)


def _label_ends(axis: Axes, ends: list[tuple[float, float, str, Any]]) -> None:
    """Names at the lines' ends, pushed apart where they would lie on each other."""
    low, high = axis.get_ylim()
    least, below = 0.045 * (high - low), -np.inf
    far = max(x for x, *_ in ends)
    axis.set_xlim(right=1.32 * far)
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        place = max(y, below + least)
        below = place
        axis.annotate(
            name,
            (x, y),
            xytext=(far * (1.03 if x == far else 1.03 * x / far), place),
            textcoords="data",
            fontsize=8,
            color=colour,
            va="center",
        )


def _axis_words(found: Fronts, goal: Goal) -> str:
    words = goal_words(goal)
    if goal in COSTS:
        return f"{words} (fewer is better)"
    unit = scale_of(goal).unit.strip()  # type: ignore[arg-type]
    split = found.study.base.data.chosen_on
    return f"{words} on {split}" + (f" ({unit})" if unit else " (less is better)")
