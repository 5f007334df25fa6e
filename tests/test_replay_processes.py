"""Repeats of replayed searches in processes: the same logs and tables, and only what is missing."""

from __future__ import annotations

import json

import psutil
import pytest
from support.cli import harness
from support.sweeps import made_sweep
from support.tables import compare, small_study

from harness.comparison import replaying
from harness.comparison.replay import replay_searches
from harness.comparison.request import Repeats, SearchesRequest
from harness.errors import TakenOver, UserError
from harness.reports.files.write import write_report
from harness.store.liveness import driving, help_driving, mark_of, still_driving
from harness.store.run_folder import RunFolder
from harness.store.runs import read_search_comparison
from harness.store.store import Store
from harness.store.table import tabulate

SEARCHES = "random,sobol,tpe,gp,tpe+hyperband"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    tabulate([made_sweep(root, small_study())], root / "t.parquet")
    return root / "t.parquet"


class Said:
    """A console that notes what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def replay(root, table, processes, *, searches=SEARCHES, repeats="4", budget="4"):
    asked = SearchesRequest(
        searches=searches, budget=budget, repeats=Repeats.parse(repeats), line="harness compare"
    )
    said = Said()
    folder = replay_searches(asked, table, None, Store(root), said, processes=processes)
    return folder, said.lines


def files(folder):
    """All that a replay leaves, and the tables of its report."""
    write_report(folder)
    paths = [*folder.path.glob("*.js*"), *folder.report.glob("*")]
    return {path.name: path.read_bytes() for path in paths if path != folder.drawn}


@pytest.mark.slow
def test_two_processes_leave_the_bytes_that_one_leaves(tmp_path, table, monkeypatch):
    monkeypatch.setattr(replaying, "LEAST_EACH", 1)
    monkeypatch.setattr(replaying, "AT_ONCE", 1)
    one, said = replay(tmp_path / "one", table, 1)
    two, also = replay(tmp_path / "two", table, 2)
    assert len(one.logs()) == 5 * 4 and files(one) == files(two)
    trials = [line.split(" in ")[0] for line in said]
    assert [line.split(" in ")[0] for line in also] == trials and len(trials) == 5


@pytest.mark.slow
def test_what_a_search_gets_wrong_is_one_sentence_and_no_process_is_left(
    tmp_path, table, monkeypatch
):
    monkeypatch.setattr(replaying, "LEAST_EACH", 1)
    folder, _ = replay(tmp_path, table, 2, searches="random,tpe")
    log = folder.log(1, "tpe")
    log.write_text(log.read_text().splitlines()[0] + "\n")
    row = json.loads(log.read_text())
    log.write_text(json.dumps({**row, "seed": 7}) + "\n")
    for repeat in range(4):  # so that there is work for both
        folder.log(repeat, "random").unlink()
    with pytest.raises(UserError, match="The table has no trial of"):
        replay(tmp_path, table, 2, searches="random,tpe")
    spawned = [each for each in psutil.Process().children() if "spawn_main" in str(each.cmdline())]
    assert not spawned


def test_repeats_that_are_there_are_kept(tmp_path, table, monkeypatch):
    folder, _ = replay(tmp_path, table, 1, searches="random,tpe")
    logs = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.logs()}
    started = []
    start = replaying.Contest.start
    monkeypatch.setattr(
        replaying.Contest,
        "start",
        lambda self, name, repeat: started.append((name, repeat)) or start(self, name, repeat),
    )
    _, said = replay(tmp_path, table, 1, searches="random,tpe", repeats="6,tpe=5")
    assert started == [("random", 4), ("random", 5), ("tpe", 4)]
    assert [line.split(", ")[-1] for line in said] == ["4 of them kept."] * 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in logs} == logs
    assert len(folder.logs()) == 11
    # One whose last answer is missing is gone on with; a larger budget is another comparison.
    started.clear()
    torn = folder.log(0, "random")
    whole = torn.read_bytes()
    torn.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    replay(tmp_path, table, 1, searches="random,tpe", repeats="6,tpe=5")
    assert started == [("random", 0)] and torn.read_bytes() == whole
    started.clear()
    replay(tmp_path, table, 1, searches="random,tpe", repeats="2", budget="5")
    assert len(started) == 4


def test_a_log_of_other_trials_than_the_table_has_is_not_kept(tmp_path, table):
    folder, _ = replay(tmp_path, table, 1, searches="random")
    log = folder.log(0, "random")
    ask = json.loads(log.read_text().splitlines()[0])
    log.write_text(log.read_text().replace(ask["trial"], "0123456789abcdef"))
    with pytest.raises(UserError, match="0123456789abcdef"):
        replay(tmp_path, table, 1, searches="random")


@pytest.mark.parametrize(
    "given,count,by",
    [(500, 500, {}), ("500,gp=200", 500, {"gp": 200}), ("gp=2,tpe+asha=3", None, None)],
)
def test_repeats_are_read(given, count, by):
    found = Repeats.parse(given)
    assert found.count == count
    assert found.by == ({"gp": 2, "tpe+asha": 3} if by is None else by)


@pytest.mark.parametrize("given", ["0", "-1", "x", "gp=", "=3", "gp=0", "3,4", "gp=1,gp=2", ""])
def test_repeats_without_meaning_are_refused(tmp_path, table, given):
    result = compare(tmp_path, table, "--search", "random,gp", "--repeats", given)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert f"--repeats {given}: write a whole number" in result.stderr


def test_repeats_of_a_search_that_does_not_take_part_are_refused(tmp_path, table):
    result = compare(tmp_path, table, "--search", "random,tpe", "--repeats", "3,tpee=2")
    assert result.exit_code == 2 and "Did you mean 'tpe'" in result.stderr
    methods = harness("compare", "--methods", "lora", "--repeats", "3", "--out", tmp_path)
    assert methods.exit_code == 2 and "--repeats is for --search" in methods.stderr


@pytest.mark.slow
def test_fewer_repeats_of_a_search_are_said_and_judged(tmp_path, table):
    words = ("--search", "random,tpe,sobol", "--repeats", "8,sobol=6", "--budget", 4)
    result = compare(tmp_path, table, *words)
    assert result.exit_code == 0, result.output
    folder = RunFolder.of(Store(tmp_path), "joint_space+searches")
    assert len(folder.logs()) == 8 + 8 + 6
    text = (folder.report / "report.md").read_text()
    assert "8 repeats (sobol 6) over 2 training seeds" in text
    rows = (folder.report / "searches.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["8", "8", "6"]


def test_a_helper_writes_as_long_as_its_driver_may(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.store.liveness._driven", {})
    with driving(tmp_path / "driver.json"):
        mark = mark_of(tmp_path)
        assert mark is not None
        still_driving(tmp_path)
    assert mark_of(tmp_path) is None
    help_driving(tmp_path, mark)
    with pytest.raises(TakenOver):
        still_driving(tmp_path)


def test_other_searches_or_another_budget_have_a_folder_of_their_own(tmp_path, table):
    asked = [("random", "4"), ("sobol", "4"), ("random", "3")]
    names = ["", "+budget=4+search=sobol", "+budget=3+search=random"]
    for (searches, budget), name in [*zip(asked, names, strict=True), (asked[1], names[1])]:
        ran, _ = replay(tmp_path, table, 1, searches=searches, budget=budget, repeats="2")
        assert ran.name == f"joint_space+searches{name}"
    for (searches, budget), name in zip(asked, names, strict=True):
        folder = RunFolder.of(Store(tmp_path), f"joint_space+searches{name}")
        plan = read_search_comparison(folder)
        assert searches in plan.searches and plan.budget.startswith(f"{budget} trials")


def test_the_table_that_a_run_keeps_is_replayed_into_the_same_run(tmp_path, table):
    folder, _ = replay(tmp_path, table, 1, searches="random", repeats="1")
    again, _ = replay(tmp_path, folder.table, 1, searches="random", repeats="2")
    assert again.table == folder.table and again.table.read_bytes() == table.read_bytes()
    assert len(again.logs()) == 2
