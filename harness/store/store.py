"""The one truth about what has run: a folder per trial, claimed before training, published after.

`trials/<id>/` holds `spec.json`, `claim.json` (touched while its process lives), `history.jsonl`
(a line per epoch) and, as the last act, `record.json` by atomic rename. A method that learns
something of its own leaves `trajectory.csv`; `weights.safetensors` and `features.npz` are kept when
asked for, and `checkpoint.pt` lies there while a watched trial runs. Owns: these files. Must not
know: how a trial is computed or which study asked for it.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import ValidationError

from harness.errors import UserError, saving, unknown
from harness.spec import TrialSpec
from harness.store.files import append_line, read_lines, write_atomically
from harness.store.liveness import beating, living_owner, write_mark
from harness.store.records import SCHEMA, State, TrialRecord, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Claim:
    """The right to run one trial, held by this process. Writing raises `NotSavedError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.checkpoint = folder / "checkpoint.pt"
        """Where the state between epochs may lie; gone once the trial has ended."""

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch to the trial's history."""
        append_line(self._folder / "history.jsonl", row)

    def restart(self) -> None:
        """Forget what was logged: the trial starts again."""
        (self._folder / "history.jsonl").unlink(missing_ok=True)
        self.checkpoint.unlink(missing_ok=True)

    def write_trajectory(self, rows: list[dict[str, float]]) -> None:
        """Keep what the method learned step by step, if it did: `trajectory.csv`."""
        path = self._folder / "trajectory.csv"
        if rows:
            with saving(path), path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

    def write_features(
        self, features: NDArray[Any], labels: NDArray[Any], groups: dict[str, tuple[int, ...]]
    ) -> None:
        """Keep features `[n, d]`, labels and groups `[n]` of the test images: `features.npz`."""
        import numpy as np

        names = {label: name for name, members in groups.items() for label in members}
        of_images = np.array([names[int(label)] for label in labels])
        path = self._folder / "features.npz"
        with saving(path):
            np.savez_compressed(
                path, features=features.astype("float16"), labels=labels, groups=of_images
            )

    def write_weights(self, tensors: dict[str, Tensor]) -> None:
        """Keep the trained tensors: `weights.safetensors`."""
        from safetensors.torch import save_file  # imports torch, which readers of records need not

        path = self._folder / "weights.safetensors"
        with saving(path):
            save_file(tensors, path)

    def publish(self, record: TrialRecord, *, keep_checkpoint: bool = False) -> None:
        """Make the record visible, whole or not at all."""
        write_atomically(self._folder / "record.json", record.model_dump_json(indent=1))
        if not keep_checkpoint:
            self.checkpoint.unlink(missing_ok=True)


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
            self.check_schema(path, json.loads(text))
            return TrialRecord.model_validate_json(text)
        except (ValidationError, ValueError, KeyError) as error:
            if isinstance(error, UserError):
                raise
            raise self.damaged(path) from error

    def known_record(self, trial_id: str) -> TrialRecord:
        """As `record`.

        Raises:
            UserError: there is none; names the nearest.
        """
        record = self.record(trial_id)
        if record is None:
            known = [path.parent.name for path in self.trials.glob("*/record.json")]
            raise unknown("trial", trial_id, known)
        return record

    def spec(self, trial_id: str) -> TrialSpec | None:
        """What a started trial was to be, or None; faster to read than its record.

        Raises:
            UserError: the file is damaged.
        """
        path = self.trials / trial_id / "spec.json"
        try:
            return TrialSpec.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise self.damaged(path) from error

    def check_schema(self, path: Path, record: dict[str, Any]) -> None:
        """Raises `UserError` for a record of another version."""
        if record["schema_version"] != SCHEMA:
            raise UserError(f"{path} has another schema than {SCHEMA}: move it away and rerun.")

    def damaged(self, path: Path) -> UserError:
        """What to say of a record that cannot be read."""
        return UserError(f"{path} is damaged; delete its folder and run again.")

    def state(self, trial_id: str) -> State:
        """`failed` and `absent` are to be run; a crashed or a pruned trial counts as absent."""
        record = self.record(trial_id)
        if record is None:
            return "running" if self.is_claimed(trial_id) else "absent"
        return state_of(record.status)

    def is_claimed(self, trial_id: str) -> bool:
        """Whether a living process has the trial's claim."""
        return living_owner(self.trials / trial_id / "claim.json") is not None

    def history(self, trial_id: str) -> list[dict[str, Any]]:
        """A row per epoch that the trial has finished."""
        return read_lines(self.trials / trial_id / "history.jsonl")

    @contextmanager
    def claim(self, spec: TrialSpec) -> Iterator[Claim | None]:
        """Take a trial for this process; yields None when it is done or another process has it.

        The remains of a crashed, failed or pruned run are moved to `root/attic`, never deleted; its
        checkpoint stays with the trial.

        Raises:
            NotSavedError: the store cannot be written.
        """
        folder = self.trials / spec.trial_id
        with saving(folder):
            self.trials.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / "claims.lock"):
                free = self.state(spec.trial_id) in ("absent", "failed")
                old = self.root / "attic" / f"{spec.trial_id}-{time.time_ns()}"
                if free and folder.exists():
                    old.parent.mkdir(exist_ok=True)
                    folder.rename(old)
                if free:
                    folder.mkdir()
                    write_mark(folder / "claim.json")
            if free:
                if (old / "checkpoint.pt").exists():
                    (old / "checkpoint.pt").rename(folder / "checkpoint.pt")
                (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        if not free:
            yield None
            return
        with beating(folder / "claim.json"):
            yield Claim(folder)

    def drop_weights(self, trial_id: str) -> None:
        """Delete the tensors that a trial has kept."""
        (self.trials / trial_id / "weights.safetensors").unlink(missing_ok=True)

    def branch(self, spec: TrialSpec) -> None:
        """Let a trial that goes on with another begin where that one was stopped, if it was.

        Raises:
            NotSavedError: the store cannot be written.
        """
        folder = self.trials / spec.trial_id
        if spec.parent is None or folder.exists():
            return
        left = self.trials / spec.parent.trial_id / "checkpoint.pt"
        with saving(folder), suppress(FileNotFoundError):
            content = left.read_bytes()
            folder.mkdir()
            (folder / "checkpoint.part").write_bytes(content)
            (folder / "checkpoint.part").replace(folder / "checkpoint.pt")

    def drop_checkpoint(self, trial_id: str) -> None:
        """Delete the state that a stopped trial could have gone on from."""
        (self.trials / trial_id / "checkpoint.pt").unlink(missing_ok=True)

    def release(self, trial_id: str) -> None:
        """Free the claim of a worker that the caller knows to be dead, on whatever machine."""
        (self.trials / trial_id / "claim.json").unlink(missing_ok=True)
