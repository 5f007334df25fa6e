"""Searches of made-up trials, whose objective has a closed form: no training."""

from __future__ import annotations

import json

from harness.search.base import Outcome, SearchTask
from harness.search.budget import Budget
from harness.search.catalogue import optuna_search
from harness.spec import BackboneSpec, Change, DataSpec, Placement, Recipe, TrialRequest, TrialSpec
from harness.study.space import SearchSpace
from harness.study.study import Study
from harness.testing.searches import CELLS, PLANE

BASE = TrialRequest(alpha=2.0, recipe=Recipe(lr=0.1))


def study(space=(), axes=CELLS, base=BASE):
    return Study(
        name="made",
        question="?",
        paper="none",
        base=base,
        axes=axes,
        space=space,
        views=(),
        fixed="",
    )


def space_of(sampler):
    return SearchSpace(study(PLANE if sampler == "cmaes" else ()), 12)


def make(values, seed):
    """A spec that is its values and its seed, without looking at a backbone."""
    values = dict(values)
    changes = [
        Change(after=c["after"], placement=Placement({"0.q": c["values"]["alpha"]}), lr=1.0)
        for c in values.pop("changes", [])
    ]
    return TrialSpec(
        method="lora",
        options={"values": values},
        placement=Placement({}),
        backbone=BackboneSpec(),
        data=DataSpec(),
        recipe=Recipe(epochs=4),
        changes=tuple(changes),
        seed=seed,
    )


def score(spec):
    values = spec.options["values"]
    bonus = {"mlp1": 0.3, "q": 0.0, "v": 0.2}.get(values.get("positions"), 0.0)
    return 0.5 + bonus - 0.1 * abs(values["alpha"] - 2)


def outcome(spec, **changes):
    fields = dict(trial_id=spec.trial_id, status="COMPLETE", epochs=4, device_s=2.0, flops=10)
    if "objective" not in changes:
        fields["objective"] = score(spec)
    return Outcome(**{**fields, **changes})


def task(space, log, budget, *, name="made", epochs=4):
    return SearchTask(
        space=space,
        make=make,
        name=name,
        seed=0,
        budget=Budget.parse(budget),
        full_run_flops=20,
        epochs=epochs,
        log=log,
    )


def search(
    sampler,
    log,
    budget="12",
    *,
    space=None,
    name="made",
    pruner="none",
    on_repeat="cached",
    warm=(),
):
    """A sampler of Optuna's, held to its budget."""
    space = space or space_of(sampler)
    maker = optuna_search(sampler, pruner, on_repeat, warm)
    return maker(task(space, log, budget, name=name))


def run(made, most=None):
    """Ask and tell one by one; the specs in order."""
    specs = []
    while most is None or len(specs) < most:
        asked = made.ask(1)
        if not asked:
            break
        specs += asked
        made.tell(outcome(asked[0]))
    return specs


def lines(log, kind):
    """The events of a kind in a search's log, as they stand there."""
    return [e for e in map(json.loads, log.read_text().splitlines()) if kind in e]
