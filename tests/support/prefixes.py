"""Trials with kept activations and without, side by side."""

from __future__ import annotations

import json

from harness.runner.resolve import resolve
from harness.runner.runtime import ActivationCache, Runtime
from harness.runner.trial import run_trial
from harness.store.store import Store
from support.few import FEW

TIMES = {"wall_s", "device_s", "actual_device_s", "peak_memory_mb"}
LARGE = 2**30


def spec(**values):
    return resolve(FEW.with_values(values, source="test"), Runtime())


def cached(tmp_path, budget=LARGE, uses=None):
    cache = ActivationCache(folder=tmp_path / "cache", budget=budget, uses=uses)
    return Runtime(cache=cache)


def numbers(store, trial):
    """All that a trial left but times, memory and machine."""
    folder = store.trials / trial.trial_id
    record = json.loads((folder / "record.json").read_text())
    del record["provenance"]
    record["cost"] = {k: v for k, v in record["cost"].items() if k not in TIMES}
    return record, (folder / "history.jsonl").read_bytes()


def files(tmp_path):
    """Cut -> names of parts."""
    found = {}
    for path in sorted((tmp_path / "cache").rglob("*.*"), key=lambda path: path.name):
        part, _, cut = path.name.partition(".")
        if cut.lstrip("-").isdigit():
            found.setdefault(int(cut), []).append(part)
    return found


def both(tmp_path, runtime, trial, name="with"):
    """The records of a trial with a cache and without; their numbers must be the same."""
    plain, store = Store(tmp_path / "plain"), Store(tmp_path / name)
    without = run_trial(trial, Runtime(), plain)
    record = run_trial(trial, runtime, store)
    assert record.status != "FAILED", record.error
    assert numbers(plain, trial) == numbers(store, trial)
    return record, without


PARTS = ["epoch-0", "select", "test"]
"""What a trial of one epoch passes."""
