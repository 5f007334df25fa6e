"""The words under figures: what was held fixed, on what, how often, and what marks mean.

Owns: captions and legends. Must not know: which figure they stand under, how it is drawn.
"""

from __future__ import annotations

from harness.reports.numbers.run import Run
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.sweep import Choice, projected
from harness.reports.text.names import data_words, repeats_words
from harness.spec import TrialRequest, TrialSpec
from harness.study.figures import AnyView, Embedding, Points, View

MARKED = " ×: diverged; hatched: no result."
DISTANCE = (
    "Mean cosine distance of a class's mean test feature to those of all other classes, averaged "
    "over the group's classes."
)


def caption(run: Run, view: AnyView | None = None) -> str:
    """What was held fixed, on what, with how many seeds: under a figure, or of the whole run."""
    what, marks = "Test accuracy. ", MARKED
    if view is not None and not shows_accuracy(view):
        is_distance = isinstance(view, Points) and view.value == "distance"
        what, marks = (f"{DISTANCE} " if is_distance else ""), ""
    return f"{what}Fixed: {run.study.fixed}. {setting(run.study.base, len(run.seeds))}{marks}"


def setting(base: TrialRequest | TrialSpec, seeds: int) -> str:
    """Backbone, data, what choices are made on, recipe and number of seeds in one sentence."""
    return (
        f"{base.backbone.name} on {data_words(base.data)}, chosen on: "
        f"{base.data.chosen_on_in_full}, {base.recipe.in_words}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}."
    )


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
    is_test = run.selected_on_test
    where = "the TEST set (the paper's protocol)" if is_test else run.study.base.data.chosen_on
    mark = {"points": "Red: the value", "bubbles": "Red box: the value"}.get(view.kind)
    mark = mark or "Red box: the cell"
    further = projected(run, view.rows, view.columns) if isinstance(view, View) else []
    over = f" Everywhere the {' and '.join(further)} that is best on {where}." if further else ""
    return f"{mark} chosen on {where}.{over}"


def shows_accuracy(view: AnyView) -> bool:
    """Whether a figure's numbers are test accuracies."""
    is_other = isinstance(view, Points) and view.value != "accuracy"
    return not is_other and not isinstance(view, Embedding)


def searches_caption(compared: Searches) -> str:
    """How searches were compared, on what, and how often: the words under their figures."""
    plan, study = compared.recorded.comparison, compared.recorded.study
    how = "Live" if plan.table is None else "Replayed from a table of every cell"
    count = len(plan.used_seeds)
    seeds = f"{count} training seed{'s' if count > 1 else ''}"
    labels = {axis.field: axis.label for axis in study.axes}
    cell = plan.reference.cell.items()
    one_run = ", ".join(f"{labels.get(field, field)} {value}" for field, value in cell)
    base = setting(study.base, len(plan.seeds)).rsplit(", ", 1)[0]
    spaces = [part.recorded.study.name for part in compared.parts]
    beside = f" Spaces: {', '.join(spaces)}." if len(spaces) > 1 else ""
    interval = (
        "Intervals: over training seeds. "
        if count > 1
        else "One training seed: intervals are of search chance alone, not of training. "
    )
    return (
        f"{how}: {repeats_words(plan)} over {seeds}, "
        f"budget {plan.budget}, "
        f"{plan.workers} worker{'s' if plan.workers > 1 else ''}. "
        f"A full run: {one_run} ({plan.reference.device_s:.1f} device s).{beside} "
        f"{interval}{base}."
    )
