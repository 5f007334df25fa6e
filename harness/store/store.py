"""The one truth about what has run: a folder per trial, claimed before training, published after.

`trials/<id>/` holds `spec.json`, `claim.json` (touched while its process lives), `history.jsonl`
(a line per epoch) and, written last, `record.json`. A method that learns something of its own
leaves `trajectory.csv`; `weights.safetensors` and `features.npz` are kept when asked for, and
`checkpoint.pt` holds the state of a trial that may be stopped and continued. Owns: these files, and
who may write them when. Must not know: how a trial is computed or which study asked for it.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from harness.errors import NotSavedError, UserError, begun, remedy, saving, unknown
from harness.spec import TrialSpec
from harness.store.checked import checked_record, checked_spec
from harness.store.files import (
    append_line,
    read_lines,
    refuse_absent,
    save_tensors,
    write_atomically,
)
from harness.store.liveness import Mark, Owner, beating, is_here, living_owner, write_mark
from harness.store.records import State, TrialRecord, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Lookup(NamedTuple):
    """What the store knows of a trial, from one read of its record."""

    state: State
    record: TrialRecord | None
    """Also of a failed or a pruned trial, which are to be run again."""


class Claim:
    """The right to run one trial, and alone to write in its folder, until its record is published.

    Made by `Store.claim`. Every method that writes raises `NotSavedError` when it cannot, and
    `TakenOver`, writing nothing, once the claim is another process's because this one was paused.
    """

    def __init__(self, folder: Path, mark: Mark) -> None:
        self._folder, self._mark = folder, mark
        self.checkpoint = folder / "checkpoint.pt"
        """Where the state between epochs may be kept; deleted when the trial ends."""

    def check(self) -> None:
        """To be called before the checkpoint is written. Raises `TakenOver` as the others do."""
        self._mark.check()

    def log(self, row: dict[str, Any]) -> None:
        """Append a row, that of one epoch, to the trial's history."""
        with self._owned():
            append_line(self._folder / "history.jsonl", row, may_write=self._mark.check)

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Write only what is ours; if it was lost in between, say that and not what came of it."""
        self._mark.check()
        try:
            yield
        except NotSavedError:
            self._mark.check()
            raise

    def restart(self) -> None:
        """Forget the history and the checkpoint: the trial starts from its first epoch."""
        self._mark.check()
        (self._folder / "history.jsonl").unlink(missing_ok=True)
        self.checkpoint.unlink(missing_ok=True)

    def write_trajectory(self, rows: list[dict[str, float]]) -> None:
        """Keep what the method learned, a row per step: `trajectory.csv`; nothing without rows."""
        path = self._folder / "trajectory.csv"
        if rows:
            with self._owned(), saving(path), path.open("w", newline="") as file:
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
        with self._owned(), saving(path):
            np.savez_compressed(
                path, features=features.astype("float16"), labels=labels, groups=of_images
            )

    def write_weights(self, tensors: dict[str, Tensor]) -> None:
        """Keep the trained tensors: `weights.safetensors`."""
        path = self._folder / "weights.safetensors"
        with self._owned():
            save_tensors(path, tensors)

    def publish(self, record: TrialRecord, *, keep_checkpoint: bool = False) -> None:
        """Make the record visible, all of it at once; the claim ends with this."""
        path, text = self._folder / "record.json", record.model_dump_json(indent=1)
        with self._owned():
            write_atomically(path, text, may_write=self._mark.check)
        if not keep_checkpoint:
            self.checkpoint.unlink(missing_ok=True)


def _unmakeable(root: Path, error: OSError) -> UserError:
    shown = str(root)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    return UserError(
        f"The store {shown} cannot be used: {error.strerror or error}; {remedy(error)}."
    )


class Store:
    """Trials under `root/trials`, shared by all studies, processes and machines that see `root`.

    The contract between processes:

    - Any number of them may read and claim at a time. There is no server: the only lock is
      `root/claims.lock`, held for the moment in which a claim is decided.
    - One process at a time has the claim of a trial. It alone writes in the trial's folder, from
      `claim` until it publishes the record or dies. The claim of a process that died, or is paused
      for long, is recognised (see `liveness`) and given to the next that asks; the folder moves to
      the attic then, and a process that wakes up finds the claim not its own and writes nothing.
    - `record.json` is written last and appears by atomic rename: a reader sees none, or all of it.
      Once it is there, so is everything else of the trial.
    - Before that, a reader may see any part of the folder, and `history.jsonl` may end in a torn
      line, which `history` leaves out.
    - A record never changes. That of a failed or a pruned trial disappears when the trial is
      claimed again: the whole folder moves to `root/attic`. Nothing published is ever deleted but
      weights and checkpoints.
    - `adopt` publishes what another store has, under the lock, where nobody holds the claim.
    - `branch`, `release`, `take_weights`, `drop_weights` and `drop_checkpoint` write without a
      claim. They are for the driver of a run, for trials of which it knows that nobody is running
      them.
    """

    def __init__(self, root: Path) -> None:
        """A store there or to be there; nothing is written yet.

        Raises:
            UserError: a file lies where the folder is to be, or no folder can be.
        """
        try:
            there = next(each for each in (root, *root.absolute().parents) if each.exists())
        except OSError as error:
            raise _unmakeable(root, error) from error
        if not there.is_dir():
            raise UserError(f"The store {root} cannot be there, because {there} is a file.")
        self.root = root
        self.trials = root / "trials"

    def refuse_unmakeable(self, *, is_dry: bool = False) -> None:
        """See that the store's folder can be made, and written into if it is there and the run is
        not `is_dry`, before anything is computed.

        Raises:
            UserError: it cannot; names the reason.
        """
        lacking = [each for each in (self.root, *self.root.parents) if not each.exists()]
        made = []
        try:
            for each in reversed(lacking):
                each.mkdir()
                made.append(each)
            for each in () if is_dry else (self.root, self.trials):
                if each.is_dir():
                    TemporaryFile(dir=each).close()
        except FileExistsError:
            pass  # another process makes it
        except OSError as error:
            raise _unmakeable(self.root, error) from error
        finally:
            for each in reversed(made):
                with suppress(OSError):  # another process uses it by now
                    each.rmdir()

    def lost(self, trial_ids: Iterable[str]) -> list[str]:
        """Those that have no record and that nobody trains."""
        paths = {each: self.trials / each / "record.json" for each in trial_ids}
        return [
            each for each, path in paths.items() if not (path.exists() or self.is_claimed(each))
        ]

    def record(self, trial_id: str) -> TrialRecord | None:
        """The published record, or None.

        Raises:
            UserError: the file was written by a newer version, is damaged, or is not that of the
                trial.
        """
        path = self.trials / trial_id / "record.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        return checked_record(str(path), trial_id, text)

    def known_record(self, trial_id: str) -> TrialRecord:
        """As `record`, by the trial's id or the beginning of it that no other has.

        Raises:
            UserError: there is none, or several begin so; names the nearest, or these.
        """
        record = self.record(trial_id)
        if record is not None:
            return record
        known = [path.parent.name for path in self.trials.glob("*/record.json")]
        whole = begun("trial", trial_id, known)
        record = None if whole is None else self.record(whole)
        if record is None:
            refuse_absent(self.root)
            raise unknown("trial", trial_id, known)
        return record

    def spec(self, trial_id: str) -> TrialSpec | None:
        """The spec of a trial that has been started, or None; faster to read than its record.

        Raises:
            UserError: as `record`.
        """
        path = self.trials / trial_id / "spec.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        return checked_spec(path, text)

    def has_begun(self, trial_id: str) -> bool:
        """Whether a process has ever claimed the trial."""
        return (self.trials / trial_id / "spec.json").is_file()

    def look_up(self, trial_id: str) -> Lookup:
        """A trial's state and its record together.

        Raises:
            UserError: as `record`.
        """
        record = self.record(trial_id)
        if record is None:
            return Lookup("running" if self.is_claimed(trial_id) else "absent", None)
        return Lookup(state_of(record.status), record)

    def state(self, trial_id: str) -> State:
        """`failed` and `absent` are to be run; a crashed or a pruned trial counts as absent.

        Raises:
            UserError: as `record`.
        """
        return self.look_up(trial_id).state

    def is_claimed(self, trial_id: str) -> bool:
        """Whether a living process holds the trial's claim."""
        return self.owner(trial_id) is not None

    def owner(self, trial_id: str) -> Owner | None:
        """The living process that holds the trial's claim."""
        return living_owner(self.trials / trial_id / "claim.json")

    def history(self, trial_id: str) -> list[dict[str, Any]]:
        """A row per finished epoch, oldest first.

        Raises:
            UserError: a line other than the last is damaged.
        """
        return read_lines(self.trials / trial_id / "history.jsonl")

    @contextmanager
    def claim(self, spec: TrialSpec) -> Iterator[Claim | None]:
        """Claim a trial for this process; yields None if it is done or another process has it.

        The remains of a crashed, failed or pruned run are moved to `root/attic`, never deleted; its
        checkpoint stays with the trial.

        Raises:
            UserError: as `record`.
            NotSavedError: the store cannot be written.
        """
        folder = self.trials / spec.trial_id
        with saving(folder):
            self.trials.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / "claims.lock"):
                free = self.state(spec.trial_id) in ("absent", "failed")
                if free:
                    old = self._to_attic(folder)
                    folder.mkdir()
                    mark = write_mark(folder / "claim.json", f"Trial {spec.trial_id}")
            if free:
                if (old / "checkpoint.pt").exists():
                    (old / "checkpoint.pt").rename(folder / "checkpoint.pt")
                (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        if not free:
            yield None
            return
        with beating(mark):
            yield Claim(folder, mark)

    def adopt(
        self, trial_id: str, files: Mapping[str, str], replaces: Callable[[Lookup], bool]
    ) -> Lookup:
        """Publish a trial that another store has, if `replaces` says so of what is here; what was.

        `files` are the texts of its folder, `record.json` last. No claim is made or carried over,
        so nobody seems to train it. A trial that is being trained here is left alone; of others,
        what is replaced moves to `root/attic`.

        Raises:
            UserError: as `record`.
            NotSavedError: the store cannot be written.
        """
        folder = self.trials / trial_id
        with saving(folder):
            self.trials.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / "claims.lock"):
                known = self.look_up(trial_id)
                if known.state == "running" or not replaces(known):
                    return known
                self._to_attic(folder)
                folder.mkdir()
                for name, text in files.items():
                    write_atomically(folder / name, text)
        return known

    def _to_attic(self, folder: Path) -> Path:
        """Move what is there of a trial aside, and say where to."""
        old = self.root / "attic" / f"{folder.name}-{time.time_ns()}"
        if folder.exists():
            old.parent.mkdir(exist_ok=True)
            folder.rename(old)
        return old

    def weights(self, trial_id: str) -> Path:
        """Where a trial's trained tensors lie, if it has kept them."""
        return self.trials / trial_id / "weights.safetensors"

    def take_weights(self, trial_id: str, source: Path) -> None:
        """Give a finished trial its tensors, a file of the same file system, which moves.

        Raises:
            NotSavedError: the store cannot be written.
        """
        with saving(self.weights(trial_id)):
            source.replace(self.weights(trial_id))

    def drop_weights(self, trial_id: str) -> None:
        """Delete the tensors that a trial has kept."""
        self.weights(trial_id).unlink(missing_ok=True)

    def branch(self, spec: TrialSpec) -> None:
        """Seed a trial with its parent's checkpoint, if it has a parent and that left one.

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
        """Delete the state that a stopped trial could have been continued from."""
        (self.trials / trial_id / "checkpoint.pt").unlink(missing_ok=True)

    def release(self, trial_id: str) -> None:
        """Free the claim of a worker that the caller knows to be dead, on any machine.

        One that lives on this machine is another, which has taken the trial over meanwhile.

        Raises:
            NotSavedError: the store cannot be written.
        """
        path = self.trials / trial_id / "claim.json"
        if not path.exists():
            return
        with saving(path), FileLock(self.root / "claims.lock"):  # nobody claims in between
            owner = self.owner(trial_id)
            if owner is None or not is_here(owner):
                path.unlink(missing_ok=True)
