"""The record of a trial: what it was, how it ended, its scores and its costs.

Owns: these types. Must not know: where records are kept.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import SerializerFunctionWrapHandler, model_serializer

from harness.errors import UserError
from harness.metrics import Goal, Objective, SplitMetrics, worth, worth_of_chance
from harness.spec import Frozen, Placement, TrialSpec

SCHEMA = 1
"""Version of the record's layout; a record with a higher one is refused."""

Status = Literal["COMPLETE", "DIVERGED", "PRUNED", "FAILED"]
"""How a trial ended. `PRUNED`: stopped or paused by a search before its last epoch, so never
tested; to everyone but that search, the trial has not been run."""

State = Literal["done", "failed", "running", "absent"]
"""What is left to do about a trial: nothing, try again, wait, run."""

DONE: tuple[Status, ...] = ("COMPLETE", "DIVERGED")
"""Of trials that have a result: nothing is left to do about them, and they can be chosen."""


class Counted(NamedTuple):
    """What is known of a trial that was not run."""

    trainable_params: int
    """Without the head's."""
    width: int
    """Of the backbone's features."""


def state_of(status: Status) -> State:
    """What is left to do about a trial that ended so: a failed or a pruned one is to be run."""
    if status in DONE:
        return "done"
    return "failed" if status == "FAILED" else "absent"


class Cost(Frozen):
    """What a trial used."""

    wall_s: float
    device_s: float
    """Seconds, summed over the devices that trained it. On a GPU, all the time for which the trial
    held it; on a CPU, the trial's own CPU time."""
    images_forward: int
    images_backward: int
    flops: int
    """Of the matrix products of all forward and backward passes, computed and not measured."""
    training_flops: int | None = None
    """The part of `flops` that trained, a method's own steps included. The three parts add up to
    `flops`; None in records from before they were told apart."""
    selection_flops: int | None = None
    """The part that scored the split that choices are made on."""
    test_flops: int | None = None
    """The part that scored the test split beside that; 0 where choices are made on it."""
    inference_flops: int = 0
    """Of the adapted model on one image, unmerged; 0 in records from before it was counted."""
    peak_memory_mb: float | None = None
    """In MiB. CUDA: peak allocated in the trial. CPU: peak resident size of the worker in the
    trial, with what every worker holds (interpreter, libraries, backbone, data); None where the
    platform cannot tell it from the peak of an earlier trial. Before SEMANTICS 2, a CPU's is that
    of all the worker's trials so far, and says nothing of this one."""

    actual_device_s: float | None = None
    """What was really spent, where that is not `device_s`: activations of frozen blocks were read
    from what another trial had kept, or kept for others. `device_s` and `wall_s` are then what the
    trial would have taken alone, by what the other took for them. Left out of the file if None."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.actual_device_s is None:
            fields.pop("actual_device_s", None)
        return fields

    @property
    def charged_flops(self) -> int:
        """What a search pays: without the test, which no choice needs. All of it in old records."""
        return self.flops - (self.test_flops or 0)


class TrialRecord(Frozen):
    """The result of one trial, whichever way it ended."""

    schema_version: int = SCHEMA
    trial_id: str
    spec: TrialSpec
    status: Status
    select: SplitMetrics | None
    """Scores on the split that choices are made on (validation unless the spec says test)."""
    test: SplitMetrics | None
    num_classes: int
    class_names: tuple[str, ...] = ()
    """In the order of the scores by class; empty in records from before they were kept, and of
    trials that failed."""
    epochs_run: int
    tested_epoch: int | None
    expected_params: int
    trainable_params: int
    head_params: int
    learned: Placement | None = None
    """Strengths that the method itself found (MetaPEFT's γ); None for a method that has none."""
    parts: int = 1
    """Micro-batches that every batch was split into to fit into the memory."""
    cost: Cost
    provenance: dict[str, str]
    error: str | None = None

    def objective(self, objective: Objective) -> float:
        """What a search is told, better when higher: the selection score in [0, 1], or minus the
        selection loss; chance if training diverged."""
        if self.select is None:
            return worth_of_chance(objective, self.num_classes)
        return worth(objective, vars(self.select))

    def worth(self, goal: Goal) -> float:
        """As `objective`, and minus the cost where that is the goal: so many parameters, or FLOPs.

        Raises:
            UserError: the record is from before inference was counted, and that is the goal.
        """
        if goal == "trainable_params":
            return -float(self.trainable_params)
        if goal != "inference_flops":
            return self.objective(goal)
        if not self.cost.inference_flops:
            raise UserError(
                f"--objective inference_flops: trial {self.trial_id} was recorded before they were "
                "counted; give another --out."
            )
        return -float(self.cost.inference_flops)
