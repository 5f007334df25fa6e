"""Processes that are paused, clocks that are wrong, marks from elsewhere: who may write what.

Whoever was paused for so long that another has taken over stops with one sentence and writes
nothing more. `HARNESS_STALE_S` makes seconds of the minute that this takes.
"""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from click.testing import CliRunner
from test_faults import records, running, start, sweep, wait_for

from harness.cli import main
from harness.store import liveness
from harness.store.search_log import asks, read_log

STUDY = """
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base


def study():
    made = base()
    values = {"depth": "last:1", "recipe.epochs": 6, "data.options.test_per_class": 4}
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
STALE_S = 2.0
WORDS = {"grid": [], "tpe": ["--search", "tpe", "--budget", "2"]}


@pytest.fixture
def study(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(liveness.STALE_VARIABLE, str(STALE_S))
    path = tmp_path_factory.mktemp("study") / "paused.py"
    path.write_text(STUDY.replace("NAME", "paused"))
    return path


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
    words = ["--workers", "1", *WORDS[kind]]
    first = start(study, tmp_path, *words)
    wait_for(lambda: running(tmp_path))
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        time.sleep(STALE_S + 0.5)
        second = sweep(study, tmp_path, *words)
        assert second.returncode == 0, second.errors
        made, logged = records(tmp_path), logs(tmp_path)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 2
    is_one_sentence(errors, "The run ", "taken over")
    assert records(tmp_path) == made and logs(tmp_path) == logged
    assert histories(tmp_path) == dict.fromkeys(made, list(range(EPOCHS)))
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
    first = start(study, tmp_path, "--workers", "1")
    worker = wait_for(lambda: running(tmp_path))
    os.kill(worker, signal.SIGSTOP)
    try:
        time.sleep(STALE_S + 0.5)
        second = sweep(other, tmp_path, "--workers", "1")
        assert second.returncode == 0, second.errors
        made = records(tmp_path)
    finally:
        os.kill(worker, signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0 and "Traceback" not in errors, errors
    assert errors.count("taken over") == 1 and f"process {worker} was paused" in errors
    assert records(tmp_path) == made and len(made) == TRIALS
    assert histories(tmp_path) == dict.fromkeys(made, list(range(EPOCHS)))
    tables = [path.read_text() for path in tmp_path.glob("studies/*/report/metrics.csv")]
    assert len(tables) == 2 and tables[0] == tables[1]


def said(words):
    run = CliRunner().invoke(main, [*map(str, words[:-1]), "--out", str(words[-1])])
    assert "Traceback" not in run.output
    return run.output
