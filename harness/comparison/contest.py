"""Searches ready to be started against each other on one space, with one budget.

Owns: what live and replayed comparisons have in common. Must not know: torch, how a search works,
where trials run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.comparison.baseline import STANDING
from harness.comparison.request import SearchesRequest
from harness.errors import UserError
from harness.metrics import Goal
from harness.search.base import Make, Search, SearchMaker, SearchTask
from harness.search.bounded import refuse_unscored
from harness.search.budget import Budget
from harness.search.catalogue import find_search, ranking, refuse_objectives, restarts
from harness.search.optuna_search import PRUNERS, SAMPLERS, refuse_sampler
from harness.store.comparisons import SearchComparison
from harness.store.run_folder import RunFolder, variant
from harness.store.runs import read_comparison, read_run, read_search_comparison
from harness.store.summaries import summaries
from harness.study.space import SearchSpace, Values
from harness.study.study import Study

Given = Mapping[str, Sequence[Values]]
"""Search -> its configurations, where they are known before: those of methods that learn strengths
in one trial, and of the baseline."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All searches, ready to be started."""

    folder: RunFolder
    comparison: SearchComparison
    makers: dict[str, SearchMaker]
    space: SearchSpace
    make: Make
    budget: Budget
    study: Study

    def start(self, name: str, repeat: int) -> Search:
        """Start a repeat, or go on with it from its log."""
        return self.makers[name](self.task(name, repeat))

    def task(self, name: str, repeat: int) -> SearchTask:
        """What a repeat of a search is started with."""
        return SearchTask(
            space=self.space,
            make=self.make,
            name=f"{self.study.name}/{name}/{repeat}",  # so live and replayed ones are alike
            seed=self.comparison.seed(repeat),
            budget=self.budget,
            full_run_flops=self.comparison.reference.flops,
            epochs=self.study.base.recipe.epochs,
            objectives=len(self.study.objectives),
            log=self.folder.log(repeat, name),
        )


def budget_of(text: str, study: Study) -> Budget:
    """A budget in trials as the epochs of so many whole ones, so that a search which stops some
    early may start more of them for the same training.

    Raises:
        UserError: it is no budget, it pays for no trial, or it is in trials and they have different
            numbers of epochs.
    """
    budget, lengths = Budget.parse(text), SearchSpace(study, 0).lengths
    budget.refuse_below(lengths)
    if budget.unit != "trials":
        return budget
    fewest, *others = sorted(lengths)
    if others:
        raise UserError(
            f"--budget {text}: trials of study {study.name} have {fewest} to {others[-1]} epochs; "
            "give a budget in epochs, seconds or full runs, as in 240epochs, 600s or 12runs."
        )
    return Budget(amount=budget.amount * fewest, unit="epochs")


def _words(given: str, budget: Budget) -> str:
    words = f"{Budget.parse(given).amount:g} {Budget.parse(given).unit}"
    return words if budget == Budget.parse(given) else f"{words} ({budget.amount:g} epochs)"


def own_folder(
    folder: RunFolder,
    asked: SearchesRequest,
    names: Sequence[str],
    budget: Budget,
    *,
    is_replay: bool,
) -> RunFolder:
    """The folder, or where such a comparison of other searches or another budget lies there, one
    named for what is asked."""
    before = read_search_comparison(folder)
    if before is None or (before.table is not None) != is_replay:
        return folder
    if (set(before.searches), before.budget) == (set(names), _words(asked.budget, budget)):
        return folder
    words = variant({"search": asked.searches, "budget": asked.budget})
    return RunFolder.of(folder.store, f"{folder.name}{words}")


def refuse_for_several(
    asked: SearchesRequest, study: Study, *, is_one_of_many: bool = False
) -> None:
    """Raises `UserError` for what judges a single choice, which several objectives do not make."""
    if not study.further:
        return
    wanted = {
        "confirm": asked.confirm,
        "half-width": asked.half_width,
        "charge": asked.tuning or None,
        "controls": asked.controls,
        "replay of several tables": is_one_of_many or None,
    }
    for flag, value in wanted.items():
        if value is not None:
            raise UserError(
                f"--{flag} is for one objective, and {', '.join(study.objectives)} are several; "
                "leave it out."
            )


def refuse_unable(names: Sequence[str], study: Study, space: SearchSpace) -> None:
    """Whether each search can work on this space and these trials: seen before anything is written.

    Raises:
        UserError: a sampler cannot search the space, or a pruner watches what is not scored.
    """
    for name in names:
        sampler, _, pruner = name.partition("+")
        if sampler in SAMPLERS:
            refuse_sampler(sampler, space)
            if pruner in PRUNERS and pruner != "none":
                refuse_unscored(study.base.recipe, f"search {name!r}")


def makers_of(
    names: Sequence[str],
    given: Given,
    objectives: Sequence[Goal],
    rankings: Mapping[str, Values] | None = None,
) -> dict[str, SearchMaker]:
    """How each search is started; one whose configurations are given tries them in turn, one of the
    `rankings` begins with its configuration.

    Raises:
        UserError: there is no search of a name, or it does not take so many objectives.
    """
    rankings, makers = rankings or {}, {}
    for name in names:
        if name in given:
            makers[name] = restarts(name, given[name])
        elif name in rankings:
            makers[name] = ranking(name, rankings[name])
        else:
            makers[name] = find_search(name, [*given, *rankings])
            refuse_objectives(name, objectives)
    return makers


def contest_fields(
    asked: SearchesRequest,
    study: Study,
    names: Sequence[str],
    learned: Sequence[str],
    budget: Budget,
) -> dict[str, Any]:
    """Fields of a comparison that are alike live and replayed.

    Raises:
        UserError: the controls are not those of such trials, or no search has what is charged.
    """
    if asked.tuning and not set(names) & set(learned):
        raise UserError(
            f"--charge {asked.tuning[0].name}: it is charged to a search that learns strengths, "
            f"and {', '.join(names)} {'does' if len(names) == 1 else 'do'} not; leave it out, or "
            "add metapeft."
        )
    seconds: dict[tuple[object, str], float] = {}  # of a trial that several runs have, once
    for folder in asked.tuning:
        ids = {trial.trial_id for trial in read_run(folder).asked}
        for trial_id, each in summaries(folder.store, ids).items():
            seconds[folder.store.root.resolve(), trial_id] = each.device_s
    if asked.controls is not None:
        base, other = study.base, read_comparison(asked.controls).request
        if any(getattr(base, f) != getattr(other, f) for f in ("data", "backbone", "recipe")):
            raise UserError(
                f"--controls {asked.controls.name}: its trials have other data, another backbone "
                f"or another recipe than study {study.name}."
            )
    return {
        "searches": tuple(names),
        "learned": tuple(name for name in names if name in learned),
        "standing": tuple(name for name in names if name in STANDING),
        "budget": _words(asked.budget, budget),
        "seeds": study.seeds,
        "workers": asked.workers,
        "tuning": tuple(folder.name for folder in asked.tuning),
        "tuning_s": sum(seconds.values()),
        "controls": None if asked.controls is None else asked.controls.name,
    }
