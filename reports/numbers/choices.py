"""What searches have chosen within their budget, and how they compare there.

Every choice is by the selection score, and what is shown of it is its test score. Accuracies are in
percent, a selection loss is negated, so that more is better; cost is in full runs. A training seed
is one replicate (see `contrasts`).

Owns: the choices and a row per search. Must not know: lines against cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.reports.numbers.contrasts import by_seed, contrasts, within_seeds
from harness.reports.numbers.incumbents import with_incumbent
from harness.reports.numbers.landscape import AllCells
from harness.reports.numbers.random_search import Expected
from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import area, cost_to, mean_and_half_width, ranked
from harness.reports.numbers.sweep import proposed
from harness.search.choice import search_chance
from harness.store.records import DONE
from harness.store.search_log import best_cells
from harness.study.space import cell_key

RANDOM = "random, expected"
"""The arm that is random search in closed form."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The searches on one space, with what is known of it."""

    recorded: Recorded
    told: pd.DataFrame
    """Their answers; see `incumbents.all_answers`."""
    cells: AllCells | None
    expected: Expected | None
    """Random search in closed form; None without a table."""

    @property
    def random(self) -> str:
        """Name of the arm that is random search in closed form."""
        return self.recorded.arm(RANDOM)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Searches at their budget."""

    at: float
    """The budget as a cost; of one in epochs, what each search was given at least, by its median
    over repeats."""
    final: pd.DataFrame
    """A row per search and repeat: its incumbent within the budget, and what became of it."""
    seeds: pd.DataFrame
    """A row per arm and training seed (see `contrasts.by_seed`): random search in closed form
    first, where there is a table, then the searches."""
    table: pd.DataFrame
    """A row per search: means over seeds with half-widths `_ci` (Student's t over seeds), the part
    of search chance in that of `test` (`test_chance_ci`), ranks, costs and counts of answers."""
    contrasts: pd.DataFrame
    """Every pair of arms; see `contrasts.contrasts`."""
    within: pd.DataFrame
    """Each search in each seed alone, beside random search in closed form; see
    `contrasts.within_seeds`. Without a table, no row."""
    reference: str
    """The arm that others are compared to: random search in closed form, or else the search that
    was run."""

    @property
    def against(self) -> pd.DataFrame:
        """Each arm minus the reference: the columns of `contrasts`, under the arm's name."""
        own = self.contrasts[self.contrasts["second"] == self.reference].set_index("first")
        return own.drop(columns=["second", "sd", "seeds"]).rename(
            columns={"mean": "difference", "half_width": "difference_ci"}
        )

    @property
    def judged(self) -> pd.DataFrame:
        """`table` with `against`."""
        return self.table.join(self.against)


def choices(parts: list[Part]) -> Choices:
    """Choices of the searches on one space or on several."""
    told = pd.concat([part.told for part in parts], ignore_index=True)
    first = parts[0].recorded
    given = tuple(name for part in parts for name in part.recorded.given)
    at = first.most_cost
    if np.isinf(at):
        spent = told.groupby(["search", "repeat"], sort=False)["cost"].max()
        typical = spent.groupby("search", sort=False).median()
        whole = [name for name in typical.index if name not in given]
        at = float(typical[whole].min() if whole else typical.max())
    start = _common_start(told, given)
    finals = [
        _final(part, start, at).merge(_confirmed(part.recorded), on=["search", "repeat"])
        for part in parts
    ]
    final = pd.concat(finals, ignore_index=True)
    names = ["test", *first.groups]
    expected = [p.expected.seeds.assign(search=p.random) for p in parts if p.expected is not None]
    random = tuple(part.random for part in parts if part.expected is not None)
    seeds = pd.concat([*expected, by_seed(final, names)], ignore_index=True)
    seeds = seeds[["search", "seed", "repeats", *names, "test_sd"]]
    arms = [*random, *dict.fromkeys(final["search"])]
    arms.sort(key=lambda name: name not in (*random, first.arm("random")))  # the reference first
    tables = [_by_search(part, own) for part, own in zip(parts, finals, strict=True)]
    return Choices(
        at=at,
        final=final,
        seeds=seeds,
        table=pd.concat(tables).join(_ranked(first, final, given)),
        contrasts=contrasts(seeds, arms, (*random, *given)),
        within=within_seeds(final, seeds[seeds["search"].isin(random[:1])], given),
        reference=arms[0],
    )


def _ranked(recorded: Recorded, final: pd.DataFrame, given: tuple[str, ...]) -> pd.DataFrame:
    """Ranks, and how often a repeat is better than one of random search that was run."""
    names = list(dict.fromkeys(final["search"]))
    run = recorded.arm("random")
    values = {name: final[final["search"] == name]["test"].to_numpy(float) for name in names}
    plan, most = recorded.comparison, max(map(len, values.values()))
    seeds = np.array([plan.seed(repeat) for repeat in range(most)])
    return ranked(values, seeds, run if run in names else None, given)


def _final(part: Part, start: float, at: float) -> pd.DataFrame:
    """The incumbents within the budget; without scores where a repeat had none by then."""
    recorded, cells = part.recorded, part.cells
    trials, groups, test = recorded.trials, recorded.groups, recorded.test
    scored = trials[["cell", test, *_of_groups(groups)]].to_dict("index")
    elsewhere = _ElsewhereScored(trials, recorded.select)
    rows = []
    # Columns as arrays: a frame for each of some thousand repeats takes most of a report's time.
    columns = {name: part.told[name].to_numpy() for name in part.told}
    for (name, repeat), places in _repeats(part.told):
        own = {column: values[places] for column, values in columns.items()}
        known = own["incumbent"] != ""
        within = np.flatnonzero(own["within"].astype(bool) & known)
        row: dict[str, Any] = {
            "search": name,
            "repeat": repeat,
            "seed": recorded.comparison.seed(int(str(repeat))),
            "runs": own["runs"].max(),
            "flop_runs": own["flop_runs"].max(),
            "trials": len(places),
        }
        if cells is not None and known.any():
            costs, regrets = (own[c][known].astype(float) for c in ("cost", "regret"))
            row["area"] = area(costs, regrets, start, at)
            row["cost_to"] = cost_to(costs, regrets, cells.target)
        if len(within):
            last = {column: values[within[-1]] for column, values in own.items()}
            trial = scored[last["incumbent"]]
            ended = zip(own["trial_id"][within], own["status"][within], strict=True)
            tested = [scored[i][test] for i, status in ended if status == "COMPLETE"]
            row |= {
                "cell": trial["cell"],
                "select": last["incumbent_select"],
                "test": trial[test],
                **{group: trial[f"test_{group}"] for group in groups},
                **{f"binomial_{group}": trial[f"binomial_{group}"] for group in groups},
                "regret": last["regret"],
                "test_regret": last["test_regret"],
                "missed": max(tested, default=trial[test]) - trial[test],
                "luck": last["incumbent_select"] - elsewhere.mean(str(last["incumbent"])),
            }
        rows.append(row)
    names = ["cell", "select", "test", *groups, *(f"binomial_{g}" for g in groups)]
    names = [*names, "regret", "test_regret", "missed", "luck", "area", "cost_to"]
    found = pd.DataFrame(rows)
    return found.reindex(columns=list(dict.fromkeys([*found.columns, *names])))


def _of_groups(groups: Sequence[str]) -> list[str]:
    """Columns of a trial's scores by group."""
    return [f"{kind}_{group}" for kind in ("test", "binomial") for group in groups]


def _repeats(told: pd.DataFrame) -> Iterator[tuple[tuple[str, int], NDArray[np.int64]]]:
    """Search and repeat, in the order in which they come, and the places of their answers."""
    places = told.groupby(["search", "repeat"], sort=False).indices
    for name, repeat in told[["search", "repeat"]].drop_duplicates().to_numpy():
        yield (name, repeat), np.asarray(places[name, repeat])


class _ElsewhereScored:
    """Mean scores of a trial's cell on the other seeds; each is computed once."""

    def __init__(self, trials: pd.DataFrame, name: str) -> None:
        self._trials, self._name = trials, name
        self._by_place = trials.reset_index().groupby("cell")
        self._known: dict[str, float] = {}

    def mean(self, trial_id: str) -> float:
        """NaN without other seeds."""
        if trial_id not in self._known:
            trial = self._trials.loc[trial_id]
            fellows = self._by_place.get_group(str(trial["cell"]))
            fellows = fellows[fellows["seed"] != trial["seed"]]
            self._known[trial_id] = float(fellows[self._name].mean())
        return self._known[trial_id]


def _confirmed(recorded: Recorded) -> pd.DataFrame:
    """Of each repeat: its best, and the one of its k best that unseen seeds confirm.

    Both by test score on the unseen seeds; `confirm_runs` is what training them cost.
    """
    comparison, test = recorded.comparison, recorded.test
    by_place = recorded.trials.reset_index().set_index(["cell", "seed"]).sort_index()
    rows = []
    for (name, repeat), events in recorded.logs.items():
        unseen = [s for s in comparison.confirm_seeds if s != comparison.seed(repeat)]
        row: dict[str, Any] = {"search": name, "repeat": repeat}
        row |= dict.fromkeys(("first_again", "confirmed", "confirm_runs"), float("nan"))
        again = []
        for cell, _ in best_cells(events, comparison.confirm):
            places = [(cell_key(cell), seed) for seed in unseen]
            if places and all(place in by_place.index for place in places):
                again.append(by_place.loc[places])
        if again:
            best = max(again, key=lambda found: float(found[recorded.select].mean()))
            row["first_again"] = again[0][test].mean()
            row["confirmed"] = best[test].mean()
            seconds = sum(float(found["device_s"].sum()) for found in again)
            row["confirm_runs"] = seconds / comparison.reference.device_s
        rows.append(row)
    return pd.DataFrame(rows)


def _by_search(part: Part, final: pd.DataFrame) -> pd.DataFrame:
    recorded, rows = part.recorded, []
    names = ["test", "select", *recorded.groups, "regret", "test_regret", "missed", "luck", "area"]
    names += ["first_again", "confirmed"]
    for name in dict.fromkeys(final["search"]):
        own = final[final["search"] == name]
        answers = part.told[part.told["search"] == name]
        seeds = by_seed(own, names)
        row: dict[str, Any] = {"search": name, "repeats": len(own)}
        for field in names:
            row[field], row[f"{field}_ci"] = mean_and_half_width(seeds[field])
        spread = (seeds[each].to_numpy(float) for each in ("test_sd", "repeats"))
        row["test_chance_ci"] = 0.0 if name in recorded.given else search_chance(*spread)
        for group in recorded.groups:
            row[f"binomial_{group}"] = own[f"binomial_{group}"].mean()
        row |= {f: own[f].median() for f in ("runs", "flop_runs", "trials", "confirm_runs")}
        reached = own["cost_to"].dropna()
        row["cost_to"] = float(np.median(reached)) if len(reached) else float("nan")
        row["reached"] = int(np.isfinite(reached).sum())
        logs = [recorded.logs[name, repeat] for repeat in own["repeat"]]
        row["proposals"], row["repeated"] = proposed(logs)
        whole = answers[answers["status"].isin(DONE)]
        row["answers"] = len(answers)
        for status in ("DIVERGED", "FAILED", "PRUNED"):
            row[status] = int((answers["status"] == status).sum())
        accuracies = recorded.trials["select_class_mean"].loc[whole["trial_id"]]
        row["collapsed"] = int((accuracies < 2 * recorded.chance).sum())
        rows.append(row)
    return pd.DataFrame(rows).set_index("search")


def _common_start(told: pd.DataFrame, given: tuple[str, ...]) -> float:
    """The cost at which every repeat of every search that goes on has an incumbent."""
    steps = with_incumbent(told[~told["search"].isin(given)])
    if steps.empty:
        return float("nan")
    return float(steps.groupby(["search", "repeat"])["cost"].min().max())
