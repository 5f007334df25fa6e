"""Trials that several searches of a store ask for: each hears of every epoch, whoever trains."""

from __future__ import annotations

import pytest
from support.driving import driven
from support.records import TINY, make_record

from harness.engines.base import Ended
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import Decision
from harness.store.store import Store
from harness.testing.made import MadeEngine

EPOCHS = 6


class Stretches:
    """Asks for one trial, and again after each stretch of it, which ends at a given epoch."""

    needs_epoch_reports = True

    def __init__(self, spec, *ends, decision=Decision.PAUSE):
        self.spec, self.ends, self.decision = spec, list(ends), decision
        self.heard, self.told = [], []

    def ask(self, count):
        return [self.spec] if self.ends else []

    def report(self, trial_id, epoch, score):
        self.heard.append(epoch)
        return self.decision if epoch == self.ends[0] else Decision.GO_ON

    def tell(self, outcome):
        self.told.append((outcome.status, outcome.epochs, round(outcome.device_s, 3)))
        self.ends.pop(0)


class Late(MadeEngine):
    """Its workers begin when another command has finished the trial."""

    def next(self):
        spec = self._queue.popleft().spec
        with self._store.claim(spec) as claim:
            for epoch in range(EPOCHS):
                claim.log({"epoch": epoch, "select": {"class_mean": 0.5}})
            claim.publish(make_record(spec, epochs_run=EPOCHS))
        return Ended(spec, None)


@pytest.fixture
def spec():
    return resolve(TINY.with_values({"recipe.epochs": EPOCHS}, source="test"), Runtime())


def heard(search, folder, kind=MadeEngine):
    """The search after it."""
    engine = kind(Store(folder), lambda spec: 0.5, watch=True)
    return driven(search, engine, Store(folder))


def test_what_another_search_left_is_heard_from_its_first_epoch(tmp_path, spec):
    """And ended where the search ends it, though its checkpoint has come further."""
    other = heard(Stretches(spec, 3, decision=Decision.STOP), tmp_path)
    assert (other.heard, other.told) == ([1, 2, 3], [("PRUNED", 3, 1.0)])
    search = heard(Stretches(spec, 1, 2, EPOCHS), tmp_path)
    assert search.heard == [1, 2, 3, 4, 5]
    stretches = [("PRUNED", 1, 1 / 4), ("PRUNED", 2, 2 / 5), ("COMPLETE", EPOCHS, 1.0)]
    assert search.told == stretches  # of the 4 and 5 epochs that the trial had by then


def test_a_trial_that_ended_elsewhere_before_its_worker_began_is_heard(tmp_path, spec):
    search = heard(Stretches(spec, 2, decision=Decision.STOP), tmp_path, Late)
    assert (search.heard, search.told) == ([1, 2], [("PRUNED", 2, round(2 / EPOCHS, 3))])
