"""Two sweeps of the same axes beside each other: their cells, what differs between them, costs.

Owns: these tables. Must not know: how they are worded or laid out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.reports.numbers.run import Run, load_run
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.numbers.sweep import Choice, choose, summarise
from harness.spec import leaves
from harness.store.run_folder import RunFolder

NAMES = ("one", "other")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Two runs; `one` is the first in every table, and differences are the other minus it."""

    names: tuple[str, str]
    runs: tuple[Run, Run]
    choices: tuple[Choice | None, Choice | None]
    cells: pd.DataFrame
    """A row per cell of either run, in the first's order: the axes' fields; test score `one` and
    `other` (mean over seeds, percent) with 95 % half-widths `one_ci` and `other_ci`; their
    `difference` over the `paired` seeds that have a score in both, with its half-width
    `difference_ci` (points). NaN where there is none."""
    settings: pd.DataFrame
    """A row per setting that differs, by its name: `one` and `other`, in words."""
    costs: pd.DataFrame
    """`one` and `other` -> `trials` that ended, `device_s`, `flops`."""


def load_beside(one: RunFolder, other: RunFolder) -> Beside:
    """Read two runs and put their cells beside each other.

    Raises:
        UserError: they are the same, one is no sweep, or their cells have other fields or none in
            common; says which.
    """
    if one.path.resolve() == other.path.resolve():
        raise UserError(f"--beside {other.name}: that is the same run.")
    for folder in (one, other):
        if folder.kind != "sweep":
            raise UserError(
                f"{folder.name} is no sweep: --beside takes two runs of `harness sweep`, whose "
                "cells can be told apart by the values of their axes."
            )
    runs = (load_run(one, _ignored), load_run(other, _ignored))
    fields = [sorted(run.fields) for run in runs]
    if fields[0] != fields[1]:
        raise UserError(
            f"--beside {other.name}: its cells are of {', '.join(fields[1])}, those of {one.name} "
            f"of {', '.join(fields[0])}; both must have the same axes."
        )
    keys = [[_key(run, cell) for cell in run.cells] for run in runs]
    if not set(keys[0]) & set(keys[1]):
        raise UserError(f"--beside {other.name}: it has no cell in common with {one.name}.")
    summaries = [summarise(run) for run in runs]
    choices = [choose(run, summary) for run, summary in zip(runs, summaries, strict=True)]
    return Beside(
        names=(one.name, other.name),
        runs=runs,
        choices=(choices[0], choices[1]),
        cells=_cells(runs, keys),
        settings=_settings(runs),
        costs=pd.DataFrame([_cost(run) for run in runs], index=list(NAMES)),
    )


def _ignored(trial_id: str, why: str) -> None:
    """Records that cannot be used are missing in a run's own report too, which names them."""


def _key(run: Run, cell: Mapping[str, Any]) -> str:
    return json.dumps([cell.get(field) for field in sorted(run.fields)], default=str)


def _cells(runs: tuple[Run, Run], keys: list[list[str]]) -> pd.DataFrame:
    """As `Beside.cells`."""
    scores = [
        pd.Series(
            run.trials[run.test].to_numpy(dtype=float),
            index=pd.MultiIndex.from_arrays(
                [[names[number] for number in run.cell_numbers], run.trials["seed"]]
            ),
        )
        for run, names in zip(runs, keys, strict=True)
    ]
    by_key: dict[str, Mapping[str, Any]] = {}
    for run, names in zip(runs, keys, strict=True):
        by_key = {**dict(zip(names, run.cells, strict=True)), **by_key}
    order = dict.fromkeys([*keys[0], *keys[1]])
    rows = []
    for key in order:
        row: dict[str, Any] = {field: by_key[key].get(field) for field in runs[0].fields}
        own = [_of_cell(score, key) for score in scores]
        for name, score in zip(NAMES, own, strict=True):
            row[name], row[f"{name}_ci"] = mean_and_half_width(score)
        both = (own[1] - own[0]).dropna()
        row["difference"], row["difference_ci"] = mean_and_half_width(both)
        rows.append({**row, "paired": len(both)})
    return pd.DataFrame(rows)


def _of_cell(scores: pd.Series[float], key: str) -> pd.Series[float]:
    """A cell's known scores by seed; of a search that asked for a trial twice, once."""
    if key not in scores.index.get_level_values(0):
        return pd.Series(dtype=float)
    own: pd.Series[float] = scores.xs(key).dropna()
    once: pd.Series[float] = own[~own.index.duplicated()]
    return once


def _settings(runs: tuple[Run, Run]) -> pd.DataFrame:
    """As `Beside.settings`: of the studies and of where they ran."""
    facts = [dict(_facts(run)) for run in runs]
    names = dict.fromkeys([*facts[0], *facts[1]])
    rows = {
        name: [fact.get(name, "-") for fact in facts]
        for name in names
        if facts[0].get(name) != facts[1].get(name)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(NAMES))


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    study = run.study
    yield "study", study.name
    yield "seeds", ", ".join(map(str, run.seeds))
    yield "objective", study.objective
    for axis in study.axes:
        yield f"values of {axis.label}", ", ".join(map(str, run.order(axis.field)))
    varied = {axis.field for axis in study.axes}
    for name, value in leaves(study.base.model_dump(mode="json", exclude={"seed"})):
        if name not in varied:
            yield name, json.dumps(value).strip('"')
    for name, value in run.environment.items():
        yield name, value


def _cost(run: Run) -> dict[str, float]:
    trials = run.trials.drop_duplicates("trial_id")
    ended = trials[trials["status"] != "MISSING"]
    return {
        "trials": float(len(ended)),
        "device_s": float(ended["device_s"].sum()),
        "flops": float(ended["flops"].sum()),
    }
