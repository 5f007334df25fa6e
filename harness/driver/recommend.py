"""A recommendation from what was asked to the plan of its trainings, and what it comes to.

Owns: the study that a recommendation runs, made of another's data, backbone and recipe; what each
place costs; the `LoraConfig` and the command of what was chosen. Must not know: terminals, words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.catalogue.rerun import TrainCommands, study_file
from harness.catalogue.studies import known_study
from harness.console import Console
from harness.driver.logged import Logs
from harness.driver.request import RecommendRequest, StudyRequest, SweepRequest
from harness.driver.run import OneSearchPlan
from harness.driver.setup import Prepared, make_runtime, refuse_idle, refuse_root, with_weights
from harness.errors import UserError
from harness.export.lora_config import lora_config
from harness.model.backbones import dims
from harness.runner.cost import full_run_flops
from harness.runner.runtime import Runtime
from harness.search.base import Make, Search, SearchTask
from harness.search.bounded import start_search
from harness.search.budget import Budget
from harness.search.plan import SearchPlan, live_space, search_tasks
from harness.search.recommend import NAME, RATES, WIDEST, Recommender, Steps, places_on, refused
from harness.search.recommended import CONFIG, Recommended, trained
from harness.spec import TrialSpec
from harness.store.files import write_atomically
from harness.store.run_folder import RunFolder, variant
from harness.store.runs import refuse_older, refuse_other_objective
from harness.study.axes import Axis
from harness.study.study import Study

CHOSEN = ("method", "positions", "depth", "placement", "changes", "seed")
"""Fields that a recommendation has values of its own for."""


@dataclass(frozen=True, kw_only=True)
class RecommendPlan:
    """What would be trained at most, and in which order. Nothing has been written yet."""

    sweep: OneSearchPlan
    steps: Steps
    names: tuple[str, ...]
    full_run_flops: int

    def say(self, console: Console) -> None:
        """Lines on what will be done."""
        for words in self.sweep.words():
            console.say(words)

    def recommended(self) -> Recommended:
        """What came of it, as far as it has been run; its `LoraConfig` is written beside.

        Raises:
            UserError: no training has ended with a score.
            NotSavedError: the file cannot be written.
        """
        study, folder = self.sweep.prepared.study, self.sweep.folder
        ended = trained(self.steps, folder, self.full_run_flops)
        whole = [each for each in ended if each.record.status == "COMPLETE"]
        if not whole:
            raise UserError(
                f"{folder.name}: no training has ended with a score, so nothing is recommended; "
                "a smaller --set recipe.lr is where to begin if they diverged."
            )
        best = max(whole, key=lambda each: each.score)
        spec = best.record.spec
        try:
            config: dict[str, Any] | str = lora_config(spec)
        except UserError as error:
            config = str(error)
        else:
            write_atomically(folder.path / CONFIG, json.dumps(config, indent=1))
        return Recommended(
            study=study,
            steps=self.steps,
            names=self.names,
            budget=self.sweep.planned.budget,
            trained=ended,
            best=best,
            config=config,
            command=TrainCommands(study.base, study.name, study_file(self.sweep.asked.line)).of(
                spec, {}
            ),
            folder=folder,
        )


def plan_recommendation(asked: RecommendRequest, console: Console) -> RecommendPlan:
    """Make ready what is asked for; the store is not touched.

    Raises:
        UserError: a field makes no sense, or the budget pays for no training.
    """
    budget = Budget.parse(asked.budget, "full runs or trials, as in 5runs or 5")
    if budget.unit not in ("runs", "trials"):
        raise refused(budget)
    values, file = with_weights(_settings(asked), asked.weights)
    study, names = recommending(known_study(asked.study), values)
    asked.place.store.refuse_unmakeable(is_dry=asked.place.is_dry)
    refuse_root(asked.place, [study.base.data.name])
    runtime = make_runtime(asked.place, study.base.backbone, file, console)
    run_name = study.name + variant(values)
    folder = RunFolder.of(asked.place.store, f"{run_name}+{NAME}")
    refuse_older(folder)
    refuse_other_objective(folder, study)
    prepared = Prepared(
        study=study,
        run_name=run_name,
        store=asked.place.store,
        runtime=runtime,
        engine=asked.engine,
        logs=Logs.of(asked.place.log, folder.name, console, is_dry=asked.place.is_dry),
    )
    space, make = live_space(study, runtime)
    steps, full, flops = _steps(study, make, runtime)
    if budget.unit == "runs" and budget.amount < min(steps.runs):
        raise UserError(
            f"--budget {asked.budget}: it pays for no training; the cheapest is of "
            f"{min(steps.runs):.2f} runs."
        )
    [task] = search_tasks(study, folder, 1, space, make, budget, flops)
    planned = SearchPlan(
        words=_plan_words(steps, names, budget),
        starts=[partial(start_search, NAME, partial(_started, steps), task)],
        count=None,
        full=full,
        budget=budget,
        most=steps.most,
    )
    sweep = SweepRequest(
        study=StudyRequest(study=study),
        place=asked.place,
        engine=asked.engine,
        search=NAME,
        budget=asked.budget,
        line=asked.line,
    )
    return RecommendPlan(
        sweep=OneSearchPlan(asked=sweep, prepared=prepared, folder=folder, planned=planned),
        steps=steps,
        names=names,
        full_run_flops=flops,
    )


def _steps(study: Study, make: Make, runtime: Runtime) -> tuple[Steps, TrialSpec, int]:
    """The steps of a study that `recommending` made, one full run, and its FLOPs."""
    where, rates = study.axes
    strengths = tuple({rates.field: value} for value in rates.values)
    places = tuple({where.field: name} for name in where.values)
    start = rates.values.index(study.base.recipe.lr)
    specs = [make({**place, **strengths[start]}, study.seeds[0]) for place in places]
    flops = [full_run_flops(spec, runtime) for spec in specs]
    runs = tuple(each / flops[0] for each in flops)
    steps = Steps(places=places, strengths=strengths, runs=runs, start=start)
    return steps, specs[0], flops[0]


def _started(steps: Steps, task: SearchTask) -> Search:
    return Recommender(task, steps)


def _settings(asked: RecommendRequest) -> dict[str, Any]:
    """The settings with the dataset and the backbone in them, in the order of their naming.

    Raises:
        UserError: one is given twice, or is what a recommendation is to say.
    """
    named: dict[str, Any] = {}
    for flag, value in (("data", asked.data), ("backbone", asked.backbone)):
        if value is None:
            continue
        for field_ in (flag, f"{flag}.name"):
            if field_ in asked.settings:
                given = f"--set {field_}={asked.settings[field_]}"
                raise UserError(f"{given} and --{flag} {value}: give one of them.")
        named[flag] = value
    for field_ in asked.settings:
        if field_.split(".")[0] in CHOSEN:
            raise UserError(
                f"--set {field_}: {NAME} has values of its own for it; `harness train` and "
                "`harness sweep` take yours."
            )
    return named | dict(asked.settings)


def recommending(study: Study, values: dict[str, Any]) -> tuple[Study, tuple[str, ...]]:
    """A study of places and rates of LoRA on another's data, backbone and recipe; places' names.

    Rates lie around the recipe's, which may be one of `values`.

    Raises:
        UserError: a value makes no trial, the study seeks by several objectives, or the backbone
            has no linear map that LoRA can adapt.
    """
    if study.further:
        goals = ", ".join(study.objectives)
        raise UserError(f"{NAME} chooses by one objective, and {study.name} has {goals}.")
    base = study.base
    plain = {"positions": None, "depth": "all", "placement": None, "changes": ()}
    own = {} if base.method == "lora" else {"method": "lora", "options": {}}
    alpha = {"alpha": 4.0} if base.method != "lora" or base.placement is not None else {}
    base = base.model_copy(update={**plain, **own, **alpha}).with_values(values, source="--set")
    refuse_idle(base.recipe, values)
    if base.data.select_on == "test":
        raise UserError(f"data.select_on=test: {NAME} chooses on validation and reports the test.")
    sizes = dims(base.backbone)
    places = places_on(sizes.positions, sizes.num_blocks)
    if not places[WIDEST]["positions"]:
        raise UserError(f"Backbone {base.backbone.name} has no linear map at which LoRA could be.")
    rates = tuple(base.recipe.lr * factor for factor in RATES)
    made = study.derive(
        question="Which rate and which place of LoRA, for a handful of trainings?",
        paper="none",
        base=base,
        axes=(
            Axis.named("where", "place", places),
            Axis(field="recipe.lr", values=rates, label="learning rate"),
        ),
        space=(),
        seeds=study.seeds[:1],
        views=(),
        fixed="all but where LoRA is and its rate",
        reference=None,
        searches=None,
        trains=True,
        smoke={},
    )
    return made, tuple(places)


def _plan_words(steps: Steps, names: tuple[str, ...], budget: Budget) -> str:
    costs = [f"{name} ({runs:.2f})" for name, runs in zip(names, steps.runs, strict=True)]
    first = [f"{steps.strengths[n]['recipe.lr']:g}" for n in _first(steps)]
    return (
        f"Plan: within {budget.amount:g} {budget.unit}, the rates {', '.join(first)} and one more "
        f"next to the best of them at {costs[0]}; at the best rate, what still fits of "
        f"{', '.join(costs[1:])}; then finer rates at the best place. In brackets: full runs."
    )


def _first(steps: Steps) -> list[int]:
    return [key.level for key in steps.wave({}, float("inf"), count_trials=False)]
