"""From a study and a user's words to the searches of a run.

Owns: which searches there are, and what each takes. Must not know: how they are run or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import UserError, unknown
from harness.insertion import get_method
from harness.optuna_search import SAMPLERS, OnRepeat, OptunaSearch, Pruner
from harness.population import PopulationSearch, can_change
from harness.registry import METHODS
from harness.searches import Budget, Restarts, Search
from harness.space import SearchSpace, Values
from harness.spec import TrialSpec
from harness.study import Study
from harness.sweep import known_points
from harness.trial import Runtime, full_run_flops, resolve
from harness.vit import dims

POPULATION = "pbt"
DEFAULT_BUDGET = "24"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks of a search; None: left to it."""

    name: str
    """A sampler of Optuna's, `pbt`, or a method that learns strengths."""
    budget: str | None = None
    repeats: int = 1
    pruner: Pruner | None = None
    on_repeat: OnRepeat | None = None
    warm_start: Path | None = None

    def refuse(self, *fields: str) -> None:
        """Raises `UserError` if one of these was asked for."""
        for field in fields:
            if getattr(self, field) not in (None, "none"):
                flag = field.replace("_", "-")
                raise UserError(f"--{flag} is not for --search {self.name}.")


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """The searches of a run, one per repeat, to be started one after the other."""

    words: str
    """One line on what will be done."""
    starts: list[Callable[[], Search]]
    count: int | None
    """Trials of each, if that is known."""


def learning_methods() -> list[str]:
    """Methods that learn strengths while they train, each a search of its own."""
    return [name for name in METHODS.names() if get_method(name).wraps]


def plan_searches(study: Study, runtime: Runtime, folder: Path, wanted: Wanted) -> SearchPlan:
    """Make ready what is wanted, with its logs in `folder`.

    Raises:
        UserError: an unknown search, or one that does not take what is wanted of it.
    """
    learning = learning_methods()
    if wanted.name in learning:
        return _restarts(study, runtime, folder, wanted)
    if wanted.name not in (*SAMPLERS, POPULATION):
        raise unknown("search", wanted.name, ["grid", *SAMPLERS, POPULATION, *learning])
    space = SearchSpace(study, dims(study.base.backbone).num_blocks)

    def make(values: Values, seed: int) -> TrialSpec:
        return resolve(space.request(values, seed), runtime)

    planned = _population if wanted.name == POPULATION else _optuna
    return planned(study, runtime, folder, wanted, space, make)


Make = Callable[[Values, int], TrialSpec]


def _optuna(
    study: Study, runtime: Runtime, folder: Path, wanted: Wanted, space: SearchSpace, make: Make
) -> SearchPlan:
    budget = Budget.parse(wanted.budget or DEFAULT_BUDGET)
    default = space.default()
    reference = make(space.values(lambda variable, domain: default[variable]), study.seeds[0])
    known = wanted.warm_start
    warm = [] if known is None else known_points(known, space, make, study.objective)
    pruner = wanted.pruner or "none"

    def start(repeat: int) -> Search:
        name: Any = wanted.name
        return OptunaSearch(
            name,
            space,
            make,
            name=f"{folder.name}/{repeat}",
            first_seed=study.seeds[0],
            on_repeat=wanted.on_repeat or "cached",
            budget=budget,
            full_run_flops=full_run_flops(reference, runtime) if budget.unit == "runs" else 1,
            log=_log(folder, repeat),
            pruner=pruner,
            epochs=study.base.recipe.epochs,
            warm=warm,
        )

    return SearchPlan(
        words=(
            f"Search: {wanted.name} over {_size(space)} configurations, budget "
            f"{budget.amount:g} {budget.unit}, {_times(wanted.repeats)}"
            + ("" if pruner == "none" else f", bad trials stopped by {pruner}")
            + (f"; {len(warm)} configurations known from {known.name}." if known else ".")
        ),
        starts=[partial(start, repeat) for repeat in range(wanted.repeats)],
        count=int(budget.amount) if budget.unit == "trials" else None,
    )


def _population(
    study: Study, runtime: Runtime, folder: Path, wanted: Wanted, space: SearchSpace, make: Make
) -> SearchPlan:
    wanted.refuse("pruner", "on_repeat", "warm_start")
    budget = Budget.parse(wanted.budget or DEFAULT_BUDGET)
    if not any(can_change(variable) for variable in space.default()):
        raise UserError(
            f"--search {wanted.name} changes alpha or recipe.lr in mid-training, and study "
            f"{study.name} varies neither; take one that does, such as position_vs_alpha."
        )
    epochs = study.base.recipe.epochs
    size = int(budget.amount / (epochs if budget.unit == "epochs" else 1))
    if budget.unit not in ("trials", "epochs") or not size:
        raise UserError(
            f"--search {wanted.name} takes a --budget in trials, its members, or in epochs, at "
            f"least {epochs} of them."
        )

    def start(repeat: int) -> Search:
        return PopulationSearch(
            space,
            make,
            name=f"{folder.name}/{repeat}",
            seed=study.seeds[0],
            size=size,
            epochs=epochs,
            log=_log(folder, repeat),
        )

    return SearchPlan(
        words=(
            f"Search: {wanted.name} over {_size(space)} configurations, a population of {size}, "
            f"{_times(wanted.repeats)}."
        ),
        starts=[partial(start, repeat) for repeat in range(wanted.repeats)],
        count=None,
    )


def _restarts(study: Study, runtime: Runtime, folder: Path, wanted: Wanted) -> SearchPlan:
    wanted.refuse("pruner", "on_repeat", "warm_start")
    budget = Budget.parse(wanted.budget or "1")
    if budget.unit != "trials" or budget.amount < 1:
        raise UserError(f"--search {wanted.name} takes a --budget in trials, its restarts.")
    count = int(budget.amount)
    base = study.base.model_copy(
        update={"positions": None, "depth": "all", "alpha": 1.0, "placement": None}
    )
    cell: Values = {
        "method": wanted.name,
        "options": {"base": base.method, "base_options": base.options},
    }

    def start(repeat: int) -> Search:
        first = study.seeds[0] + repeat * count
        requests = [
            base.with_values({**cell, "seed": seed}, source=wanted.name)
            for seed in range(first, first + count)
        ]
        trials = [(cell, resolve(request, runtime)) for request in requests]
        return Restarts(trials, _log(folder, repeat))

    return SearchPlan(
        words=(
            f"Search: {wanted.name} over the sites of {base.method}, "
            f"{count} × {wanted.repeats} runs."
        ),
        starts=[partial(start, repeat) for repeat in range(wanted.repeats)],
        count=count,
    )


def _log(folder: Path, repeat: int) -> Path:
    return folder / f"search-{repeat}.jsonl"


def _size(space: SearchSpace) -> str:
    return "infinitely many" if space.size == float("inf") else f"{space.size:.0f}"


def _times(repeats: int) -> str:
    return f"{repeats} time{'s' if repeats > 1 else ''}"
