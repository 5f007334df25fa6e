"""Figures of a comparison of searches: what they had found by which cost, and at a common one.

Owns: their drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.metrics import Scale
from harness.reports.figures.frame import head_and_foot
from harness.reports.figures.labels import Named, label_ends
from harness.reports.figures.style import COLOURS, MARKERS, cost_axis, line_look, style
from harness.reports.numbers.incumbents import Curves
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.text.captions import searches_caption
from harness.reports.text.names import SHOWN_WORDS


@style()
def anytime(compared: Searches) -> Figure:
    """Incumbents against cost: test accuracy and, with a table, regret; medians and quartiles."""
    lines = compared.curves.lines
    cells = None if compared.landscape is None else compared.landscape.cells
    split = compared.recorded.study.base.data.chosen_on
    fields = [("test", "test accuracy of the incumbent (%)")]
    if cells is not None:
        fields.append(("regret", f"regret on {split} ({_unit(compared.recorded.scale)})"))
    rows = lines["search"].nunique() + len(compared.learned) * 2 + len(compared.parts)
    size = (7.2 * len(fields), max(4.6, 1.6 + 0.15 * rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    ends = []
    for axis, (field, label) in zip(axes, fields, strict=True):
        ends.append(_anytime_panel(axis, compared, field))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    # Collapsed first choices would flatten everything else; bands may leave the frame.
    lowest, highest = lines["test"].min(), lines["test_high"].max()
    if cells is not None:
        # A few repeats may all have found what chance put above the best cell's mean.
        lowest, highest = min(lowest, cells.best_test), max(highest, cells.best_test)
        axes[0].axhline(cells.best_test, color="0.4", linestyle="--", linewidth=0.8)
        _note(axes[0], 0.02, cells.best_test, "best cell on test, by hindsight", va="bottom")
        _regret_axis(axes[1], lines["regret"], cells.target, compared.recorded.scale)
    room = max(0.5, 0.08 * (highest - lowest))
    axes[0].set_ylim(lowest - room, highest + room)
    title = f"{compared.recorded.study.name}: chosen on {split}, shown on test"
    head_and_foot(figure, title, searches_caption(compared))
    for axis, named in zip(axes, ends, strict=True):
        label_ends(axis, named)
    return figure


def _anytime_panel(axis: Axes, compared: Searches, field: str) -> list[Named]:
    """One quantity of the incumbent against cost: a line per search, and what to expect; the ends
    of all lines with their names."""
    curves, at = compared.curves, compared.choices.at
    end = float(curves.lines["runs"].max())
    ends: list[Named] = []
    for index, (name, own) in enumerate(curves.lines.groupby("search", sort=False)):
        ends += _anytime_line(axis, compared, str(name), own, field, end, index)
    for part, dashes in zip(compared.parts, itertools.cycle(("-", "--", ":")), strict=False):
        if part.expected is not None:
            line = part.expected.curve[part.expected.curve["runs"] <= end]
            axis.plot(line["runs"], line[field], color="black", linewidth=1, linestyle=dashes)
            ends.append(_end_of(line["runs"], line[field], f"{part.random} (closed form)", "black"))
    if field == "test":
        ends += _restart_lines(axis, curves)
    axis.axvline(at, color="0.4", linestyle=(0, (1, 2)), linewidth=1)
    _note(axis, at, 0.02, "budget", rotation=90, va="bottom", ha="right")
    by_flops = compared.recorded.budget.unit == "runs"
    cost_axis(axis, f"cost (full runs{', by FLOPs' if by_flops else ''})")
    return ends


def _end_of(x: pd.Series[float], y: pd.Series[float], name: str, colour: Any) -> Named:
    """The end of a line, with its name; nowhere if the line has no point."""
    if not len(x):
        return Named(math.nan, math.nan, name, colour)
    return Named(float(x.iloc[-1]), float(y.iloc[-1]), name, colour)


def _unit(scale: Scale) -> str:
    """What regrets are counted in."""
    return scale.words if scale.sign < 0 else scale.difference


def _regret_axis(axis: Axes, regret: pd.Series[float], target: float, scale: Scale) -> None:
    """The scale of a panel of regrets, and the regret that counts as having found the best."""
    axis.axhline(target, color="0.4", linestyle="--", linewidth=0.8)
    _note(axis, 0.02, target, f"found: {target:.{scale.digits}f} {_unit(scale)}", va="top")
    step = scale.factor / 100
    axis.set_yscale("symlog", linthresh=step, linscale=0.5)
    ticks = [step * tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200)]
    ticks = ticks if scale.sign < 0 else ticks[:7]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    # Empty space below the target says nothing when no search comes near it.
    bottom = 0.0 if regret.min() <= target else 0.8 * target
    axis.set_ylim(bottom, 1.5 * max(step, target, regret.max()))


def _anytime_line(
    axis: Axes,
    compared: Searches,
    name: str,
    own: pd.DataFrame,
    field: str,
    end: float,
    index: int,
) -> list[Named]:
    colour = COLOURS[index % len(COLOURS)]
    x = np.append(own["runs"].to_numpy(float), end)
    middle, low, high = (
        np.append(own[column].to_numpy(float), own[column].iloc[-1])
        for column in (field, f"{field}_low", f"{field}_high")
    )
    look = line_look(index, colour) | {"marker": "", "linewidth": 1.6}
    is_one = name in compared.learned
    comparison = compared.recorded.comparison
    words = f"{name} (one trial)" if is_one else name
    ends = [Named(end, float(middle[-1]), words, colour)]
    axis.step(x, middle, where="post", **look)
    axis.fill_between(x, low, high, step="post", color=colour, alpha=0.1, linewidth=0)
    axis.plot(x[0], middle[0], MARKERS[index % len(MARKERS)], color=colour, markersize=5)
    if is_one and comparison.tuning and compared.recorded.budget.unit != "runs":
        # what it was tuned for is known in seconds alone, and cannot stand on an axis of FLOPs
        tuned = x[0] + comparison.tuning_s / comparison.reference.device_s
        axis.plot(tuned, middle[0], marker="s", linestyle="none", mfc="none", color=colour)
        ends.append(Named(tuned, float(middle[0]), f"{name}, with its tuning", colour))
    return ends


def _restart_lines(axis: Axes, curves: Curves) -> list[Named]:
    """Of each search that ends after one trial: what starting it again is expected to bring."""
    order, ends = list(curves.lines["search"].unique()), []
    for name, own in curves.restarts.groupby("search", sort=False):
        colour = COLOURS[order.index(name) % len(COLOURS)]
        axis.plot(own["runs"], own["test"], marker=".", linestyle=":", color=colour)
        words = f"{name}, best of n starts (expected)"
        ends.append(_end_of(own["runs"], own["test"], words, colour))
    return ends


def _note(axis: Axes, x: float, y: float, words: str, **place: Any) -> None:
    """Small words at a line: along the axis it crosses in its units, else as a share."""
    across = place.get("rotation") is not None
    transform = axis.get_xaxis_transform() if across else axis.get_yaxis_transform()
    axis.text(x, y, words, transform=transform, fontsize=7, color="0.3", **place)


@style()
def finals(compared: Searches) -> Figure:
    """Test accuracy of every search's choice within the budget: all classes and by group."""
    choices, study = compared.choices, compared.recorded.study
    names = ["test", *compared.recorded.groups]
    arms = list(dict.fromkeys(choices.seeds["search"]))
    figure = Figure(figsize=(13, 0.42 * len(arms) + 1.9), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, width_ratios=[1.5] + [1] * (len(names) - 1))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        _final_panel(axis, compared, name, arms)
        if name == "test":
            axis.set_title(f"all classes ({SHOWN_WORDS})")
        else:
            error = choices.table[f"binomial_{name}"].mean()
            axis.set_title(f"{name} classes\nbinomial s.e. of one trial {error:.1f}", fontsize=9)
        axis.set_xlabel("test accuracy (%)")
        axis.grid(alpha=0.3, axis="x")
    axis = np.atleast_1d(axes)[0]
    runs = choices.table["runs"]
    axis.set_yticks(
        range(len(arms)), [f"{s}  [{runs[s]:.1f} runs]" if s in runs else s for s in arms]
    )
    axis.set_ylim(len(arms) - 0.5, -0.5)
    title = f"{study.name}: choices within {compared.recorded.comparison.budget}"
    head_and_foot(figure, title, searches_caption(compared))
    return figure


def _final_panel(axis: Axes, compared: Searches, name: str, arms: list[str]) -> None:
    """One score of every arm: its mean with the interval over seeds, and a dot for every seed; with
    one seed, a dot for every repeat, and the interval of search chance alone."""
    choices, searches = compared.choices, list(compared.choices.table.index)
    has_seeds = choices.seeds["seed"].nunique() > 1
    for y, arm in enumerate(arms):
        is_search = arm in searches
        colour = COLOURS[searches.index(arm) % len(COLOURS)] if is_search else "black"
        own = choices.seeds[choices.seeds["search"] == arm]
        mean, half = mean_and_half_width(own[name])
        dots = own[name]
        if not has_seeds and is_search:
            dots = choices.final[choices.final["search"] == arm][name]
            half = choices.table["test_chance_ci"][arm] if name == "test" else float("nan")
        axis.plot(dots, [y + 0.2] * len(dots), "o", color=colour, alpha=0.35, markersize=3)
        error = None if math.isnan(half) else half
        axis.errorbar(mean, y, xerr=error, fmt="D", color=colour, ms=5, capsize=3)
        if arm == choices.reference:
            axis.axvline(mean, color="0.4", linestyle=":", linewidth=1)
