"""Trials that train in the test's own process."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue

from harness.engines.base import Ended, Reported
from harness.errors import NotSavedError, TakenOver, UserError
from harness.runner.trial import record_crash, run_trial


class Here:
    """An engine without processes: nothing is started, and what a trial has loaded serves the next.

    For tests of what a sweep makes of its trials, which is the same wherever they ran: see the
    fixtures `trained_here`, for a test, and `all_trained_here`, for a file.

    Trials that do not report train one after the other, each when it is waited for. Those that do
    have a thread of their own, and one slot: two that are half-way would stand in one backbone.
    """

    def __init__(self, *, store, runtime, workers, watch=False, run=run_trial):
        self.slots = 1 if watch else workers
        self._run = lambda spec, goes_on: run(spec, runtime, store, goes_on)
        self._watch = watch
        self._waiting = deque()
        self._said = SimpleQueue()
        self._heard = {}

    def submit(self, spec):
        if not self._watch:
            self._waiting.append(spec)
            return
        self._heard[spec.trial_id] = SimpleQueue()
        threading.Thread(target=self._train, args=(spec,), daemon=True).start()

    def next(self):
        if self._waiting:
            self._train(self._waiting.popleft())
        said = self._said.get()
        if isinstance(said, Exception):
            raise said
        return said

    def answer(self, spec, goes_on):
        self._heard[spec.trial_id].put(goes_on)

    def close(self):
        for answers in self._heard.values():  # of those that still wait for one
            answers.put(None)

    def _train(self, spec):
        def goes_on(epoch, scores):
            self._said.put(Reported(spec, epoch, scores))
            answer = self._heard[spec.trial_id].get()
            if answer is None:
                raise SystemExit  # which ends a thread without a word
            return answer

        try:
            self._run(spec, goes_on if self._watch else None)
            self._said.put(Ended(spec, None))
        except TakenOver as lost:
            self._said.put(Ended(spec, None, str(lost)))
        except (UserError, NotSavedError) as problem:
            self._said.put(problem)


def out_of_luck(spec, runtime, store, should_continue):
    """What a worker does instead of training."""
    record_crash(spec, runtime, store, "RuntimeError: out of luck")
