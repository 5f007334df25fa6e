"""What GP and TPE would have chosen in LoRA's space, replayed many times within every seed.

What a replay chooses is kept beside the archives, because replaying takes long: how often each
trial was the choice, and what was paid. It is of the scores that it was made from, and of no
others. Owns: these replays and their file. Must not know: contrasts, words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
"""Search -> times that it is replayed within every seed, at least."""
MONTE_CARLO = 0.1
"""Of docs/protocol.md, *Arms at 12 runs*: points of standard error that replaying may leave."""
MORE = 100
"""Further replays of every seed, before the error is looked at again."""
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


def monte_carlo(by_seed: pd.DataFrame) -> float:
    """Standard error that replaying leaves to the mean of `searched_by_seed`, in points, at most:
    a seed's is averaged, as if all shared the chance of their replays."""
    return float(by_seed["monte_carlo"].mean())


def replay(scenario: Scenario, spread: Callable[..., Iterable[pd.DataFrame]] = map) -> Path:
    """Replay every search within every seed, until `MONTE_CARLO` holds; the file of their choices.

    It is written after every seed, and what it has of these scores is not replayed again. `spread`
    is `map`, or that of a pool of processes.
    """
    done = _of_these_scores(scenario).groupby(["search", "seed"])["times"].sum()
    begun = done.groupby("search").max()
    wanted = {name: max(repeats, begun.get(name, 0)) for name, repeats in REPEATS.items()}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        table_of(scenario, place)
        while wanted:
            _replay_up_to(wanted, scenario, place, spread)
            wanted = {
                name: repeats + MORE
                for name, repeats in wanted.items()
                if monte_carlo(searched_by_seed(scenario, name)) > MONTE_CARLO
            }
    return kept_at(scenario)


def _replay_up_to(
    wanted: Mapping[str, int],
    scenario: Scenario,
    place: Path,
    spread: Callable[..., Iterable[pd.DataFrame]],
) -> None:
    path, scores, rows = kept_at(scenario), _digest(scenario), _of_these_scores(scenario)
    done = rows.groupby(["seed", "search"])["times"].sum().to_dict()
    due = [
        (place, seed, name, range(done.get((seed, name), 0), repeats))
        for seed in scenario.seeds
        for name, repeats in wanted.items()
    ]
    for own in spread(_choices, [each for each in due if each[-1]]):
        rows = _added(rows, own)
        rows.assign(scores=scores).to_csv(path, index=False, lineterminator="\n")


def _choices(due: tuple[Path, int, str, range]) -> pd.DataFrame:
    """What a search chose in a seed, how often, and what was paid for it on average."""
    place, seed, name, repeats = due
    ends = list(replays(read_table(_table_in(place)), name, seed, repeats, place))
    rows = pd.DataFrame(ends, columns=Choice._fields).assign(seed=seed, search=name, times=1)
    return _added(rows[COLUMNS])


def _added(*parts: pd.DataFrame) -> pd.DataFrame:
    """Of all parts, a row per trial."""
    rows = pd.concat([part for part in parts if len(part)])
    rows["runs"] *= rows["times"]
    sums = rows.groupby(["seed", "search", "trial_id"], as_index=False)[["times", "runs"]].sum()
    sums["runs"] = (sums["runs"] / sums["times"]).round(4)
    return sums[COLUMNS]


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
    return table_from([scenario.archive(kind)], place)


def table_from(archives: list[Path], place: Path) -> Table:
    """Archives of one study's finished runs as a table, made in an empty folder.

    Raises:
        UserError: as `import_archives` and `tabulate`.
    """
    imported = import_archives(archives, Store(place / "store"))
    tabulate([done.run for done in imported], _table_in(place))
    return read_table(_table_in(place))


def _table_in(place: Path) -> Path:
    return place / "table.parquet"


def replayed(scenario: Scenario) -> tuple[int, ...]:
    """The seeds in which every search was replayed.

    Raises:
        UserError: the replays that are kept are of other scores.
    """
    kept = _kept(scenario)
    if set(kept["scores"]) - {_digest(scenario)}:
        raise UserError(
            f"{kept_at(scenario)} was made from other scores than the archive of {scenario.name} "
            "has now: make it again with `python -m harness.findings --replay`."
        )
    found = (set(kept.loc[kept["search"] == name, "seed"]) for name in REPEATS)
    return tuple(sorted(map(int, set.intersection(*found))))


def _read(scenario: Scenario) -> pd.DataFrame:
    if replayed(scenario) != scenario.seeds:
        raise UserError(
            f"{kept_at(scenario)} lacks seeds: make it with `python -m harness.findings --replay`."
        )
    return _kept(scenario)


def _kept(scenario: Scenario) -> pd.DataFrame:
    path = kept_at(scenario)
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=[*COLUMNS, "scores"])


def _of_these_scores(scenario: Scenario) -> pd.DataFrame:
    kept = _kept(scenario)
    return kept[kept["scores"] == _digest(scenario)].drop(columns="scores")


def kept_at(scenario: Scenario) -> Path:
    """The file of what replays chose."""
    return scenario.archive("lora").with_suffix(".searched.csv")


def _digest(scenario: Scenario) -> str:
    """Of all that a search is told or charged."""
    rows = scenario.trials["lora"].sort_values("trial_id")
    told = rows[["trial_id", "select", "flops"]].to_csv(index=False, float_format="%.17g")
    return hashlib.sha256(told.encode()).hexdigest()[:16]
