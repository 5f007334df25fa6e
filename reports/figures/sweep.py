"""The figure of each view that a study asks for.

Owns: which function draws which view. Must not know: how a figure looks.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.reports.figures.grids import curves, heatmap
from harness.reports.figures.points import points
from harness.reports.figures.scatter import bubbles, embedding
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice
from harness.study.figures import AnyView, Bubbles, Embedding, Points


def draw(run: Run, summary: pd.DataFrame, choice: Choice | None, view: AnyView) -> Figure:
    """The figure of one of the study's views."""
    if isinstance(view, Points):
        return points(run, summary, choice, view)
    if isinstance(view, Bubbles):
        return bubbles(run, choice, view)
    if isinstance(view, Embedding):
        return embedding(run, choice, view)
    return {"heatmap": heatmap, "curves": curves}[view.kind](run, summary, choice, view)
