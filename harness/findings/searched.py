"""What GP and TPE would have chosen in LoRA's space, replayed many times within every seed.

What a replay chooses is kept beside the archives, because replaying takes long: how often each
trial was the choice, and what was paid. It is of the scores that it was made from, and of no
others. Owns: these replays and their file. Must not know: contrasts, words.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.archive.importing import import_archives
from harness.errors import UserError
from harness.findings.arms import RUNS
from harness.findings.scenario import Scenario
from harness.search.base import SearchTask
from harness.search.budget import Budget
from harness.search.catalogue import find_search
from harness.search.choice import choice, within
from harness.search.replay import Recording
from harness.store.search_log import read_log
from harness.store.store import Store
from harness.store.table import Table, read_table, tabulate

REPEATS = {"gp": 200, "tpe": 500}
"""Search -> times that it is replayed within every seed."""
COLUMNS = ["seed", "search", "trial_id", "times", "runs"]


class Choice(NamedTuple):
    """The end of one replay."""

    trial_id: str
    runs: float
    """Paid, in trainings of LoRA at every linear map."""


def searched_by_seed(scenario: Scenario, name: str) -> pd.DataFrame:
    """A row per seed: means over replays of `test`, of each `test_GROUP` and of `runs`.

    `monte_carlo` is the standard error of `test` that comes of replaying only so often.

    Raises:
        UserError: the replays that are kept are of other scores, or there are none.
    """
    kept = _read(scenario)
    scores = scenario.trials["lora"].set_index("trial_id")
    columns = ["test", *(f"test_{group}" for group in scenario.groups)]
    rows = []
    for seed, own in kept[kept["search"] == name].groupby("seed"):
        values, times = scores.loc[own["trial_id"], columns], own["times"].to_numpy()
        means = {column: np.average(values[column], weights=times) for column in columns}
        variance = np.average((values["test"] - means["test"]) ** 2, weights=times)
        error = float(np.sqrt(variance / times.sum()))
        paid = np.average(own["runs"], weights=times)
        rows.append({"seed": seed, **means, "runs": paid, "monte_carlo": error})
    return pd.DataFrame(rows).set_index("seed")


def chosen_in_replays(scenario: Scenario, name: str) -> dict[int, dict[str, float]]:
    """Seed -> id of each trial that a search chose in it -> in which share of the replays.

    Raises:
        UserError: as `searched_by_seed`.
    """
    kept = _read(scenario)
    found = {}
    for seed in scenario.seeds:
        own = kept[(kept["search"] == name) & (kept["seed"] == seed)]
        shares = own["times"] / own["times"].sum()
        found[seed] = dict(zip(own["trial_id"], shares, strict=True))
    return found


def replay(scenario: Scenario) -> Path:
    """Replay every search within every seed, and keep what they chose; the file.

    It is written after every seed, and seeds that it has of these scores are not replayed again.
    """
    path, scores, kept = kept_at(scenario), _digest(scenario), _kept(scenario)
    rows = kept[kept["scores"] == scores].drop(columns="scores")
    with TemporaryDirectory() as place:
        table = table_of(scenario, Path(place))
        for seed in scenario.seeds:
            if seed in set(rows["seed"]):
                continue
            own = pd.DataFrame(_choices(table, seed, Path(place)), columns=COLUMNS)
            rows = pd.concat([rows, own] if len(rows) else [own])
            rows = rows.sort_values("seed", kind="stable")
            rows.assign(scores=scores).to_csv(path, index=False, lineterminator="\n")
    return path


def _choices(table: Table, seed: int, place: Path) -> Iterator[tuple[int, str, str, int, float]]:
    """What each search chose in a seed, how often, and what was paid for it on average."""
    for name, repeats in REPEATS.items():
        ends = list(replays(table, name, seed, range(repeats), place))
        times = Counter(each.trial_id for each in ends)
        for trial_id, count in sorted(times.items()):
            paid = [each.runs for each in ends if each.trial_id == trial_id]
            yield seed, name, trial_id, count, round(float(np.mean(paid)), 4)


def replays(table: Table, name: str, seed: int, repeats: range, place: Path) -> Iterator[Choice]:
    """Replay a search on one seed's trials; what it chose, repeat by repeat.

    A trial that does not fit into what is left of the budget is not looked at.
    """
    study = table.info.study
    recording = Recording(table, study.objective)
    full = int(table.trials["flops"].max())
    for repeat in repeats:
        log = place / f"{name}-{seed}-{repeat}.jsonl"
        task = SearchTask(
            space=table.space(),
            make=recording.make,
            name=f"{study.name}/{name}/{repeat}",
            seed=seed,
            budget=Budget(amount=RUNS, unit="runs"),
            full_run_flops=full,
            epochs=study.base.recipe.epochs,
            log=log,
        )
        recording.replay(find_search(name)(task))
        events = read_log(log)
        chosen = choice(events, task.budget, full)
        *_, (_, spent) = within(events, task.budget, full)
        log.unlink()
        assert chosen is not None  # the budget has room for every trial
        yield Choice(chosen, spent.flops / full)


def table_of(scenario: Scenario, place: Path, kind: str = "lora") -> Table:
    """An archive as a table that searches can be replayed on, made in an empty folder."""
    [imported] = import_archives([scenario.archive(kind)], Store(place / "store"))
    tabulate([imported.run], place / "table.parquet")
    return read_table(place / "table.parquet")


def replayed(scenario: Scenario) -> tuple[int, ...]:
    """The seeds in which the searches were replayed.

    Raises:
        UserError: the replays that are kept are of other scores.
    """
    kept = _kept(scenario)
    if set(kept["scores"]) - {_digest(scenario)}:
        raise UserError(
            f"{kept_at(scenario)} was made from other scores than the archive of {scenario.name} "
            "has now: make it again with `python -m harness.findings --replay`."
        )
    return tuple(sorted(map(int, set(kept["seed"]))))


def _read(scenario: Scenario) -> pd.DataFrame:
    if replayed(scenario) != scenario.seeds:
        raise UserError(
            f"{kept_at(scenario)} lacks seeds: make it with `python -m harness.findings --replay`."
        )
    return _kept(scenario)


def _kept(scenario: Scenario) -> pd.DataFrame:
    path = kept_at(scenario)
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=[*COLUMNS, "scores"])


def kept_at(scenario: Scenario) -> Path:
    """The file of what replays chose."""
    return scenario.archive("lora").with_suffix(".searched.csv")


def _digest(scenario: Scenario) -> str:
    """Of all that a search is told or charged."""
    rows = scenario.trials["lora"].sort_values("trial_id")
    told = rows[["trial_id", "select", "flops"]].to_csv(index=False, float_format="%.17g")
    return hashlib.sha256(told.encode()).hexdigest()[:16]
