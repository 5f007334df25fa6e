"""Processes that are paused, clocks that are wrong, marks from elsewhere: who may write what.

Whoever was paused for so long that another has taken over stops with one sentence and writes
nothing more. `HARNESS_STALE_S` makes seconds of the minute that this takes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from support.processes import Forked, one_running, records, wait_for
from support.records import make_record, make_spec, tiny_study
from support.runs import scored

from harness.cli import main
from harness.errors import TakenOver, UserError
from harness.store import liveness
from harness.store.liveness import beating, driving, living_owner, write_mark
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run
from harness.store.search_log import Report, append_event, asks, read_log
from harness.store.store import Store
from harness.training.checkpoint import Checkpoint, States, Trained

STUDY = """
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base


def study():
    made = base()
    values = {"depth": "last:1", "recipe.epochs": 6, "data.options.test_per_class": 4}
    values["data.val_fraction"] = 0.8
    return made.derive(
        name="NAME",
        base=made.base.with_values(values, source="test"),
        axes=(
            Axis(field="positions", values=("mlp1",), label="position"),
            Axis(field="alpha", values=(0.5, 1.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="t"),),
        reference=None,
    )
"""
EPOCHS, TRIALS = 6, 2
CPU = torch.device("cpu")
STALE_S = 2.0
WORDS = {"grid": [], "tpe": ["--search", "tpe", "--budget", "2"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "paused.py"
    path.write_text(STUDY.replace("NAME", "paused"))
    return path


def set_stale():
    os.environ[liveness.STALE_VARIABLE] = str(STALE_S)


def forked(study, out, *words):
    return Forked(study, out, "--workers", "1", *words, prepare=set_stale, in_workers=True)


def signalled(number, *pids):
    for pid in pids:
        os.kill(pid, number)


def histories(out):
    rows = {p.parent.name: p.read_text().splitlines() for p in out.glob("trials/*/history.jsonl")}
    return {name: [json.loads(row)["epoch"] for row in lines] for name, lines in rows.items()}


def logs(out):
    return {path: path.read_bytes() for path in out.glob("studies/*/*.jsonl")}


def is_one_sentence(errors, *words):
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in errors and len(lines) == 1, errors
    assert all(word in lines[0] for word in words), errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORDS)
def test_a_paused_run_is_taken_over_and_then_stops(study, tmp_path, kind):
    first = forked(study, tmp_path, *WORDS[kind])
    worker = wait_for(lambda: one_running(tmp_path), first)
    signalled(signal.SIGSTOP, first.pid, worker)
    try:
        time.sleep(STALE_S + 0.5)
        second = forked(study, tmp_path, *WORDS[kind]).end()
        assert second.returncode == 0, second.errors
        made, logged = records(tmp_path), logs(tmp_path)
    finally:
        signalled(signal.SIGCONT, first.pid, worker)
    assert first.end().returncode == 2
    is_one_sentence(first.errors, "The run ", "taken over")
    assert records(tmp_path) == made and logs(tmp_path) == logged
    assert histories(tmp_path) == {key: list(range(EPOCHS)) for key in made}
    assert len(made) == TRIALS and len(list(tmp_path.glob("attic/*"))) == 1
    if kind == "tpe":
        (log,) = logged
        asked = [ask.trial_id for ask in asks(read_log(log))]
        assert set(asked) == set(made) and len(asked) < 2 * TRIALS
    assert "running" not in said(["status", next(tmp_path.glob("studies/*")).name, tmp_path])


@pytest.mark.slow
def test_a_paused_worker_leaves_its_trial_to_whoever_took_it_over(study, tmp_path):
    other = study.with_name("other.py")
    other.write_text(STUDY.replace("NAME", "other"))
    first = forked(study, tmp_path)
    worker = wait_for(lambda: one_running(tmp_path), first)
    signalled(signal.SIGSTOP, worker)
    try:
        time.sleep(STALE_S + 0.5)
        second = forked(other, tmp_path).end()
        assert second.returncode == 0, second.errors
        made = records(tmp_path)
    finally:
        signalled(signal.SIGCONT, worker)
    errors = first.end().errors
    assert first.returncode == 0 and "Traceback" not in errors, errors
    assert errors.count("taken over") == 1 and f"process {worker} was paused" in errors
    assert records(tmp_path) == made and len(made) == TRIALS
    assert histories(tmp_path) == {key: list(range(EPOCHS)) for key in made}
    tables = [path.read_text() for path in tmp_path.glob("studies/*/report/metrics.csv")]
    assert len(tables) == 2 and tables[0] == tables[1]


def said(words):
    run = CliRunner().invoke(main, [*map(str, words[:-1]), "--out", str(words[-1])])
    assert "Traceback" not in run.output
    return run.output


# Clocks. The command line runs in this process, so that its clock can be wrong.


def shifted(monkeypatch, seconds):
    """Have this machine's clock differ from that of the files."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


@pytest.fixture
def folder(tmp_path):
    """Of a run that can be looked at."""
    made = RunFolder.of(Store(tmp_path), "tiny")
    made.path.mkdir(parents=True)
    write_run(made, tiny_study(), [], {})
    return made


def driver_of(folder):
    lines = said(["status", folder.path, folder.store.root]).splitlines()
    return next(line for line in lines if line.startswith("Driver: "))


@pytest.mark.parametrize("seconds", [-3600, 61, 3600])
def test_a_living_driver_is_seen_whatever_the_clock_says(folder, monkeypatch, seconds):
    with driving(folder.driver_mark):
        shifted(monkeypatch, seconds)
        assert driver_of(folder) == f"Driver: process {os.getpid()} on {socket.gethostname()}."
        os.utime(folder.driver_mark, (1.0, 1.0))  # as after a day in which the clock was set
        assert f"process {os.getpid()}" in driver_of(folder)
        with pytest.raises(UserError, match="is being driven by"), driving(folder.driver_mark):
            pass


def elsewhere(path, age_s=0.0):
    """The mark of a process on another machine, of which the store saw a heartbeat lately."""
    write_mark(path, "It")
    content = {**json.loads(path.read_text()), "host": "another", "boot": "another", "pid": 1}
    path.write_text(json.dumps(content))
    touched = path.stat().st_mtime - age_s
    os.utime(path, (touched, touched))


@pytest.mark.parametrize("seconds", [-61, 0, 61, 3600])
def test_heartbeats_of_other_machines_are_read_by_the_clock_of_the_store(
    folder, monkeypatch, seconds
):
    shifted(monkeypatch, seconds)
    elsewhere(folder.driver_mark)
    assert driver_of(folder) == "Driver: process 1 on another."
    elsewhere(folder.driver_mark, age_s=liveness.STALE_S + 1)
    assert driver_of(folder).startswith("Driver: none")


def test_a_claim_from_elsewhere_without_a_heartbeat_is_not_live(tmp_path):
    store, spec = Store(tmp_path), make_spec()
    folder = tmp_path / "trials" / spec.trial_id
    folder.mkdir(parents=True)
    elsewhere(folder / "claim.json", age_s=liveness.STALE_S + 1)
    assert store.state(spec.trial_id) == "absent"
    with store.claim(spec) as claim:
        assert claim is not None


# Marks.


def test_the_mark_in_a_copied_store_is_nobodys(tmp_path):
    with Store(tmp_path / "a").claim(make_spec()):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        copy = tmp_path / "b" / "trials" / make_spec().trial_id / "claim.json"
        touched = copy.stat().st_mtime - liveness.STALE_S - 1
        os.utime(copy, (touched, touched))
        assert Store(tmp_path / "a").state(make_spec().trial_id) == "running"
        assert Store(tmp_path / "b").state(make_spec().trial_id) == "absent"


def test_marks_of_earlier_versions_are_read(tmp_path):
    mark = tmp_path / "driver.json"
    own = {"host": socket.gethostname(), "pid": os.getpid()}
    mark.write_text(json.dumps({**own, "started": psutil.Process().create_time()}))
    assert living_owner(mark).pid == os.getpid()
    mark.write_text(json.dumps({**own, "started": 1.0}))
    assert living_owner(mark) is None
    mark.write_text(json.dumps({"host": "another", "pid": 1, "started": 1.0, "of_later": 1}))
    assert living_owner(mark).host == "another"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"pid": 1}', '{"host": "a", "pid": "x"}', "{"])
def test_what_is_no_mark_is_nobodys(tmp_path, text):
    (tmp_path / "claim.json").write_text(text)
    assert living_owner(tmp_path / "claim.json") is None


def test_whoever_lost_a_claim_writes_nothing_more(tmp_path):
    store, spec = Store(tmp_path), make_spec()
    with store.claim(spec) as lost:
        lost.log({"epoch": 0})
        (tmp_path / "trials" / spec.trial_id / "claim.json").unlink()
        with store.claim(spec) as claim:
            claim.log({"epoch": 0})
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            for write in (
                lambda: lost.log({"epoch": 1}),
                lost.restart,
                lambda: lost.write_trajectory([{"step": 1.0}]),
                lambda: lost.write_weights({}),
                lambda: lost.publish(make_record(spec)),
            ):
                with pytest.raises(TakenOver, match=f"Trial {spec.trial_id} was taken over by pro"):
                    write()
            assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
            claim.publish(make_record(spec))
        with pytest.raises(TakenOver):
            lost.log({"epoch": 2})
    assert store.history(spec.trial_id) == [{"epoch": 0}]
    assert store.record(spec.trial_id) == make_record(spec)


def test_whoever_lost_a_run_logs_and_releases_nothing_more(folder):
    log, event = folder.log(0), Report(trial_id="a", epoch=1, score=0.5)
    with driving(folder.driver_mark):
        append_event(log, event)
        elsewhere(folder.driver_mark)
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        with pytest.raises(TakenOver, match=r"The run .* was taken over by process 1 on another"):
            append_event(log, event)
        with pytest.raises(TakenOver):
            write_run(folder, tiny_study(), [], {})
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
    append_event(log, event)  # of a log that nobody drives, as in a test


def test_a_line_written_late_reaches_only_the_file_from_before(folder):
    """A paused process may have looked at the mark already when another takes over."""
    log, event = folder.log(0), Report(trial_id="a", epoch=1, score=0.5)
    append_event(log, event)
    line = log.read_text()
    with log.open("a") as late:
        assert read_log(log, mend=True) == [event]  # how every search begins
        late.write(line)
    assert read_log(log) == [event] and log.read_text() == line


def test_a_heartbeat_leaves_the_mark_of_another_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(liveness.STALE_VARIABLE, "0.12")
    mark = tmp_path / "claim.json"
    with beating(write_mark(mark, "It")):
        elsewhere(mark, age_s=100.0)
        before = mark.stat().st_mtime_ns
        time.sleep(0.1)
        assert mark.stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", "0"])
def test_a_staleness_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv(liveness.STALE_VARIABLE, text)
    with pytest.raises(UserError, match=f"HARNESS_STALE_S={text}: write a number of seconds"):
        liveness.stale_s()


def test_the_claim_of_whoever_claims_meanwhile_is_not_released(tmp_path):
    store, spec = Store(tmp_path), make_spec()
    with store.claim(spec):
        path = tmp_path / "trials" / spec.trial_id / "claim.json"
        dead = json.loads(path.read_text()) | {"pid": 2**22 + 1, "boot": "elsewhere"}
    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / "claims.lock"):  # as of a process that claims
            path.write_text(json.dumps(dead))
            released = pool.submit(store.release, spec.trial_id)
            time.sleep(0.3)
            assert json.loads(path.read_text()) == dead
            write_mark(path, "Trial")
        released.result(timeout=20)
    assert store.is_claimed(spec.trial_id)
    path.write_text(json.dumps(dead))
    store.release(spec.trial_id)
    assert not path.exists()
    store.release(spec.trial_id)
    Store(tmp_path / "none").release(spec.trial_id)


def test_whoever_lost_a_claim_leaves_the_checkpoint_of_its_successor(tmp_path):
    store, spec = Store(tmp_path), make_spec()
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
    states = States(layer, optimiser, schedule, torch.amp.GradScaler("cpu", enabled=False))

    def save(claim, epochs):
        result = Trained(epochs_run=epochs, select=scored(0.5))
        states.save(Checkpoint(claim.checkpoint, claim.check), result, None, ())

    with store.claim(spec) as lost:
        save(lost, 1)
        (tmp_path / "trials" / spec.trial_id / "claim.json").unlink()
        with store.claim(spec) as claim:
            save(claim, 2)
            with pytest.raises(TakenOver, match=f"Trial {spec.trial_id} was taken over"):
                save(lost, 7)
            kept, _ = states.load(Checkpoint(claim.checkpoint, claim.check), CPU, ())
            assert kept.epochs_run == 2
            assert not list(claim.checkpoint.parent.glob("*.part"))
