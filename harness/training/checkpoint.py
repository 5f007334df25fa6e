"""The state of a training between epochs, and its outcome.

Owns: the checkpoint file. Must not know: the training loop.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from harness.errors import UserError, saving
from harness.metrics import SplitMetrics
from harness.spec import Change
from harness.training.classifier import Classifier
from harness.training.clock import Seconds

Row: TypeAlias = dict[str, Any]
"""A line of `history.jsonl`: epoch, lr, train_loss, and, of an epoch that was scored, the selection
scores under `select`."""


@dataclass
class Trained:
    """Outcome of `train`; without scores when the loss, or what is scored, stopped being finite."""

    diverged: bool = False
    pruned: bool = False
    epochs_run: int = 0
    earlier: Seconds = (0.0, 0.0)
    """Time spent before it was resumed from a checkpoint."""
    earlier_saved: Seconds = (0.0, 0.0)
    """What kept activations had saved by then (`Prefixes.saved`)."""
    tested_epoch: int | None = None
    select: SplitMetrics | None = None
    test: SplitMetrics | None = None
    images_forward: int = 0
    """Of training, selection and test together; so many of them were `images_selection` and
    `images_test`."""
    images_backward: int = 0
    images_selection: int = 0
    images_test: int = 0
    passes_training: int = 0
    """The passes, forward and backward, of the training and of the method's own steps; those that
    only scored were `passes_selection` and `passes_test`."""
    passes_selection: int = 0
    passes_test: int = 0
    history: list[Row] = field(default_factory=list)
    trajectory: list[dict[str, float]] = field(default_factory=list)
    """What the method itself learned, step by step (`TrainingHook.trajectory`)."""


class Checkpoint(NamedTuple):
    """The file of the state between epochs."""

    path: Path
    may_write: Callable[[], None]
    """Raises if another process trains by now, whose file it is; called before the file is
    replaced."""


class States(NamedTuple):
    """Everything with a state that training changes, to be saved between epochs."""

    classifier: Classifier
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler

    def save(
        self,
        checkpoint: Checkpoint,
        result: Trained,
        best: dict[str, Tensor] | None,
        changes: Sequence[Change],
    ) -> None:
        """Write all of it, and which `changes` were made, atomically.

        Raises:
            NotSavedError: it cannot be written.
            TakenOver: as `checkpoint` says; the file is left as it is.
        """
        assert result.select is not None  # only trainings that report every epoch are kept
        state = {
            "modules": [part.state_dict() for part in self],
            "result": {**vars(result), "select": result.select.model_dump_json()},
            "best": best,
            "changes": _made(changes, result.epochs_run),
        }
        path = checkpoint.path
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        content = io.BytesIO()
        torch.save(state, content)
        checkpoint.may_write()
        with saving(path):
            part.write_bytes(content.getbuffer())
            try:
                checkpoint.may_write()
            except UserError:
                part.unlink(missing_ok=True)
                raise
            part.replace(path)

    def load(
        self, checkpoint: Checkpoint, device: torch.device, changes: Sequence[Change]
    ) -> tuple[Trained, dict[str, Tensor] | None] | None:
        """Put everything back; returns the `result` and `best` that `save` was given.

        None if there is no checkpoint, or it is of a training with other changes.
        """
        if not checkpoint.path.is_file():
            return None
        state = torch.load(checkpoint.path, map_location=device, weights_only=True)
        if state["changes"] != _made(changes, state["result"]["epochs_run"]):
            return None
        for part, kept in zip(self, state["modules"], strict=True):
            part.load_state_dict(kept)  # type: ignore[attr-defined]
        result = Trained(**state["result"])
        result.select = SplitMetrics.model_validate_json(state["result"]["select"])
        return result, state["best"]


def _made(changes: Sequence[Change], epochs: int) -> list[str]:
    """The changes made in the course of the first epochs."""
    return [change.model_dump_json() for change in changes if change.after < epochs]
