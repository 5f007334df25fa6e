"""What the harness costs beside training: engines per trial, searches per proposal.

Owns: `harness bench overhead`. Must not know: real trials.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple

from harness.catalogue.studies import load_study
from harness.driver.drive import drive
from harness.engines.base import Engine
from harness.engines.local import LocalEngine
from harness.runner.runtime import Runtime
from harness.runner.trial import ShouldContinue
from harness.search.base import GridSearch, SearchTask
from harness.search.budget import UNLIMITED
from harness.search.optuna_search import OptunaSearch, Sampler
from harness.spec import LINEAR_POSITIONS, BackboneSpec, DataSpec, Placement, Recipe, TrialSpec
from harness.store.records import Cost, TrialRecord
from harness.store.store import Store
from harness.study.axes import Axis, Switches
from harness.study.space import Domain, Params, SearchSpace, Values

TRAINING_S = 0.005
"""What a stand-in for a trial takes."""


_MODELS: tuple[tuple[Sampler, int], ...] = (("tpe", 2000), ("gp", 1000))


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
        from harness.engines.ray_tune import RayEngine

        return RayEngine(store=store, runtime=runtime, workers=workers, run=stand_in)

    return [
        _engine("local", local, workers, trials),
        _engine("ray", on_ray, workers, trials),
        _plain_ray_tune(workers, plain_trials),
    ]


class Ask(NamedTuple):
    """Seconds that one proposal takes after so many told trials."""

    search: str
    told: int
    variables: int
    seconds: float


def measure_asks() -> list[Ask]:
    """The two searches that fit a model, over the paper's cells and over every site by itself."""
    import torch

    torch.set_num_threads(1)
    base = load_study("depth_vs_position")
    alphas = tuple(2.0**power for power in range(-6, 6))
    axes = (*base.axes, Axis(field="alpha", values=alphas, label="alpha"))
    cells = SearchSpace(base.derive(axes=axes, views=()), 12)
    sites = SearchSpace(base.derive(space=(Switches(positions=LINEAR_POSITIONS),)), 12)
    return [_ask(sampler, space, told) for sampler, told in _MODELS for space in (cells, sites)]


def _ask(sampler: Sampler, space: SearchSpace, told: int) -> Ask:
    rng = random.Random(0)  # noqa: S311 - made points
    points = []
    for _ in range(told):
        params: Params = {}

        def suggest(name: str, domain: Domain, params: Params = params) -> int | float:
            is_range = domain.choices is None
            value = rng.uniform(domain.low, domain.high) if is_range else None
            params[name] = rng.randrange(domain.choices or 1) if value is None else value
            return params[name]

        space.values(suggest)
        points.append((params, rng.random()))
    with tempfile.TemporaryDirectory() as folder:
        task = SearchTask(
            space=space,
            make=_spec,
            name="bench",
            seed=0,
            budget=UNLIMITED,
            full_run_flops=1,
            epochs=1,
            log=Path(folder) / "log",
        )
        search = OptunaSearch(sampler, task, on_repeat="next-seed", warm=points)
        search.ask(1)  # the first one imports
        start = time.perf_counter()
        search.ask(1)
        seconds = time.perf_counter() - start
    return Ask(sampler, told, max(len(params) for params, _ in points), seconds)


def stand_in(
    spec: TrialSpec, runtime: Runtime, store: Store, goes_on: ShouldContinue | None
) -> None:
    """Take a trial's claim, wait a little, publish its record."""
    with store.claim(spec) as claim:
        assert claim is not None
        start = time.perf_counter()
        time.sleep(TRAINING_S)
        claim.publish(made_record(spec, time.perf_counter() - start))


def made_record(spec: TrialSpec, seconds: float) -> TrialRecord:
    """A record without scores, of a trial that took so long."""
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


def _spec(options: Values, seed: int) -> TrialSpec:
    return TrialSpec(
        method="stand-in",
        options=options,
        placement=Placement({}),
        backbone=BackboneSpec(),
        data=DataSpec(),
        recipe=Recipe(),
        seed=seed,
    )


def _drive(engine: Engine, store: Store, numbers: range) -> list[TrialRecord]:
    specs = [_spec({"number": number}, 0) for number in numbers]
    records: list[TrialRecord] = []
    drive(
        GridSearch(specs),
        engine,
        store=store,
        runtime=Runtime(),
        objective="class_mean",
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
