"""The loop between a search and an engine.

Owns: what a search is told, retries, and how the loop ends. Must not know: how trials are computed,
how progress is shown, how a budget is counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from harness.engines.base import Ended, Engine, Reported
from harness.errors import UserError
from harness.metrics import Goal, Objective, worth
from harness.runner.runtime import Runtime
from harness.runner.trial import record_crash
from harness.search.base import Decision, Outcome, Search
from harness.search.bounded import BoundedSearch, bounded
from harness.spec import TrialSpec
from harness.store.liveness import still_driving
from harness.store.records import TrialRecord
from harness.store.store import Store

POLL_S = 1.0
"""How often to look for the end of a trial that another process runs."""


OnEnd = Callable[[TrialRecord, bool], None]
"""Told a trial that the search has got its answer from, and whether it was run just now."""


def drive(
    search: Search,
    engine: Engine,
    *,
    store: Store,
    runtime: Runtime,
    objective: Objective,
    further: tuple[Goal, ...] = (),
    max_retries: int,
    stop: Event,
    on_end: OnEnd,
) -> None:
    """Keep the engine full of what the search asks for, until the search or its budget ends.

    It is told what a trial is worth by `objective`, and by those `further` ones.

    A trial whose worker died is tried again, `max_retries` times at most, and then recorded as
    failed. Once `stop` is set nothing new starts, and the trials that run are finished.

    Raises:
        UserError: the search raised or broke its contract. The trials that ran then are finished
            first, and are in the store.
        TakenOver: this process was paused, and another drives the run by now.
    """
    goals = (objective, further)
    loop = _Loop(bounded(search), engine, store, runtime, *goals, max_retries, stop, on_end)
    while loop.step():
        pass
    if loop.problem is not None:
        raise loop.problem


@dataclass
class _Loop:
    """The state of one drive."""

    search: BoundedSearch
    engine: Engine
    store: Store
    runtime: Runtime
    objective: Objective
    further: tuple[Goal, ...]
    max_retries: int
    stop: Event
    on_end: OnEnd
    problem: UserError | None = None
    """What ended the search; it is not called any more."""
    running: int = 0
    """Trials that the engine has."""
    elsewhere: list[TrialSpec] = field(default_factory=list)
    """Trials that another process runs."""
    heard: dict[str, int] = field(default_factory=dict)
    """The last epoch of a trial that the search was told of."""
    cut: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Trials that it has just stopped or paused: the epoch, and what the trial was worth then."""
    crashes: Counter[str] = field(default_factory=Counter)

    def step(self) -> bool:
        """Start what there is room for, then wait for one event; False when all is over."""
        still_driving()
        self._fill()
        if self.running:
            event = self.engine.next()
            still_driving()
            if isinstance(event, Reported):
                self._answer(event)
            else:
                self._end(event)
        elif self.elsewhere and self._may_start:
            self._look_elsewhere()
        else:
            return False
        return True

    @property
    def _may_start(self) -> bool:
        return self.problem is None and not self.stop.is_set()

    def _fill(self) -> None:
        """Submit what the search asks for; what the store has is answered at once."""
        while self.running < self.engine.slots and self._may_start:
            spec = self._ask()
            if spec is None:
                return
            known = self.store.look_up(spec.trial_id)
            if known.state == "done" and known.record is not None:
                self._tell(known.record, is_fresh=False)
                continue
            self.store.branch(spec)
            self._submit(spec)

    def _submit(self, spec: TrialSpec) -> None:
        if spec.trial_id in self.cut:  # its worker was lost; it is asked about that epoch again
            self.heard[spec.trial_id] = self.cut.pop(spec.trial_id)[0] - 1
        self.engine.submit(spec)
        self.running += 1

    def _answer(self, event: Reported) -> None:
        """Pass on what the search decides; a trial goes on where there is nobody to ask."""
        trial_id, epoch = event.spec.trial_id, event.epoch
        goes_on = self._hear_before(trial_id, epoch) and self._hear(trial_id, epoch, event.scores)
        self.engine.answer(event.spec, goes_on)

    def _hear_before(self, trial_id: str, epoch: int) -> bool:
        """Report the epochs before this one of which the search knows nothing, because the trial
        was trained for another; whether it goes on after them."""
        heard = self.heard.get(trial_id, 0)
        if heard + 1 >= epoch:
            return True
        for row in self.store.history(trial_id)[: epoch - 1]:
            at = row["epoch"] + 1
            if at > heard and "select" in row and not self._hear(trial_id, at, row["select"]):
                return False
        return True

    def _hear(self, trial_id: str, epoch: int, scores: Mapping[str, Any]) -> bool:
        """Report an epoch to the search; whether the trial goes on after it."""
        self.heard[trial_id] = epoch
        try:
            score = worth(self.objective, scores)
        except UserError as error:  # what it is to be chosen by was not scored
            self.problem = self.problem or error
            return True
        if self._report(trial_id, epoch, score) is Decision.GO_ON:
            return True
        self.cut[trial_id] = epoch, score
        return False

    def _end(self, event: Ended) -> None:
        """A trial has ended, or the worker that had it."""
        self.running -= 1
        if event.lost:
            self.runtime.console.warn(event.lost)
        if event.crash and self._try_again(event.spec, event.crash):
            return
        record = self.store.record(event.spec.trial_id)
        is_cut = event.spec.trial_id in self.cut
        if record is None or (record.status == "PRUNED" and not is_cut):
            self.elsewhere.append(event.spec)
        else:
            self._tell(record, is_fresh=True)

    def _try_again(self, spec: TrialSpec, crash: str) -> bool:
        """Submit a trial whose worker died once more, or record it as failed."""
        self.store.release(spec.trial_id)
        if self.stop.is_set():
            return False
        self.crashes[spec.trial_id] += 1
        if self.crashes[spec.trial_id] <= self.max_retries:
            self._submit(spec)
            return True
        record_crash(spec, self.runtime, self.store, crash)
        return False

    def _look_elsewhere(self) -> None:
        """See what has become of a trial that another process runs."""
        spec = self.elsewhere.pop(0)
        known = self.store.look_up(spec.trial_id)
        if known.state in ("done", "failed") and known.record is not None:
            self._tell(known.record, is_fresh=False)
        elif known.state == "running":
            self.elsewhere.append(spec)
            time.sleep(POLL_S)
        else:  # the other process died, or its search stopped the trial, which is no result of ours
            self._submit(spec)

    def _ask(self) -> TrialSpec | None:
        try:
            specs = self.search.ask(1)
        except UserError as error:
            self.problem = error
            return None
        return specs[0] if specs else None

    def _report(self, trial_id: str, epoch: int, score: float) -> Decision:
        if self.problem is None:
            try:
                return self.search.report(trial_id, epoch, score)
            except UserError as error:
                self.problem = error
        return Decision.GO_ON

    def _tell(self, record: TrialRecord, *, is_fresh: bool) -> None:
        """Tell the search how a trial ended, and whoever listens."""
        try:
            outcome = self._outcome(record)
        except UserError as error:  # what it is to be chosen by was not scored
            self.problem = self.problem or error
            return
        if self.search.needs_epoch_reports:
            outcome = self._as_reported(record, outcome)
        if self.problem is None:
            try:
                self.search.tell(outcome)
            except UserError as error:
                self.problem = error
        if outcome.status != record.status:  # it was stopped here, and trained on elsewhere
            record = record.model_copy(update={"status": outcome.status})
        self.on_end(record, is_fresh)

    def _outcome(self, record: TrialRecord) -> Outcome:
        has_failed = record.status == "FAILED"
        return Outcome(
            trial_id=record.trial_id,
            status=record.status,
            objective=None if has_failed else record.objective(self.objective),
            epochs=record.epochs_run,
            device_s=record.cost.device_s,
            flops=record.cost.charged_flops,
            learned=record.learned,
            beside=() if has_failed else tuple(map(record.worth, self.further)),
        )

    def _as_reported(self, record: TrialRecord, outcome: Outcome) -> Outcome:
        """What the search sees of a trial, all or a part of which ran without its reports.

        Its epochs are reported one by one, up to where the search ends it, and it is charged for
        those alone.
        """
        if record.trial_id not in self.cut:
            self._hear_before(record.trial_id, record.epochs_run)
        epoch, score = self.cut.pop(record.trial_id, (record.epochs_run, 0.0))
        if epoch >= record.epochs_run:
            return outcome
        share = epoch / record.epochs_run
        return replace(
            outcome,
            status="PRUNED",
            objective=score,
            epochs=epoch,
            device_s=share * outcome.device_s,
            flops=round(share * outcome.flops),
        )
