"""Which process works on a trial or drives a run, and whether it is alive.

Owns: marks of owners and their heartbeat. Must not know: what the owner does.
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
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from harness.errors import UserError, saving

if TYPE_CHECKING:
    pass


HEARTBEAT_S = 5.0


STALE_S = 60.0
"""A claim not touched for this long belongs to a process that is gone."""


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Be the one driver of the run in `folder`.

    Raises:
        UserError: another process drives it; names the process.
    """
    mark = folder / "driver.json"
    with saving(mark):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "driver.lock"):
        driver = driver_of(folder)
        if driver is not None:
            raise UserError(
                f"The run {folder} is being driven by {driver}; wait for it, end it, or give "
                "another --out."
            )
        with saving(mark):
            mark.write_text(json.dumps(owner()))
    try:
        with beating(mark):
            yield
    finally:
        mark.unlink(missing_ok=True)


def driver_of(folder: Path) -> str | None:
    """The process that drives the run in `folder`, in words; None if there is none."""
    mark = folder / "driver.json"
    if not alive(mark):
        return None
    owner = json.loads(mark.read_text())
    return f"process {owner['pid']} on {owner['host']}"


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch a file of this process while it works."""
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with suppress(FileNotFoundError):  # released by a driver that believes this worker dead
            os.utime(path)


def owner() -> dict[str, Any]:
    """This process; with its start time, because process numbers are used again."""
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def alive(claim: Path) -> bool:
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
