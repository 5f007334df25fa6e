"""The trials of a run as a list to read: scores, cost, and the command that gives each again.

Owns: which trials are listed and in which words. Must not know: how a list is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.catalogue.rerun import TrainCommands, study_file
from harness.metrics import SHOWN, Scale, scale_of
from harness.reports.numbers.comparison import Arms
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice
from harness.reports.text.names import cell_words, split_words
from harness.reports.text.numbers import chosen_by, with_interval
from harness.spec import TrialSpec
from harness.store.store import Store
from harness.study.axes import in_words

MOST_TRIALS = 2000
"""Trials that are listed; `trials.csv` has all."""
MOST_ERRORS = 50
"""Failed trials whose traceback is given."""
MOST_CHOICES = 40
"""Values that a column is filtered by; one with more has the text search."""
STATUS_WORDS = {"PRUNED": "stopped early"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the list. `choices` are the values it can be filtered by; none: it cannot."""

    name: str
    is_number: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trial; `words` has one for each column."""

    trial_id: str
    status: str
    command: str | None
    is_chosen: bool = False
    """Of the chosen cell."""
    words: list[str]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed trial's traceback."""

    trial_id: str
    words: str
    error: str


@dataclass(frozen=True, kw_only=True)
class TrialList:
    """Listed trials of a run."""

    columns: list[Column]
    """What a trial is of, its seed, its status, its selection score, then what else is known."""
    rows: list[Row]
    count: int
    """Of all trials, listed or not."""
    failures: list[Failure]
    failed: int
    """Of all failed trials, with a traceback here or not."""
    example: TrialSpec | None
    """Any listed trial, for what a request left to be resolved."""
    axes: int
    """So many of the first columns say what a trial is of."""

    @property
    def select_column(self) -> int:
        """Which column has the selection score; the one behind it has the test score."""
        return self.axes + 2


def list_sweep(run: Run, choice: Choice | None, line: str | None = None) -> TrialList:
    """Trials of a sweep in the study's order; the failed, diverged and best ones if too many.

    `line` is the command that the run was asked for by, if known.
    """
    store = Store(run.store)
    scores = [run.test, *(f"test_{group}" for group in run.groups)]
    commands = TrainCommands(run.study.base, run.study.name, study_file(line))
    rows, example = [], None
    fields = run.fields
    listed = _most_telling(run)
    for number, trial in zip(
        run.cell_numbers[listed.index], listed.to_dict("records"), strict=True
    ):
        cell = run.cells[number]
        spec = None if trial["status"] == "MISSING" else store.spec(trial["trial_id"])
        example = example or spec
        words = [
            *(_value(cell.get(name)) for name in fields),
            str(trial["seed"]),
            _status(trial["status"]),
            chosen_by(run.scale, trial[run.select]),
            *(with_interval(trial[name]) for name in [*scores, "device_s"]),
        ]
        rows.append(
            Row(
                trial_id=trial["trial_id"],
                status=trial["status"],
                command=None if spec is None else commands.of(spec, _as_given(cell)),
                is_chosen=choice is not None and _is_part(cell, choice.cell),
                words=words,
            )
        )
    orders = [
        [_value(value) for value in run.order(name)] if run.on_axes else None for name in fields
    ]
    split = _of_split(split_words(run), run.scale)
    names = [run.label(name) for name in fields]
    columns = [*names, "seed", "status", split, "test (%)"]
    columns += [*(f"{group} (%)" for group in run.groups), "device s"]
    failed = run.trials[run.trials["status"] == "FAILED"]
    return TrialList(
        columns=_columns(columns, rows, [*orders, None, None]),
        rows=rows,
        count=len(run.trials),
        failures=[_failure(run, store, index) for index in failed.index[:MOST_ERRORS]],
        failed=len(failed),
        example=example,
        axes=len(fields),
    )


def list_arms(arms: Arms, study: str, line: str | None = None) -> TrialList:
    """Every trial of a comparison: those of the arms, then those that only chose a setting.

    `line` is the command that the run was asked for by, if known.
    """
    compared = arms.comparison
    scale = scale_of(compared.objective)
    commands = TrainCommands(compared.request, study, study_file(line))
    trials = {i: arm.name for arm in compared.arms for i in arm.trials}
    for arm in compared.arms:
        for trial_id in arm.charged:
            trials.setdefault(trial_id, f"tried for: {arm.name}")
    rows = []
    for trial_id, name in trials.items():
        record = arms.records[trial_id]
        is_scored = record.select is not None
        select = scale.factor * record.objective(compared.objective) if is_scored else float("nan")
        test = float("nan") if record.test is None else 100 * getattr(record.test, SHOWN)
        words = [
            name,
            str(record.spec.seed),
            _status(record.status),
            chosen_by(scale, select),
            *(with_interval(number) for number in (test, record.cost.device_s)),
        ]
        command = commands.of(record.spec, {})
        rows.append(Row(trial_id=trial_id, status=record.status, command=command, words=words))
    split = compared.request.data.chosen_on
    names = ["arm", "seed", "status", _of_split(split, scale), "test (%)", "device s"]
    return TrialList(
        columns=_columns(names, rows, [None, None, None]),
        rows=rows[:MOST_TRIALS],
        count=len(rows),
        failures=[],
        failed=0,
        example=arms.records[compared.arms[0].trials[0]].spec,
        axes=1,
    )


def _of_split(split: str, scale: Scale) -> str:
    """The column of selection scores."""
    return f"{split} ({scale.unit.strip() or scale.words})"


def _most_telling(run: Run) -> pd.DataFrame:
    """Where there are too many trials: half of them failed or diverged, the rest the best."""
    trials = run.trials
    if len(trials) <= MOST_TRIALS:
        return trials
    is_bad = trials["status"].isin(["FAILED", "DIVERGED"])
    bad = trials.index[is_bad][: MOST_TRIALS // 2]
    score = trials.loc[~is_bad, run.select]
    best = score.sort_values(ascending=False, kind="stable", na_position="last").index
    return trials.loc[bad.union(best[: MOST_TRIALS - len(bad)])]


def _columns(
    names: Sequence[str], rows: Sequence[Row], orders: Sequence[list[str] | None]
) -> list[Column]:
    """The first `len(orders)` columns can be filtered; an order is that of their values."""
    columns = []
    for place, name in enumerate(names):
        words = list(dict.fromkeys(row.words[place] for row in rows))
        choices: list[str] = []
        if place < len(orders) and 1 < len(words) <= MOST_CHOICES:
            order = orders[place] or words
            choices = [value for value in order if value in words]
        is_number = all(_is_number(word) for word in words)
        columns.append(Column(name=name, is_number=is_number, choices=tuple(choices)))
    return columns


def _failure(run: Run, store: Store, index: int) -> Failure:
    trial_id = str(run.trials["trial_id"][index])
    record = store.record(trial_id)
    cell = run.cells[run.cell_numbers[index]]
    return Failure(
        trial_id=trial_id,
        words=f"{cell_words(run, cell)}, seed {run.trials['seed'][index]}",
        error="" if record is None else (record.error or "").strip(),
    )


def _is_part(cell: dict[str, Any], chosen: dict[str, Any]) -> bool:
    """Whether it is the chosen cell, which also has the fields that only other cells fill."""
    return all(chosen[name] == value for name, value in cell.items())


def _status(status: str) -> str:
    return STATUS_WORDS.get(status, status.lower())


def _value(value: Any) -> str:
    if isinstance(value, str) and value[:1] in ("{", "["):
        return in_words(json.loads(value))
    if isinstance(value, float) and len(repr(value)) > 10:
        return f"{value:.4g}"
    return in_words(value)


def _as_given(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of the frames with its options as they were before they became words."""
    options = cell.get("options")
    return {**cell, "options": json.loads(options)} if isinstance(options, str) else cell


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word in ("-", "none")
    return True
