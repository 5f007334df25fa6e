"""What an engine costs per trial: trials that do next to nothing, through real driver and store.

Owns: `harness bench`. Must not know: real trials.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple

from harness.engine import Engine, LocalEngine
from harness.searches import GridSearch
from harness.spec import BackboneSpec, DataSpec, Placement, Recipe, TrialSpec
from harness.store import Cost, Store, TrialRecord
from harness.sweep import drive
from harness.trial import GoesOn, Runtime

TRAINING_S = 0.005
"""What a stand-in for a trial takes."""


class Overhead(NamedTuple):
    """Of one engine: seconds until its workers answer, and then milliseconds per trial.

    The latter is the time of all workers beyond that of the trials themselves.
    """

    engine: str
    trials: int
    startup_s: float
    per_trial_ms: float


def measure(workers: int, trials: int, plain_trials: int) -> list[Overhead]:
    """Both engines, and beside them Ray Tune by itself with a function to train."""
    runtime = Runtime()

    def local(store: Store) -> Engine:
        return LocalEngine(store=store, runtime=runtime, workers=workers, run=stand_in)

    def on_ray(store: Store) -> Engine:
        from harness.ray_engine import RayEngine

        return RayEngine(store=store, runtime=runtime, workers=workers, run=stand_in)

    return [
        _engine("local", local, workers, trials),
        _engine("ray", on_ray, workers, trials),
        _plain_ray_tune(workers, plain_trials),
    ]


def stand_in(spec: TrialSpec, runtime: Runtime, store: Store, goes_on: GoesOn | None) -> None:
    """Take a trial's claim, wait a little, publish its record."""
    with store.claim(spec) as claim:
        assert claim is not None
        start = time.perf_counter()
        time.sleep(TRAINING_S)
        claim.publish(made_record(spec, time.perf_counter() - start))


def made_record(spec: TrialSpec, seconds: float) -> TrialRecord:
    """A record without scores."""
    cost = Cost(
        wall_s=seconds,
        device_s=seconds,
        images_forward=0,
        images_backward=0,
        flops=0,
        peak_memory_mb=0.0,
    )
    return TrialRecord(
        trial_id=spec.trial_id,
        spec=spec,
        status="DIVERGED",
        select=None,
        test=None,
        num_classes=1,
        epochs_run=0,
        tested_epoch=None,
        expected_params=0,
        trainable_params=0,
        head_params=0,
        cost=cost,
        provenance={},
    )


def _engine(name: str, start: Callable[[Store], Engine], workers: int, trials: int) -> Overhead:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        engine = start(store)
        try:
            _drive(engine, store, range(-2 * workers, 0))
            startup = time.perf_counter() - began
            began = time.perf_counter()
            records = _drive(engine, store, range(trials))
            wall = time.perf_counter() - began
        finally:
            engine.close()
    spent = sum(record.cost.wall_s for record in records)
    return Overhead(name, trials, startup, 1000 * (workers * wall - spent) / trials)


def _drive(engine: Engine, store: Store, numbers: range) -> list[TrialRecord]:
    specs = [
        TrialSpec(
            method="stand-in",
            options={"number": number},
            placement=Placement({}),
            backbone=BackboneSpec(),
            data=DataSpec(),
            recipe=Recipe(),
            seed=0,
        )
        for number in numbers
    ]
    records: list[TrialRecord] = []
    drive(
        GridSearch(specs),
        engine,
        store=store,
        runtime=Runtime(),
        metric="class_mean",
        max_retries=0,
        stop=Event(),
        on_end=lambda record, is_fresh: records.append(record),
    )
    return records


def _plain_ray_tune(workers: int, trials: int) -> Overhead:
    import ray
    from ray import tune

    os.environ.pop("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", None)  # as its users have it

    def train(config: dict[str, int]) -> None:
        time.sleep(TRAINING_S)
        tune.report({"score": 0.0})

    began = time.perf_counter()
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    startup = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tune.Tuner(
            train,
            param_space={"number": tune.grid_search(list(range(trials)))},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        wall = time.perf_counter() - began
    ray.shutdown()
    spent = trials * TRAINING_S
    return Overhead("Ray Tune by itself", trials, startup, 1000 * (workers * wall - spent) / trials)
