"""What a sweep's speed-ups save: the same trials with all of them and without, side by side.

Owns: `harness bench sweep`. Must not know: how any of them works.

Each side is a worker of the engine, with a store of its own; trials alternate between them, and
only one computes at a time. What is compared is the workers' CPU time, in which filling the cache,
loading and saving count.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from harness.catalogue.studies import load_study
from harness.console import Console
from harness.driver.request import DEFAULT_CACHE, PlaceRequest
from harness.driver.setup import expecting, make_runtime
from harness.engines.base import RunTrial
from harness.engines.local import LocalEngine
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import ShouldContinue, run_trial
from harness.spec import TrialRequest, TrialSpec
from harness.store.files import append_line, read_lines
from harness.store.store import Store
from harness.training import evaluation

STUDY = "depth_vs_position"
REPEATS = 5
"""Of a trial by itself, once the cache is filled."""
SECONDS = "seconds.jsonl"
"""File in a side's store: CPU seconds of its trials, in their order."""

TIMES = ("wall_s", "device_s", "actual_device_s", "peak_memory_mb")


class Ratio(NamedTuple):
    """CPU seconds of some trials, without the speed-ups and with them."""

    what: str
    trials: int
    without_s: float
    with_s: float

    @property
    def ratio(self) -> float:
        return self.with_s / self.without_s


class Compared(NamedTuple):
    """What was found."""

    rows: list[Ratio]
    different: list[str]
    """Trials whose record or history differs in more than what it cost and where it ran."""
    cache_mb: float


def compare(cells: int | None, console: Console) -> Compared:
    """All cells of `STUDY` or so many, drawn; then single trials that find the cache filled."""
    requests = [request for _, request in load_study(STUDY).cell_requests()]
    chosen = requests
    if cells is not None and cells < len(requests):
        chosen = Random(0).sample(requests, cells)  # noqa: S311 - a sample
    base = requests[0]
    alone = {
        "linear probe": TrialRequest(
            method="linear_probe", data=base.data, backbone=base.backbone, recipe=base.recipe
        ),
        "last:1": base.with_values({"depth": "last:1", "positions": "mlp1"}, source="bench"),
        "last:12": base.with_values({"depth": "last:12", "positions": "mlp1"}, source="bench"),
    }
    every = [*chosen, *alone.values()]
    with tempfile.TemporaryDirectory() as place, _sides(Path(place), every) as sides:
        specs = [resolve(request, Runtime()) for request in chosen]
        shown = console.progress("bench sweep", len(specs) + len(alone), "trials")
        with shown as advance:
            for number, spec in enumerate(specs):
                _both(sides, spec, number)
                advance("")
            rows = [_of_all(sides, specs)]
            different = [s.trial_id for s in specs if not _same(sides, s.trial_id)]
            for name, request in alone.items():
                rows.append(_alone(sides, name, resolve(request, Runtime())))
                advance("")
        size = sum(path.stat().st_size for path in Path(place).glob("with/cache/*/*"))
    return Compared(rows, different, size / 1e6)


class _Side(NamedTuple):
    store: Store
    engine: LocalEngine

    def run(self, spec: TrialSpec) -> float:
        """Train a trial; its CPU seconds."""
        self.engine.submit(spec)
        ended = self.engine.next()
        record = self.store.record(spec.trial_id)
        if record is None or record.status == "FAILED":
            why = ended if record is None else record.error
            raise RuntimeError(f"Trial {spec.trial_id} failed: {why}")
        return float(read_lines(self.store.root / SECONDS)[-1]["cpu_s"])


@contextmanager
def _sides(place: Path, requests: Sequence[TrialRequest]) -> Iterator[tuple[_Side, _Side]]:
    """Without the speed-ups, and with them."""
    fast = make_runtime(PlaceRequest(out=str(place / "with"), device="cpu", cache=DEFAULT_CACHE))
    fast = expecting(fast, [resolve(request, fast) for request in requests])
    slow = Runtime(device="cpu", keep_memory=False)
    sides = (_side(place / "without", slow, as_before), _side(place / "with", fast, as_now))
    try:
        yield sides
    finally:
        for side in sides:
            side.engine.close()


def _side(root: Path, runtime: Runtime, run: RunTrial) -> _Side:
    root.mkdir()
    store = Store(root)
    return _Side(store, LocalEngine(store=store, runtime=runtime, workers=1, run=run))


def as_now(spec: TrialSpec, runtime: Runtime, store: Store, goes_on: ShouldContinue | None) -> None:
    """Run a trial, and note the CPU seconds of this process."""
    began = time.process_time()
    run_trial(spec, runtime, store, goes_on)
    append_line(store.root / SECONDS, {"cpu_s": time.process_time() - began})


def as_before(
    spec: TrialSpec, runtime: Runtime, store: Store, goes_on: ShouldContinue | None
) -> None:
    """The same, scoring as many images at a time as on other devices than a CPU."""
    evaluation.EVAL_BATCH.clear()
    as_now(spec, runtime, store, goes_on)


def _both(sides: tuple[_Side, _Side], spec: TrialSpec, number: int) -> tuple[float, float]:
    """Seconds without and with; who begins alternates."""
    order = sides if number % 2 == 0 else sides[::-1]
    spent = {side.store.root: side.run(spec) for side in order}
    return spent[sides[0].store.root], spent[sides[1].store.root]


def _of_all(sides: tuple[_Side, _Side], specs: Sequence[TrialSpec]) -> Ratio:
    without, fast = (
        sum(row["cpu_s"] for row in read_lines(side.store.root / SECONDS)) for side in sides
    )
    return Ratio("sweep, cache filled on the way", len(specs), without, fast)


def _alone(sides: tuple[_Side, _Side], name: str, spec: TrialSpec) -> Ratio:
    """A trial again and again, after a first time that may have to fill the cache."""
    spent = []
    for number in range(REPEATS + 1):
        for side in sides:
            shutil.rmtree(side.store.trials / spec.trial_id, ignore_errors=True)
        spent.append(_both(sides, spec, number))
    without, fast = (median(each) for each in zip(*spent[1:], strict=True))
    return Ratio(f"{name}, cache filled before", REPEATS, without, fast)


def _same(sides: tuple[_Side, _Side], trial_id: str) -> bool:
    one, other = (_numbers(side.store, trial_id) for side in sides)
    return one == other


def _numbers(store: Store, trial_id: str) -> tuple[Any, bytes]:
    """A trial's record without times, memory and machine; its history as it is."""
    folder = store.trials / trial_id
    record = json.loads((folder / "record.json").read_text())
    cost = {key: value for key, value in record["cost"].items() if key not in TIMES}
    found = {key: value for key, value in record.items() if key not in ("cost", "provenance")}
    return (found, cost), (folder / "history.jsonl").read_bytes()
