"""How time grows: a step with the adapted blocks and the batch, a process with its trials.

Owns: `harness bench scaling`, with `harness.bench.stores`. Must not know: how it is drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.bench import stores
from harness.bench.train import Case, Setting, measure
from harness.model.backbones import dims
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import DataSpec, Recipe, TrialRequest
from harness.store.run_folder import RunFolder
from harness.store.store import Store

BATCHES = (8, 16, 32, 64, 128)
TRIALS = 8
"""One after the other in one process."""
SIZES = (1000, 3000, 10_000, 30_000, 100_000)
"""Trials of a store."""


class Point(NamedTuple):
    """A measurement: seconds at `x`, of one line of one panel."""

    panel: str
    line: str
    x: float
    seconds: float


def steps(setting: Setting) -> Iterator[Point]:
    """Seconds of a step of LoRA at q and v, by adapted blocks and by the batch's size."""
    blocks = dims(setting.backbone).num_blocks
    for count in sorted({1, 2, *range(3, blocks, 3), blocks}):
        yield from _steps("blocks adapted", count, f"last:{count}", setting)
    for batch in BATCHES:
        recipe = setting.recipe.model_copy(update={"batch_size": batch})
        yield from _steps("batch", batch, "all", setting._replace(recipe=recipe))


def _steps(panel: str, x: int, depth: str, setting: Setting) -> Iterator[Point]:
    case = Case(depth, "lora", ("q", "v"), depth)
    for row in measure(case, setting, with_peft=False):
        yield Point(panel, row.way, x, row.batch / row.images_per_s)


def trials(device: str) -> Iterator[Point]:
    """Device seconds of equal trials that one process runs one after the other, loading aside."""
    base = TrialRequest(
        positions=("mlp1",),
        depth="last:1",
        data=DataSpec(options={"test_per_class": 20}),
        recipe=Recipe(epochs=1),
    )
    runtime = Runtime(device=device)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(TRIALS):
            # Another strength, so that it is another trial on the same split.
            request = base.model_copy(update={"alpha": 1.0 + number})
            record = run_trial(resolve(request, runtime), runtime, Store(Path(folder)))
            assert record is not None
            yield Point("trials in one process", "a trial", number + 1, record.cost.device_s)


def of_stores(most: int, report: Callable[[RunFolder], object]) -> Iterator[Point]:
    """Seconds of commands, `report` among them, on stores of up to `most` made-up trials."""
    for size in SIZES:
        if size <= most:
            for row in stores.measure(size, report):
                yield Point("trials in the store", row.command, row.trials, row.seconds)
