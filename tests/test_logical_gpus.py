"""Several GPUs, without one: Ray hands out two that are only numbers, and trials note theirs."""

from __future__ import annotations

import json
import os
import time
from functools import partial

import pytest
import ray
from support.records import TINY

from harness.engines.ray_tune import RayEngine
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.store import Store

pytestmark = pytest.mark.slow

TRIAL_S = 0.4
DIES = 3
"""The trial that takes its worker with it."""


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("harness.engines.ray_tune.ray.init", partial(ray.init, num_gpus=2))


def specs(count):
    made = [
        TINY.with_values({"recipe.epochs": number + 1}, source="test") for number in range(count)
    ]
    return [resolve(request, Runtime()) for request in made]


def run_all(folder, count, gpus_per_trial):
    """Run trials that note their device and when they had it; slots, notes, and who crashed."""

    def note(spec, runtime, store, should_continue):
        number = spec.recipe.epochs - 1
        fact = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "device": runtime.device}
        fact["start"] = time.time()
        time.sleep(TRIAL_S)
        fact["end"] = time.time()
        (store.root / f"{number}.json").write_text(json.dumps(fact))
        if number == DIES:
            os._exit(3)

    engine = RayEngine(
        store=Store(folder),
        runtime=Runtime(device="cuda"),
        workers=None,
        gpus_per_trial=gpus_per_trial,
        run=note,
    )
    left, crashed, running = specs(count), [], 0
    try:
        while left or running:
            while left and running < engine.slots:
                engine.submit(left.pop(0))
                running += 1
            event = engine.next()
            running -= 1
            if event.crash:
                crashed.append(event.spec.recipe.epochs - 1)
    finally:
        engine.close()
    facts = [json.loads((folder / f"{number}.json").read_text()) for number in range(count)]
    return engine.slots, facts, crashed


def overlaps(facts):
    """Most trials at once on one GPU."""
    return max(
        sum(
            other["gpu"] == fact["gpu"] and other["start"] <= fact["start"] < other["end"]
            for other in facts
        )
        for fact in facts
    )


def test_each_trial_has_a_gpu_of_its_own_also_after_one_died(tmp_path, two_gpus):
    slots, facts, crashed = run_all(tmp_path, 8, 1.0)
    assert slots == 2 and crashed == [DIES]
    assert {fact["gpu"] for fact in facts} == {"0", "1"} and overlaps(facts) == 1
    assert {fact["device"] for fact in facts} == {"cuda:0"}  # the only one that a worker sees
    assert {fact["gpu"] for fact in facts[DIES + 1 :]} == {"0", "1"}  # both are used again


def test_fractions_let_trials_share_a_gpu(tmp_path, two_gpus):
    slots, facts, crashed = run_all(tmp_path, 8, 0.5)
    assert slots == 4 and crashed == [DIES]
    assert {fact["gpu"] for fact in facts} == {"0", "1"} and overlaps(facts) == 2
