"""What surrounds the panels of a sweep's figure: title, caption, and names of averages.

Owns: these words' place. Must not know: what the panels show.
"""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice
from harness.reports.text.captions import caption, legend
from harness.study.figures import AnyView

LETTERS_PER_INCH = 12
"""Of a figure's width, in its foot."""
SHOWN_IN_FULL = "mean over classes"
"""What the average that is shown (`metrics.SHOWN`) is taken over."""
OURS = f"ours, all classes ({SHOWN_IN_FULL})"
"""The title of the panel of that average."""


def finish(figure: Figure, run: Run, view: AnyView, choice: Choice | None) -> None:
    """Put the title above a view's figure and its caption and legend below."""
    if run.selected_on_test:
        view = view.model_copy(update={"title": f"{view.title} (SELECTED ON TEST)"})
    head_and_foot(figure, view.title, f"{caption(run, view)} {legend(run, choice, view)}")


def head_and_foot(figure: Figure, title: str, words: str) -> None:
    """Put a title above a figure, and below it on what and how often it was measured: whoever has
    nothing but the picture needs that."""
    figure.suptitle(title, fontsize=12, fontweight="bold")
    width = round(LETTERS_PER_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(words, width), fontsize=8, color="0.25")
