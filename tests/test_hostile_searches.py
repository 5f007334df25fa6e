"""A search that misbehaves is ended with one sentence, live and replayed; what ran is kept."""

from __future__ import annotations

import re
from threading import Event

import pytest
from support.cli import harness
from support.hostile import HOSTILE, InstantEngine, NeverStops, install
from support.searches import outcome, space_of, task
from support.sweeps import made_sweep
from support.tables import small_study

from harness.driver.drive import drive
from harness.errors import NotSavedError, UserError
from harness.runner.runtime import Runtime
from harness.search.base import GridSearch
from harness.search.bounded import LEAST_IDLE, start_search
from harness.search.catalogue import find_search
from harness.search.replay import Recording
from harness.store.search_log import read_log, tells
from harness.store.store import Store
from harness.store.table import read_table, tabulate


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    tabulate([made_sweep(root, small_study())], root / "t.parquet")
    return root / "t.parquet"


def run(name, tmp_path, budget="4", **engine):
    """A search driven by an engine of two workers; the engine and the sentence."""
    store = Store(tmp_path / "store")
    made = InstantEngine(store, **engine)
    with pytest.raises(UserError) as error:
        drive(
            find_search(name)(task(space_of("tpe"), tmp_path / "log", budget)),
            made,
            store=store,
            runtime=Runtime(),
            objective="class_mean",
            max_retries=0,
            stop=Event(),
            on_end=lambda record, is_fresh: None,
        )
    return made, str(error.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_ended_with_one_sentence_and_what_runs_is_finished(tmp_path, monkeypatch, name):
    install(monkeypatch)
    engine, said = run(name, tmp_path, reports=2)
    assert re.match(f"Search '{name}' .*{HOSTILE[name]}", said) and "\n" not in said
    assert len(engine.submitted) <= 4 and all(engine.answers)
    for trial_id in engine.submitted:
        assert engine.store.record(trial_id).status == "COMPLETE"
    at_once = name in ("RaisesAtStart", "OldStyle")
    assert bool(engine.submitted) is not at_once


@pytest.mark.parametrize("name", HOSTILE)
def test_in_a_replay_it_is_ended_in_the_same_way(tmp_path, monkeypatch, table, name):
    install(monkeypatch)
    words = ("--search", name, "--replay", table, "--repeats", 1, "--budget", 4)
    result = harness("compare", *words, "--out", tmp_path)
    assert result.exit_code == 2, result.output
    said = result.stderr.strip()
    assert re.search(f"Error: Search '{name}' .*{HOSTILE[name]}", said) and "\n" not in said
    log = tmp_path / "studies" / "joint_space+searches" / f"search-{name}-0.jsonl"
    told = tells(read_log(log))
    assert sum(tell.epochs for tell in told) <= 40
    ends_later = name not in ("RaisesInTell", "RaisesInReport", "RaisesAtStart", "OldStyle")
    assert bool(told) is (ends_later and "Reports" not in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NeverStops", "ExitsInAsk", "RaisesInTell", "ReportsNothing"])
def test_live_it_is_ended_in_the_same_way(tmp_path, monkeypatch, trained_here, name):
    install(monkeypatch)
    words = ["--study", "depth_vs_position", "--smoke", "--workers", 1, "--budget", 2]
    words += ["--set", "recipe.epochs=2"] if name == "ReportsNothing" else []
    result = harness("sweep", *words, "--search", name, "--out", tmp_path)
    assert result.exit_code == 2, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert re.match(f"Error: Search '{name}' .*{HOSTILE[name]}", said[-1]) and len(said) == 1
    assert "Traceback" not in result.output
    assert len(list(tmp_path.glob("trials/*/record.json"))) == 1


def test_known_trials_may_be_proposed_as_often_as_an_honest_search_would(tmp_path):
    made = start_search("n", NeverStops, task(space_of("tpe"), tmp_path / "log", "4"))
    (spec,) = made.ask(1)
    made.tell(outcome(spec))
    for _ in range(LEAST_IDLE - 1):
        assert made.ask(1) == [spec]
        made.tell(outcome(spec))
    with pytest.raises(UserError, match=f"proposed {LEAST_IDLE} trials in a row"):
        for _ in range(2):
            made.ask(1)
            made.tell(outcome(spec))


def test_a_search_of_which_every_trial_fails_ends_with_any_budget(tmp_path, monkeypatch):
    """Failed trials cost next to no seconds, so that such a budget would never be spent."""
    install(monkeypatch)
    monkeypatch.setattr("harness.search.bounded.LEAST_IDLE", 5)
    monkeypatch.setattr("harness.search.bounded.IDLE_PER_CONFIGURATION", 0)
    engine, said = run("Users", tmp_path, "100s", status="FAILED", error="boom")
    assert "proposed 5 trials in a row" in said and len(engine.submitted) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NotSavedError("the disk is full")])
def test_ctrl_c_and_a_full_disk_are_no_mistake_of_the_search(tmp_path, error):
    class Interrupted(NeverStops):
        def ask(self, count):
            raise error

    made = start_search("n", Interrupted, task(space_of("tpe"), tmp_path / "log", "4"))
    with pytest.raises(type(error)) as raised:
        made.ask(1)
    assert raised.value is error


def test_a_search_without_a_budget_is_contained_as_well(tmp_path, table):
    """It proposes one trial for ever; a grid is driven in this way, too."""
    recording = Recording(read_table(table), "class_mean")
    cell = {"positions": "mlp1", "depth": "last:1", "alpha": 1.0}

    class Endless(GridSearch):
        def ask(self, count):
            return [recording.make(cell, 0)]

    with pytest.raises(UserError, match="Search 'Endless' proposed 1000 trials in a row"):
        recording.replay(Endless([]))


def test_an_entry_point_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "clever-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: clever\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[harness.searches]\nclever = clever_one:start\n")
    (tmp_path / "clever_one.py").write_text("raise SystemExit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        find_search("clever")(task(space_of("tpe"), tmp_path / "log", "4"))
    said = str(error.value)
    assert "'clever' (entry point clever_one:start, of distribution clever)" in said
    assert "cannot be imported" in said and "no licence" in said and "\n" not in said
