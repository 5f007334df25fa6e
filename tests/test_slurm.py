"""Trials in jobs: how they are handed out, and one contract for the engine, also through submitit.

In `make integrations` submitit starts the jobs, on this machine; else processes stand for them.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from support.cli import harness

from harness.driver.request import EngineRequest
from harness.engines import desk as desks
from harness.engines.base import Ended
from harness.engines.desk import Desk, serve
from harness.engines.slurm import SlurmEngine
from harness.errors import UserError
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.store import Store
from harness.testing import EngineContract
from harness.testing.made import TINY

LOCAL = {"cluster": "local", "timeout_min": 5}


def specs(*epochs):
    return [
        resolve(TINY.with_values({"recipe.epochs": n}, source="test"), Runtime()) for n in epochs
    ]


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path / "desk")
    made.lay_out()
    return made


def test_a_trial_is_taken_once_and_the_oldest_first(desk):
    one, two = specs(1, 2)
    desk.put(2, two)
    desk.put(1, one)
    assert desk.take(7) == (1, one)
    assert desk.take(8) == (2, two)
    assert desk.take(7) is None and desk.waiting() == []
    assert (desk.taken_by(7), desk.taken_by(8), desk.taken_by(78)) == ({1}, {2}, set())


def test_of_many_that_take_at_once_each_gets_others(desk):
    (spec,) = specs(1)
    for ticket in range(40):
        desk.put(ticket, spec)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        parts = pool.map(take_all, [(desk.folder, worker) for worker in (1, 2, 3)])
    assert sorted(ticket for part in parts for ticket in part) == list(range(40))


def take_all(task):
    folder, worker = task
    own, desk = [], Desk(folder)
    while (found := desk.take(worker)) is not None:
        own.append(found[0])
    return own


def test_what_is_said_is_heard_once_and_in_order(desk):
    for number in (1, 2, 10):
        desk.say(3, number, {"ticket": number})
    heard = [desk.hear() for _ in range(4)]
    assert heard == [{"ticket": 1}, {"ticket": 2}, {"ticket": 10}, None]
    (desk.folder / "said" / "3-00000011.json.5.part").write_text("{")  # half written
    assert desk.hear() is None


class Job:
    """A process in the place of a job."""

    def __init__(self, function, *arguments):
        self.process = multiprocessing.get_context("spawn").Process(
            target=function, args=arguments, daemon=True
        )
        self.process.start()
        self.job_id = str(self.process.pid)

    def done(self):
        return self.process.exitcode is not None

    def cancel(self, check=True):
        self.process.kill()

    def stderr(self):
        return f"first line\nexit code {self.process.exitcode}.\n"


class Cluster:
    def submit(self, function, *arguments):
        return Job(function, *arguments)


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr("harness.engines.slurm._executor", lambda folder, options, gpu: Cluster())
    monkeypatch.setattr("harness.engines.slurm.LOOK_S", 0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
class TestSlurmEngine(EngineContract):
    @pytest.fixture
    def start_engine(self):
        return partial(SlurmEngine, options=LOCAL)


@pytest.mark.integration
class TestSlurmEngineOfSubmitit(EngineContract):
    @pytest.fixture
    def start_engine(self):
        return partial(SlurmEngine, options=LOCAL)


def crash(*_):
    os._exit(9)


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
def test_a_job_that_cannot_begin_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.engines.slurm.serve", crash)
    engine = SlurmEngine(store=Store(tmp_path), runtime=Runtime(), workers=1, options=LOCAL)
    try:
        engine.submit(specs(1)[0])
        with pytest.raises(UserError, match=r"ended before it could run a trial: exit code 9\.$"):
            engine.next()
    finally:
        engine.close()


def wait_for_ever(spec, runtime, store, should_continue):
    (store.root / "begun").touch()
    time.sleep(300)


def wait_until(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
def test_a_time_limit_loses_a_trial_and_does_not_fail_it(tmp_path):
    """Another job is started for the next one."""
    store = Store(tmp_path)
    engine = SlurmEngine(
        store=store, runtime=Runtime(), workers=1, options=LOCAL, run=wait_for_ever
    )
    try:
        one, two = specs(1, 2)
        engine.submit(one)
        wait_until((tmp_path / "begun").exists)
        (job,) = engine._jobs.values()
        os.kill(job.process.pid, signal.SIGUSR2)
        event = engine.next()
        assert (
            isinstance(event, Ended)
            and event.spec == one
            and "ended with its trial" in (event.crash)
        )
        assert store.record(one.trial_id) is None
        (tmp_path / "begun").unlink()
        engine.submit(two)
        wait_until((tmp_path / "begun").exists)
    finally:
        engine.close()
    assert job.done() and not any((tmp_path / "slurm").iterdir())


class Gone:
    """A job that has ended."""

    job_id = "7"

    def submit(self, function, *arguments):
        return self

    def done(self):
        return True

    def cancel(self, check=True):
        pass

    def stderr(self):
        return "out of time"


@pytest.fixture
def engine_of_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.engines.slurm._executor", lambda folder, options, gpu: Gone())
    monkeypatch.setattr("harness.engines.slurm.LOOK_S", 0.0)
    engine = SlurmEngine(store=Store(tmp_path), runtime=Runtime(), workers=1, options=LOCAL)
    yield engine
    engine.close()


def test_what_a_job_said_before_its_end_may_be_seen_only_afterwards(engine_of_gone):
    """Its last trial is lost; another, which has ended, is waited for until the next look."""
    engine, desk = engine_of_gone, engine_of_gone._desk
    one, two = specs(1, 2)
    engine.submit(one)
    engine.submit(two)
    desk.begin(1)
    assert desk.take(1) and desk.take(1)
    assert engine.next() == Ended(two, "Job 7 ended with its trial: out of time.")
    desk.say(1, 1, {"ticket": 1, "problem": None})
    assert engine.next() == Ended(one, None)


@pytest.mark.parametrize("late", [{"problem": None}, {"epoch": 0, "scores": {}}])
def test_what_is_said_of_a_trial_that_was_taken_to_be_lost_is_ignored(engine_of_gone, late):
    engine, desk = engine_of_gone, engine_of_gone._desk
    one, two = specs(1, 2)
    engine.submit(one)
    desk.begin(1)
    assert desk.take(1)
    assert "ended with its trial" in engine.next().crash
    engine.submit(two)
    desk.say(1, 1, {"ticket": 1, **late})
    desk.say(2, 1, {"ticket": 2, "problem": None})
    assert engine.next() == Ended(two, None)


DRIVER = """
import sys, time
from pathlib import Path
from harness.engines.desk import Desk
desk = Desk(Path(sys.argv[1]))
desk.lay_out()
desk.beat(0)
print("here", flush=True)
for number in range(600):
    time.sleep(0.5)
    desk.beat(number)
"""


@pytest.mark.slow
def test_workers_end_when_their_driver_is_killed(tmp_path, monkeypatch):
    """It can say nothing then, so its silence has to do."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "desk"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout.readline() == "here\n"
        job = Job(served, tmp_path / "desk", tmp_path)
        wait_until(lambda: Desk(tmp_path / "desk").has_begun(1))
        time.sleep(5)  # longer than the silence that it takes for an end
        assert not job.done()
    finally:
        driver.kill()
        driver.wait()
    wait_until(job.done)
    assert job.process.exitcode == 0


def served(folder, root):
    desks.SILENT_S, desks.BEAT_S = 3.0, 0.5
    serve(folder, 1, root, Runtime(), False, wait_for_ever)


FEW = ("--set", "data.options.test_per_class=4", "--set", "data.val_fraction=0.8")
SWEEP = (
    *("sweep", "--study", "depth_vs_position", "--only", "positions=q,v", "--only", "depth=last:1"),
    *("--set", "recipe.epochs=1", *FEW),
)


def contents(root):
    found = {}
    for path in sorted((root / "trials").glob("*/record.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = (record["status"], record["select"], record["test"])
    return found


def swept_in_jobs_and_here(tmp_path):
    here = harness(*SWEEP, "--workers", 1, "--out", tmp_path / "here")
    assert here.exit_code == 0, here.output
    jobs = ("--engine", "slurm", "--workers", 2, "--slurm", "timeout_min=5")
    in_jobs = harness(*SWEEP, *jobs, "--slurm", "cluster=local", "--out", tmp_path / "jobs")
    assert in_jobs.exit_code == 0, in_jobs.output
    assert contents(tmp_path / "jobs") == contents(tmp_path / "here") != {}
    assert not any((tmp_path / "jobs" / "slurm").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
def test_a_sweep_in_jobs_gives_the_same_store(tmp_path):
    swept_in_jobs_and_here(tmp_path)


@pytest.mark.integration
def test_a_sweep_through_submitit_gives_the_same_store(tmp_path):
    swept_in_jobs_and_here(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize(
    "options,words",
    [
        ({"cluster": "pbs"}, "Unknown value of --slurm cluster: 'pbs'"),
        ({}, "there is no SLURM here"),
        ({"cluster": "local", "partitoin": "gpu"}, "--slurm: Unknown argument 'partitoin'"),
        ({"cluster": "local", "mem_gb": "much"}, '--slurm: Parameter "mem_gb" expected type'),
    ],
)
def test_what_no_job_can_be_asked_for_is_refused(tmp_path, options, words):
    with pytest.raises(UserError) as refused:
        SlurmEngine(
            store=Store(tmp_path),
            runtime=Runtime(),
            workers=1,
            options={"timeout_min": 5, **options},
        )
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="it is installed")
def test_without_submitit_it_is_said_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"pip install 'peft-hpo-harness\[slurm\]'"):
        SlurmEngine(store=Store(tmp_path), runtime=Runtime(), workers=1, options=LOCAL)


@pytest.mark.parametrize(
    "fields,words",
    [
        ({"kind": "slurm", "slurm": {"timeout_min": 5}}, "--workers 8"),
        ({"kind": "slurm", "workers": 2}, "--slurm timeout_min=240"),
        ({"kind": "slurm", "workers": 2, "slurm": {"time": 5, "nodes": 2}}, "a job is one worker"),
        ({"kind": "slurm", "workers": 2, "slurm": {"time": 5}, "address": "auto"}, "--engine ray"),
        (
            {"kind": "slurm", "workers": 2, "slurm": {"time": 5}, "gpus_per_trial": 2.0},
            "use --slurm gpus_per_node=1",
        ),
        ({"kind": "ray", "slurm": {"time": 5}}, "--slurm is for --engine slurm"),
        ({"slurm": {"time": 5}}, "--slurm is for --engine slurm, not for --engine local"),
    ],
)
def test_flags_that_say_too_little_or_are_of_another_engine_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        EngineRequest(**fields)


@pytest.mark.parametrize("pair", ["timeout_min", "=4", "partition="])
def test_a_pair_that_is_none_is_refused(tmp_path, pair):
    refused = harness(*SWEEP, "--engine", "slurm", "--slurm", pair, "--out", tmp_path)
    assert refused.exit_code == 2 and f"--slurm {pair}: write NAME=VALUE" in refused.stderr


def test_a_file_system_that_stumbles_is_no_driver_that_has_ended(desk, monkeypatch):
    """A stale handle or an error of the network ends no worker; a folder that is gone does."""
    beats = iter([OSError(errno.ESTALE, "stale"), "1", OSError(errno.EIO, "broken"), "1", None])
    asked = []

    def last_beat(self):
        asked.append(next(beats))
        if isinstance(asked[-1], OSError):
            raise asked[-1]
        return asked[-1]

    def ended(code):
        raise SystemExit(code)

    assert desk.last_beat() is None
    (desk.folder / "beat").mkdir()
    with pytest.raises(OSError):
        desk.last_beat()
    monkeypatch.setattr(Desk, "last_beat", last_beat)
    monkeypatch.setattr(desks, "BEAT_S", 0.0)
    monkeypatch.setattr(desks.os, "_exit", ended)
    with pytest.raises(SystemExit):
        desks._end_with_the_driver(desk)
    assert len(asked) == 5
