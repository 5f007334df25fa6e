"""A finished sweep without training: made-up scores with a peak, noise and collapses."""

from __future__ import annotations

import math

import numpy as np

from harness.driver.plan import make_plan
from harness.metrics import SplitMetrics
from harness.runner.runtime import Runtime
from harness.search.base import Restarts
from harness.search.plan import learning_cell, live_space
from harness.store.files import append_line, write_atomically
from harness.store.records import Cost
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run
from harness.store.store import Store
from support.records import make_record

CHANCE = 1 / 15
GAIN = {"mlp1": 1.0, "mlp2": 0.93, "out": 0.97, "v": 0.9, "q": 0.55, "k": 0.5}
ENDURES = {"mlp1": 20.0, "mlp2": 16.0, "out": 9.0, "v": 8.0, "q": 40.0, "k": 44.0}
"""Strength above which a position collapses when all blocks are adapted."""


def truth(cell):
    """Accuracy that noise is added to; None for a trial that diverges."""
    if "positions" not in cell:
        return 0.495
    position, depth = cell["positions"], int(cell["depth"].split(":")[1])
    alpha = cell["alpha"]
    limit = ENDURES[position] * (12 / depth) ** 0.3
    if alpha > 8 * limit:
        return None
    rise = (1 - math.exp(-depth / 4)) / (1 - math.exp(-3)) * GAIN[position]
    strength = math.exp(-((math.log2(alpha) - 2.5 + 0.08 * depth) ** 2) / 18)
    value = 0.42 + 0.13 * rise * strength
    if alpha > limit:
        value = CHANCE + (value - CHANCE) * math.exp(-1.2 * math.log2(alpha / limit))
    return value


def seconds(cell):
    """Device seconds of a trial."""
    return 3.0 + 0.5 * int(cell["depth"].split(":")[1]) if "depth" in cell else 14.0


def scores(value, noise, count):
    """A split of which `count` images are of every class."""
    shifts = {"head": 0.12, "medium": 0.02, "tail": -0.08}
    groups = {}
    for name, shift in shifts.items():
        groups[name] = float(np.clip(value + shift + noise.normal(0, 0.01), 0.02, 0.99))
    mean = float(np.clip(value, 0.02, 0.99))
    return SplitMetrics(
        class_mean=mean,
        group_mean=float(np.mean(list(groups.values()))),
        flat_mean=float(np.mean(list(groups.values()))),
        micro=mean,
        groups=groups,
        groups_se={n: math.sqrt(p * (1 - p) / count / 5) for n, p in groups.items()},
        per_class=(mean,) * 15,
        class_counts=(count,) * 15,
        distance={name: 0.5 for name in groups},
        loss=1.0,
    )


def publish(store, cell, spec, *, true=truth, epochs=10, sd=0.012):
    """Write the record and the history of one trial."""
    noise = np.random.default_rng(int(spec.trial_id, 16))
    shared = np.random.default_rng(spec.seed).normal(0, 0.012)
    value = true(cell)
    ends = epochs if value is not None else 3
    folder = store.trials / spec.trial_id
    folder.mkdir(parents=True)
    select = test = None
    for epoch in range(ends):
        row = {"epoch": epoch, "lr": 0.01, "train_loss": 1.0}
        if value is None and epoch == ends - 1:
            append_line(folder / "history.jsonl", {**row, "train_loss": None, "diverged": True})
            break
        whole = 0.3 if value is None else value
        now = CHANCE + (whole - CHANCE) * (1 - 0.9 * math.exp(-(epoch + 1) / 2.5))
        last = epoch == epochs - 1
        select = scores((whole if last else now) + shared + noise.normal(0, sd), noise, 12)
        row["select"] = select.model_dump(mode="json", exclude={"per_class", "class_counts"})
        append_line(folder / "history.jsonl", row)
    if value is None:
        select = None
    else:
        test = scores(value + shared + noise.normal(0, 0.006), noise, 80)
    device_s = seconds(cell) * ends / epochs * noise.uniform(0.95, 1.05)
    record = make_record(
        spec,
        status="DIVERGED" if value is None else "COMPLETE",
        select=select,
        test=test,
        epochs_run=ends,
        tested_epoch=None if value is None else ends - 1,
        cost=Cost(
            wall_s=device_s,
            device_s=device_s,
            images_forward=1,
            images_backward=1,
            flops=round(1e9 * seconds(cell) * ends / epochs),
            peak_memory_mb=1.0,
        ),
        provenance={"device": "made up"},
    )
    write_atomically(folder / "record.json", record.model_dump_json())


def made_sweep(root, study, **how):
    """A store in which the whole study has run; the run's folder."""
    store = Store(root)
    plan = make_plan(study, store=store, run_name=study.name, runtime=Runtime())
    for cell, spec in plan.cells:
        publish(store, cell, spec, **how)
    plan.folder.path.mkdir(parents=True)
    write_run(plan.folder, study, plan.cells, {"semantics": "1", "device": "made up"})
    return plan.folder


def made_metapeft(root, study):
    """MetaPEFT's trials beside, one per seed, as `--search metapeft` would have left them."""
    store = Store(root)
    _, make = live_space(study, Runtime())
    cell = learning_cell(study, "metapeft")
    folder = RunFolder.of(store, f"{study.name}+metapeft")
    folder.path.mkdir(parents=True)
    write_run(folder, study, [], {"semantics": "1", "device": "made up"})
    log = folder.log(0)
    search = Restarts([(cell, make(cell, seed)) for seed in study.seeds], log)
    for spec in search.ask(len(study.seeds)):
        publish(store, cell, spec)
        record = store.record(spec.trial_id)
        event = {"tell": spec.trial_id, "status": "COMPLETE", "objective": 0.5}
        event |= {"epochs": 10, "device_s": record.cost.device_s, "flops": record.cost.flops}
        append_line(log, event)
    return folder
