"""A store with very many trials, made without training; as a command, how long it takes to read.

python tests/big_store.py 100000
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from support.records import make_record

from harness.catalogue.studies import load_study
from harness.driver.plan import make_plan
from harness.metrics import split_metrics
from harness.runner.runtime import Runtime
from harness.store.store import Store
from harness.study.axes import Axis
from harness.study.figures import View
from harness.study.study import Study

GROUPS = {"head": (0, 1), "medium": (2, 3), "tail": (4, 5)}


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
        record = make_record(
            spec,
            select=some[index % 50],
            test=some[(7 * index) % 50],
            num_classes=6,
            epochs_run=10,
            tested_epoch=9,
            provenance={"torch": "0", "device": "made up", "platform": "none"},
        )
        folder = store.trials / record.trial_id
        folder.mkdir()
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
    return len(plan.to_run)


def main() -> None:
    from harness.reports.files.write import write_report
    from harness.store.runs import write_run

    with tempfile.TemporaryDirectory() as folder:
        store, study = Store(Path(folder)), big_study(int(sys.argv[1]))
        count = fill(store, study)
        print(f"{count} trials")
        for word in ("first", "again"):
            start = time.perf_counter()
            plan = make_plan(study, store=store, run_name=study.name, runtime=Runtime())
            assert not plan.to_run
            print(f"resume, {word}: {time.perf_counter() - start:.1f} s")
        plan.folder.path.mkdir(parents=True)
        write_run(plan.folder, study, plan.cells, {})
        for word in ("first", "again"):
            start = time.perf_counter()
            write_report(plan.folder)
            print(f"report, {word}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
