"""The record of a trial: what it was, how it ended, its scores and its costs.

Owns: these types. Must not know: where they are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.metrics import SplitMetrics
from harness.spec import Frozen, Placement, TrialSpec

if TYPE_CHECKING:
    pass


class Counted(NamedTuple):
    """Of a trial that was not run: its trainable parameters, head excluded, and feature width."""

    trainable_params: int
    width: int


SCHEMA = 1


Status = Literal["COMPLETE", "DIVERGED", "PRUNED", "FAILED"]
"""`PRUNED`: stopped by a search before its last epoch, so never tested; no answer for others."""


State = Literal["done", "failed", "running", "absent"]


def state_of(status: Status) -> State:
    """A finished trial's state: a failed one is to be tried again, a pruned one is no answer."""
    if status == "PRUNED":
        return "absent"
    return "failed" if status == "FAILED" else "done"


class Cost(Frozen):
    """What a trial used. `flops` is analytic: matrix products of forward and backward passes."""

    wall_s: float
    device_s: float
    """Of a GPU, all the time that the trial held it; of a CPU, the trial's own CPU time. Over all
    devices that trained it."""
    images_forward: int
    images_backward: int
    flops: int
    inference_flops: int = 0
    """Of the adapted model on one image, unmerged; 0 in records from before it was counted."""
    peak_memory_mb: float
    """CUDA: peak allocated by the trial. CPU: peak resident size of the worker so far."""


class TrialRecord(Frozen):
    """The result of one trial, whatever it was."""

    schema_version: int = SCHEMA
    trial_id: str
    spec: TrialSpec
    status: Status
    select: SplitMetrics | None
    """Scores on the part that choices are made on (validation unless the spec says test)."""
    test: SplitMetrics | None
    num_classes: int
    epochs_run: int
    tested_epoch: int | None
    expected_params: int
    trainable_params: int
    head_params: int
    learned: Placement | None = None
    """Strengths that the method itself found (MetaPEFT's γ); None for a method that has none."""
    parts: int = 1
    """Parts that every batch was passed in, one after the other, to fit into the memory."""
    cost: Cost
    provenance: dict[str, str]
    error: str | None = None

    def objective(self, metric: str) -> float:
        """What a search is told: the selection score, or chance where training diverged."""
        return 1 / self.num_classes if self.select is None else float(getattr(self.select, metric))
