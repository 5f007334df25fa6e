"""Names beside what they name instead of a legend: at the ends of lines, and next to points.

Owns: where names stand, so that none lies on another. Must not know: what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

POINTS_PER_INCH = 72
LEADING = 1.35
"""Height of a row of names, in heights of its letters."""
DISTANCES = (7.0, 13.0, 21.0, 31.0, 43.0)
"""How far a name may stand from its point, in typographic points; the nearest free one is taken."""
Side = Literal["left", "center", "right"]
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


class Named(NamedTuple):
    """A place in an axes, in its data's units, and the name of what is there."""

    x: float
    y: float
    name: str
    colour: Any


def label_ends(axis: Axes, ends: Sequence[Named], *, size: float = 8.0) -> None:
    """Put names right of an axes, as level with the ends of their lines as they have room.

    To be called when limits and scales are set. What has no finite end gets no name.
    """
    known = [end for end in ends if math.isfinite(end.x) and math.isfinite(end.y)]
    if not known:
        return
    places = axis.transAxes.inverted().transform(
        axis.transData.transform([(end.x, end.y) for end in known])
    )
    height = axis.get_window_extent().height / axis.figure.dpi * POINTS_PER_INCH
    order = np.argsort(places[:, 1], kind="stable")
    for index, level in zip(order, _apart(places[order, 1], LEADING * size / height), strict=True):
        x, y = places[index]
        axis.annotate(
            known[index].name,
            xy=(x, min(max(y, 0.0), 1.0)),
            xytext=(1.03, level),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            color=known[index].colour,
            annotation_clip=False,
            # From a name's left edge: from its middle, the line would cross other names.
            arrowprops=_leader(known[index].colour) | {"relpos": (0.0, 0.5)},
        )


def _apart(levels: np.ndarray[Any, Any], room: float) -> np.ndarray[Any, Any]:
    """Ascending levels moved as little as possible until each is `room` above the one before it,
    and within 0 and 1 as far as all have room there."""
    steps = room * np.arange(len(levels))
    moved = isotonic_regression(np.clip(levels, 0, 1) - steps).x + steps
    within: np.ndarray[Any, Any] = np.minimum(np.maximum(moved, steps), 1 - steps[::-1])
    return within


def label_points(
    axis: Axes, points: Sequence[Named], *, line: Sequence[tuple[float, float]] = ()
) -> None:
    """Put every point's name next to it: the nearest place where it lies on no name, no point and
    no part of the `line` through these corners, in the data's units.

    To be called last, because where there is room depends on all else that the figure has. A name
    that finds no free place takes the one where it covers least.
    """
    known = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    figure: Any = axis.figure.figure
    figure.draw_without_rendering()
    unit = figure.dpi / POINTS_PER_INCH
    if not known:
        return
    marks = axis.transData.transform([(p.x, p.y) for p in known])
    taken = [Bbox.from_bounds(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit) for x, y in marks]
    taken += _along(axis, line, unit)
    inside = axis.get_window_extent()
    for point, mark in zip(known, marks, strict=True):
        name = axis.annotate(
            point.name,
            xy=(point.x, point.y),
            xytext=(0, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.0,
            color=point.colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            arrowprops=_leader(point.colour),
        )
        name.set_in_layout(False)
        width, height = Text.get_window_extent(name).size / unit
        tried: list[tuple[float, int, tuple[float, float], Side, Bbox]] = []
        for (x, y), side in _places(height):
            left = x - {"left": 0.0, "center": width / 2, "right": width}[side]
            low = mark + unit * np.array([left, y - height / 2])
            box = Bbox.from_bounds(low[0], low[1], unit * width, unit * height)
            tried.append((_covered(box, taken, inside), len(tried), (x, y), side, box))
            if tried[-1][0] == 0:
                break
        _, _, offset, side, box = min(tried)
        name.set_position(offset)
        name.set_horizontalalignment(side)
        taken.append(box)


def _along(axis: Axes, line: Sequence[tuple[float, float]], unit: float) -> list[Bbox]:
    """Small boxes along a line through these corners, in pixels; `unit` is a typographic point."""
    corners: Any = axis.transData.transform(line) if line else []
    boxes = []
    for start, end in pairwise(corners):
        steps = max(1, round(float(np.hypot(*(end - start))) / (3 * unit)))
        for share in np.linspace(0, 1, steps + 1):
            x, y = start + share * (end - start)
            boxes.append(Bbox.from_bounds(x - 1.5 * unit, y - 1.5 * unit, 3 * unit, 3 * unit))
    return boxes


def _places(height: float) -> Iterator[tuple[tuple[float, float], Side]]:
    """Where a name's middle row may stand, in typographic points from its point, and which side of
    it stands there; the nearest first."""
    for distance in DISTANCES:
        for x, y in DIRECTIONS:
            side: Side = "left" if x > 0 else "right" if x < 0 else "center"
            away = distance if x == 0 or y == 0 else 0.75 * distance
            yield (x * away, y * (away if x else away + height / 2)), side


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Area in pixels of a box that lies on others, or outside of the axes."""
    crossings = (Bbox.intersection(box, other) for other in taken)
    within = Bbox.intersection(box, inside)
    outside = box.width * box.height - (0.0 if within is None else within.width * within.height)
    hidden = sum(each.width * each.height for each in crossings if each is not None)
    return hidden + (outside if outside > 1e-6 else 0.0)


def _leader(colour: Any) -> dict[str, Any]:
    """A thin line from a name to what it names."""
    line = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "color": colour}
    return line | {"shrinkA": 1, "shrinkB": 1}
