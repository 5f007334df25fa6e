"""What the page of two sweeps beside each other says.

Owns: its sentences and tables. Must not know: how a number was computed, how it is laid out.
"""

from __future__ import annotations

import math

import pandas as pd

from harness.console import duration
from harness.reports.brief import Brief
from harness.reports.numbers.beside import NAMES, Beside
from harness.reports.text.captions import setting
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import Table
from harness.reports.text.names import SHOWN_WORDS, cell_words
from harness.reports.text.numbers import signed, with_interval


def beside_brief(found: Beside) -> Brief:
    """The few lines above the page."""
    one, other = found.names
    common = found.cells[found.cells["paired"] > 0]
    cells = "cell" if len(common) == 1 else "cells"
    words = f"{len(common)} {cells} have scores of the same seeds in both"
    if len(common):
        best = common["difference"].to_numpy()
        words += (
            f"; {other} minus {one} is {signed(best.min())} to {signed(best.max())} points, "
            f"{signed(best.mean())} on average"
        )
    costs = [_cost_words(found, name) for name in NAMES]
    return Brief(
        title="Difference",
        choice=words,
        cost=f"{costs[0]} of {one}; {costs[1]} of {other}",
        caveat=_caveat(found),
    )


def _cost_words(found: Beside, name: str) -> str:
    row = found.costs.astype(float).to_dict("index")[name]
    trials, seconds = round(row["trials"]), row["device_s"]
    return f"{trials} trial{'' if trials == 1 else 's'}, {duration(seconds)} of device time"


def _caveat(found: Beside) -> str | None:
    """What stands between the two scores of a cell and a comparison of them."""
    clauses = []
    data = [run.study.base.data for run in found.runs]
    if data[0] != data[1]:
        clauses.append("the data differ, so that equal seeds are other images")
    if not (found.cells["paired"] > 1).any():
        clauses.append("no cell has two seeds in both, so no difference has an interval")
    else:
        clauses.append("intervals are of each cell alone, not corrected for their number")
    return "; ".join(clauses)


def beside_document(found: Beside) -> Document:
    """The whole page."""
    one, other = found.names
    first, second = (setting(run.study.base, len(run.seeds)) for run in found.runs)
    return Document(
        title=f"{one} and {other}",
        question="What differs between two runs, cell by cell?",
        warning=_warning(found),
        caption=f"{one}: {first} {other}: {second}",
        answer=[_chosen(found, place) for place in (0, 1)],
        chapters=[
            Chapter(
                title="Cells",
                text=[
                    f"Test {SHOWN_WORDS} (%), mean over a run's seeds ± 95 % interval. Difference: "
                    f"{other} minus {one} in points, paired by the seeds that have a score in both "
                    "(their number beside it); positive favours the second. -: no score."
                ],
                tables=[_cells(found)],
            ),
            Chapter(title="Settings that differ", tables=[_settings(found)]),
            Chapter(title="Cost", tables=[_costs(found)]),
        ],
        definition={"First": one, "Second": other, "Difference": "second minus first"},
        study=found.runs[0].study,
        environment=found.runs[0].environment,
    )


def _warning(found: Beside) -> str | None:
    seen = [n for n, run in zip(found.names, found.runs, strict=True) if run.selected_on_test]
    return f"SELECTED ON TEST: {' and '.join(seen)}." if seen else None


def _chosen(found: Beside, place: int) -> str:
    name, run, choice = found.names[place], found.runs[place], found.choices[place]
    if choice is None:
        return f"{name} has no trial with scores yet."
    score = with_interval(choice.row[run.test], choice.row[f"{run.test}_ci"])
    return (
        f"{name} chooses {cell_words(run, choice.cell)} on {run.study.base.data.chosen_on}: "
        f"{score} % test {SHOWN_WORDS}."
    )


def _cells(found: Beside) -> Table:
    run, names = found.runs[0], found.names
    rows = {}
    for _, row in found.cells.iterrows():
        cell = ", ".join(run.words(row[field]) for field in run.fields)
        rows[cell] = {
            **{
                name: with_interval(row[key], row[f"{key}_ci"])
                for name, key in zip(names, NAMES, strict=True)
            },
            "difference": signed(row["difference"], row["difference_ci"]),
            "seeds": "-" if math.isnan(row["difference"]) else str(int(row["paired"])),
        }
    return Table(
        stem="beside",
        caption=f"Test {SHOWN_WORDS} (%) of both runs, and their difference",
        corner=", ".join(run.label(field) for field in run.fields),
        words=pd.DataFrame.from_dict(rows, orient="index"),
    )


def _settings(found: Beside) -> Table:
    words = found.settings.set_axis(list(found.names), axis="columns")
    if words.empty:
        words = pd.DataFrame([["-", "-"]], index=["none"], columns=list(found.names))
    caption = "Settings and versions that are not the same in both"
    return Table(stem="settings", caption=caption, corner="setting", words=words)


def _costs(found: Beside) -> Table:
    rows = [found.costs.loc[key].astype(float) for key in NAMES]
    words = pd.DataFrame(
        {
            name: {
                "trials": f"{row['trials']:.0f}",
                "device seconds": f"{row['device_s']:.0f}",
                "TFLOP": f"{row['flops'] / 1e12:.1f}",
            }
            for name, row in zip(found.names, rows, strict=True)
        }
    )
    return Table(stem="costs", caption="Cost of all trials", corner="", words=words)
