"""From a request to a resolved spec, and from a spec to a record: the runner.

Owns: joining method, backbone, data and recipe, and what one worker keeps between trials. Must not
know: studies, searches, engines.
"""

from __future__ import annotations

import resource
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from harness.data.dataset import normalised, one_of
from harness.errors import NotSavedError, UserError
from harness.insertion.method import get_method
from harness.model.backbones import dims
from harness.runner.prepare import (
    attached,
    fix_arithmetic,
    prepare,
)
from harness.runner.provenance import provenance
from harness.runner.runtime import Runtime
from harness.spec import (
    Placement,
    TrialSpec,
)
from harness.store.records import Cost, Status, TrialRecord
from harness.store.store import Claim, Store
from harness.training.checkpoint import Trained
from harness.training.clock import Stopwatch
from harness.training.distributed import ALONE, World
from harness.training.evaluation import embed, flops_per_image
from harness.training.train import train

OOM_PARTS = 4
"""Parts of a batch, one after the other, after it did not fit into the device's memory whole."""


GoesOn = Callable[[int, dict[str, float]], bool]
"""Told a trial's epochs so far and their last selection scores, says whether it shall go on."""


def run_trial(
    spec: TrialSpec,
    runtime: Runtime,
    store: Store,
    goes_on: GoesOn | None = None,
    world: World = ALONE,
) -> TrialRecord | None:
    """Run a trial and publish its record; a finished one is returned as it is.

    An exception in training becomes a `FAILED` record; one in the store is not caught, because
    results that cannot be saved must stop everything. One that runs out of device memory, alone in
    its `world`, is tried once more, its batches in `OOM_PARTS` parts. With `goes_on` the trial is
    watched: it keeps a checkpoint, continues from one that a crashed process left, and is `PRUNED`
    at the first no. None: another process is running it.

    Raises:
        UserError: the backbone or the data cannot be had as asked for.
    """
    with store.claim(spec) as claim:
        if claim is None:
            return store.record(spec.trial_id)
        watch = Stopwatch(torch.device(runtime.device))
        record = None
        try:
            with suppress(*([torch.OutOfMemoryError] if world.size == 1 else [])):
                record = _run(spec, runtime, claim, goes_on, world, parts=1)
            if record is None:  # the error, whose traceback held the tensors, is gone by now
                claim.restart()
                record = _run(spec, runtime, claim, goes_on, world, parts=OOM_PARTS)
        except (UserError, NotSavedError):
            raise  # wrong for this trial and for those that follow
        except Exception:
            record = _record(spec, runtime, "FAILED", watch, error=traceback.format_exc())
        is_stopped = record.status == "PRUNED"
        claim.publish(record, keep_checkpoint=runtime.keep_checkpoints and is_stopped)
        return record


def follow_trial(spec: TrialSpec, runtime: Runtime, world: World) -> None:
    """Train along with the process that runs the trial, and keep nothing."""
    fix_arithmetic()
    with attached(spec, runtime) as (classifier, prepared):
        train(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            log=lambda row: None,
            changes=spec.changes,
            world=world,
        )


def record_crash(spec: TrialSpec, runtime: Runtime, store: Store, error: str) -> None:
    """Publish a `FAILED` record for a trial whose worker died before it could."""
    with store.claim(spec) as claim:
        if claim is not None:
            watch = Stopwatch(torch.device(runtime.device))
            claim.publish(_record(spec, runtime, "FAILED", watch, error=error))


def _run(
    spec: TrialSpec,
    runtime: Runtime,
    claim: Claim,
    goes_on: GoesOn | None,
    world: World,
    *,
    parts: int,
) -> TrialRecord:
    fix_arithmetic()
    device = torch.device(runtime.device)
    prepare(spec, runtime)  # shared by the worker's trials, so not part of this one's cost
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(device)
    with attached(spec, runtime) as (classifier, prepared):
        sample = normalised(one_of(prepared.split.train), prepared.dataset)
        forward, backward = flops_per_image(classifier, sample)
        result = train(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            log=claim.log,
            changes=spec.changes,
            goes_on=None
            if goes_on is None
            else lambda row: goes_on(row["epoch"] + 1, _scores(row)),
            checkpoint=None if goes_on is None else claim.checkpoint,
            parts=parts,
            world=world,
        )
        if runtime.keep_features and result.test is not None:
            tested = prepared.split.test
            claim.write_features(
                embed(classifier, prepared.dataset, tested).cpu().numpy(),
                tested.labels.cpu().numpy(),
                prepared.dataset.groups,
            )
        learned = None if result.diverged else classifier.attachment.learned()
        weights = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
    claim.write_trajectory(result.trajectory)
    if runtime.keep_weights and not result.pruned:
        claim.write_weights(weights)
    return _record(
        spec,
        runtime,
        "DIVERGED" if result.diverged else "PRUNED" if result.pruned else "COMPLETE",
        watch,
        result=result,
        parts=parts,
        processes=world.size,
        flops=forward * result.images_forward + backward * result.images_backward,
        inference_flops=forward,
        trainable_params=sum(p.numel() for p in classifier.attachment.parameters()),
        head_params=sum(p.numel() for p in classifier.head.parameters()),
        num_classes=len(prepared.dataset.classes),
        learned=learned,
    )


def _scores(row: dict[str, Any]) -> dict[str, float]:
    """The overall scores in a row of the history."""
    return {name: score for name, score in row["select"].items() if isinstance(score, float)}


def _record(
    spec: TrialSpec,
    runtime: Runtime,
    status: Status,
    watch: Stopwatch,
    *,
    result: Trained | None = None,
    parts: int = 1,
    processes: int = 1,
    flops: int = 0,
    inference_flops: int = 0,
    trainable_params: int = 0,
    head_params: int = 0,
    num_classes: int = 1,
    learned: Placement | None = None,
    error: str | None = None,
) -> TrialRecord:
    result = result or Trained()
    device = torch.device(runtime.device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    wall_s, device_s = watch.spent
    method = get_method(spec.method)
    options = method.parse_options(spec.options)
    return TrialRecord(
        trial_id=spec.trial_id,
        spec=spec,
        status=status,
        select=result.select,
        test=result.test,
        num_classes=num_classes,
        epochs_run=result.epochs_run,
        tested_epoch=result.tested_epoch,
        expected_params=method.expected_params(dims(spec.backbone), spec.placement, options),
        trainable_params=trainable_params,
        head_params=head_params,
        learned=learned,
        parts=parts,
        cost=Cost(
            wall_s=wall_s + result.earlier[0],
            device_s=(device_s + result.earlier[1]) * processes,
            images_forward=result.images_forward,
            images_backward=result.images_backward,
            flops=flops,
            inference_flops=inference_flops,
            peak_memory_mb=peak,
        ),
        provenance=provenance(runtime.device),
        error=error,
    )
