"""A store of an earlier SEMANTICS is read, reported and exported; nothing of it is reused.

`fixtures/ad7d1aa/README.md` says what lies there: runs of an earlier version, each killed half-way,
and what that version made of the same commands when nothing stopped it.
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
from harness.spec import SEMANTICS
from harness.store.store import Store

pytestmark = pytest.mark.slow

FIXTURE = Path(__file__).parent / "fixtures" / "ad7d1aa"
COMMANDS = json.loads((FIXTURE / "commands.json").read_text())
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
SWEEPS = [name for name in COMMANDS if name != "controls"]
RUNS = {name: COMMANDS[name]["run"] for name in SWEEPS}
WHY = f"the same settings gave other numbers under SEMANTICS 1 than they do now, under {SEMANTICS}"


def harness(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


def said(*args):
    run = harness(*args)
    assert run.exit_code == 0, run.output
    return run.output


def again(name, out, *more):
    """The command that made a run of the fixture."""
    words = shlex.split(COMMANDS[name]["command"])
    words[words.index("old_store.py")] = FIXTURE / "old_store.py"
    return harness(*words, "--workers", 1, "--out", out, *more)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "store"
    shutil.copytree(FIXTURE / "store", folder)
    return folder


def phantoms():
    """What a search of the earlier version asked for beyond its budget, and nothing ran."""
    asked = {e["trial"] for log in EXPECTED["searches"].values() for e in log if "ask" in e}
    return asked - set(EXPECTED["trials"])


def test_the_fixture_holds_what_it_is_for():
    records = [json.loads(p.read_text()) for p in FIXTURE.glob("store/trials/*/record.json")]
    assert 0 < len(records) < len(EXPECTED["trials"])
    assert {record["status"] for record in records} == {"COMPLETE", "PRUNED"}
    assert {record["provenance"]["semantics"] for record in records} == {"1"}
    assert SEMANTICS > 1
    assert not [r for r in records if "class_names" in r or "hits" in (r["select"] or {})]
    names = {path.name for path in FIXTURE.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(("claim", "driver", "index"))]
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()) < 400_000


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_a_run_is_not_gone_on_with_and_one_sentence_says_why(name, more, store):
    before = contents(store)
    answer = again(name, store, *more)
    assert answer.exit_code == 2, answer.output
    (line,) = answer.output.strip().splitlines()
    assert line.endswith(
        f"{RUNS[name]} is of another version of the harness, and nothing of it is reused, because "
        f"{WHY}: see it with `harness report {RUNS[name]}`, and give another --out for a new one."
    )
    assert contents(store) == before


def test_a_search_is_not_warm_started_from_it(store):
    answer = again("tpe", store, "--set", "recipe.lr=0.1", "--warm-start", "old_store")
    assert (
        answer.exit_code == 2 and "old_store is of another version of the harness" in answer.output
    ), answer.output


@pytest.fixture
def trials_alone(tmp_path):
    """The same trials in a store without runs, as another study that shares them sees them."""
    shutil.copytree(FIXTURE / "store" / "trials", tmp_path / "trials")
    return tmp_path


def test_a_new_run_beside_its_trials_uses_none_of_them_and_says_so(trials_alone):
    answer = again("grid", trials_alone, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert "Trials: 0 done, 0 running, 0 failed (will be tried again), 6 to run." in answer.output
    sentence = f"{trials_alone}/trials has such trials of an earlier version, not reused: {WHY}."
    assert sentence in " ".join(answer.output.split())


@pytest.mark.slow
def test_a_trial_that_it_has_is_trained_again_and_the_old_one_kept(trials_alone):
    before = contents(trials_alone)
    train = ["train", "--study", FIXTURE / "old_store.py", "--method", "lora", "--sites", "v"]
    train += ["--depth", "last:3", "--set", "options.rank=2", "--workers", 1, "--out", trials_alone]
    first = said(*train)
    assert WHY in " ".join(first.split())
    after = contents(trials_alone)
    assert {path: after[path] for path in before} == before
    (fresh,) = {p.parent.name for p in after if p.name == "record.json" and p not in before}
    assert fresh in first
    assert Store(trials_alone).record(fresh).provenance["semantics"] == str(SEMANTICS)
    assert WHY not in " ".join(said(*train).split())


def table(path):
    """A report's table of what has run."""
    frame = pd.read_csv(path)
    return frame[frame["MISSING"] == 0]


@pytest.mark.parametrize("name", SWEEPS)
def test_what_it_has_is_reported_as_the_earlier_version_did(name, store):
    said("report", RUNS[name], "--out", store)
    report = store / "studies" / RUNS[name] / "report"
    assert (report / "index.html").is_file()
    found, expected = table(report / "metrics.csv"), table(FIXTURE / f"{name}.csv")
    counts = [c for c in found if c in ("COMPLETE", "DIVERGED", "PRUNED", "FAILED", "MISSING")]
    keys = [*found.columns[: list(found.columns).index("COMPLETE")], *counts]
    both = found[keys].merge(expected, on=keys, how="left")
    both = both[both["n"].notna()].reset_index(drop=True)  # those that were not to go on
    assert len(both) >= len(found) - 3 and len(both) > 2
    same = found.merge(expected[keys], on=keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(same[both.columns], both, check_dtype=False)


def test_costs_that_it_did_not_measure_or_tell_apart_are_left_out(store):
    said("report", RUNS["grid"], "--out", store)
    report = store / "studies" / RUNS["grid"] / "report"
    costs = pd.read_csv(report / "costs.csv")
    kept = costs[costs["status"] == "COMPLETE"]
    assert (kept["flops"] > 0).all() and len(kept) == 4
    for name in ("peak_memory_mb", "training_flops", "selection_flops", "test_flops"):
        assert kept[name].isna().all(), name
    assert "peak memory" not in (report / "report.md").read_text()


def test_it_is_not_put_into_one_table_with_a_run_of_today(tmp_path):
    shutil.copytree(FIXTURE / "store", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "studies" / RUNS["tpe"] / "environment.json"
    path.write_text(path.read_text().replace('"semantics": "1"', f'"semantics": "{SEMANTICS}"'))
    runs = (RUNS["grid"], RUNS["tpe"])
    answer = harness("tabulate", *runs, "--file", tmp_path / "t.parquet", "--out", tmp_path)
    assert answer.exit_code == 2, answer.output
    assert f"The runs are of SEMANTICS 1 and {SEMANTICS}, under which" in answer.output
    assert not (tmp_path / "t.parquet").exists()


def test_a_run_is_exported_without_what_its_records_lack(store, tmp_path):
    said("export", RUNS["tpe"], "--csv", tmp_path / "trials.csv", "--out", store)
    rows = pd.read_csv(tmp_path / "trials.csv")
    searches = [log for name, log in EXPECTED["searches"].items() if RUNS["tpe"] + "/" in name]
    asked = {event["trial"] for log in searches for event in log if "ask" in event}
    done = rows[rows["status"] == "COMPLETE"]
    assert len(done) > 10 and set(done["trial_id"]) <= asked - phantoms()
    assert done["test_hits"].isna().all()
    by_class = json.loads(done["test_by_class"].iloc[0])
    assert list(by_class) == [str(n) for n in range(15)]  # names were not kept
    assert sum(by_class.values()) / 15 == pytest.approx(done["test_class_mean"].iloc[0])


@pytest.mark.parametrize("name", SWEEPS)
def test_its_status_is_told(name, store):
    words = said("status", RUNS[name], "--out", store)
    assert "running" not in words or "0 running" in words
    assert ("never run" in words) == (name == "grid") and "waiting" not in words, words
    assert "Driver: none.\n" in words and "is reused, because" in words


def test_a_last_proposal_waits_only_if_it_began(tmp_path):
    shutil.copytree(FIXTURE / "store", tmp_path, dirs_exist_ok=True)
    log = tmp_path / "studies" / RUNS["tpe"] / "search-0.jsonl"
    phantom = read(log)[-1]["trial"]
    assert phantom in phantoms()
    assert "never run" not in said("status", RUNS["tpe"], "--out", tmp_path)
    begun = tmp_path / "trials" / phantom
    begun.mkdir()
    shutil.copy(next(tmp_path.glob("trials/*/spec.json")), begun)
    assert "1 never run" in said("status", RUNS["tpe"], "--out", tmp_path)
