"""Marks of the processes that work: on a trial (its claim) or on a run (its driver).

A mark is a file that names its owner. The owner touches it every few seconds, its heartbeat, so
that others can tell a process at work from one that was killed, on this machine or another. Owns:
marks and heartbeats. Must not know: where marks lie, what their owners do.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from filelock import FileLock

from harness.errors import UserError, saving

HEARTBEAT_S = 5.0
"""How often a mark is touched."""
STALE_S = 60.0
"""A mark not touched for this long belongs to a process that is gone."""


class Owner(NamedTuple):
    """A process, with its start time because process numbers are used again."""

    host: str
    pid: int
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def write_mark(path: Path) -> None:
    """Mark something as this process's. The caller sees to it that no other process does so too."""
    owner = Owner(socket.gethostname(), os.getpid(), psutil.Process().create_time())
    path.write_text(json.dumps(owner._asdict()))


def living_owner(mark: Path) -> Owner | None:
    """The owner, if its heartbeat is fresh and, on this host, its process lives; else None."""
    try:
        owner = Owner(**json.loads(mark.read_text()))
        if time.time() - mark.stat().st_mtime > STALE_S:
            return None
        if owner.host != socket.gethostname():
            return owner
        process = psutil.Process(owner.pid)
        same = process.create_time() == owner.started
        return owner if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return None  # no mark, a torn one, or no such process


@contextmanager
def beating(mark: Path) -> Iterator[None]:
    """Keep a mark of this process fresh while it works."""
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(mark, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()


def _beat(mark: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with suppress(FileNotFoundError):  # released by a driver that believes this worker dead
            os.utime(mark)


@contextmanager
def driving(mark: Path) -> Iterator[None]:
    """Be the one driver of the run in whose folder, made if need be, the mark lies.

    Raises:
        UserError: another process drives it; names the process.
        NotSavedError: the mark cannot be written.
    """
    folder = mark.parent
    with saving(mark):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(mark.with_suffix(".lock")):
        driver = living_owner(mark)
        if driver is not None:
            raise UserError(
                f"The run {folder} is being driven by {driver}; wait for it, end it, or give "
                "another --out."
            )
        with saving(mark):
            write_mark(mark)
    try:
        with beating(mark):
            yield
    finally:
        mark.unlink(missing_ok=True)
