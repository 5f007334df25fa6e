"""`harness runs`: every run at a glance, the end of one, and names by their beginnings."""

from __future__ import annotations

import pytest
from support.cli import harness
from support.records import tiny_study
from support.runs import made_run

from harness.cli.runs import size
from harness.errors import UserError
from harness.store.comparisons import Reference, SearchComparison
from harness.store.files import append_line
from harness.store.liveness import driving
from harness.store.overview import overview
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    Command,
    find_run,
    known_run,
    write_command,
    write_run,
    write_search_comparison,
)
from harness.store.store import Store

WHOLE = [[(0.4, 0.3)], [(0.6, 0.5)], [(0.5, 0.55)], ["DIVERGED"]]


def searched(root, name, *, answered):
    """A search that has asked for one of the grid's trials."""
    folder = RunFolder.of(Store(root), name)
    folder.path.mkdir(parents=True)
    write_run(folder, tiny_study(), [], {})
    trial = next(path.name for path in (root / "trials").iterdir())
    cell = {"positions": "mlp1", "alpha": 1.0}
    append_line(folder.log(0), {"ask": {"alpha": 0}, "cell": cell, "seed": 0, "trial": trial})
    if answered:
        tell = {"tell": trial, "status": "COMPLETE", "objective": 0.5}
        append_line(folder.log(0), {**tell, "epochs": 1, "device_s": 1.0, "flops": 1})
    return folder


def compared(root, name, **changes):
    folder = RunFolder.of(Store(root), name)
    folder.path.mkdir(parents=True, exist_ok=True)
    fields = dict(searches=("random",), learned=(), repeats=1, budget="4 trials (4 epochs)")
    fields |= dict(seeds=(0,), workers=1, table=None, confirm=0, confirm_seeds=(), tuning=())
    fields |= dict(tuning_s=0.0, notes=(), reference=Reference(cell={}, device_s=1.0, flops=1))
    write_search_comparison(folder, SearchComparison(**{**fields, **changes}))
    return folder


@pytest.fixture
def store(tmp_path):
    whole = made_run(tmp_path, tiny_study(), WHOLE)
    write_command(whole, Command("harness sweep --study tiny.py", "Every cell."))
    half = tiny_study(name="tiny_half", seeds=(1,))
    made_run(tmp_path, half, [[(0.4, 0.3)], ["FAILED"], [None], [None]])
    return tmp_path


def test_every_run_has_its_line(store):
    searched(store, "tiny+tpe", answered=True)
    searched(store, "tiny+gp", answered=False)
    begun = RunFolder.of(Store(store), "tiny+cmaes")
    begun.path.mkdir()
    write_run(begun, tiny_study(), [], {})
    (store / "studies" / "broken").mkdir()
    (store / "studies" / "broken" / "study.json").write_text("{")
    (store / "studies" / "killed").mkdir()
    lines = {line.name: line for line in overview(Store(store))}
    found = {name: (line.state, line.done, line.planned) for name, line in lines.items()}
    assert found == {
        "tiny": ("done", 4, 4),
        "tiny_half": ("incomplete", 1, 4),
        "tiny+tpe": ("idle", 1, None),
        "tiny+gp": ("incomplete", 1, None),
        "tiny+cmaes": ("incomplete", None, None),
        "broken": ("damaged", None, None),
        "killed": ("incomplete", None, None),
    }
    assert lines["tiny"].command == lines["tiny+tpe"].command == "sweep"
    assert lines["tiny"].size > lines["killed"].size == 0 and 0 <= lines["tiny"].age_s < 60
    shown = harness("runs", "--out", store)
    assert shown.exit_code == 0
    header, *rows = shown.stdout.splitlines()
    assert header.split() == ["run", "command", "state", "trials", "size", "age"]
    assert len(rows) == len(lines) and any(
        row.split()[:4] == ["tiny", "sweep", "done", "4/4"] for row in rows
    )


def test_a_run_in_progress_is_running_and_stays(store):
    folder = RunFolder.of(Store(store), "tiny")
    with driving(folder.driver_mark):
        assert {line.name: line.state for line in overview(Store(store))}["tiny"] == "running"
        refused = harness("runs", "delete", "tiny", "--yes", "--out", store)
    assert refused.exit_code == 2 and "is being driven by process" in refused.stderr
    assert folder.exists


def test_a_run_is_deleted_when_that_is_confirmed_and_its_trials_stay(store):
    folder, trials = RunFolder.of(Store(store), "tiny"), len(list((store / "trials").iterdir()))
    asked = harness("runs", "delete", "tiny", "--out", store)  # nobody answers
    assert asked.exit_code == 1 and "Delete the run tiny" in asked.output and folder.exists
    done = harness("runs", "--out", store, "delete", "tiny", "--yes")
    assert done.exit_code == 0, done.output
    assert not folder.path.exists() and not list((store / "attic").iterdir())
    assert len(list((store / "trials").iterdir())) == trials
    assert harness("status", "tiny_half", "--out", store).exit_code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../trials", "photos"])
def test_what_is_no_run_is_not_deleted(store, monkeypatch, name):
    (store / "photos").mkdir()
    monkeypatch.chdir(store)
    before = sorted(store.rglob("*"))
    for given in (name, str(store / name)):
        refused = harness("runs", "delete", given, "--yes", "--out", store)
        assert refused.exit_code == 2 and "Unknown run" in refused.stderr
    assert sorted(store.rglob("*")) == before


def test_a_run_that_was_killed_before_it_was_written_is_deleted_by_its_name(store):
    killed = store / "studies" / "killed"
    killed.mkdir()
    done = harness("runs", "delete", "killed", "--yes", "--out", store)
    assert done.exit_code == 0 and not killed.exists()


def test_a_run_that_another_report_shows_stays(store):
    compared(store, "all+searches", controls="tiny")
    refused = harness("runs", "delete", "tiny", "--yes", "--out", store)
    assert refused.exit_code == 2 and "shown in the report of all+searches" in refused.stderr


def test_without_runs_there_is_a_beginning(tmp_path):
    assert "harness sweep --study" in harness("runs", "--out", tmp_path).stdout
    refused = harness("runs", "delete", "tiny", "--yes", "--out", tmp_path)
    assert refused.exit_code == 2 and "Unknown run 'tiny'" in refused.stderr


def test_runs_and_trials_are_found_by_beginnings_that_no_other_has(store):
    assert known_run("tiny_", store).name == "tiny_half"
    assert known_run("tiny", store).name == "tiny"  # the whole name, though another begins so
    with pytest.raises(
        UserError, match="2 runs begin with 'tin', write more of it: tiny, tiny_half"
    ):
        known_run("tin", store)
    assert find_run("", store) is None and find_run("x", store) is None
    made = Store(store)
    ids = sorted(path.name for path in made.trials.iterdir())
    assert made.known_record(ids[0][:12]).trial_id == ids[0]
    with pytest.raises(UserError, match="Unknown trial"):
        made.known_record("zz")
    shown = harness("status", "tiny_h", "--out", store).stdout
    assert shown.startswith("tiny_half: ")


@pytest.mark.parametrize(
    "count,words", [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (2.5e6, "2 MB"), (3.21e9, "3.2 GB")]
)
def test_sizes_in_words(count, words):
    assert size(count) == words


def test_other_live_searches_have_a_run_of_their_own(tmp_path):
    from harness.comparison.contest import own_folder
    from harness.comparison.request import SearchesRequest
    from harness.search.budget import Budget

    def asked(searches, budget="4"):
        return SearchesRequest(searches=searches, budget=budget, line="test")

    four = Budget(amount=4, unit="epochs")
    named = RunFolder.of(Store(tmp_path), "tiny+searches")

    def folder(names, of=four, budget="4", is_replay=False):
        wanted = asked(",".join(names), budget)
        return own_folder(named, wanted, names, of, is_replay=is_replay).name

    assert folder(["random"]) == "tiny+searches"  # nothing lies there yet
    compared(tmp_path, "tiny+searches")
    assert folder(["random"]) == "tiny+searches"
    assert folder(["random", "gp"]) == "tiny+searches+budget=4+search=random,gp"
    eight = Budget(amount=8, unit="epochs")
    assert folder(["random"], eight, "8") == "tiny+searches+budget=8+search=random"
    assert folder(["gp"], is_replay=True) == "tiny+searches"  # refused there, as of another table
