"""Where trials run: worker processes on this machine, each keeping backbone and data loaded.

Owns: processes and the messages to them. Must not know: which trial is worth running, or why.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, Protocol

from harness.errors import NotSavedError, UserError
from harness.spec import TrialSpec
from harness.store import Store
from harness.trial import Runtime, run_trial


class Ended(NamedTuple):
    """A trial that left its worker; `crash` says how, when the worker died with it."""

    spec: TrialSpec
    crash: str | None


class Engine(Protocol):
    """Takes specs and yields outcomes."""

    slots: int
    """How many trials it can hold at once."""

    def submit(self, spec: TrialSpec) -> None:
        """Start a trial; at most `slots` may be unfinished."""

    def next(self) -> Ended:
        """Wait for a trial to end; its result is in the store."""

    def close(self) -> None:
        """End all workers, and with them any trial that still runs."""


class LocalEngine:
    """A pool of processes on this machine.

    Processes, not threads: each trial computes with one thread in its own interpreter, so results
    do not depend on how many run side by side.
    """

    def __init__(self, *, store: Store, runtime: Runtime, workers: int) -> None:
        self.slots = workers
        self._store = store
        self._runtime = runtime
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, TrialSpec]] = {}

    def submit(self, spec: TrialSpec) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._store.root, self._runtime)
        worker.pipe.send(spec.model_dump_json())
        self._busy[worker.pipe] = (worker, spec)

    def next(self) -> Ended:
        """Raises `NotSavedError` when the store cannot be written, `UserError` as a trial does."""
        pipe = wait(list(self._busy))[0]
        assert isinstance(pipe, Connection)
        worker, spec = self._busy.pop(pipe)
        try:
            problem = pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            return Ended(spec, f"The worker ended with exit code {worker.process.exitcode}.")
        self._idle.append(worker)
        if problem is not None:
            raise problem
        return Ended(spec, None)

    def close(self) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.process.kill()
            worker.process.join()
        self._idle, self._busy = [], {}


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, root: Path, runtime: Runtime) -> None:
        # Spawned, not forked: a forked copy of torch's thread pools and CUDA state cannot be used.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, root, runtime, os.getpid()), daemon=True
        )
        # The child inherits an ignored Ctrl-C from the first instruction on: the driver decides.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
        try:
            self.process.start()
        finally:
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
        theirs.close()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _serve(pipe: Connection, root: Path, runtime: Runtime, parent: int) -> None:
    """Run trials until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    store = Store(root)
    while True:
        try:
            spec = TrialSpec.model_validate_json(pipe.recv())
        except EOFError:
            return
        problem: Exception | None = None
        try:
            run_trial(spec, runtime, store)
        except UserError as error:
            problem = error
        except OSError as error:
            problem = NotSavedError(f"Results cannot be saved under {root}: {error}.")
        pipe.send(problem)


def _end_with(parent: int) -> None:
    """End this process soon after its driver was killed, so that its claim becomes free."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
