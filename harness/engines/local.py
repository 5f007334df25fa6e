"""Where trials run: worker processes on this machine, each keeping backbone and data loaded.

Owns: processes and the messages to them. Must not know: which trial is worth running, or why.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from harness.engines.base import Ended, Reported, RunTrial
from harness.engines.processes import context_for, end_with_the_driver, ending_with_its_pipe, start
from harness.errors import NotSavedError, TakenOver, UserError
from harness.runner.memory import keep_freed_memory
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import TrialSpec
from harness.store.store import Store


class LocalEngine:
    """A pool of processes on this machine.

    Processes, not threads: each trial computes with one thread in its own interpreter, so results
    do not depend on how many run side by side. With `watch`, trials report.
    """

    def __init__(
        self,
        *,
        store: Store,
        runtime: Runtime,
        workers: int,
        watch: bool = False,
        run: RunTrial = run_trial,
    ) -> None:
        self.slots = workers
        self._started = (store.root, runtime, watch, run)
        self._free = list(range(workers))
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, TrialSpec]] = {}

    def submit(self, spec: TrialSpec) -> None:
        while True:
            worker = self._idle.pop() if self._idle else self._start()
            try:
                worker.pipe.send(spec.model_dump_json())
            except OSError:  # it was killed while it had nothing to do
                worker.process.join()
                self._free.append(worker.number)
                continue
            self._busy[worker.pipe] = (worker, spec)
            return

    def _start(self) -> _Worker:
        root, runtime, watch, run = self._started
        number = self._free.pop(0)
        return _Worker(number, (root, runtime.on(number), watch, run))

    def next(self) -> Ended | Reported:
        """Raises `NotSavedError` when the store cannot be written, `UserError` as a trial does."""
        pipe = wait(list(self._busy))[0]
        assert isinstance(pipe, Connection)
        worker, spec = self._busy[pipe]
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            del self._busy[pipe]
            self._free.append(worker.number)
            return Ended(spec, f"The worker ended with exit code {worker.process.exitcode}.")
        if isinstance(message, tuple):
            return Reported(spec, *message)
        del self._busy[pipe]
        self._idle.append(worker)
        if isinstance(message, TakenOver):
            return Ended(spec, None, str(message))
        if message is not None:
            raise message
        return Ended(spec, None)

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        worker = next(worker for worker, own in self._busy.values() if own == spec)
        with suppress(BrokenPipeError):  # it died meanwhile, as `next` will find
            worker.pipe.send(goes_on)

    def close(self) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.process.kill()
            worker.process.join()
        self._idle, self._busy = [], {}


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, number: int, task: tuple[Path, Runtime, bool, RunTrial]) -> None:
        self.number = number
        context: Any = context_for(task[1].device)  # typeshed's base class has no `Process`
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *task), daemon=True)
        start(self.process)
        theirs.close()


def _serve(
    pipe: Connection,
    root: Path,
    runtime: Runtime,
    watch: bool,
    run: RunTrial,
) -> None:
    """Run trials until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_driver()
    if runtime.device == "cpu" and runtime.keep_memory:
        keep_freed_memory()

    def should_continue(epoch: int, scores: dict[str, Any]) -> bool:
        with ending_with_its_pipe():
            pipe.send((epoch, scores))
            return bool(pipe.recv())

    store = Store(root)
    while True:
        with ending_with_its_pipe():
            text = pipe.recv()
        spec = TrialSpec.model_validate_json(text)
        problem: Exception | None = None
        try:
            run(spec, runtime, store, should_continue if watch else None)
        except (UserError, NotSavedError) as error:
            problem = error
        with ending_with_its_pipe():
            pipe.send(problem)
