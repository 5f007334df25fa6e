"""The figure of a run with several objectives: its front, and what was dominated by which trial.

Owns: its drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.metrics import COSTS, Goal, scale_of
from harness.reports.figures.frame import head_and_foot
from harness.reports.figures.labels import Named, label_ends
from harness.reports.figures.style import COLOURS, line_look, style
from harness.reports.numbers.fronts import Fronts
from harness.reports.text.fronts import fronts_caption

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
    title = f"{found.study.name}: {' against '.join(scale_of(goal).words for goal in found.goals)}"
    title += " (SELECTED ON TEST)" if is_on_test else ""
    head_and_foot(figure, title, fronts_caption(found))
    return figure


def _front(axis: Axes, found: Fronts, goal: Goal) -> None:
    first, is_table = found.goals[0], found.space is not None
    known = found.space if found.space is not None else found.points
    known = known.drop_duplicates("trial_id")
    axis.scatter(known[goal], known[first], s=9, lw=0, color="0.78", zorder=1)
    if is_table:
        for index, arm in enumerate(found.volumes.index):
            look = line_look(index, COLOURS[index % len(COLOURS)])
            _steps(axis, found, goal, found.fronts[str(arm)], look)
    look = {"color": "black", "lw": 1.6, "marker": "o", "markersize": 6}
    _steps(axis, found, goal, found.front, look)
    axis.margins(x=0.06, y=0.08)
    axis.set_xlabel(_axis_words(found, goal))
    axis.set_ylabel(_axis_words(found, first))
    what = "cells of the table" if is_table else "trials"
    names = {f"all {len(known)} {what}": "0.45", "their front": "black"}
    names |= {
        f"front of {arm}, its first repeat": COLOURS[index % len(COLOURS)]
        for index, arm in enumerate(found.volumes.index if is_table else ())
    }
    for line, (name, colour) in enumerate(names.items()):
        axis.text(
            0.98, 0.03 + 0.045 * (len(names) - 1 - line), name, color=colour, fontsize=8,
            ha="right", transform=axis.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
        )  # fmt: skip
    axis.set_title(f"on the front: {len(found.front)} of {len(known)} {what}")
    axis.grid(alpha=0.3)


def _steps(axis: Axes, found: Fronts, goal: Goal, front: pd.DataFrame, look: Any) -> None:
    """A front's points; of two objectives with what lies between them: the better of its ends."""
    line = front.sort_values(goal)
    is_line = len(found.goals) == 2
    where = "steps-post" if scale_of(goal).sign < 0 else "steps-pre"
    drawn = {"drawstyle": where} if is_line else {"linestyle": "none"}
    axis.plot(line[goal], line[found.goals[0]], **(look | drawn), zorder=3)


def _volumes(axis: Axes, found: Fronts) -> None:
    ends: list[Named] = []
    for index, arm in enumerate(found.volumes.index):
        own = found.points[found.points["arm"] == arm]
        by = own.pivot_table(index="number", columns="repeat", values="volume").ffill()
        look = line_look(index, COLOURS[index % len(COLOURS)])
        mean = by.mean(axis=1)
        axis.plot(mean.index, mean, **look, markevery=max(1, len(mean) // 8))
        if by.shape[1] > 1:
            low, high = by.quantile(0.25, axis=1), by.quantile(0.75, axis=1)
            axis.fill_between(mean.index, low, high, color=look["color"], alpha=0.1, lw=0)
        ends.append(Named(float(mean.index[-1]), float(mean.iloc[-1]), str(arm), look["color"]))
    if found.random is not None and len(found.random):
        numbers = np.arange(1, len(found.random) + 1)
        axis.plot(numbers, found.random, color="black", lw=1.6)
        ends.append(Named(float(numbers[-1]), float(found.random[-1]), RANDOM, "black"))
    label_ends(axis, ends)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("trials trained")
    axis.set_ylabel("hypervolume (%)")
    times = int(found.volumes["repeats"].max())
    spread = f": mean and quartiles of {times} repeats" if times > 1 else ""
    axis.set_title(f"hypervolume{spread}")
    axis.grid(alpha=0.3)


def _axis_words(found: Fronts, goal: Goal) -> str:
    scale = scale_of(goal)
    if goal in COSTS:
        return f"{scale.words} (fewer is better)"
    unit = scale.unit.strip()
    split = found.study.base.data.chosen_on
    return f"{scale.words} on {split}" + (f" ({unit})" if unit else " (less is better)")
