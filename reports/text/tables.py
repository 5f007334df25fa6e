"""The tables of a sweep's report and their captions.

Owns: which numbers stand in which column. Must not know: sentences, how a number was computed.
"""

from __future__ import annotations

import pandas as pd

from harness.metrics import OVERALL
from harness.reports.numbers.embedding import load_embedded
from harness.reports.numbers.gamma import load_learned
from harness.reports.numbers.paper import paper_tables
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import (
    COST_UNITS,
    Choice,
    at_preferred,
    bubbles_of,
    by_value,
    grid,
    minus_chosen,
    projected,
)
from harness.reports.text.captions import DISTANCE
from harness.reports.text.gamma import learned_words
from harness.reports.text.model import (
    Table,
    stem,
)
from harness.reports.text.names import SHOWN_WORDS, corner_words, split_words
from harness.reports.text.numbers import with_interval
from harness.reports.text.paper import papers_tables
from harness.study.figures import Bubbles, Embedding, Points, View


def _caption(run: Run, what: str) -> str:
    seeds = len(run.seeds)
    over = f", mean ± 95 % interval over {seeds} seeds" if seeds > 1 else ""
    return f"{what}{over}; choices are made on {split_words(run)}; × diverged, - no result"


def _accuracy_caption(run: Run, at: str = "") -> str:
    return _caption(run, f"Test accuracy (%), {SHOWN_WORDS}{at}")


def grid_tables(run: Run, summary: pd.DataFrame, choice: Choice | None, view: View) -> list[Table]:
    mean = grid(run, summary, view.rows, view.columns, run.test)
    half = grid(run, summary, view.rows, view.columns, f"{run.test}_ci")
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    cells = pd.DataFrame(
        {
            column: [
                with_interval(mean.loc[row, column], half.loc[row, column])
                + (" ×" if diverged.loc[row, column] > 0 else "")
                for row in mean.index
            ]
            for column in mean.columns
        },
        index=mean.index,
    )
    cells["mean"] = [with_interval(value) for value in mean.mean(axis=1)]
    cells.loc["mean"] = [*(with_interval(value) for value in mean.mean()), ""]
    params = grid(run, summary, view.rows, view.columns, "trainable_params")
    further = projected(run, view.rows, view.columns)
    at = f", at the {' and '.join(further)} that is best on {split_words(run)}" if further else ""
    counted = params.map(lambda value: "-" if pd.isna(value) else f"{int(value)}")
    return [
        Table(
            stem=stem(view),
            caption=_accuracy_caption(run, at),
            corner=corner_words(run, view),
            words=cells,
            has_means=True,
            chosen=None if choice is None else (choice.cell[view.rows], choice.cell[view.columns]),
        ),
        Table(
            stem=f"{stem(view)}_parameters",
            caption="Trainable parameters beside the head",
            corner=corner_words(run, view),
            words=counted,
        ),
    ]


def bubble_tables(run: Run, view: Bubbles) -> list[Table]:
    table, overall = bubbles_of(run, view.rows).drop(columns="DIVERGED"), SHOWN_WORDS
    table.columns = pd.Index([overall, "tail", f"SD of the {overall} over seeds"])
    corner = run.axis(view.rows).label
    return [
        Table(
            stem=stem(view),
            caption="Test accuracy (%), mean over seeds, as drawn; - no result",
            corner=corner,
            words=table.map(with_interval),
        ),
        *papers_tables(stem(view), paper_tables(run, view.rows, "class_mean", "tail"), corner),
    ]


def silhouette_table(run: Run, view: Embedding) -> Table:
    found = load_embedded(run, view.rows).silhouettes
    return Table(
        stem=stem(view),
        caption=_caption(run, "Silhouette of test images by cosine distance of features (-1 to 1)"),
        corner=run.axis(view.rows).label,
        words=pd.DataFrame(
            {
                group: [
                    with_interval(row[group], row[f"{group}_ci"], digits=2)
                    for _, row in found.iterrows()
                ]
                for group in ("all", *run.groups)
            },
            index=found.index,
        ).assign(**{"seeds with features": found["seeds"].map("{:.0f}".format)}),
    )


def _cost_table(run: Run, rows: pd.DataFrame, view: Points) -> Table:
    return Table(
        stem=stem(view),
        caption=_caption(run, "Costs of a trial; inference with nothing merged"),
        corner=run.axis(view.rows).label,
        words=pd.DataFrame(
            {
                unit.words: [
                    with_interval(row[name], row[f"{name}_ci"], digits=2)
                    for _, row in rows.iterrows()
                ]
                for name, unit in COST_UNITS.items()
            },
            index=rows.index,
        ),
    )


def point_tables(
    run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points
) -> list[Table]:
    """As `grid_tables`, with the groups and averages as columns."""
    is_accuracy = view.value == "accuracy"
    rows = by_value(run, summary, view)
    if view.value == "cost":
        return [_cost_table(run, rows, view)]
    part, digits = ("test", 1) if is_accuracy else ("distance", 2)
    cells = pd.DataFrame(
        {
            name.replace("_", " "): [
                with_interval(row[f"{part}_{name}"], row[f"{part}_{name}_ci"], digits)
                for _, row in rows.iterrows()
            ]
            for name in (*run.groups, *(OVERALL if is_accuracy else ()))
        },
        index=rows.index,
    )
    if is_accuracy and choice is not None:
        differences = minus_chosen(run, view.rows, choice)
        name = f"{SHOWN_WORDS} minus chosen's, paired"
        cells[name] = [
            "chosen" if value == choice.cell[view.rows] else with_interval(*differences[value])
            for value in rows.index
        ]
    cells["diverged"] = [f"{count:.0f}" for count in rows["DIVERGED"]]
    by = at_preferred(run).groupby(view.rows, sort=False)
    seen = by.agg({"trainable_params": "max", "device_s": "mean"}).reindex(rows.index)
    costs = pd.DataFrame(
        {
            "trainable parameters": [with_interval(n, digits=0) for n in seen["trainable_params"]],
            "device s per trial": [with_interval(seconds) for seconds in seen["device_s"]],
        },
        index=rows.index,
    )
    corner = run.axis(view.rows).label
    distances = _caption(run, DISTANCE.rstrip("."))
    found = [
        Table(
            stem=stem(view),
            caption=_accuracy_caption(run) if is_accuracy else distances,
            corner=corner,
            words=cells,
        ),
        Table(
            stem=f"{stem(view)}_parameters",
            caption="Trainable parameters beside the head, and time",
            corner=corner,
            words=costs,
        ),
    ]
    learned = _learned_by_value(run, view)
    if learned is not None:
        caption = (
            "Learned strengths, mean over seeds; agreement is the mean Spearman correlation over "
            "sites between pairs of seeds, without which differences between sites are chance"
        )
        found.append(
            Table(stem=f"{stem(view)}_learned", caption=caption, corner=corner, words=learned)
        )
    return found + papers_tables(stem(view), paper_tables(run, view.rows, "head"), corner, digits)


def _learned_by_value(run: Run, view: Points) -> pd.DataFrame | None:
    """What the trials of each value learned, where all of them learned strengths."""
    rows, shown = {}, at_preferred(run)
    for value in run.order(view.rows):
        own = shown[(shown[view.rows] == value) & (shown["status"] == "COMPLETE")]
        learned = load_learned([run.store / "trials" / trial_id for trial_id in own["trial_id"]])
        if learned is None:
            return None
        words = learned_words(learned)
        rows[value] = {
            "mean": words["mean"],
            "lowest to highest site": f"{words['lowest']} to {words['highest']}",
            "evenness": words["evenness"],
            "sites below 0.1 (%)": words["share_off"],
            "agreement of seeds": words["agreement"],
        }
    return pd.DataFrame(rows).T
