"""Searches by name: the built-in ones and those that users have installed.

A user's search is an entry point in the group `harness.searches`: a function that takes a
`SearchTask` and gives a `Search`. All are started within their bounds (`bounded`). Owns: these
names. Must not know: torch, where trials run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

from harness.errors import UserError, unknown
from harness.metrics import Goal
from harness.registry import installed, load_entry, origin
from harness.search.base import Restarts, Search, SearchMaker, SearchTask
from harness.search.bounded import start_search
from harness.search.optuna_search import (
    PRUNERS,
    SAMPLERS,
    SEVERAL,
    OnRepeat,
    OptunaSearch,
    Pruner,
    Sampler,
)
from harness.search.population import PopulationSearch, population_budget, population_size
from harness.search.ranking import NAMES, Rankable, RankingSearch
from harness.search.shares import Parts, ShareSearch
from harness.study.space import Params, Values

POPULATION = "pbt"
ONLY_SEVERAL = ("nsga2",)
"""Searches that take no single objective."""
GROUP = "harness.searches"


def installed_searches() -> dict[str, list[EntryPoint]]:
    """Users' searches by name; a built-in one keeps its name."""
    return {name: entries for name, entries in installed(GROUP).items() if not _is_built_in(name)}


def may_pause(name: str) -> bool:
    """Whether a search may pause trials and go on with them, from their checkpoints."""
    return name == POPULATION or name in installed_searches()


def clashing_searches() -> list[str]:
    """A sentence for every installed search whose name is built in."""
    return [
        f"Search {name!r} of {origin(entry)} is not used: the name is built in."
        for name, entries in installed(GROUP).items()
        if _is_built_in(name)
        for entry in entries
    ]


def _is_built_in(name: str) -> bool:
    return name in (*SAMPLERS, POPULATION, *NAMES, "grid")


def find_search(name: str, beside: Sequence[str] = ()) -> SearchMaker:
    """A sampler, one with a pruner as in `tpe+hyperband`, `pbt`, or an installed search.

    `beside` are names that are allowed too where this is asked.

    Raises:
        UserError: there is none of this name. One that cannot be imported is refused at its start.
    """
    users = installed_searches()
    if name in users:
        return partial(start_search, name, partial(_installed, users[name]))
    if name == POPULATION:
        return _population
    sampler, plus, pruner = name.partition("+")
    stops = [each for each in PRUNERS if each != "none"]
    if sampler in SAMPLERS and (not plus or pruner in stops):
        known: Any = (sampler, pruner or "none")
        return optuna_search(*known)
    stopped = [each for each in SAMPLERS if each not in ONLY_SEVERAL]
    pruned = [f"{each}+{stop}" for each in stopped for stop in stops] if plus else []
    raise unknown("search", name, [*SAMPLERS, *pruned, POPULATION, *users, *beside])


def refuse_objectives(name: str, objectives: Sequence[Goal]) -> None:
    """Whether a search takes so many objectives.

    Raises:
        UserError: it takes only one, or only several.
    """
    named = ",".join(objectives)
    if len(objectives) > 1 and name not in SEVERAL:
        raise UserError(
            f"--objective {named}: --search {name} takes one objective; give one, or search by "
            f"{', '.join(SEVERAL[:-1])} or {SEVERAL[-1]}."
        )
    if len(objectives) == 1 and name.partition("+")[0] in ONLY_SEVERAL:
        raise UserError(
            f"--search {name} takes several objectives, and {named} is one; give more, as in "
            f"--objective {named},trainable_params."
        )


def restarts(name: str, cells: Sequence[Values], count: int = 1) -> SearchMaker:
    """Configurations that are given, as a search: each of them on `count` seeds in a row.

    A method that learns strengths is one such configuration.
    """

    def start(task: SearchTask) -> Search:
        seeds = range(task.seed, task.seed + count)
        trials = [(cell, task.make(cell, seed)) for seed in seeds for cell in cells]
        return Restarts(trials, task.log)

    return partial(start_search, name, start, beyond=cells)


def ranking(name: str, cell: Values) -> SearchMaker:
    """A trial of a configuration that ranks the sites, then one of their better half."""

    def start(task: SearchTask) -> Search:
        return RankingSearch(task, cell)

    return partial(start_search, name, start, beyond=Rankable((cell,)))


def optuna_search(
    sampler: Sampler,
    pruner: Pruner,
    on_repeat: OnRepeat = "cached",
    warm: Sequence[tuple[Params, float]] = (),
) -> SearchMaker:
    """A sampler of Optuna's, as a search; see `OptunaSearch`."""

    def start(task: SearchTask) -> Search:
        return OptunaSearch(sampler, task, on_repeat=on_repeat, pruner=pruner, warm=warm)

    name = sampler if pruner == "none" else f"{sampler}+{pruner}"
    return partial(start_search, name, start)


def share_search(sampler: Sampler, pruner: Pruner, on_repeat: OnRepeat = "cached") -> SearchMaker:
    """A sampler of Optuna's with rungs on shares of the training data; see `ShareSearch`."""

    def start(task: SearchTask) -> Search:
        return ShareSearch(sampler, task, on_repeat=on_repeat, pruner=pruner)

    def begin(task: SearchTask) -> Search:
        return start_search(f"{sampler}+{pruner}+data", start, task, beyond=Parts(task.space))

    return begin


def _population(task: SearchTask) -> Search:
    size = population_size(task.space, task.budget, task.epochs)

    def start(task: SearchTask) -> Search:
        return PopulationSearch(task, size)

    task = replace(task, budget=population_budget(size, task.epochs))
    return start_search(POPULATION, start, task)


def _installed(entries: list[EntryPoint], task: SearchTask) -> Search:
    make: SearchMaker = load_entry("search", entries)
    return make(task)
