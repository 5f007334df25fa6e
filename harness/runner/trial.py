"""From a spec to a record: the runner.

Owns: running a trial under its claim, what becomes of errors, and writing its record. Must not
know: studies, searches, engines.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.catalogue.studies import load_in_worker
from harness.data.dataset import normalised, one_of
from harness.errors import NotSavedError, UserError
from harness.runner.cost import count_params
from harness.runner.memory import PeakMemory
from harness.runner.prefixes import prefixes_of
from harness.runner.prepare import attached, fix_arithmetic, prepare
from harness.runner.provenance import provenance
from harness.runner.runtime import Runtime
from harness.spec import Placement, TrialSpec
from harness.store.records import Cost, Status, TrialRecord
from harness.store.store import Claim, Store
from harness.training.arithmetic import evaluated_in
from harness.training.checkpoint import Checkpoint, Row, Trained
from harness.training.clock import Seconds, Stopwatch
from harness.training.distributed import ALONE, DistributedContext
from harness.training.evaluation import NO_FLOPS, Flops, embed, flops_of
from harness.training.train import TrainingLoop

OOM_MICRO_BATCHES = 4
"""Micro-batches of a batch, after it did not fit into the device's memory whole."""

ShouldContinue = Callable[[int, dict[str, Any]], bool]
"""Told how many epochs a trial has run and its last selection scores, those of groups under
`groups`; False stops the trial."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a trial ended, for its record. The defaults are those of one that failed."""

    status: Status = "FAILED"
    result: Trained = field(default_factory=Trained)
    micro_batches: int = 1
    processes: int = 1
    flops: Flops = NO_FLOPS
    trainable_params: int = 0
    head_params: int = 0
    num_classes: int = 1
    class_names: tuple[str, ...] = ()
    learned: Placement | None = None
    peak_memory_mb: float | None = None
    saved: Seconds | None = None
    """By kept activations, since it was last begun; None: there were none."""
    error: str | None = None


def run_trial(
    spec: TrialSpec,
    runtime: Runtime,
    store: Store,
    should_continue: ShouldContinue | None = None,
    distributed: DistributedContext = ALONE,
) -> TrialRecord | None:
    """Run a trial and publish its record; a finished one is returned as it is.

    An exception in training becomes a `FAILED` record; one in the store is not caught, because
    results that cannot be saved must stop everything. A trial on one device that runs out of memory
    is tried once more with `OOM_MICRO_BATCHES`. With `should_continue` the trial keeps a
    checkpoint, resumes from one that a crashed process left, and is `PRUNED` at the first False.
    Returns None if another process is running it.

    Raises:
        UserError: the backbone or the data cannot be had as asked for, or a study file cannot be
            run in this process.
        NotSavedError: a result cannot be written.
        TakenOver: another process has the trial by now, because this one was paused.
    """
    load_in_worker(runtime.study_files)
    with store.claim(spec) as claim:
        if claim is None:
            return store.record(spec.trial_id)
        watch = Stopwatch(torch.device(runtime.device))
        record = None
        try:
            with suppress(*([torch.OutOfMemoryError] if distributed.size == 1 else [])):
                record = _run(spec, runtime, claim, should_continue, distributed, micro_batches=1)
            if record is None:  # the error, whose traceback held the tensors, is gone by now
                claim.restart()
                record = _run(
                    spec,
                    runtime,
                    claim,
                    should_continue,
                    distributed,
                    micro_batches=OOM_MICRO_BATCHES,
                )
        except (UserError, NotSavedError):
            raise  # wrong for this trial and for those that follow
        except Exception:
            record = _record(spec, runtime, watch, _Ended(error=traceback.format_exc()))
        is_stopped = record.status == "PRUNED"
        claim.publish(record, keep_checkpoint=runtime.keep_checkpoints and is_stopped)
        return record


def follow_trial(spec: TrialSpec, runtime: Runtime, distributed: DistributedContext) -> None:
    """Train along with the process that runs the trial, and keep nothing.

    Raises:
        UserError: the backbone or the data cannot be had as asked for.
    """
    load_in_worker(runtime.study_files)
    fix_arithmetic()
    with attached(spec, runtime) as (classifier, prepared):
        TrainingLoop(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            changes=spec.changes,
            distributed=distributed,
        ).run(lambda row: None)


def record_crash(spec: TrialSpec, runtime: Runtime, store: Store, error: str) -> None:
    """Publish a `FAILED` record for a trial whose worker died before it could."""
    with store.claim(spec) as claim:
        if claim is not None:
            watch = Stopwatch(torch.device(runtime.device))
            claim.publish(_record(spec, runtime, watch, _Ended(error=error)))


def _run(
    spec: TrialSpec,
    runtime: Runtime,
    claim: Claim,
    should_continue: ShouldContinue | None,
    distributed: DistributedContext,
    *,
    micro_batches: int,
) -> TrialRecord:
    """Train and test the trial, and write what the runtime asks to be kept beside its record."""
    fix_arithmetic()
    device = torch.device(runtime.device)
    shared = prepare(spec, runtime)  # by the worker's trials, so not part of this one's cost
    alone = distributed.size == 1 and micro_batches == 1
    prefixes = prefixes_of(spec, runtime, shared) if alone else None
    memory, watch = PeakMemory(device), Stopwatch(device)
    with attached(spec, runtime) as (classifier, prepared):
        sample = normalised(one_of(prepared.split.train), prepared.dataset)
        flops = flops_of(classifier, sample)
        result = TrainingLoop(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            changes=spec.changes,
            micro_batches=micro_batches,
            distributed=distributed,
            prefixes=prefixes,
        ).run(claim.log, _of_rows(should_continue), _checkpoint(claim, should_continue))
        peak_memory_mb = memory.mib
        if runtime.keep_features and result.test is not None:
            tested = prepared.split.test
            precision = evaluated_in(spec.recipe)
            found = embed(classifier, prepared.dataset, tested, precision, prefixes, "test")
            claim.write_features(
                found.cpu().numpy(), tested.labels.cpu().numpy(), prepared.dataset.groups
            )
        learned = None if result.diverged else classifier.attachment.learned()
        weights = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
    claim.write_trajectory(result.trajectory)
    if runtime.keep_weights and not result.pruned:
        claim.write_weights(weights)
    ended = _Ended(
        status="DIVERGED" if result.diverged else "PRUNED" if result.pruned else "COMPLETE",
        result=result,
        micro_batches=micro_batches,
        processes=distributed.size,
        flops=flops,
        trainable_params=sum(p.numel() for p in classifier.attachment.parameters()),
        head_params=sum(p.numel() for p in classifier.head.parameters()),
        num_classes=len(prepared.dataset.classes),
        class_names=prepared.dataset.classes,
        learned=learned,
        peak_memory_mb=peak_memory_mb,
        saved=None if prefixes is None else prefixes.saved,
    )
    return _record(spec, runtime, watch, ended)


def _checkpoint(claim: Claim, should_continue: ShouldContinue | None) -> Checkpoint | None:
    """Where a trial that may be stopped keeps its state between epochs."""
    return None if should_continue is None else Checkpoint(claim.checkpoint, claim.check)


def _of_rows(should_continue: ShouldContinue | None) -> Callable[[Row], bool] | None:
    """The same question, asked with a row of the history."""
    if should_continue is None:
        return None
    ask = should_continue
    return lambda row: ask(row["epoch"] + 1, _scores(row))


def _scores(row: Row) -> dict[str, Any]:
    """The scores in a row of the history that a trial can be chosen by."""
    scores = row["select"].items()
    return {name: score for name, score in scores if isinstance(score, float) or name == "groups"}


def _sum(one: Seconds, other: Seconds) -> Seconds:
    return one[0] + other[0], one[1] + other[1]


def _record(spec: TrialSpec, runtime: Runtime, watch: Stopwatch, ended: _Ended) -> TrialRecord:
    result = ended.result
    if runtime.device.startswith("cuda"):
        torch.cuda.synchronize(torch.device(runtime.device))
    wall_s, device_s = _sum(watch.spent, result.earlier)
    saved_wall_s, saved_s = _sum(ended.saved or (0.0, 0.0), result.earlier_saved)
    of = ended.flops
    selection = of.of(result.images_selection, result.passes_selection)
    test = of.of(result.images_test, result.passes_test)
    scored = result.images_selection + result.images_test
    training = of.of(result.images_forward - scored, result.passes_training)
    training += of.of_backward(result.images_backward, result.passes_training)
    return TrialRecord(
        trial_id=spec.trial_id,
        spec=spec,
        status=ended.status,
        select=result.select,
        test=result.test,
        num_classes=ended.num_classes,
        class_names=ended.class_names,
        epochs_run=result.epochs_run,
        tested_epoch=result.tested_epoch,
        expected_params=count_params(spec).trainable_params,
        trainable_params=ended.trainable_params,
        head_params=ended.head_params,
        learned=ended.learned,
        parts=ended.micro_batches,
        cost=Cost(
            wall_s=wall_s + saved_wall_s,
            device_s=(device_s + saved_s) * ended.processes,
            images_forward=result.images_forward,
            images_backward=result.images_backward,
            flops=training + selection + test,
            training_flops=training,
            selection_flops=selection,
            test_flops=test,
            inference_flops=of.of(1, 1),
            peak_memory_mb=ended.peak_memory_mb,
            actual_device_s=device_s if saved_s else None,
        ),
        provenance=provenance(runtime.device),
        error=ended.error,
    )
