"""Claims, crashes, and that a sweep loses nothing and repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import pytest
from support.records import TINY, make_record, make_spec, publish, tiny_study

from harness.console import Silent
from harness.driver.batch import Batch
from harness.driver.drive import drive
from harness.driver.plan import grid_budget, make_plan
from harness.engines.base import Ended
from harness.engines.local import LocalEngine
from harness.errors import Interrupted, TrialsFailed, UserError
from harness.runner.provenance import provenance
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.search.base import GridSearch
from harness.store.runs import write_run
from harness.store.store import Store
from harness.study.axes import Axis
from harness.study.study import Study


def test_unfit_records_are_refused_with_advice(tmp_path):
    store, spec = Store(tmp_path), make_spec()
    publish(store, spec)
    path = tmp_path / "trials" / spec.trial_id / "record.json"
    whole = path.read_text()
    path.write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UserError, match=r"record\.json was written by a newer version .*schema 99"):
        store.record(spec.trial_id)
    path.write_text(whole[:100])
    with pytest.raises(UserError, match=r"record\.json is damaged; move its folder out"):
        store.record(spec.trial_id)


class Crashing:
    """An engine without processes: fails the trials it is told to, as a dying worker would."""

    slots = 2

    def __init__(self, store, doomed=()):
        self.store, self.doomed, self.ran, self._queue = store, set(doomed), [], []

    def submit(self, spec):
        assert len(self._queue) < self.slots
        self._queue.append(spec)

    def next(self):
        spec = self._queue.pop(0)
        self.ran.append(spec.trial_id)
        if spec.trial_id in self.doomed:
            return Ended(spec, "killed")
        publish(self.store, spec)
        return Ended(spec, None)

    def close(self):
        pass


def run_plan(plan, engine, store, stop=None, on_end=lambda record: None, max_retries=0):
    drive(
        GridSearch(plan.to_run),
        engine,
        store=store,
        runtime=Runtime(),
        objective="class_mean",
        max_retries=max_retries,
        stop=stop or Event(),
        on_end=lambda record, is_fresh: on_end(record),
    )


def test_sweep_runs_each_cell_once_and_retries_only_failures(tmp_path):
    store = Store(tmp_path)
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    doomed = plan.to_run[1].trial_id
    first = Crashing(store, [doomed])
    ended = []
    run_plan(plan, first, store, on_end=ended.append)
    assert sorted(first.ran) == sorted(spec.trial_id for spec in plan.to_run)
    assert [record.trial_id for record in ended if record.status == "FAILED"] == [doomed]
    again = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    assert (len(again.done), again.failed, len(again.to_run)) == (3, 1, 1)
    second = Crashing(store)
    run_plan(again, second, store)
    assert second.ran == [doomed]


def test_a_grids_budget_in_epochs_counts_those_of_each_trial(tmp_path):
    lengths = Axis(field="recipe.epochs", values=(1, 20), label="epochs")
    study = tiny_study().derive(axes=(lengths,), views=(), seeds=(0, 1))

    def epochs(text):
        budget, store = grid_budget(text, study), Store(tmp_path)
        plan = make_plan(study, store=store, run_name="tiny", runtime=Runtime(), budget=budget)
        return [spec.recipe.epochs for spec in plan.to_run]

    assert study.base.recipe.epochs == 1
    assert epochs("8epochs") == [1] and epochs("21epochs") == [1, 20]
    assert epochs("41.5epochs") == [1, 20, 1] and epochs("3") == [1, 20, 1]
    assert epochs("42epochs") == epochs("99epochs") == [1, 20, 1, 20]
    long = study.derive(axes=(lengths.model_copy(update={"values": (20, 1)}),))
    with pytest.raises(UserError, match="pays for no trial: the first has 20 epochs"):
        grid_budget("8epochs", long)


def test_stopping_finishes_what_runs_and_starts_nothing(tmp_path):
    store, stop = Store(tmp_path), Event()
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    engine = Crashing(store)
    run_plan(plan, engine, store, stop=stop, on_end=lambda record: stop.set())
    assert len(engine.ran) == 2


def test_a_trial_of_another_process_is_awaited_not_repeated(tmp_path, monkeypatch):
    store = Store(tmp_path)
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    theirs = plan.to_run[0]

    class Elsewhere(Crashing):
        def next(self):
            if self._queue[0] == theirs:
                return Ended(self._queue.pop(0), None)
            return super().next()

    with store.claim(theirs) as claim:
        sleeps = []

        def other_process_ends(seconds):
            sleeps.append(seconds)
            claim.publish(make_record(theirs))

        monkeypatch.setattr("harness.driver.drive.time.sleep", other_process_ends)
        engine, ended = Elsewhere(store), []
        run_plan(plan, engine, store, on_end=ended.append)
    assert theirs.trial_id not in engine.ran
    assert len(sleeps) == 1
    assert {record.trial_id for record in ended} == {spec.trial_id for spec in plan.to_run}


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_trial_that_another_search_stops_is_trained_here(tmp_path, monkeypatch, is_seen):
    """While it is awaited, or before our worker has said that another has it."""
    store = Store(tmp_path)
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    theirs = plan.to_run[0]

    class Elsewhere(Crashing):
        is_first = True

        def next(self):
            if self._queue[0] == theirs and self.is_first:
                self.is_first = False
                if not is_seen:
                    claim.publish(make_record(theirs, status="PRUNED"))
                return Ended(self._queue.pop(0), None)
            return super().next()

    with store.claim(theirs) as claim:
        monkeypatch.setattr(
            "harness.driver.drive.time.sleep",
            lambda seconds: claim.publish(make_record(theirs, status="PRUNED")),
        )
        engine, ended = Elsewhere(store), []
        run_plan(plan, engine, store, on_end=ended.append)
    assert engine.ran.count(theirs.trial_id) == 1 and store.state(theirs.trial_id) == "done"
    assert [record.status for record in ended] == len(plan.to_run) * ["COMPLETE"]


def scores(record):
    return record.model_dump_json(include={"select", "test"})


@pytest.mark.slow
def test_results_do_not_depend_on_the_process_or_on_what_ran_before(tmp_path):
    specs = [
        resolve(TINY.with_values(values, source="test"), Runtime())
        for values in ({}, {"alpha": 2.0}, {"method": "bitfit", "positions": None})
    ]
    here = [run_trial(spec, Runtime(), Store(tmp_path / "a")) for spec in specs]
    store = Store(tmp_path / "b")
    engine = LocalEngine(store=store, runtime=Runtime(), workers=2)
    for spec in (specs[2], specs[1]):
        engine.submit(spec)
    for _ in range(2):
        assert engine.next().crash is None
    engine.submit(specs[0])
    engine.next()
    engine.close()
    for record, spec in zip(here, specs, strict=True):
        assert record.status == "COMPLETE"
        assert scores(store.record(spec.trial_id)) == scores(record)
    assert scores(here[0]) != scores(here[1])


@pytest.mark.slow
def test_a_killed_worker_is_reported_and_the_next_trial_gets_a_new_one(tmp_path):
    store = Store(tmp_path)
    engine = LocalEngine(store=store, runtime=Runtime(), workers=1)
    spec = resolve(TINY, Runtime())
    engine.submit(spec)
    ((worker, _),) = engine._busy.values()
    worker.process.kill()
    assert "exit code -9" in engine.next().crash
    engine.submit(spec)
    assert engine.next().crash is None
    engine.close()
    assert store.record(spec.trial_id).status == "COMPLETE"


@pytest.mark.slow
def test_a_working_worker_ends_with_its_killed_driver(tmp_path):
    endless = TINY.with_values({"recipe.epochs": 10**6}, source="test")
    spec = resolve(endless, Runtime())
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    script = tmp_path / "driver.py"
    script.write_text(
        "import pathlib, sys\n"
        "from harness.engines.local import LocalEngine\n"
        "from harness.spec import TrialSpec\n"
        "from harness.store.store import Store\n"
        "from harness.runner.runtime import Runtime\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalEngine(store=Store(pathlib.Path('.')), runtime=Runtime(), workers=1)\n"
        "    engine.submit(TrialSpec.model_validate_json(pathlib.Path('spec.json').read_text()))\n"
        "    sys.stdin.read()\n"
    )
    driver = subprocess.Popen([sys.executable, script], cwd=tmp_path, stdin=subprocess.PIPE)
    claim = tmp_path / "trials" / spec.trial_id / "claim.json"
    _wait_until(lambda: claim.exists() and claim.read_text().endswith("}"))
    worker = json.loads(claim.read_text())["pid"]
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _wait_until(lambda: not _exists(worker))
    assert Store(tmp_path).state(spec.trial_id) == "absent"


def _wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _exists(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_run_folder_holds_the_study_as_run(tmp_path):
    store = Store(tmp_path)
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    plan.folder.path.mkdir(parents=True)
    write_run(plan.folder, plan.study, plan.cells, provenance("cpu"))
    content = json.loads((tmp_path / "studies" / "tiny" / "study.json").read_text())
    assert Study.model_validate_json(json.dumps(content["study"])) == tiny_study()
    assert [cell["trial_id"] for cell in content["cells"]] == [s.trial_id for _, s in plan.cells]
    assert content["cells"][1]["cell"] == {"positions": "mlp1", "alpha": 2.0}
    environment = json.loads((tmp_path / "studies" / "tiny" / "environment.json").read_text())
    assert {"torch", "device", "git", "harness"} <= set(environment)


def test_a_cell_that_cannot_run_is_refused_before_the_first_trial(tmp_path):
    study = tiny_study(axes=(Axis(field="depth", values=("last:99",), label="d"),), views=())
    with pytest.raises(UserError, match=r"study tiny, cell .*last:99.*12 blocks"):
        make_plan(study, store=Store(tmp_path), run_name="tiny", runtime=Runtime())


class Stopping(Silent):
    """A console whose user stops when the first trial has ended."""

    def interruptible(self, stop):
        self.stop = stop
        return nullcontext()

    def progress(self, title, total, unit):
        return nullcontext(lambda note: self.stop.set())


@pytest.mark.parametrize("console,kind", [(Stopping(), Interrupted), (Silent(), TrialsFailed)])
def test_a_stop_after_a_failure_is_a_stop_that_names_the_failure(tmp_path, console, kind):
    store = Store(tmp_path)
    plan = make_plan(tiny_study(), store=store, run_name="tiny", runtime=Runtime())
    engine = Crashing(store, [plan.to_run[0].trial_id])
    batch = Batch(
        store=store,
        runtime=Runtime(),
        base=plan.study.base,
        start_engine=lambda store, watches: engine,
        console=console,
    )
    with batch:
        batch.run(GridSearch(plan.to_run), count=None, title="tiny", objective="class_mean")
    assert type(batch.problem) is kind
    assert f"1 trials failed; the first, {plan.to_run[0].trial_id}, with: killed" in (
        str(batch.problem)
    )
    assert str(batch.problem).startswith("Stopped. The same command") == (kind is Interrupted)
