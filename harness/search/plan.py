"""From a study and a user's words to the searches of a run.

Owns: which searches there are, and what each takes. Must not know: how they are run or shown.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.errors import UserError, unknown
from harness.insertion.method import METHODS
from harness.model.backbones import dims
from harness.runner.cost import full_run_flops
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import Make, Search, SearchTask
from harness.search.bounded import refuse_unscored
from harness.search.budget import Budget
from harness.search.catalogue import (
    POPULATION,
    find_search,
    installed_searches,
    optuna_search,
    ranking,
    refuse_objectives,
    restarts,
    share_search,
)
from harness.search.optuna_search import SAMPLERS, OnRepeat, Pruner, refuse_sampler
from harness.search.population import population_size
from harness.search.ranking import Rankable
from harness.search.resumed import fields_of, refuse_another, refuse_another_start
from harness.search.shares import SHARES, Fidelity, Parts
from harness.search.warm_start import known_points
from harness.spec import TrialSpec
from harness.store.run_folder import RunFolder
from harness.store.search_log import SHARE, asks, read_log
from harness.study.axes import cell_words
from harness.study.space import SearchSpace, Values
from harness.study.study import Study

DEFAULT_BUDGET = "24"


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a user asks of a search; None: left to it."""

    name: str
    """A sampler of Optuna's, `pbt`, a user's search, or a method that learns strengths."""
    budget: str | None = None
    repeats: int = 1
    pruner: Pruner | None = None
    fidelity: Fidelity | None = None
    on_repeat: OnRepeat | None = None
    warm_start: RunFolder | None = None

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
    full: TrialSpec
    """One that is whole: the space's default, or a method that learns strengths."""
    budget: Budget
    """Of each."""
    most: int | None = None
    """Trials that each can have, whatever its budget; None: no such number is known."""


def learning_methods() -> list[str]:
    """Methods that learn strengths while they train, each a search of its own."""
    return [name for name, method in METHODS.working().items() if method.wraps]


def plan_searches(
    study: Study, runtime: Runtime, folder: RunFolder, request: SearchRequest
) -> SearchPlan:
    """Make ready what is asked for, with its logs in `folder`.

    Raises:
        UserError: an unknown search, or one that does not take what is asked of it.
    """
    learning, rankings = learning_methods(), ranking_cells(study)
    if request.name in learning:
        return _restarts(study, runtime, folder, request)
    if request.name in rankings:
        return _ranking(study, runtime, folder, request, rankings[request.name])
    others = [POPULATION, *installed_searches()]
    if request.name not in (*SAMPLERS, *others):
        raise unknown("search", request.name, ["grid", *SAMPLERS, *others, *learning, *rankings])
    refuse_objectives(request.name, study.objectives)
    if study.further:
        _refuse_for_several(request, study)
    planned = _from_name if request.name in others else _optuna
    return planned(study, runtime, folder, request, *live_space(study, runtime))


def _refuse_for_several(request: SearchRequest, study: Study) -> None:
    """Raises `UserError` for what has no meaning where trials are not better or worse by one."""
    named = ",".join(study.objectives)
    if request.pruner not in (None, "none"):
        raise UserError(
            f"--pruner {request.pruner}: a trial that is judged by several objectives ({named}) is "
            "not stopped early; leave it out, or give one objective."
        )
    if request.warm_start is not None:
        raise UserError(
            f"--warm-start: a search with several objectives ({named}) starts without; leave it "
            "out, or give one objective."
        )


def _optuna(
    study: Study,
    runtime: Runtime,
    folder: RunFolder,
    request: SearchRequest,
    space: SearchSpace,
    make: Make,
) -> SearchPlan:
    refuse_sampler(request.name, space)
    on_shares = request.fidelity == "data"
    if request.fidelity is not None and request.pruner in (None, "none"):
        raise UserError(
            f"--fidelity {request.fidelity} is of a pruner's rungs: give --pruner, too."
        )
    if request.pruner not in (None, "none") and not on_shares:
        refuse_unscored(study.base.recipe, f"--pruner {request.pruner}")
    budget = Budget.parse(DEFAULT_BUDGET if request.budget is None else request.budget)
    flops = _reference_flops(study, space, make, budget, runtime)
    known = request.warm_start
    warm = [] if known is None else known_points(known, space, make, study.objective)
    pruner = request.pruner or "none"

    sampler: Any = request.name
    on_repeat = request.on_repeat or "cached"
    beyond: Container[object] = ()
    stopped = f", bad trials stopped by {pruner}"
    if on_shares:
        _refuse_on_shares(request, study, space, budget)
        maker, beyond = share_search(sampler, pruner, on_repeat), Parts(space)
        shares = ", ".join(f"1/{1 / share:.0f}" for share in SHARES[:-1])
        stopped += f" on {shares} of the training data"
    else:
        maker = optuna_search(sampler, pruner, on_repeat, warm)
        for repeat in range(request.repeats):
            refuse_another_start(folder.log(repeat), warm, on_repeat)
    tasks = search_tasks(study, folder, request.repeats, space, make, budget, flops, beyond)
    return SearchPlan(
        words=(
            f"Search: {request.name} over {_size(space)} configurations, budget "
            f"{budget.amount:g} {budget.unit}, {_times(request.repeats)}"
            + ("" if pruner == "none" else stopped)
            + (f"; {len(warm)} configurations known from {known.name}." if known else ".")
        ),
        starts=[partial(maker, task) for task in tasks],
        count=int(budget.amount) if budget.unit == "trials" else None,
        full=default_trial(study, space, make),
        budget=budget,
    )


def _refuse_on_shares(
    request: SearchRequest, study: Study, space: SearchSpace, budget: Budget
) -> None:
    """Raises `UserError` for what rungs on shares of the training data do not go with."""
    request.refuse("warm_start")
    if SHARE in fields_of(space) or study.base.data.train_share < 1:
        raise UserError(
            f"--fidelity data: the rungs are shares of the training data, which study {study.name} "
            f"sets itself ({SHARE}); leave one of them out."
        )
    if budget.unit in ("trials", "epochs"):
        raise UserError(
            "--fidelity data: a trial on a part of the data costs a part of one, so the budget is "
            "in full runs or seconds: give one, as in --budget 12runs."
        )


def _from_name(
    study: Study,
    runtime: Runtime,
    folder: RunFolder,
    request: SearchRequest,
    space: SearchSpace,
    make: Make,
) -> SearchPlan:
    """A population, or a search that a user has installed: all they take is a budget."""
    request.refuse("pruner", "fidelity", "on_repeat", "warm_start")
    budget = Budget.parse(request.budget or DEFAULT_BUDGET)
    words = f"budget {budget.amount:g} {budget.unit}"
    if request.name == POPULATION:
        refuse_unscored(study.base.recipe, f"--search {POPULATION}")
        size = population_size(space, budget, study.base.recipe.epochs)
        words = f"a population of {size}"
    flops = _reference_flops(study, space, make, budget, runtime)
    maker = find_search(request.name)
    tasks = search_tasks(study, folder, request.repeats, space, make, budget, flops)
    return SearchPlan(
        words=(
            f"Search: {request.name} over {_size(space)} configurations, {words}, "
            f"{_times(request.repeats)}."
        ),
        starts=[partial(maker, task) for task in tasks],
        count=None,
        full=default_trial(study, space, make),
        budget=budget,
    )


def _restarts(
    study: Study, runtime: Runtime, folder: RunFolder, request: SearchRequest
) -> SearchPlan:
    request.refuse("pruner", "fidelity", "on_repeat", "warm_start")
    budget = Budget.parse(request.budget or "1")
    if budget.unit != "trials" or budget.amount < 1:
        raise UserError(f"--search {request.name} takes a --budget in trials, its restarts.")
    count = int(budget.amount)
    space, make = live_space(study, runtime)
    cell = learning_cell(study, request.name)
    maker = restarts(request.name, [cell], count)
    tasks = [
        replace(task, seed=task.seed + repeat * count)
        for repeat, task in enumerate(
            search_tasks(study, folder, request.repeats, space, make, budget, 1, beyond=[cell])
        )
    ]
    for task in tasks:
        for begun in asks(read_log(task.log))[:1]:
            if begun.seed != task.seed:
                raise UserError(
                    f"--budget {count}: {task.log} begins at seed {begun.seed}, and with as many "
                    f"restarts at {task.seed}: give the budget that it had, or another --out."
                )
    return SearchPlan(
        words=(
            f"Search: {request.name} over the sites of {study.base.method}, "
            f"{count} × {request.repeats} runs."
        ),
        starts=[partial(maker, task) for task in tasks],
        count=count,
        full=make(cell, study.seeds[0]),
        budget=budget,
    )


def _ranking(
    study: Study, runtime: Runtime, folder: RunFolder, request: SearchRequest, cell: Values
) -> SearchPlan:
    request.refuse("budget", "pruner", "fidelity", "on_repeat", "warm_start")
    budget = Budget.parse("2")
    space, make = live_space(study, runtime)
    make(cell, study.seeds[0])  # refused here if it makes no trial
    tasks = search_tasks(
        study, folder, request.repeats, space, make, budget, 1, beyond=Rankable((cell,))
    )
    tasks = [replace(task, seed=task.seed + repeat) for repeat, task in enumerate(tasks)]
    return SearchPlan(
        words=(
            f"Search: {request.name} ranks the sites of {study.base.method} before any training, "
            f"then their better half is trained, {_times(request.repeats)}."
        ),
        starts=[partial(ranking(request.name, cell), task) for task in tasks],
        count=2,
        full=default_trial(study, space, make),
        budget=budget,
    )


def ranking_cells(study: Study) -> dict[str, Values]:
    """Training-free searches: name -> the configuration that ranks the sites of the study's method,
    at the strength of its base."""
    base: Values = {"base": study.base.method, "base_options": study.base.options}
    cells: dict[str, Values] = {}
    for method_name, method in METHODS.working().items():
        for name, (options, fields) in method().rankings().items():
            named: Values = {"method": method_name, "alpha": study.base.alpha}
            cells[name] = {**named, "options": {**base, **options}, **fields}
    return cells


def learning_cell(study: Study, method: str) -> Values:
    """The configuration in which a method finds the strengths of the study's own."""
    return {
        "method": method,
        "options": {"base": study.base.method, "base_options": study.base.options},
    }


def live_space(study: Study, runtime: Runtime) -> tuple[SearchSpace, Make]:
    """What searches range over, and how its points, and `learning_cell`s, become trials.

    Raises:
        UserError: a value of the space makes no trial, though all others are at their defaults.
    """
    space = SearchSpace(study, dims(study.base.backbone).num_blocks)
    learning = learning_methods()
    everywhere: dict[str, Any] = {
        "positions": None,
        "depth": "all",
        "alpha": 1.0,
        "placement": None,
    }

    def make(values: Values, seed: int) -> TrialSpec:
        if values.get("method") in learning:
            base = study.base.model_copy(update=everywhere)
            request = base.with_values({**values, "seed": seed}, source=str(values["method"]))
            return resolve(request, runtime)
        return resolve(space.request(values, seed), runtime)

    for params in space.one_at_a_time():
        cell = space.at(params)
        try:
            make(cell, study.seeds[0])
        except UserError as error:
            raise UserError(f"study {study.name}, {cell_words(cell)}: {error}") from error
    return space, make


def default_trial(study: Study, space: SearchSpace, make: Make) -> TrialSpec:
    """The space's default with the study's first seed."""
    return make(space.default_cell(), study.seeds[0])


def _reference_flops(
    study: Study, space: SearchSpace, make: Make, budget: Budget, runtime: Runtime
) -> int:
    """Of a full run, where the budget counts those."""
    if budget.unit != "runs":
        return 1
    return full_run_flops(default_trial(study, space, make), runtime)


def search_tasks(
    study: Study,
    folder: RunFolder,
    repeats: int,
    space: SearchSpace,
    make: Make,
    budget: Budget,
    flops: int,
    beyond: Container[object] = (),
) -> list[SearchTask]:
    """What each repeat is started with.

    Raises:
        UserError: the budget pays for no trial, or a log that is there is of other trials than
            would come of it now. To be seen here, before anything is written or trained.
    """
    budget.refuse_below(space.lengths)
    for repeat in range(repeats):
        refuse_another(folder.log(repeat), space, make, beyond=beyond)
    return [
        SearchTask(
            space=space,
            make=make,
            name=f"{folder.name}/{repeat}",
            seed=study.seeds[0],
            budget=budget,
            full_run_flops=flops,
            epochs=study.base.recipe.epochs,
            objectives=len(study.objectives),
            log=folder.log(repeat),
        )
        for repeat in range(repeats)
    ]


def _size(space: SearchSpace) -> str:
    return "infinitely many" if space.size == float("inf") else f"{space.size:.0f}"


def _times(repeats: int) -> str:
    return f"{repeats} time{'s' if repeats > 1 else ''}"
