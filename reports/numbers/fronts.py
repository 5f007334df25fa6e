"""What searches with several objectives found: fronts, and the volume that they dominate.

Hypervolume is the share of a box that the trials of a search dominate: from the reference point
(chance for a score, 1.1 times the largest cost of the space or, live, of the run) to the ideal one
(all images right, no loss, no cost), each objective on a linear scale (Zitzler & Thiele 1999; a
reference a tenth beyond the worst, Ishibuchi et al. 2018). Owns: these numbers, and what random
search is expected to dominate, in closed form. Must not know: how a search works, sentences,
drawings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from harness.errors import UserError
from harness.metrics import COSTS, SHOWN, TAIL, Goal, Objective, scale_of, worth_of_chance
from harness.reports.numbers.recorded import read_recorded
from harness.reports.numbers.run import load_run
from harness.reports.numbers.statistics import mean_and_half_width
from harness.search.choice import within
from harness.store.records import DONE
from harness.store.run_folder import RunFolder
from harness.store.search_log import Tell, tells
from harness.store.summaries import OnUnusable
from harness.store.table import Table
from harness.study.space import cell_key
from harness.study.study import Study

Array = NDArray[np.float64]

BEYOND = 1.1
"""Times the largest cost: where the box of the hypervolume ends."""


@dataclass(frozen=True, kw_only=True)
class Fronts:
    """A run with several objectives. Scores and volumes are in percent, a loss as it is read, and
    costs in parameters or FLOPs."""

    study: Study
    goals: tuple[Goal, ...]
    environment: dict[str, str]
    budget: str | None
    """Of each search, in words; None of a sweep, whose log says what it spent."""
    seeds: tuple[int, ...]
    points: pd.DataFrame
    """A row per told trial: `arm`, `repeat`, `number`, `trial_id`, `status`, a column per goal, and
    `volume`, the share that the repeat dominated by then."""
    space: pd.DataFrame | None
    """A row per cell of the table that was replayed, for its first training seed, with a column per
    goal; None live."""
    front: pd.DataFrame
    """The front of that, or of all trials of the run: a row per trial by falling first goal, with
    `cell`, `trial_id`, a column per goal, test scores, and a column per arm: the share of its
    repeats that had found the trial."""
    fronts: dict[str, pd.DataFrame]
    """Search -> the front of its first repeat, with a column per goal."""
    volumes: pd.DataFrame
    """A row per arm: `repeats`, on how many of the `seeds`, and means over repeats of `trials`,
    `volume` and `front`. `volume` and `volume_ci` are over seeds, a seed's repeats averaged, or
    over repeats where there is one seed; so are `minus_random` and its `_ci`, of the volume minus
    what random search is expected to dominate in the same seed after as many trials: NaN where
    that is not known."""
    random: Array | None
    """What random search is expected to dominate after each number of trials, from 1 to the budget;
    None where not every cell is known, or the budget is not in trials."""
    corner: tuple[float, ...]
    """Where the box begins, in the units of `points`."""
    device_s: float
    """Charged to all searches."""
    notes: tuple[str, ...]


def normalised(worths: Array, corner: Array) -> Array:
    """Worths `[n, goals]`, better when higher, as places in the box: 0 its corner, 1 ideal."""
    ideal = np.array([1.0 if each > 0 else 0.0 for each in corner])
    return np.clip((worths - corner) / (ideal - corner), 0.0, 1.0)


def volume_by_count(points: Array) -> Array:
    """Volume of the unit box that exactly k of the points `[n, goals]` dominate, k from 0 to n."""
    inside = points[(points > 0).all(axis=1)]
    edges = [np.unique(np.append(0.0, column)) for column in inside.T]
    if not len(inside):
        return np.eye(1, len(points) + 1, dtype=np.float64).ravel()
    each = zip(edges, inside.T, strict=True)
    places = [np.searchsorted(edge, column) - 1 for edge, column in each]
    counts = np.zeros([len(edge) - 1 for edge in edges], dtype=np.int64)
    np.add.at(counts, tuple(places), 1)
    volumes = np.ones(())
    for axis, edge in enumerate(edges):
        counts = np.flip(np.flip(counts, axis).cumsum(axis), axis)
        volumes = np.multiply.outer(volumes, np.diff(edge))
    found: Array = np.bincount(counts.ravel(), volumes.ravel(), len(points) + 1).astype(float)
    found[0] = 1.0 - found[1:].sum()
    return found


def hypervolume(points: Array) -> float:
    """Share of the unit box that points `[n, goals]` dominate."""
    return float(volume_by_count(points)[1:].sum())


def expected_volume(points: Array, draws: int) -> Array:
    """What the first 1, 2, ... `draws` of all points in random order are expected to dominate.

    A place that k of N points dominate is missed by n of them with probability C(N-k, n) / C(N, n).
    """
    by_count, total = volume_by_count(points), len(points)
    count, drawn = np.arange(total + 1), np.arange(1, min(draws, total) + 1)[:, None]
    left = total - count - drawn
    logs = gammaln(np.maximum(total - count, 0) + 1) - gammaln(np.maximum(left, 0) + 1)
    logs = logs - (gammaln(total + 1) - gammaln(total - drawn + 1))
    missed = np.where(left >= 0, np.exp(logs), 0.0)
    expected = ((1.0 - missed) * by_count).sum(axis=1)
    return np.append(expected, np.full(max(0, draws - total), expected[-1]))


def is_on_front(worths: Array, corner: Array) -> NDArray[np.bool_]:
    """Which of the rows no other beats; of equal ones the first. None that a guess would equal."""
    better = (worths > corner).all(axis=1)
    found = np.zeros(len(worths), dtype=bool)
    for index in np.flatnonzero(better):
        others = worths[better]
        beaten = (others >= worths[index]).all(axis=1) & (others > worths[index]).any(axis=1)
        same = (worths[:index] == worths[index]).all(axis=1)
        found[index] = not beaten.any() and not same.any()
    return found


class _Read(NamedTuple):
    """What a run's folder holds, of either kind."""

    study: Study
    table: Table | None
    logs: dict[tuple[str, int], list[Tell]]
    """Arm and repeat -> the answers within the budget."""
    trials: pd.DataFrame
    """A row per trial under its id, with its `cell` as text."""
    chance: float
    environment: dict[str, str]
    budget: str | None
    draws: int | None
    """Trials that the budget pays for, where it is in trials."""
    seeds: tuple[int, ...]
    notes: tuple[str, ...]


def load_fronts(folder: RunFolder, on_unusable: OnUnusable | None = None) -> Fronts:
    """Read a sweep or a comparison with several objectives, and compute its numbers.

    Raises:
        UserError: no trial has ended yet, or as `load_run` and `read_recorded`.
    """
    read = _compared(folder) if folder.kind == "searches" else _swept(folder, on_unusable)
    study, goals = read.study, read.study.objectives
    points = _points(read.logs, goals)
    if points.empty or math.isnan(read.chance):
        raise UserError(f"{folder.name}: no trial has been scored yet, so there is no front.")
    space = None if read.table is None else _space(read.table, goals, read.seeds)
    known = points if space is None else space
    corner = _corner(_worths(known, goals), goals, round(100 / read.chance))
    points["volume"] = _volumes(points, goals, corner)
    first = None if space is None else space[space["seed"] == read.seeds[0]].copy()
    # The space is that of one seed, so repeats of other seeds cannot have found any of it.
    of_seed = points if first is None else points[points["repeat"] % len(read.seeds) == 0]
    front = _front(points if first is None else first, of_seed, goals, corner, read.trials)
    expected = None
    if space is not None and read.draws is not None:
        owns = [space[space["seed"] == seed] for seed in read.seeds]
        places = [normalised(_worths(own, goals), corner) for own in owns]
        expected = 100 * np.stack([expected_volume(each, read.draws) for each in places])
    volumes = _summary(points, read, corner, expected)
    fronts = _first_fronts(points, goals, corner)
    for frame in (points, front, *fronts.values(), *([] if first is None else [first])):
        for goal in goals:
            frame[goal] = as_read(goal, frame[goal])
    return Fronts(
        study=study,
        goals=goals,
        environment=read.environment,
        budget=read.budget,
        seeds=read.seeds,
        points=points,
        space=first,
        front=front,
        fronts=fronts,
        volumes=volumes,
        random=None if expected is None else expected.mean(axis=0),
        corner=tuple(float(as_read(g, each)) for g, each in zip(goals, corner, strict=True)),
        device_s=sum(event.device_s for log in read.logs.values() for event in log),
        notes=read.notes,
    )


def _compared(folder: RunFolder) -> _Read:
    """Of a comparison of searches."""
    recorded = read_recorded(folder)
    plan, budget = recorded.comparison, recorded.budget
    is_in_trials = budget.unit == "epochs"
    return _Read(
        study=recorded.study,
        table=recorded.table,
        logs={
            key: [event for event, _ in within(log, budget, plan.reference.flops)]
            for key, log in recorded.logs.items()
        },
        trials=recorded.trials,
        chance=recorded.chance,
        environment=recorded.environment,
        budget=plan.budget,
        draws=int(budget.amount // recorded.study.base.recipe.epochs) if is_in_trials else None,
        seeds=plan.seeds,
        notes=plan.notes,
    )


def _swept(folder: RunFolder, on_unusable: OnUnusable | None) -> _Read:
    """Of one search, which is named as the run's name ends."""
    run, name = load_run(folder, on_unusable), folder.name.rpartition("+")[2]
    keys = [cell_key(run.cells[number]) for number in run.cell_numbers]
    return _Read(
        study=run.study,
        table=None,
        logs={(name, repeat): tells(log) for repeat, log in run.searches.items()},
        trials=run.trials.assign(cell=keys).drop_duplicates("trial_id").set_index("trial_id"),
        chance=run.chance,
        environment=run.environment,
        budget=None,
        draws=None,
        seeds=run.study.seeds[:1],
        notes=(),
    )


def _worths(frame: pd.DataFrame, goals: Sequence[Goal]) -> Array:
    return frame[list(goals)].to_numpy(dtype=float)


def as_read(goal: Goal, worth: Any) -> Any:
    """A worth in the units that reports show: percent, a loss, parameters, FLOPs."""
    scale = scale_of(goal)
    return scale.sign * scale.factor * worth


def _score(goal: Goal) -> Objective:
    assert goal not in COSTS
    return goal  # type: ignore[return-value]


def _points(logs: dict[tuple[str, int], list[Tell]], goals: Sequence[Goal]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (arm, repeat), log in logs.items():
        whole = [event for event in log if event.status in DONE and event.objective is not None]
        for number, event in enumerate(whole, start=1):
            row = {"arm": arm, "repeat": repeat, "number": number}
            row |= {"trial_id": event.trial_id, "status": event.status}
            row |= zip(goals, (event.objective, *event.beside), strict=True)
            rows.append(row)
    return pd.DataFrame(rows)


def _space(table: Table, goals: Sequence[Goal], seeds: Sequence[int]) -> pd.DataFrame:
    """A row per cell of the table's space and training seed."""
    last, space = table.trials, table.space()
    columns: dict[str, Any] = {name: last[name] for name in ("trial_id", "cell", "seed", "status")}
    for goal in goals:
        columns[goal] = table.goal_worths(goal)
    found = pd.DataFrame(columns)
    inside = {text: space.params(json.loads(text)) is not None for text in found["cell"].unique()}
    return found[found["cell"].map(inside) & found["seed"].isin(seeds)].reset_index(drop=True)


def _corner(worths: Array, goals: Sequence[Goal], num_classes: int) -> Array:
    """Chance of a score, and more than the largest cost."""
    return np.array(
        [
            BEYOND * worths[:, place].min()
            if goal in COSTS
            else worth_of_chance(_score(goal), num_classes)
            for place, goal in enumerate(goals)
        ]
    )


def _volumes(points: pd.DataFrame, goals: Sequence[Goal], corner: Array) -> list[float]:
    """After every trial, what its repeat dominates by then, in percent."""
    found: list[float] = []
    for _, own in points.groupby(["arm", "repeat"], sort=False):
        places = normalised(_worths(own, goals), corner)
        found += [100 * hypervolume(places[:count]) for count in range(1, len(places) + 1)]
    return found


def _front(
    pool: pd.DataFrame,
    points: pd.DataFrame,
    goals: Sequence[Goal],
    corner: Array,
    trials: pd.DataFrame,
) -> pd.DataFrame:
    pool = pool.drop_duplicates("trial_id")
    own = pool[is_on_front(_worths(pool, goals), corner)]
    front = own[["trial_id", *goals]].sort_values(goals[0], ascending=False, kind="stable")
    front.insert(0, "cell", trials["cell"].reindex(front["trial_id"]).to_list())
    for name in (SHOWN, *([TAIL] if TAIL in goals else [])):
        front[f"test_{name}"] = trials[f"test_{name}"].reindex(front["trial_id"]).to_numpy()
    for arm, found in points.groupby("arm", sort=False):
        repeats = found.groupby("trial_id")["repeat"].nunique() / found["repeat"].nunique()
        front[f"found_by_{arm}"] = repeats.reindex(front["trial_id"]).fillna(0.0).to_numpy()
    return front.reset_index(drop=True)


def _first_fronts(
    points: pd.DataFrame, goals: Sequence[Goal], corner: Array
) -> dict[str, pd.DataFrame]:
    found = {}
    for arm, own in points[points["repeat"] == 0].groupby("arm", sort=False):
        found[str(arm)] = own[is_on_front(_worths(own, goals), corner)].copy()
    return found


def _summary(
    points: pd.DataFrame, read: _Read, corner: Array, expected: Array | None
) -> pd.DataFrame:
    """`expected` is what random search dominates in each seed after 1, 2, ... trials."""
    rows: dict[str, dict[str, float]] = {}
    for arm in dict.fromkeys(name for name, _ in read.logs):
        own = points[points["arm"] == arm]
        if own.empty:
            continue
        by = dict(iter(own.groupby("repeat")))
        last = pd.Series({repeat: each["volume"].iloc[-1] for repeat, each in by.items()})
        seeds = last.index.to_numpy() % len(read.seeds)
        worths = [_worths(each, read.study.objectives) for each in by.values()]
        sizes = [int(is_on_front(each, corner).sum()) for each in worths]
        trials = float(np.mean([len(each) for each in by.values()]))
        mean, half = _over_seeds(last, seeds)
        beyond = (float("nan"), float("nan"))
        if expected is not None and expected.size:
            count = min(max(round(trials), 1), expected.shape[1])
            beyond = _over_seeds(last - expected[seeds, count - 1], seeds)
        rows[arm] = {
            "repeats": len(by),
            "seeds": len(set(seeds)),
            "trials": trials,
            "volume": mean,
            "volume_ci": half,
            "minus_random": beyond[0],
            "minus_random_ci": beyond[1],
            "front": float(np.mean(sizes)),
        }
    return pd.DataFrame.from_dict(rows, "index")


def _over_seeds(values: pd.Series[float], seeds: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and half-width of values of repeats: chance within a seed is no replicate of another."""
    by_seed = values.groupby(seeds).mean()
    return mean_and_half_width(values if len(by_seed) == 1 else by_seed)
