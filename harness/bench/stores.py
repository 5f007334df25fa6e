"""Stores of very many trials, made without training, and how long commands take on them.

Owns: these stores and their timing. Must not know: what a command prints.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.bench.overhead import made_record
from harness.catalogue.studies import load_study
from harness.driver.plan import make_plan
from harness.metrics import split_metrics
from harness.runner.runtime import Runtime
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run
from harness.store.status import look
from harness.store.store import Store
from harness.study.axes import Axis
from harness.study.figures import View
from harness.study.study import Study

GROUPS = {"head": (0, 1), "medium": (2, 3), "tail": (4, 5)}
FROM = "made up"
"""Provenance of these records."""


class Timed(NamedTuple):
    """Seconds of a command on a store of so many trials, all of them read once before."""

    trials: int
    command: str
    seconds: float


def big_study(trials: int) -> Study:
    """Positions × depths × strengths, 1,008 cells, with as many seeds as make up `trials`."""
    base = load_study("depth_vs_position")
    alphas = tuple(2.0**power for power in range(-7, 7))
    axes = (*base.axes, Axis(field="alpha", values=alphas, label="alpha"))
    cells = len(base.cells()) * len(alphas)
    seeds = tuple(range(max(1, round(trials / cells))))
    views = (View(kind="heatmap", rows="positions", columns="depth", title="t"),)
    return base.derive(name="big", axes=axes, seeds=seeds, views=views, reference=None)


def fill(store: Store, study: Study) -> int:
    """Publish a record for every trial of the study, as a sweep would have; their number."""
    plan = make_plan(study, store=store, run_name=study.name, runtime=Runtime())
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 6
    features = rng.normal(size=(300, 4))
    some = [
        split_metrics(
            predictions=np.where(rng.random(300) < p, labels, (labels + 1) % 6),
            labels=labels,
            features=features,
            loss=1.0,
            groups=GROUPS,
            num_classes=6,
        )
        for p in np.linspace(0.3, 0.8, 50)
    ]
    store.trials.mkdir(parents=True)
    for index, spec in enumerate(plan.to_run):
        changes = {
            "status": "COMPLETE",
            "select": some[index % 50],
            "test": some[(7 * index) % 50],
            "num_classes": 6,
            "epochs_run": 10,
            "tested_epoch": 9,
            "provenance": {"torch": "0", "device": FROM, "platform": "none"},
        }
        record = made_record(spec, 1.0).model_copy(update=changes)
        folder = store.trials / record.trial_id
        folder.mkdir()
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
    return len(plan.to_run)


def measure(trials: int, report: Callable[[RunFolder], object]) -> list[Timed]:
    """Time plan, status and `report` on a store of about so many trials."""
    with tempfile.TemporaryDirectory() as folder:
        store, study = Store(Path(folder)), big_study(trials)
        count = fill(store, study)

        def plan() -> None:
            assert not make_plan(study, store=store, run_name="big", runtime=Runtime()).to_run

        def first() -> None:
            made = make_plan(study, store=store, run_name="big", runtime=Runtime())
            made.folder.path.mkdir(parents=True)
            write_run(made.folder, study, made.cells, {})

        run = RunFolder.of(store, "big")
        commands: dict[str, Callable[[], object]] = {
            "first look": first,
            "plan": plan,
            "status": lambda: look(run),
            "report": lambda: report(run),
        }
        return [Timed(count, name, _seconds(command)) for name, command in commands.items()]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
