"""Sweeps whose trials end at once: the contracts' engine in the place of the driver's."""

from __future__ import annotations

from harness.driver.request import EngineRequest
from harness.testing import made
from support.runs import scored


class Keeping(made.MadeEngine):
    """One whose trials leave a file of weights, with none in it."""

    def next(self):
        event = super().next()
        self._store.weights(event.spec.trial_id).touch()
        return event


def train_nothing(monkeypatch, score, finished):
    """Trials of the driver end at once, in a second of device time each, and score `score(spec)`.

    Their records are what `finished` makes of a record and its score.
    """
    made_record = made.made_record

    def record(spec, status="COMPLETE", value=0.5):
        return finished(made_record(spec, status, value), value)

    def engine(*, store, runtime, workers, watch=False):
        kind = Keeping if runtime.keep_weights else made.MadeEngine
        return kind(store, score, watch=watch, slots=workers)

    monkeypatch.setattr(made, "made_record", record)
    monkeypatch.setattr("harness.driver.setup.LocalEngine", engine)
    monkeypatch.setattr(EngineRequest, "start_ahead", lambda self, device: None)


def with_test(record, value):
    """With this score on either part, on a device that has a name."""
    part = scored(value)
    changes = {"select": part, "test": part, "provenance": {"device": "made up"}}
    return record.model_copy(update=changes)
