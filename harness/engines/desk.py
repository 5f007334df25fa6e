"""A folder through which a driver and workers that share nothing else hand each other trials.

Owns: what lies in the folder, and the worker's side of it. Must not know: who starts the workers,
which trial is worth running.

A trial waits in `queue` under its number until a worker takes it, by renaming it into `taken` with
its own number behind; of two that try, one gets it, also over NFS. What workers say lies in `said`,
what they are answered in `answers`, and `beat` changes as long as the driver lives. Every file is
written beside its place and renamed into it, so whoever sees one sees all of it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.engines.base import RunTrial
from harness.errors import NotSavedError, UserError
from harness.runner.memory import keep_freed_memory
from harness.runner.runtime import Runtime
from harness.spec import TrialSpec
from harness.store.files import write_atomically
from harness.store.store import Store

POLL_S = 0.2
"""From one look into the folder to the next."""
BEAT_S = 5.0
"""From one sign of life of the driver to the next."""
SILENT_S = 120.0
"""Without one, after which a worker takes the driver to be gone. Some file systems show what
another machine has written only after a minute."""
PARTS = ("queue", "taken", "said", "answers", "here")


class Desk:
    """The folder, as the driver and its workers see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lay_out(self) -> None:
        """Make the folder.

        Raises:
            NotSavedError: it cannot be made.
        """
        try:
            for part in PARTS:
                (self.folder / part).mkdir(parents=True)
        except OSError as error:
            raise NotSavedError(f"{self.folder} cannot be made: {error.strerror}.") from error

    def put(self, ticket: int, spec: TrialSpec) -> None:
        """Let a trial wait for a worker."""
        write_atomically(self.folder / "queue" / f"{ticket:08}.json", spec.model_dump_json())

    def waiting(self) -> list[str]:
        """Trials that no worker has, oldest first."""
        return _names(self.folder / "queue")

    def take(self, worker: int) -> tuple[int, TrialSpec] | None:
        """The trial that has waited longest, for this worker alone; None: there is none."""
        for name in self.waiting():
            own = self.folder / "taken" / f"{Path(name).stem}@{worker}"
            try:
                os.rename(self.folder / "queue" / name, own)
            except FileNotFoundError:  # another was quicker
                continue
            return int(Path(name).stem), TrialSpec.model_validate_json(own.read_text())
        return None

    def taken_by(self, worker: int) -> set[int]:
        """The numbers of all trials that a worker has ever taken."""
        names = _names(self.folder / "taken")
        return {int(name.partition("@")[0]) for name in names if name.endswith(f"@{worker}")}

    def say(self, worker: int, number: int, message: dict[str, Any]) -> None:
        """Tell the driver something; `number` is how many times this worker has."""
        path = self.folder / "said" / f"{worker}-{number:08}.json"
        write_atomically(path, json.dumps(message))

    def hear(self) -> dict[str, Any] | None:
        """Something that a worker has said, once; None: nothing."""
        for name in _names(self.folder / "said"):
            path = self.folder / "said" / name
            message: dict[str, Any] = json.loads(path.read_text())
            path.unlink()
            return message
        return None

    def answer(self, ticket: int, epoch: int, goes_on: bool) -> None:
        """Tell the worker that has reported whether its trial goes on."""
        write_atomically(self._answer(ticket, epoch), json.dumps(goes_on))

    def answered(self, ticket: int, epoch: int) -> bool | None:
        """What was answered; None: nothing yet."""
        try:
            goes_on: bool = json.loads(self._answer(ticket, epoch).read_text())
        except FileNotFoundError:
            return None
        return goes_on

    def _answer(self, ticket: int, epoch: int) -> Path:
        return self.folder / "answers" / f"{ticket:08}-{epoch}.json"

    def begin(self, worker: int) -> None:
        """Say that a worker has been started and can run trials."""
        (self.folder / "here" / str(worker)).touch()

    def has_begun(self, worker: int) -> bool:
        """Whether it has said so."""
        return (self.folder / "here" / str(worker)).exists()

    def beat(self, number: int) -> None:
        """Say that the driver lives."""
        write_atomically(self.folder / "beat", str(number))

    def last_beat(self) -> str | None:
        """What it said last; None where the folder is gone, or it has ended.

        Raises:
            OSError: the file system does not say.
        """
        try:
            return (self.folder / "beat").read_text()
        except FileNotFoundError:
            return None

    def end(self) -> None:
        """Have all workers end."""
        (self.folder / "beat").unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    """Of what lies in a folder, and not of what is just being written into it."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:  # the driver has ended
        return []
    return sorted(name for name in found if not name.endswith(".part"))


def serve(
    folder: Path, worker: int, root: Path, runtime: Runtime, watch: bool, run: RunTrial
) -> None:
    """Run trials from the folder until its driver is gone; what a job of a cluster does.

    `root` is that of the store. Ends this process where it is told to by a signal: a trial that a
    time limit ends is one that is lost, and not one that failed.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    signal.signal(getattr(signal, f"SIG{name}"), lambda number, frame: os._exit(1))
    desk = Desk(folder)
    threading.Thread(target=_end_with_the_driver, args=(desk,), daemon=True).start()
    if runtime.device == "cpu" and runtime.keep_memory:
        keep_freed_memory()
    desk.begin(worker)
    store, said = Store(root), 0
    while True:
        found = desk.take(worker)
        if found is None:
            time.sleep(POLL_S)
            continue
        ticket, spec = found

        def should_continue(epoch: int, scores: dict[str, Any], ticket: int = ticket) -> bool:
            nonlocal said
            said += 1
            desk.say(worker, said, {"ticket": ticket, "epoch": epoch, "scores": scores})
            while (goes_on := desk.answered(ticket, epoch)) is None:
                time.sleep(POLL_S)
            return goes_on

        problem = None
        try:
            run(spec, runtime, store, should_continue if watch else None)
        except (UserError, NotSavedError) as error:
            problem = (type(error).__name__, str(error))
        said += 1
        desk.say(worker, said, {"ticket": ticket, "problem": problem})


def _end_with_the_driver(desk: Desk) -> None:
    """End this process when the driver has ended, or has given no sign of life for long."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < SILENT_S:
        with suppress(OSError):  # a file system that stumbles says nothing of the driver
            now = desk.last_beat()
            if now is None:
                break
            if now != last:
                last, since = now, time.monotonic()
        time.sleep(BEAT_S / 5)
    os._exit(0)
