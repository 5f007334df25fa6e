"""What the report of a sweep says, once for Markdown, HTML and LaTeX.

Owns: its sentences. Must not know: any of those three formats, how a number was computed.
"""

from __future__ import annotations

import pandas as pd

from harness.metrics import OVERALL
from harness.reports.numbers.replicates import repeated
from harness.reports.numbers.run import STATUSES, Run
from harness.reports.numbers.sweep import (
    Choice,
    proposals,
)
from harness.reports.text.captions import MARKED, caption, legend, shows_accuracy
from harness.reports.text.model import (
    Answer,
    Section,
    SweepContent,
    Table,
    stem,
)
from harness.reports.text.names import SHOWN_WORDS, cell_words, split_words
from harness.reports.text.numbers import chosen_by, signed, with_interval
from harness.reports.text.pairs import pairs_words
from harness.reports.text.paper import paper_grid_table
from harness.reports.text.tables import (
    bubble_tables,
    grid_tables,
    point_tables,
    silhouette_table,
)
from harness.store.search_log import tells
from harness.study.figures import AnyView, Bubbles, Embedding, View

MOST_CELLS = 5
"""Cells that are named among those that seeds have chosen."""


def sweep_content(
    run: Run, summary: pd.DataFrame, choice: Choice | None, pairs: pd.DataFrame | None = None
) -> SweepContent:
    """Words for a sweep, from its cells' summary, its choice and its pairs of cells."""
    warning = "SELECTED ON TEST (the paper's protocol): every choice below has seen the test set."
    return SweepContent(
        title=run.study.name,
        question=f"{run.study.question} (paper: {run.study.paper})",
        warning=warning if run.selected_on_test else None,
        caption=caption(run),
        counts=_counts(run),
        searches=_searches(run),
        answer=None if choice is None else _answer(run, summary, choice, pairs),
        sections=[_section(run, summary, choice, view) for view in run.figures],
        costs=_costs(run),
        environment=run.environment,
    )


def _counts(run: Run) -> str:
    counts = {status: int((run.trials["status"] == status).sum()) for status in STATUSES}
    stopped = f" {counts['PRUNED']} stopped early," if counts["PRUNED"] else ""
    return (
        f"Trials: {counts['COMPLETE']} complete, {counts['DIVERGED']} diverged,{stopped} "
        f"{counts['FAILED']} failed, {counts['MISSING']} missing."
    )


def _searches(run: Run) -> str | None:
    count, repeated = proposals(run)
    if not count:
        return None
    return (
        f"Searches: {len(run.searches)}; {count} proposals, {repeated} of them repeats. Their "
        "answers in order, with costs: `search.csv`."
    )


def _answer(run: Run, summary: pd.DataFrame, choice: Choice, pairs: pd.DataFrame | None) -> Answer:
    row = choice.row
    split = split_words(run)
    select = chosen_by(run.scale, row[run.select], row[f"{run.select}_ci"])
    scores = summary[run.test].dropna()
    gap = choice.oracle_score - row[run.test]
    binomial = ", ".join(
        f"{group} {run.trials[f'binomial_{group}'].mean():.1f}" for group in run.groups
    )
    several = [
        f"Cells range from {scores.min():.1f} to {scores.max():.1f} % on test.",
        f"The best cell on test, which only hindsight knows, is {cell_words(run, choice.oracle)} "
        f"with {choice.oracle_score:.1f} %: choosing on {split} cost {gap:.1f} points.",
    ]
    notes = [
        *_repeated(run, choice),
        *(several if len(summary) > 1 else ()),
        "Binomial standard error of one trial's group accuracy, from the number of test images "
        f"alone: {binomial} points.",
        *([] if pairs is None else [pairs_words(pairs)]),
    ]
    if len(run.seeds) < 2 and len(summary) > 1:
        more = "" if run.searches else " Run more with `--seeds N`."  # one search takes no more
        notes.append(f"One seed: differences between cells have no interval.{more}")
    notes += [
        f"The chosen {run.label(field)} lies at the end of its range: better values may lie beyond."
        for field in choice.at_edge
    ]
    return Answer(
        rule=f"Chosen by the best {run.scale.words} on {split} ({select}{run.scale.unit})",
        cell=cell_words(run, choice.cell),
        scores=Table(
            stem="chosen",
            caption=f"The cell chosen on {split}: {cell_words(run, choice.cell)}",
            corner="test accuracy (%)",
            words=pd.DataFrame(
                {
                    name.replace("_", " "): [
                        with_interval(row[f"test_{name}"], row[f"test_{name}_ci"])
                    ]
                    for name in (*OVERALL, *run.groups)
                },
                index=["chosen cell"],
            ),
        ),
        notes=notes,
    )


def _repeated(run: Run, choice: Choice) -> list[str]:
    """What choosing anew in each seed brings, beside the choice over all of them."""
    again = repeated(run)
    if again is None:
        return []
    count = len(again.choices)
    more = again.mean - choice.row[run.test]
    shown = [
        f"{cell_words(run, run.cells[number])} ({times} of {count})"
        for number, times in again.counts[:MOST_CELLS]
    ]
    others = len(again.counts) - len(shown)
    lacking = int((again.choices["tried"] < len(run.cells)).sum())
    words = (
        f"The choice repeated in each seed, by its own {run.scale.words} on {split_words(run)}: "
        f"{with_interval(again.mean, again.half_width)} % test {SHOWN_WORDS} over {count} seeds, "
        f"{signed(more)} points to the chosen cell. The chosen cell answers which "
        "one to use; this is what choosing on one seed brings, and its interval has the chance of "
        "the choice in it, which that of the chosen cell, taken as given, has not. Chosen: "
        f"{'; '.join(shown)}{f'; {others} other cells' if others else ''}. By seed: "
        "`choices_by_seed.csv`."
    )
    return [f"{words} {lacking} seeds lack scores of some cells." if lacking else words]


def _section(run: Run, summary: pd.DataFrame, choice: Choice | None, view: AnyView) -> Section:
    over, what = run.axis(view.rows).label, "test accuracy"
    if isinstance(view, View):
        tables = grid_tables(run, summary, choice, view)
        paper = paper_grid_table(run, view)
        tables += [] if paper is None else [paper]
        over = f"{over} and {run.axis(view.columns).label}"
    elif isinstance(view, Bubbles):
        tables = bubble_tables(run, view)
        what = "tail against overall test accuracy"
    elif isinstance(view, Embedding):
        tables = [silhouette_table(run, view)]
        what = "test images in the plane"
    else:
        tables = point_tables(run, summary, choice, view)
        what = {"accuracy": what, "distance": "distances between classes", "cost": "costs"}[
            view.value
        ]
    scores = summary[run.test].dropna()
    is_accuracy = what == "test accuracy"
    span = ""
    if is_accuracy and len(scores):
        span = f", from {scores.min():.1f} to {scores.max():.1f} %"
    marks = MARKED if shows_accuracy(view) else ""
    has_paper = any(table.is_paper for table in tables)
    beside = ", the paper's numbers in panels of their own" if has_paper else ""
    groups = f", all classes and {', '.join(run.groups)}" if is_accuracy and run.groups else ""
    return Section(
        view=view,
        figure=stem(view),
        alt=f"{view.kind.capitalize()} of {what} by {over}{groups}{span}{beside}. Its numbers are "
        "in the tables below.",
        caption=f"{legend(run, choice, view)}{marks}",
        tables=tables,
    )


def _costs(run: Run) -> Table:
    most = run.trials["peak_memory_mb"].max()
    peak = {} if pd.isna(most) else {"peak memory of a trial (MB)": f"{most:.0f}"}
    if run.searches:  # a trial may go on with another's training, so trials' costs do not add up
        answers = [event for log in run.searches.values() for event in tells(log)]
        seconds = sum(event.device_s for event in answers)
        flops = sum(event.flops for event in answers)
        totals = {
            "device seconds, as charged to the searches": f"{seconds:.0f}",
            "TFLOP, likewise": f"{flops / 1e12:.1f}",
        }
    else:
        totals = {
            "device seconds": f"{run.trials['device_s'].sum():.0f}",
            "images forward": f"{run.trials['images_forward'].sum():.0f}",
            "images backward": f"{run.trials['images_backward'].sum():.0f}",
            "TFLOP": f"{run.trials['flops'].sum() / 1e12:.1f}",
        }
        tests = run.trials["test_flops"]
        if tests.notna().any():
            without = run.trials["flops"].sum() - tests.sum()
            totals["TFLOP without the tests"] = f"{without / 1e12:.1f}"
    words = pd.DataFrame({"total": {**totals, **peak}})
    return Table(stem="costs", caption="Cost of all trials", corner="", words=words)
