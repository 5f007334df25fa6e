"""The one truth about what has run: a folder per trial, claimed before training, published after.

`trials/<id>/` holds `spec.json`, `claim.json` (touched while its process lives), `history.jsonl`
(a line per epoch) and, as the last act, `record.json` by atomic rename. A method that learns
something of its own leaves `trajectory.csv`; `weights.safetensors` is kept when asked for. Owns:
these files. Must not know: how a trial is computed or which study asked for it.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from filelock import FileLock
from pydantic import ValidationError

from harness.errors import UserError
from harness.metrics import SplitMetrics
from harness.spec import Frozen, Placement, TrialSpec

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
HEARTBEAT_S = 5.0
STALE_S = 60.0
"""A claim not touched for this long belongs to a process that is gone."""

Status = Literal["COMPLETE", "DIVERGED", "FAILED"]


class Cost(Frozen):
    """What a trial used. `flops` is analytic: matrix products of forward and backward passes."""

    wall_s: float
    device_s: float
    images_forward: int
    images_backward: int
    flops: int
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
    cost: Cost
    provenance: dict[str, str]
    error: str | None = None

    def objective(self, metric: str) -> float:
        """What a search is told: the selection score, or chance where training diverged."""
        return 1 / self.num_classes if self.select is None else float(getattr(self.select, metric))


class Claim:
    """The right to run one trial, held by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch to the trial's history."""
        with (self._folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def write_trajectory(self, rows: list[dict[str, float]]) -> None:
        """Keep what the method learned step by step, if it did: `trajectory.csv`."""
        if rows:
            with (self._folder / "trajectory.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

    def write_weights(self, tensors: dict[str, Tensor]) -> None:
        """Keep the trained tensors: `weights.safetensors`."""
        from safetensors.torch import save_file  # imports torch, which readers of records need not

        save_file(tensors, self._folder / "weights.safetensors")

    def publish(self, record: TrialRecord) -> None:
        """Make the record visible, whole or not at all."""
        write_atomically(self._folder / "record.json", record.model_dump_json(indent=1))


class Store:
    """Trials under `root/trials`, shared by all studies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trials = root / "trials"

    def record(self, trial_id: str) -> TrialRecord | None:
        """The published record, or None.

        Raises:
            UserError: the file was written by another version or is damaged.
        """
        path = self.trials / trial_id / "record.json"
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        try:
            if json.loads(text)["schema_version"] != SCHEMA:
                raise UserError(f"{path} has another schema than {SCHEMA}: move it away and rerun.")
            return TrialRecord.model_validate_json(text)
        except (ValidationError, ValueError, KeyError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is damaged; delete its folder and run again.") from error

    def state(self, trial_id: str) -> Literal["done", "failed", "running", "absent"]:
        """`failed` and `absent` are to be run; a crashed trial counts as absent."""
        record = self.record(trial_id)
        if record is not None:
            return "failed" if record.status == "FAILED" else "done"
        return "running" if _alive(self.trials / trial_id / "claim.json") else "absent"

    @contextmanager
    def claim(self, spec: TrialSpec) -> Iterator[Claim | None]:
        """Take a trial for this process; yields None when it is done or another process has it.

        The remains of a crashed or failed run are moved to `root/attic`, never deleted.
        """
        folder = self.trials / spec.trial_id
        self.trials.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "claims.lock"):
            free = self.state(spec.trial_id) in ("absent", "failed")
            if free and folder.exists():
                attic = self.root / "attic"
                attic.mkdir(exist_ok=True)
                folder.rename(attic / f"{spec.trial_id}-{time.time_ns()}")
            if free:
                folder.mkdir()
                (folder / "claim.json").write_text(json.dumps(_owner()))
        if not free:
            yield None
            return
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        ended = threading.Event()
        beat = threading.Thread(target=_beat, args=(folder / "claim.json", ended), daemon=True)
        beat.start()
        try:
            yield Claim(folder)
        finally:
            ended.set()
            beat.join()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        path.touch()


def _owner() -> dict[str, Any]:
    """This process; with its start time, because process numbers are used again."""
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def _alive(claim: Path) -> bool:
    """Whether the process behind a claim works: a fresh heartbeat and, on this host, a live one."""
    try:
        owner = json.loads(claim.read_text())
        if time.time() - claim.stat().st_mtime > STALE_S:
            return False
        if owner["host"] != socket.gethostname():
            return True
        process = psutil.Process(owner["pid"])
        same = bool(process.create_time() == owner["started"])
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return False  # no claim, a torn one, or no such process


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the whole new one, also after a power cut."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
