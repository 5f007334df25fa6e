"""Marks of the processes that work: on a trial (its claim) or on a run (its driver).

A mark is a file that names its owner, with a nonce. The owner touches it every few seconds, its
heartbeat, so that others can tell a process at work from one that was killed or is paused, on this
machine or another; and it looks whether the nonce is still its own before it writes anything. No
clock of this machine is read: on one machine a process is known by its start since the boot, and
between machines a heartbeat is measured by the clock that the store's own files get. Owns: marks,
heartbeats, nonces. Must not know: where marks lie, what their owners do.
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from filelock import FileLock

from harness.errors import TakenOver, UserError, saving

STALE_S = 60.0
"""A mark not touched for this long belongs to a process that is gone or paused."""
BEATS = 12
"""Of a heartbeat, in that time."""
STALE_VARIABLE = "HARNESS_STALE_S"
"""Environment variable that says otherwise; the same for all processes that share a store."""


class Owner(NamedTuple):
    """A process, with its start because process numbers are used again."""

    host: str
    pid: int
    started: float
    """In wall-clock seconds, which is all that marks of earlier versions have."""
    boot: str | None = None
    """The boot of the machine, and the name space that `pid` counts in."""
    ticks: int | None = None
    """The start in clock ticks since that boot, which no change of the clock moves."""
    inode: int | None = None
    """Of the mark: the copy of a mark, in a copied store, is nobody's."""
    nonce: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Mark:
    """A mark that this process has made. It is lost once another process has taken it over."""

    def __init__(self, path: Path, nonce: str, what: str) -> None:
        self.path, self._nonce, self._what = path, nonce, what

    def anywhere(self) -> Mark:
        """The same for a process that may work in another folder."""
        return Mark(self.path.absolute(), self._nonce, self._what)

    @property
    def is_ours(self) -> bool:
        """Whether nobody has taken it over or removed it."""
        owner = _owner(self.path)
        return owner is not None and owner[0].nonce == self._nonce

    def check(self) -> None:
        """To be called before anything is written.

        Raises:
            TakenOver: another process has it, or had it.
        """
        if self.is_ours:
            return
        owner = _owner(self.path)
        by = "" if owner is None else f" by {owner[0]}"
        raise TakenOver(
            f"{self._what} was taken over{by} while process {os.getpid()} was paused or cut off "
            "from the store; that process has stopped and written nothing since."
        )


def stale_s() -> float:
    """Seconds without a heartbeat after which a mark is given to the next that asks.

    Raises:
        UserError: the environment variable is no number of seconds.
    """
    text = os.environ.get(STALE_VARIABLE, str(STALE_S))
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UserError(f"{STALE_VARIABLE}={text}: write a number of seconds, such as 60.")


def write_mark(path: Path, what: str) -> Mark:
    """Mark something, in words `what`, as this process's.

    The caller sees to it that no other process does so too.
    """
    path.unlink(missing_ok=True)
    nonce = secrets.token_hex(8)
    with path.open("x") as file:
        process = _process(os.getpid())
        owner = Owner(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            boot=_boot() if process else None,
            ticks=process.ticks if process else None,
            inode=os.fstat(file.fileno()).st_ino,
            nonce=nonce,
        )
        file.write(json.dumps(owner._asdict()))
    return Mark(path, nonce, what)


def living_owner(path: Path) -> Owner | None:
    """The owner of a mark, if it lives and is at work; else None.

    On this machine a process that is there and not stopped is at work, however late its heartbeat.
    Of one that is stopped, or on another machine, the heartbeat decides.
    """
    found = _owner(path)
    if found is None:
        return None
    owner, file = found
    if owner.boot is not None and owner.boot == _boot():
        process = _process(owner.pid)
        if process is None or process.ticks != owner.ticks or process.state in "ZX":
            return None
        if process.state not in "Tt" and owner.inode == file.st_ino:
            return owner
    elif owner.boot is None and owner.host == socket.gethostname() and not _lives(owner):
        return None
    return owner if _clock_of(path.parent) - file.st_mtime <= stale_s() else None


def is_here(owner: Owner) -> bool:
    """Whether the process runs on this machine, so that `living_owner` sees at once if it dies."""
    return owner.boot is not None and owner.boot == _boot()


@contextmanager
def beating(mark: Mark) -> Iterator[None]:
    """Keep a mark of this process fresh while it works."""
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(mark, ended, stale_s() / BEATS), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()


def _beat(mark: Mark, ended: threading.Event, every_s: float) -> None:
    while not ended.wait(every_s):
        if mark.is_ours:  # else it is another process's, which beats for itself
            with suppress(OSError):  # tried again at the next beat
                os.utime(mark.path)


_driven: dict[str, Mark] = {}
"""Folder -> mark of this process, of every run that it drives."""


@contextmanager
def driving(path: Path) -> Iterator[None]:
    """Be the one driver of the run in whose folder, made if need be, the mark lies.

    Raises:
        UserError: another process drives it; names the process.
        NotSavedError: the mark cannot be written.
    """
    folder = path.parent
    with saving(path):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    with lock:
        driver = living_owner(path)
        if driver is not None:
            raise UserError(
                f"The run {folder} is being driven by {driver}; wait for it, end it, or give "
                "another --out."
            )
        with saving(path):
            mark = write_mark(path, f"The run {folder}")
    _driven[os.path.abspath(folder)] = mark
    try:
        with beating(mark):
            yield
    finally:
        del _driven[os.path.abspath(folder)]
        with suppress(OSError), lock:
            if mark.is_ours:
                path.unlink()


def mark_of(folder: Path) -> Mark | None:
    """The mark of the run in a folder, if this process drives it; to be handed to its helpers."""
    mark = _driven.get(os.path.abspath(folder))
    return None if mark is None else mark.anywhere()


def help_driving(folder: Path, mark: Mark) -> None:
    """Write for the driver of a run, in another process: as long as that holds its mark."""
    _driven[os.path.abspath(folder)] = mark


def still_driving(folder: Path | None = None) -> None:
    """To be called before anything is written to a run's folder (None: to any run's).

    Nothing to see to where this process is not within `driving`, and helps nobody who is.

    Raises:
        TakenOver: this process drove the run, or helped to, and another has taken it over.
    """
    for driven, mark in list(_driven.items()):
        if folder is None or os.path.abspath(folder) == driven:
            mark.check()


def _owner(path: Path) -> tuple[Owner, os.stat_result] | None:
    """Who made a mark, and the file's state; None without one, for a torn or a foreign file."""
    try:
        with path.open() as file:  # opened, because NFS looks anew then
            content = json.load(file)
            state = os.fstat(file.fileno())
        owner = Owner(**{name: content[name] for name in Owner._fields if name in content})
        return (owner, state) if isinstance(owner.pid, int) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


class _Process(NamedTuple):
    state: str
    """A letter, as in `ps`."""
    ticks: int
    """Start since the boot."""


def _process(pid: int) -> _Process | None:
    """A process of this machine; None if there is none, or where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Process(state=fields[0], ticks=int(fields[19]))


@functools.cache
def _boot() -> str | None:
    """This boot of this machine and its process numbers; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _lives(owner: Owner) -> bool:
    """As well as a mark of an earlier version, or a system without /proc, lets one tell."""
    try:
        process = psutil.Process(owner.pid)
        if process.create_time() != owner.started:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError, OverflowError):
        return False


def _clock_of(folder: Path) -> float:
    """What a file touched now would say, in the time of whoever keeps the folder."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as probe:
        os.utime(probe.fileno())
        return os.fstat(probe.fileno()).st_mtime
    return time.time()  # a store that this reader may not write
