"""Repeats of replayed searches until chance leaves as little to their means as was asked for."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from support.cli import harness
from support.sweeps import made_metapeft, made_sweep
from support.tables import compare, small_study

from harness.comparison import enough, replaying
from harness.comparison.replay import replay_searches
from harness.comparison.request import Repeats, SearchesRequest
from harness.errors import UserError
from harness.reports.numbers.searches import load_searches
from harness.store.runs import read_search_comparison
from harness.store.store import Store
from harness.store.table import tabulate


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    study = small_study(seeds=(0, 1, 2))
    tabulate([made_sweep(root, study), made_metapeft(root, study)], root / "t.parquet")
    return root / "t.parquet"


def replay(root, table, half_width, *, searches="random,sobol,metapeft", processes=1):
    asked = SearchesRequest(
        searches=searches, budget="3", repeats=Repeats(), half_width=half_width, line="harness"
    )
    return replay_searches(asked, table, None, Store(root), processes=processes)


@pytest.mark.slow
def test_repeats_are_doubled_until_chance_leaves_little_enough(tmp_path, table, monkeypatch):
    monkeypatch.setattr(enough, "FIRST_REPEATS", 6)
    folder = replay(tmp_path, table, 1.5)
    found = load_searches(folder)
    plan = found.recorded.comparison
    left = found.choices.table["test_chance_ci"]
    counts = {name: plan.repeats_of(name) for name in plan.searches}
    assert counts["metapeft"] == 3 and left["metapeft"] == 0  # one per seed, without chance
    for name in ("random", "sobol"):
        assert left[name] <= 1.5
        assert counts[name] in (6, 12, 24, 48)  # so that every seed has the same number
        # Half as many were not enough.
        own = found.choices.final[found.choices.final["search"] == name]
        half = own[own["repeat"] < counts[name] // 2]
        errors = [each["test"].var() / len(each) for _, each in half.groupby("seed")]
        assert counts[name] == 6 or 2 * math.sqrt(sum(errors)) / 3 > 1.5
    assert max(counts.values()) > 6
    logs = {path.name: path.read_bytes() for path in folder.logs()}
    stored = folder.searches.read_bytes()
    again = replay(tmp_path, table, 1.5)
    assert {path.name: path.read_bytes() for path in again.logs()} == logs
    assert again.searches.read_bytes() == stored


def test_there_are_no_more_repeats_than_the_cap(tmp_path, table, monkeypatch):
    monkeypatch.setattr(enough, "MOST_REPEATS", 32)
    folder = replay(tmp_path, table, 0.001, searches="random,metapeft")
    plan = read_search_comparison(folder)
    assert (plan.repeats, plan.repeats_by, plan.half_width) == (30, {}, 0.001)
    assert len(folder.logs()) == 30 + 3
    left = load_searches(folder).choices.table["test_chance_ci"]
    assert left["random"] > 0.001


@pytest.mark.slow
def test_their_number_does_not_depend_on_processes(tmp_path, table, monkeypatch):
    monkeypatch.setattr(replaying, "LEAST_EACH", 1)
    monkeypatch.setattr(enough, "FIRST_REPEATS", 6)
    one = replay(tmp_path / "one", table, 2.0, searches="random")
    two = replay(tmp_path / "two", table, 2.0, searches="random", processes=2)
    assert one.searches.read_bytes() == two.searches.read_bytes()
    logs = [{path.name: path.read_bytes() for path in each.logs()} for each in (one, two)]
    assert logs[0] == logs[1] and len(logs[0]) > 6


def test_without_chance_there_is_nothing_to_narrow(tmp_path, table):
    with pytest.raises(UserError, match="none of these searches has chance"):
        replay(tmp_path, table, 1.0, searches="metapeft")


@pytest.mark.parametrize(
    "args,words",
    [
        (["--half-width", "0"], "--half-width 0: write points of test accuracy above 0"),
        (["--half-width", "nan"], "--half-width nan: write points"),
        (["--half-width", "1", "--repeats", "3"], "Give either --repeats or --half-width"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, table, args, words):
    result = compare(tmp_path, table, "--search", "random", *args)
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.stderr.strip().count("\n") == 0 and not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    "args,words",
    [
        (["--search", "random"], "--half-width is for --replay: live,"),
        (["--methods", "lora"], "--half-width is for --search"),
    ],
)
def test_it_is_refused_where_repeats_would_be_trained(tmp_path, args, words):
    result = harness("compare", *args, "--half-width", "1", "--out", tmp_path)
    assert result.exit_code == 2 and words in result.stderr, result.output


@pytest.mark.slow
def test_the_report_says_what_was_asked_and_what_came_of_it(tmp_path, table):
    result = compare(tmp_path, table, "--search", "random", "--budget", 3, "--half-width", 2)
    assert result.exit_code == 0, result.output
    report = tmp_path / "studies/joint_space+searches/report"
    text = (report / "report.md").read_text()
    assert "until chance left ± 2 points to each mean or there were 2000" in text
    assert pd.read_csv(report / "searches.csv")["test_chance_ci"][0] <= 2
