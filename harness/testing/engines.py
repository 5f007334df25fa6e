"""What every engine must keep.

Owns: these tests. Must not know: any engine by name, searches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.engines.base import Ended, Engine, Reported
from harness.errors import NotSavedError
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import ShouldContinue, run_trial
from harness.spec import TrialSpec
from harness.store.store import Store
from harness.testing.made import TINY

StartEngine = Callable[..., Engine]


def _die(
    spec: TrialSpec, runtime: Runtime, store: Store, should_continue: ShouldContinue | None
) -> None:
    """Stands for a trial that takes its process with it."""
    os._exit(3)


def _small(epochs: int) -> TrialSpec:
    return resolve(TINY.with_values({"recipe.epochs": epochs}, source="contract"), Runtime())


class EngineContract:
    """Set the fixture `start_engine`."""

    @pytest.fixture
    def start_engine(self) -> StartEngine:
        """Called with `store`, `runtime` and `workers`, and with `watch` or `run` in some tests."""
        raise NotImplementedError("override the fixture start_engine")

    @pytest.fixture
    def start(self, start_engine: StartEngine, tmp_path: Path) -> StartEngine:
        return lambda workers=2, **rest: start_engine(
            store=Store(tmp_path), runtime=Runtime(), workers=workers, **rest
        )

    def test_every_trial_ends_with_its_result_in_the_store(
        self, start: StartEngine, tmp_path: Path
    ) -> None:
        """More trials than slots, and the numbers of this process."""
        specs = [_small(epochs) for epochs in (1, 2, 3)]
        left = list(specs)
        ended: list[str] = []
        engine = start()
        try:
            assert engine.slots == 2
            for _ in range(engine.slots):
                engine.submit(left.pop(0))
            while len(ended) < len(specs):
                event = engine.next()
                assert isinstance(event, Ended) and event.crash is None
                assert Store(tmp_path).state(event.spec.trial_id) == "done"
                ended.append(event.spec.trial_id)
                if left:
                    engine.submit(left.pop(0))
        finally:
            engine.close()
        assert sorted(ended) == sorted(spec.trial_id for spec in specs)
        here = run_trial(specs[1], Runtime(), Store(tmp_path / "here"))
        there = Store(tmp_path).record(specs[1].trial_id)
        assert here is not None and there is not None
        assert (there.status, there.select, there.test) == ("COMPLETE", here.select, here.test)

    def test_trials_that_report_wait_and_obey(self, start: StartEngine, tmp_path: Path) -> None:
        whole, stopped = _small(3), _small(4)
        reports: dict[str, list[int]] = {whole.trial_id: [], stopped.trial_id: []}
        ended: list[str] = []
        engine = start(watch=True)
        try:
            engine.submit(whole)
            engine.submit(stopped)
            while len(ended) < 2:
                event = engine.next()
                if isinstance(event, Reported):
                    reports[event.spec.trial_id].append(event.epoch)
                    assert {"class_mean", "micro"} <= set(event.scores)
                    engine.answer(event.spec, event.spec == whole or event.epoch < 2)
                else:
                    assert event.crash is None
                    ended.append(event.spec.trial_id)
        finally:
            engine.close()
        assert reports == {whole.trial_id: [1, 2], stopped.trial_id: [1, 2]}
        records = [Store(tmp_path).record(spec.trial_id) for spec in (whole, stopped)]
        statuses = [None if record is None else record.status for record in records]
        assert statuses == ["COMPLETE", "PRUNED"]

    def test_a_worker_that_dies_is_said_and_the_engine_goes_on(self, start: StartEngine) -> None:
        engine = start(workers=1, run=_die)
        try:
            for spec in (_small(1), _small(2)):
                engine.submit(spec)
                event = engine.next()
                assert isinstance(event, Ended) and event.spec == spec and event.crash
        finally:
            engine.close()

    def test_a_store_that_cannot_be_written_stops_it(
        self, start: StartEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "trials").write_text("a file where the folder should be")
        engine = start(workers=1)
        try:
            engine.submit(_small(1))
            with pytest.raises(NotSavedError, match="cannot be saved"):
                engine.next()
        finally:
            engine.close()
