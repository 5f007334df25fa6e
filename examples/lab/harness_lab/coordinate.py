"""Coordinate search: try every value of one axis, keep the best, go on with the next axis.

Deterministic, so its log is all that it needs to go on after an interruption: started again, it
proposes the same trials in the same order, and the answers in the log decide the same way. Budgets,
retries and the end of the run are not its business.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from harness.search.base import Decision, Outcome, SearchTask, tell_event
from harness.spec import TrialSpec
from harness.store.search_log import Ask, append_event, asks, read_log, tells
from harness.study.space import Domain, Params

STEPS = 5
"""Values tried of a continuous variable."""


class CoordinateSearch:
    """One axis after the other, from the best configuration so far, until nothing improves."""

    needs_epoch_reports = False

    def __init__(self, task: SearchTask) -> None:
        self._task = task
        events = read_log(task.log, mend=True)
        self._asked = {event.trial_id for event in asks(events)}
        self._scores = {e.trial_id: e.objective for e in tells(events) if e.objective is not None}
        self._best = task.space.default()
        self._best_score = -inf
        self._moves = self._rounds()
        self._waiting: tuple[Params, TrialSpec] | None = None

    def ask(self, count: int) -> list[TrialSpec]:
        """The next trial that has no answer yet; none while one is running, or at the end."""
        while self._waiting is None:
            params = next(self._moves, None)
            if params is None:
                return []
            self._waiting = params, self._propose(params)
            self._learn()
        return [self._waiting[1]]

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        return Decision.GO_ON

    def tell(self, outcome: Outcome) -> None:
        if outcome.trial_id not in self._scores:
            append_event(self._task.log, tell_event(outcome))
        failed = outcome.objective is None
        self._scores[outcome.trial_id] = -inf if failed else outcome.objective
        self._learn()

    def _learn(self) -> None:
        """Compare the proposal that was waited for with the best, if its score is known."""
        if self._waiting is not None and self._waiting[1].trial_id in self._scores:
            params, spec = self._waiting
            if self._scores[spec.trial_id] > self._best_score:
                self._best, self._best_score = params, self._scores[spec.trial_id]
            self._waiting = None

    def _propose(self, params: Params) -> TrialSpec:
        values = self._task.space.at(params)
        spec = self._task.make(values, self._task.seed)
        if spec.trial_id not in self._asked:
            self._asked.add(spec.trial_id)
            event = Ask(params=params, cell=values, seed=spec.seed, trial_id=spec.trial_id)
            append_event(self._task.log, event)
        return spec

    def _rounds(self) -> Iterator[Params]:
        """Configurations in the order in which they are tried; reads the best as it goes."""
        yield dict(self._best)
        before: float | None = None
        while before is None or self._best_score > before:
            before = self._best_score
            for name, values in self._domains().items():
                start = dict(self._best)
                yield from ({**start, name: each} for each in values if each != start[name])

    def _domains(self) -> dict[str, list[int | float]]:
        """The values to try of every variable that the best configuration has."""
        found: dict[str, list[int | float]] = {}

        def note(name: str, domain: Domain) -> int | float:
            found[name] = _values(domain)
            return self._best[name]

        self._task.space.values(note)
        return found


def _values(domain: Domain) -> list[int | float]:
    if domain.choices is not None:
        return list(range(domain.choices))
    shares = [step / (STEPS - 1) for step in range(STEPS)]
    if domain.log:
        return [domain.low * (domain.high / domain.low) ** share for share in shares]
    return [domain.low + (domain.high - domain.low) * share for share in shares]


def start(task: SearchTask) -> CoordinateSearch:
    """Start the search, or go on with the one in the task's log."""
    return CoordinateSearch(task)
