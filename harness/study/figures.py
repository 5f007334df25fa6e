"""The figures that a study asks for.

Owns: these types. Must not know: how they are drawn.
"""

from __future__ import annotations

from typing import Literal

from harness.spec import Frozen


class View(Frozen):
    """One figure: a heatmap (rows x columns) or curves (one line per row value over columns)."""

    kind: Literal["heatmap", "curves"]
    rows: str
    columns: str
    title: str


class Points(Frozen):
    """One figure of a single axis: a line of points and intervals for each of its values.

    `distance` is that between classes in the test features (Table 5), by group; `cost` is what
    training and inference take.
    """

    kind: Literal["points"] = "points"
    rows: str
    title: str
    value: Literal["accuracy", "distance", "cost"] = "accuracy"


class Bubbles(Frozen):
    """One figure of a single axis: tail against overall accuracy, as wide as the seeds' spread."""

    kind: Literal["bubbles"] = "bubbles"
    rows: str
    title: str


class Embedding(Frozen):
    """One figure: the test images in the plane by t-SNE, a panel for each value of an axis."""

    kind: Literal["embedding"] = "embedding"
    rows: str
    title: str


AnyView = View | Points | Bubbles | Embedding
