"""Pieces of the contracts: small trials, records without training, and an engine that makes them.

Owns: these. Must not know: what is tested with them.
"""

from __future__ import annotations

import functools
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.engines.base import Ended, Reported
from harness.metrics import SplitMetrics
from harness.model.backbones import input_size, load_backbone
from harness.model.blocks import Backbone
from harness.spec import BackboneSpec, DataSpec, Recipe, TrialRequest, TrialSpec
from harness.store.records import Cost, Status, TrialRecord
from harness.store.store import Store

CPU = torch.device("cpu")
SMALL = BackboneSpec(name="vit_pico", weights="random")
"""The embedded backbone, on weights that need no file."""
TINY = TrialRequest(
    positions=("mlp1",),
    depth="last:1",
    backbone=SMALL,
    data=DataSpec(options={"test_per_class": 4}, val_fraction=0.8),
    recipe=Recipe(epochs=1, batch_size=64, precision="fp32"),
)
"""A trial of about a second: one training image in five trains."""


@functools.lru_cache(maxsize=16)
def frozen_backbone(spec: BackboneSpec) -> Backbone:
    """A backbone on the CPU, shared: whoever changes it copies it first."""
    return load_backbone(spec, CPU)


def made_images(spec: BackboneSpec, count: int = 3, seed: int = 1) -> Tensor:
    """Noise `[count, c, h, w]` of the size that a backbone takes."""
    size = input_size(spec)
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, spec.in_chans, size, size, generator=rng)


def fill(module: nn.Module, seed: int = 7) -> None:
    """Give every tensor a random value, so that nothing is hidden by a start at zero."""
    _randomise(module.parameters(), seed)


def wake(module: nn.Module, seed: int = 7) -> None:
    """As `fill`, but only of tensors that are zero: what starts at the strength stays there.

    Of all of them where none is, as in factors that start at one.
    """
    zeros = [p for p in module.parameters() if not bool(p.any())]
    _randomise(zeros or module.parameters(), seed)


def _randomise(parameters: Iterable[nn.Parameter], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data.copy_(0.2 * noise)


def made_record(spec: TrialSpec, status: Status = "COMPLETE", score: float = 0.5) -> TrialRecord:
    """A record with this selection score, of a trial that nobody has trained."""
    scores = SplitMetrics(
        class_mean=score,
        group_mean=score,
        flat_mean=score,
        micro=score,
        groups={},
        groups_se={},
        per_class=(),
        class_counts=(),
        distance={},
        loss=1.0,
    )
    return TrialRecord(
        trial_id=spec.trial_id,
        spec=spec,
        status=status,
        select=None if status == "FAILED" else scores,
        test=scores if status == "COMPLETE" else None,
        num_classes=15,
        epochs_run=spec.recipe.epochs,
        tested_epoch=None,
        expected_params=1,
        trainable_params=1,
        head_params=1,
        cost=Cost(
            wall_s=1.0, device_s=1.0, images_forward=1, images_backward=1, flops=1, peak_memory_mb=1
        ),
        provenance={},
    )


@dataclass
class _Running:
    spec: TrialSpec
    epochs: int
    goes_on: bool = True


class MadeEngine:
    """The `Engine` contract without training: a trial's selection score is a formula.

    `ran` has every trial that was submitted, in order. With `watch`, trials report after every
    epoch but the last, and leave a checkpoint where they are stopped.
    """

    def __init__(
        self, store: Store, score: Callable[[TrialSpec], float], *, watch: bool, slots: int = 1
    ) -> None:
        self.slots = slots
        self.ran: list[TrialSpec] = []
        self._store, self._score, self._watch = store, score, watch
        self._queue: deque[_Running] = deque()

    def submit(self, spec: TrialSpec) -> None:
        assert len(self._queue) < self.slots
        self.ran.append(spec)
        left = self._store.trials / spec.trial_id / "checkpoint.pt"
        self._queue.append(_Running(spec, json.loads(left.read_text()) if left.exists() else 0))

    def next(self) -> Ended | Reported:
        trial = self._queue.popleft()
        spec, score = trial.spec, self._score(trial.spec)
        if trial.goes_on:
            trial.epochs += 1 if self._watch else spec.recipe.epochs
            if trial.epochs < spec.recipe.epochs:
                self._queue.appendleft(trial)
                return Reported(spec, trial.epochs, {"class_mean": score})
        with self._store.claim(spec) as claim:
            assert claim is not None
            for epoch in range(trial.epochs):
                claim.log({"epoch": epoch, "select": {"class_mean": score}})
            if not trial.goes_on:
                claim.checkpoint.write_text(json.dumps(trial.epochs))
            status: Status = "COMPLETE" if trial.goes_on else "PRUNED"
            record = made_record(spec, status, score)
            record = record.model_copy(update={"epochs_run": trial.epochs})
            claim.publish(record, keep_checkpoint=not trial.goes_on)
        return Ended(spec, None)

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        self._queue[0].goes_on = goes_on

    def close(self) -> None:
        self._queue.clear()
