"""A store that an earlier version left is continued, reported and exported by this one.

`fixtures/ad7d1aa/README.md` says what lies there: five runs, each killed half-way, and what the
earlier version made of the same commands when nothing stopped it.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from harness.cli import main

FIXTURE = Path(__file__).parent / "fixtures" / "ad7d1aa"
COMMANDS = json.loads((FIXTURE / "commands.json").read_text())
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
RUNS = {name: each["run"] for name, each in COMMANDS.items()}
NEAR = {"abs": 0.1}
"""Scores are equal on the machine that made the fixture. Another processor adds in another order,
and one image more or less, in a class that has one, is 1/15 of a class mean."""

ROUGH = dict.fromkeys(("objective", "score", "device_s", "total_device_s"))
"""Of a log's events: what need not be equal to the last digit."""


def harness(*args):
    run = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.output


def records(store):
    return {path.parent.name: json.loads(path.read_text()) for path in _records(store)}


def _records(store):
    return sorted((store / "trials").glob("*/record.json"))


def read(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def without_phantom(events):
    """The events without a proposal at the end that no trial followed."""
    told = {event["tell"] for event in events if "tell" in event}
    return events[:-1] if "ask" in events[-1] and events[-1]["trial"] not in told else events


class Continued:
    """The store after the same commands, and what was there before."""

    def __init__(self, folder):
        shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
        self.store = folder / "store"
        self.before = records(self.store)
        self.files = {path: (path.read_bytes(), path.stat()) for path in _records(self.store)}
        self.logs = {
            path: path.read_text() for path in sorted(self.store.glob("studies/*/search-*.jsonl"))
        }
        self.status = {
            name: harness("status", run, "--out", self.store)
            for name, run in RUNS.items()
            if name != "controls"
        }
        self.said = {name: self.again(name) for name in COMMANDS}
        self.after = records(self.store)

    def again(self, name):
        words = shlex.split(COMMANDS[name]["command"])
        words[words.index("old_store.py")] = FIXTURE / "old_store.py"
        return harness(*words, "--workers", 1, "--out", self.store)

    def folder(self, name):
        return self.store / "studies" / RUNS[name]


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    return Continued(tmp_path_factory.mktemp("old"))


def phantoms():
    """What a search of the earlier version asked for beyond its budget, and nothing ran."""
    asked = {e["trial"] for log in EXPECTED["searches"].values() for e in log if "ask" in e}
    return asked - set(EXPECTED["trials"])


@pytest.mark.slow
def test_the_fixture_holds_what_it_is_for(continued):
    before, text = continued.before, json.dumps(list(continued.logs.values()))
    assert 0 < len(before) < len(EXPECTED["trials"])
    assert {record["status"] for record in before.values()} == {"COMPLETE", "PRUNED"}
    assert [phantom for phantom in phantoms() if phantom in text]
    assert "2 waiting" in continued.status["grid"] and "stopped early" in continued.status["pbt"]
    names = {path.name for path in FIXTURE.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(("claim", "driver", "index"))]
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()) < 400_000


def test_finished_trials_are_not_run_again(continued):
    for path, (content, stat) in continued.files.items():
        record = continued.before[path.parent.name]
        if record["status"] == "PRUNED" and record["spec"]["recipe"]["epochs"] == 4:
            continue  # a member of a population that was to go on
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == stat.st_mtime_ns


def test_the_missing_trials_are_run_and_no_others(continued):
    assert set(continued.after) == set(EXPECTED["trials"])
    for trial_id, expected in EXPECTED["trials"].items():
        record = continued.after[trial_id]
        for name in ("status", "epochs_run", "trainable_params"):
            assert record[name] == expected[name], (trial_id, name)
        for part in ("select", "test"):
            found = record[part] and record[part]["class_mean"]
            assert found == pytest.approx(expected[part], **NEAR), trial_id


@pytest.mark.parametrize("name", EXPECTED["searches"])
def test_a_search_goes_on_as_if_it_had_never_stopped(name, continued):
    path = continued.store / "studies" / name
    assert path.read_text().startswith(continued.logs.get(path, ""))
    found, expected = (without_phantom(each) for each in (read(path), EXPECTED["searches"][name]))
    asks = [[event for event in each if "ask" in event] for each in (found, expected)]
    assert asks[0] == asks[1]
    assert len(found) == len(expected)
    for event, other in zip(found, expected, strict=True):
        assert {**event, **ROUGH} == {**other, **ROUGH}
        for name in ("objective", "score"):
            assert event.get(name) == pytest.approx(other.get(name), **NEAR)


@pytest.mark.parametrize("name", RUNS)
def test_reports_are_those_of_the_earlier_version(name, continued):
    harness("report", RUNS[name], "--out", continued.store)
    report = continued.folder(name) / "report"
    assert (report / "index.html").is_file()
    file = "arms.csv" if name == "controls" else "metrics.csv"
    found, expected = (table(path) for path in (report / file, FIXTURE / f"{name}.csv"))
    pd.testing.assert_frame_equal(found, expected, atol=100 * NEAR["abs"], rtol=0)


def table(path):
    """A report's table without what is charged by time, and without phantoms."""
    read = pd.read_csv(path).drop(columns="runs_per_seed", errors="ignore")
    return read[read["MISSING"] == 0].reset_index(drop=True) if "MISSING" in read else read


def test_a_run_is_exported(continued, tmp_path):
    harness("export", RUNS["tpe"], "--csv", tmp_path / "trials.csv", "--out", continued.store)
    rows = pd.read_csv(tmp_path / "trials.csv")
    searches = [log for name, log in EXPECTED["searches"].items() if RUNS["tpe"] in name]
    asked = {event["trial"] for log in searches for event in log if "ask" in event}
    assert set(rows[rows["status"] != "MISSING"]["trial_id"]) == asked - phantoms()


def test_the_same_command_again_runs_nothing(continued):
    logs = {path: path.read_text() for path in continued.logs}
    trials = [(path, path.stat().st_mtime_ns) for path in _records(continued.store)]
    continued.again("tpe")
    assert {path: path.read_text() for path in logs} == logs
    assert [(path, path.stat().st_mtime_ns) for path in _records(continued.store)] == trials


def test_a_last_proposal_waits_only_if_it_began(tmp_path):
    shutil.copytree(FIXTURE / "store", tmp_path, dirs_exist_ok=True)
    log = tmp_path / "studies" / RUNS["tpe"] / "search-0.jsonl"
    phantom = read(log)[-1]["trial"]
    assert phantom in phantoms()
    assert "waiting" not in harness("status", RUNS["tpe"], "--out", tmp_path)
    begun = tmp_path / "trials" / phantom
    begun.mkdir()
    shutil.copy(next(tmp_path.glob("trials/*/spec.json")), begun)
    assert "1 waiting" in harness("status", RUNS["tpe"], "--out", tmp_path)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "controls"])
def test_nothing_waits_for_ever(name, continued):
    said = harness("status", RUNS[name], "--out", continued.store)
    assert "waiting" not in said and "running" not in said, said
