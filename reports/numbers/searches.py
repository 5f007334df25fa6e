"""Numbers of a comparison of searches, live or replayed, from the logs that the searches wrote.

Accuracies are in percent; cost is in full runs: device seconds over those of the reference. Every
choice is by the selection score, and what is shown of it is its test score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.metrics import OVERALL
from harness.reports.numbers.run import load_run
from harness.reports.numbers.statistics import (
    Array,
    Judgement,
    area,
    best_from,
    cost_to,
    expected_best,
    foretold,
    interactions,
    judge,
    paired,
    seed_sd,
    separately_best,
    value_at,
)
from harness.reports.numbers.statistics_of_seeds import mean_and_half_width
from harness.reports.numbers.sweep import answers, proposed
from harness.search.optuna_search import REDUCTION
from harness.store.comparisons import SearchComparison
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run, read_search_comparison
from harness.store.search_log import Event, best_cells, read_log
from harness.store.table import Table, cell_key, read_table
from harness.study.study import Study

FIXED_TARGET = 1.0
"""Points of regret that count as reached where the table has no spread over seeds."""


@dataclass(frozen=True, kw_only=True)
class Exhaustive:
    """Every cell of the space, from the table, as `[axis 1, ..., axis k, seeds]`."""

    fields: list[str]
    labels: list[str]
    values: list[tuple[Any, ...]]
    select: Array
    test: Array
    runs: Array
    """Costs."""
    means: dict[str, tuple[float, float]]
    """Cell -> mean selection and test score over all seeds of the table."""
    seeds: tuple[int, ...]
    best_select: float
    """Highest mean selection score of a cell."""
    best_test: float
    """Highest mean test score of a cell."""
    best: dict[str, Any]
    """The cell with the highest mean selection score."""
    sd: float
    """Of a cell's selection score over seeds, near the best; NaN with one seed."""

    @property
    def target(self) -> float:
        """Regret that counts as having found the best."""
        return FIXED_TARGET if np.isnan(self.sd) else self.sd


@dataclass(frozen=True, kw_only=True)
class Searches:
    """A comparison with its results."""

    name: str
    comparison: SearchComparison
    study: Study
    environment: dict[str, str]
    devices: tuple[str, ...]
    groups: tuple[str, ...]
    chance: float
    answers: pd.DataFrame
    """A row per answer of every repeat; see `frames.answers`, with `runs` spent."""
    at: float
    """Cost at which searches are compared: what each of them was given at least, by its median."""
    final: pd.DataFrame
    """A row per search and repeat: its incumbent at that cost, and what became of it."""
    curves: pd.DataFrame
    """Search, cost, median and quartiles over repeats of the incumbent's test score and regret."""
    random: pd.DataFrame | None
    """Random search in closed form at the same costs; only with a table."""
    restarts: pd.DataFrame
    """Learned search, starts on further seeds, their expected cost and the expected test score of
    the best of them by selection, in closed form; no rows for one with a single seed."""
    table: pd.DataFrame
    """A row per search."""
    judgement: Judgement
    reference: str
    """The search that others are compared to."""
    exhaustive: Exhaustive | None
    fidelity: pd.DataFrame | None
    """A row per rung: its epoch, `tau` and `recall` of `search_statistics.foretold` among the cells
    of a seed, means over seeds; only with a table."""
    effects: pd.DataFrame | None
    """Analysis of variance of the table's test scores."""
    flat_effects: pd.DataFrame | None
    """The same without the values at which a cell collapses."""
    left: str
    """Which values those are."""
    gaps: pd.DataFrame | None
    """The jointly best cell against those of separately best values."""


def load_searches(folder: RunFolder) -> Searches:
    """Read a comparison's folder, and its table or its trials' records.

    Raises:
        UserError: the folder is no comparison of searches, or has no answer yet.
    """
    comparison = read_search_comparison(folder)
    if comparison is None:
        raise UserError(f"{folder} is no comparison of searches: it has no searches.json.")
    files = read_run(folder)
    metric = files.study.objective
    table = None if comparison.table is None else read_table(folder.table)
    if table is None:
        run = load_run(folder)
        trials, groups, chance = run.trials, run.groups, run.chance
        trials = trials.assign(cell=[cell_key(asked.cell) for asked in files.asked])
    else:
        trials = _recorded(table)
        groups, chance = table.info.groups, 100 / table.info.num_classes
    trials = trials.drop_duplicates("trial_id").set_index("trial_id")
    exhaustive = None if table is None else _exhaustive(table, trials, comparison, metric)
    logs = {
        (name, repeat): read_log(folder.log(repeat, name))
        for name in comparison.searches
        for repeat in range(comparison.repeats_of(name))
    }
    everything = _answers(logs, trials, comparison, exhaustive, metric)
    if everything.empty:
        raise UserError(f"{folder}: no trial of a search has finished yet.")
    spent = everything.groupby(["search", "repeat"], sort=False)["runs"].max()
    typical = spent.groupby("search", sort=False).median()
    whole = [name for name in typical.index if name not in comparison.learned]
    at = float(typical[whole].min() if whole else typical.max())
    final = _final(everything, trials, comparison, groups, metric, at)
    final = final.merge(_confirmed(logs, trials, comparison, metric), on=["search", "repeat"])
    names = list(dict.fromkeys(final["search"]))
    reference = "random" if "random" in names else names[0]
    values = {name: final[final["search"] == name]["test"].to_numpy(float) for name in names}
    seeds = np.array([comparison.seed(repeat) for repeat in range(comparison.repeats)])
    judgement = judge(values, seeds, reference, comparison.learned)
    start = _common_start(everything, comparison)
    summary = _summary(everything, final, logs, comparison, exhaustive, groups, chance, start, at)
    return Searches(
        name=folder.name,
        comparison=comparison,
        study=files.study,
        environment=files.environment,
        devices=tuple(_devices(table, trials)),
        groups=groups,
        chance=chance,
        answers=everything,
        at=at,
        final=final,
        curves=_curves(everything),
        random=None if exhaustive is None else _random(exhaustive, spent.max()),
        restarts=_restarts(everything, trials, comparison, metric),
        table=summary,
        judgement=judgement,
        reference=reference,
        exhaustive=exhaustive,
        fidelity=None if table is None else _fidelity(table, metric),
        **_landscape(exhaustive, comparison, chance),
    )


def _devices(table: Table | None, trials: pd.DataFrame) -> list[str]:
    if table is not None:
        return list(table.info.devices)
    return [str(name) for name in trials["device"].dropna().unique()] if "device" in trials else []


def _recorded(table: Table) -> pd.DataFrame:
    """The table's trials under the names that `frames.Run.trials` uses, in percent."""
    last, info = table.trials, table.info
    chance = 100 / info.num_classes
    names = [*OVERALL, *info.groups]
    columns: dict[str, Any] = {n: last[n] for n in ("trial_id", "cell", "seed", "status")}
    for name in names:
        columns[f"select_{name}"] = (100 * last[f"final_{name}"]).fillna(chance)
        columns[f"test_{name}"] = (100 * last[f"test_{name}"]).fillna(chance)
    for group in info.groups:
        columns[f"binomial_{group}"] = 100 * last[f"test_se_{group}"]
    columns |= {"device_s": last["device_s"], "flops": last["flops"]}
    return pd.DataFrame(columns)


def _exhaustive(
    table: Table, trials: pd.DataFrame, comparison: SearchComparison, metric: str
) -> Exhaustive:
    axes = table.info.study.axes
    seeds = table.info.study.seeds
    shape = [*(len(axis.values) for axis in axes), len(seeds)]
    by_place = trials.reset_index().set_index(["cell", "seed"])
    cells = table.info.study.cells()
    places = [(cell_key(cell), seed) for cell in cells for seed in seeds]
    found = by_place.loc[places]
    select = found[f"select_{metric}"].to_numpy(float).reshape(shape)
    test = found[f"test_{metric}"].to_numpy(float).reshape(shape)
    best = int(select.mean(axis=-1).argmax())
    means = trials.groupby("cell")[[f"select_{metric}", f"test_{metric}"]].mean()
    return Exhaustive(
        fields=[axis.field for axis in axes],
        labels=[axis.label for axis in axes],
        values=[axis.values for axis in axes],
        select=select,
        test=test,
        runs=found["device_s"].to_numpy(float).reshape(shape) / comparison.reference.device_s,
        means={str(c): (float(s), float(t)) for c, s, t in means.itertuples()},
        seeds=seeds,
        best_select=float(select.mean(axis=-1).max()),
        best_test=float(test.mean(axis=-1).max()),
        best=cells[best],
        sd=seed_sd(select.reshape(-1, len(seeds))),
    )


def _fidelity(table: Table, metric: str) -> pd.DataFrame:
    """What the rungs of a pruner can know of a cell's final score."""
    chance = 1 / table.info.num_classes
    keys = {cell_key(cell) for cell in table.info.study.cells()}
    epochs = table.info.study.base.recipe.epochs
    final = table.trials.set_index("trial_id")
    final = final[final["cell"].isin(keys)]
    early = table.rows.pivot(index="trial_id", columns="epoch", values=f"select_{metric}")
    rungs = [REDUCTION**n for n in range(epochs) if REDUCTION**n < epochs]
    rows = []
    for rung in rungs:
        told = [
            foretold(
                early[rung].loc[own.index].to_numpy(float),
                own[f"final_{metric}"].fillna(chance).to_numpy(float),
                1 / REDUCTION,
            )
            for _, own in final.groupby("seed")
        ]
        tau, recall = np.mean(told, axis=0)
        rows.append({"epoch": rung, "tau": tau, "recall": recall})
    return pd.DataFrame(rows)


def _answers(
    logs: dict[tuple[str, int], list[Event]],
    trials: pd.DataFrame,
    comparison: SearchComparison,
    exhaustive: Exhaustive | None,
    metric: str,
) -> pd.DataFrame:
    tests = dict(zip(trials.index, trials[f"test_{metric}"], strict=True))
    cells = dict(zip(trials.index, trials["cell"], strict=True))
    rows = []
    for (name, repeat), events in logs.items():
        for row in answers(events, tests):
            row = {"search": name, "repeat": repeat, **row}
            row["runs"] = row["spent_device_s"] / comparison.reference.device_s
            row["flop_runs"] = row["spent_flops"] / comparison.reference.flops
            row["regret"] = row["test_regret"] = float("nan")
            if exhaustive is not None and row["incumbent"]:
                select, test = exhaustive.means[cells[row["incumbent"]]]
                row["regret"] = exhaustive.best_select - select
                row["test_regret"] = exhaustive.best_test - test
            rows.append(row)
    return pd.DataFrame(rows)


def _steps(own: pd.DataFrame) -> pd.DataFrame:
    """A repeat's answers from the first whole trial on."""
    return own[own["incumbent"] != ""]


def _final(
    everything: pd.DataFrame,
    trials: pd.DataFrame,
    comparison: SearchComparison,
    groups: tuple[str, ...],
    metric: str,
    at: float,
) -> pd.DataFrame:
    """The incumbents at one cost; without scores where a repeat had none by then."""
    by_place = trials.reset_index().groupby("cell")
    rows = []
    for (name, repeat), own in everything.groupby(["search", "repeat"], sort=False):
        within = _steps(own[own["runs"] <= at])
        row: dict[str, Any] = {
            "search": name,
            "repeat": repeat,
            "seed": comparison.seed(int(str(repeat))),
            "runs": own["runs"].max(),
            "flop_runs": own["flop_runs"].max(),
            "trials": len(own),
        }
        if not within.empty:
            last = within.iloc[-1]
            trial = trials.loc[last["incumbent"]]
            tested = trials.loc[within[within["status"] == "COMPLETE"]["trial_id"]]
            fellows = by_place.get_group(trial["cell"])
            fellows = fellows[fellows["seed"] != trial["seed"]]
            scores = tested[f"test_{metric}"].max() if len(tested) else trial[f"test_{metric}"]
            row |= {
                "cell": trial["cell"],
                "select": last["incumbent_select"],
                "test": trial[f"test_{metric}"],
                **{group: trial[f"test_{group}"] for group in groups},
                **{f"binomial_{group}": trial[f"binomial_{group}"] for group in groups},
                "regret": last["regret"],
                "test_regret": last["test_regret"],
                "missed": scores - trial[f"test_{metric}"],
                "luck": last["incumbent_select"] - fellows[f"select_{metric}"].mean(),
            }
        rows.append(row)
    columns = ["cell", "select", "test", *groups, *(f"binomial_{g}" for g in groups)]
    columns = [*columns, "regret", "test_regret", "missed", "luck"]
    found = pd.DataFrame(rows)
    return found.reindex(columns=list(dict.fromkeys([*found.columns, *columns])))


def _confirmed(
    logs: dict[tuple[str, int], list[Event]],
    trials: pd.DataFrame,
    comparison: SearchComparison,
    metric: str,
) -> pd.DataFrame:
    """Of each repeat: its best, and the one of its k best that unseen seeds confirm.

    Both by test score on the unseen seeds; `confirm_runs` is what training them cost.
    """
    by_place = trials.reset_index().set_index(["cell", "seed"]).sort_index()
    rows = []
    for (name, repeat), events in logs.items():
        unseen = [s for s in comparison.confirm_seeds if s != comparison.seed(repeat)]
        row: dict[str, Any] = {"search": name, "repeat": repeat}
        row |= dict.fromkeys(("first_again", "confirmed", "confirm_runs"), float("nan"))
        again = []
        for cell, _ in best_cells(events, comparison.confirm):
            places = [(cell_key(cell), seed) for seed in unseen]
            if places and all(place in by_place.index for place in places):
                again.append(by_place.loc[places])
        if again:
            best = max(again, key=lambda found: float(found[f"select_{metric}"].mean()))
            row["first_again"] = again[0][f"test_{metric}"].mean()
            row["confirmed"] = best[f"test_{metric}"].mean()
            seconds = sum(float(found["device_s"].sum()) for found in again)
            row["confirm_runs"] = seconds / comparison.reference.device_s
        rows.append(row)
    return pd.DataFrame(rows)


def _common_start(everything: pd.DataFrame, comparison: SearchComparison) -> float:
    """The cost at which every repeat of every search that goes on has an incumbent."""
    steps = _steps(everything[~everything["search"].isin(comparison.learned)])
    if steps.empty:
        return float("nan")
    return float(steps.groupby(["search", "repeat"])["runs"].min().max())


def _summary(
    everything: pd.DataFrame,
    final: pd.DataFrame,
    logs: dict[tuple[str, int], list[Event]],
    comparison: SearchComparison,
    exhaustive: Exhaustive | None,
    groups: tuple[str, ...],
    chance: float,
    start: float,
    at: float,
) -> pd.DataFrame:
    rows = []
    names = ["test", "select", *groups, "regret", "test_regret", "missed", "luck"]
    names += ["first_again", "confirmed"]
    for name in dict.fromkeys(final["search"]):
        own, told = final[final["search"] == name], everything[everything["search"] == name]
        row: dict[str, Any] = {"search": name, "repeats": len(own)}
        for field in names:
            row[field], row[f"{field}_ci"] = mean_and_half_width(own[field])
        for group in groups:
            row[f"binomial_{group}"] = own[f"binomial_{group}"].mean()
        row |= {f: own[f].median() for f in ("runs", "flop_runs", "trials", "confirm_runs")}
        areas, reached = [], []
        for _, each in told.groupby("repeat", sort=False):
            steps = _steps(each)
            costs, regrets = steps["runs"].to_numpy(float), steps["regret"].to_numpy(float)
            if exhaustive is not None and len(steps):
                areas.append(area(costs, regrets, start, at))
                reached.append(cost_to(costs, regrets, exhaustive.target))
        row["area"], row["area_ci"] = mean_and_half_width(pd.Series(areas, dtype=float))
        row["cost_to"] = float(np.median(reached)) if reached else float("nan")
        row["reached"] = int(np.isfinite(reached).sum())
        row["proposals"], row["repeated"] = proposed([logs[name, r] for r in own["repeat"]])
        whole = told[told["status"].isin(["COMPLETE", "DIVERGED"])]
        row["answers"] = len(told)
        for status in ("DIVERGED", "FAILED", "PRUNED"):
            row[status] = int((told["status"] == status).sum())
        row["collapsed"] = int((whole["select"] < 2 * chance).sum())
        rows.append(row)
    return pd.DataFrame(rows).set_index("search")


def _curves(everything: pd.DataFrame) -> pd.DataFrame:
    """From where every repeat of a search has an incumbent: a row per cost at which one changes."""
    rows = []
    for name, told in everything.groupby("search", sort=False):
        repeats = [_steps(own) for _, own in told.groupby("repeat", sort=False)]
        if any(own.empty for own in repeats):
            continue
        first = max(own["runs"].min() for own in repeats)
        costs = np.unique(np.concatenate([own["runs"].to_numpy(float) for own in repeats]))
        costs = costs[costs >= first]
        columns: dict[str, Any] = {"search": name, "runs": costs}
        for field, word in (("incumbent_test", "test"), ("regret", "regret")):
            steps = np.array(
                [
                    value_at(own["runs"].to_numpy(float), own[field].to_numpy(float), costs)
                    for own in repeats
                ]
            )
            low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75], axis=0)
            columns |= {word: middle, f"{word}_low": low, f"{word}_high": high}
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _random(exhaustive: Exhaustive, most_runs: float) -> pd.DataFrame:
    """Expected test score and regret of the best of n drawn cells, at their expected cost."""
    count = exhaustive.select[..., 0].size
    cost = float(exhaustive.runs.mean())
    most = min(count, max(1, int(np.ceil(most_runs / cost))))
    mean_select = exhaustive.select.mean(axis=-1).ravel()
    found: dict[str, list[Array]] = {"test": [], "regret": []}
    for place in range(exhaustive.select.shape[-1]):
        select = exhaustive.select[..., place].ravel()
        test = exhaustive.test[..., place].ravel()
        regret = exhaustive.best_select - mean_select
        found["test"].append(expected_best(select, test, most))
        found["regret"].append(expected_best(select, regret, most))
    columns = {name: np.mean(each, axis=0) for name, each in found.items()}
    return pd.DataFrame(
        {"trials": range(1, most + 1), "runs": cost * np.arange(1, most + 1)} | columns
    )


def _restarts(
    everything: pd.DataFrame, trials: pd.DataFrame, comparison: SearchComparison, metric: str
) -> pd.DataFrame:
    """What starting a learned search again would bring; all recorded seeds of its cell count."""
    rows = []
    for name in comparison.learned:
        ran = trials["cell"].loc[everything[everything["search"] == name]["trial_id"]]
        own = trials[trials["cell"].isin(ran)]
        if len(own) < 2:
            continue
        select, test = (own[f"{split}_{metric}"].to_numpy(float) for split in ("select", "test"))
        cost = float(own["device_s"].mean()) / comparison.reference.device_s
        for starts, best in enumerate(expected_best(select, test, len(own)), 1):
            rows.append({"search": name, "starts": starts, "runs": starts * cost, "test": best})
    return pd.DataFrame(rows, columns=["search", "starts", "runs", "test"])


def _landscape(
    exhaustive: Exhaustive | None, comparison: SearchComparison, chance: float
) -> dict[str, Any]:
    """What the table says on whether the axes can be chosen one after the other."""
    nothing: dict[str, Any] = dict.fromkeys(("effects", "flat_effects", "gaps"))
    if exhaustive is None or len(exhaustive.fields) < 2:
        return {**nothing, "left": ""}
    kept = _without_collapse(exhaustive, chance)
    flat, left = None, ""
    if kept is not None:
        axis, values = kept
        flat = interactions(exhaustive.test.take(values, axis=axis), exhaustive.labels)
        gone = [v for n, v in enumerate(exhaustive.values[axis]) if n not in values]
        left = f"{exhaustive.labels[axis]} {', '.join(f'{v}' for v in gone)}"
    means = exhaustive.select.mean(axis=-1)
    best = np.unravel_index(int(means.argmax()), means.shape)
    start = tuple(
        _index(values, comparison.reference.cell.get(field))
        for field, values in zip(exhaustive.fields, exhaustive.values, strict=True)
    )
    rows = []
    for words, cell in (
        ("jointly best", tuple(int(n) for n in best)),
        ("best of each axis by its mean over the others", separately_best(means)),
        ("best of each axis with the others at the default", best_from(means, start)),
    ):
        chosen = [values[n] for values, n in zip(exhaustive.values, cell, strict=True)]
        gap, half = paired(exhaustive.test[best], exhaustive.test[cell], 0.95)
        rows.append(
            {
                "choice": words,
                "cell": ", ".join(
                    f"{label} {value}"
                    for label, value in zip(exhaustive.labels, chosen, strict=True)
                ),
                "select": float(means[cell]),
                "test": float(exhaustive.test[cell].mean()),
                "select_gap": float(means[best] - means[cell]),
                "test_gap": gap,
                "test_gap_ci": half,
            }
        )
    return {
        "effects": interactions(exhaustive.test, exhaustive.labels),
        "flat_effects": flat,
        "left": left,
        "gaps": pd.DataFrame(rows),
    }


def _index(values: tuple[Any, ...], value: Any) -> int:
    return values.index(value) if value in values else 0


def _without_collapse(exhaustive: Exhaustive, chance: float) -> tuple[int, list[int]] | None:
    """An axis and those of its values at which no cell collapses; None if nothing collapses, or
    if no axis has two such values. Of several axes, the one that keeps the most."""
    collapsed = exhaustive.test.mean(axis=-1) < 2 * chance
    if not collapsed.any():
        return None
    kept = []
    for axis in range(collapsed.ndim):
        away = tuple(a for a in range(collapsed.ndim) if a != axis)
        values = [int(n) for n in np.flatnonzero(~collapsed.any(axis=away))]
        kept.append((len(values) / collapsed.shape[axis], axis, values))
    _, axis, values = max(kept, key=lambda each: each[0])
    return (axis, values) if len(values) > 1 else None
