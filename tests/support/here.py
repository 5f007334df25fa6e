"""Trials that train in the test's own process."""

from __future__ import annotations

from collections import deque

from harness.engines.base import Ended
from harness.engines.local import LocalEngine
from harness.errors import TakenOver
from harness.runner.trial import run_trial


class Here:
    """An engine without processes: nothing is started, and what a trial has loaded serves the next.

    For tests of what a sweep makes of its trials, which is the same wherever they ran: see the
    fixtures `trained_here`, for a test, and `all_trained_here`, for a file.

    Trials train one after the other, each when it is waited for. Those that report stop half-way
    and share a backbone if they share a process, so they get processes as ever.
    """

    def __new__(cls, *, watch=False, **rest):
        return LocalEngine(watch=True, **rest) if watch else super().__new__(cls)

    def __init__(self, *, store, runtime, workers, watch=False, run=run_trial):
        self.slots = workers
        self._run = lambda spec: run(spec, runtime, store, None)
        self._waiting = deque()

    def submit(self, spec):
        self._waiting.append(spec)

    def next(self):
        spec = self._waiting.popleft()
        try:
            self._run(spec)
        except TakenOver as lost:
            return Ended(spec, None, str(lost))
        return Ended(spec, None)

    def close(self):
        self._waiting.clear()
