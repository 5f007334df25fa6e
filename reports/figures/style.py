"""What all figures have in common: type, colours, marks, annotated maps, axes of costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from harness.reports.numbers.positions import PLACES

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "svg.hashsalt": "harness",  # the same SVG for the same numbers
    "svg.fonttype": "none",
}
DPI = 200
"""Pixels per inch of a figure's PNG."""

MAP = "cividis"
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#56b4e9", "#333333", "#d55e00", "#949494")
"""Told apart by the colour-blind as well; dashes and markers tell them apart without colour."""
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))


@contextmanager
def style() -> Iterator[None]:
    """For what draws or saves a figure, so that a notebook's own style stays as it is."""
    with matplotlib.rc_context(STYLE):
        yield


def line_look(index: int, colour: Any) -> dict[str, Any]:
    """Of a line, told apart from others by dash and marker as well."""
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.4}


def looks(values: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Value -> `line_look`. A position has the same in every figure; other values have in turn the
    ones that no position among them has."""
    found = list(values)
    own = {value: PLACES[value] for value in found if isinstance(value, str) and value in PLACES}
    free = (number for number in itertools.count() if number not in own.values())
    numbers = {value: own[value] if value in own else next(free) for value in found}
    return {value: line_look(n, COLOURS[n % len(COLOURS)]) for value, n in numbers.items()}


def heat_cells(
    axis: Axes,
    table: pd.DataFrame,
    *,
    size: float,
    fmt: str = ".1f",
    unit: str = "accuracy (%)",
) -> None:
    """A map with its numbers, on a colour scale of its own; hatched where nothing is known."""
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


def _tick(value: Any) -> str:
    return str(value).removeprefix("last:") if isinstance(value, str) else f"{value:g}"


def cost_axis(axis: Axes, label: str, *, is_narrow: bool = False) -> None:
    """A logarithmic axis of costs, with numbers at 2 and 5 too; where it is narrow, everywhere."""

    def minor(value: float, _: float) -> str:
        leads = round(value / 10 ** math.floor(math.log10(value))) in (2, 5)
        return f"{value:g}" if is_narrow or leads else ""

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(minor)
    axis.tick_params(axis="x", which="minor", labelsize=7)
    axis.set_xlabel(label)
