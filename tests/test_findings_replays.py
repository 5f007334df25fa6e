"""Replays of the findings: as many as the error that they leave to a mean asks for."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.findings import searched
from harness.findings.scenario import Scenario

SEEDS = (100, 101)
TRIALS = pd.DataFrame(
    {"trial_id": ["best", "next"], "select": [0.7, 0.6], "test": [60.0, 50.0], "flops": [9, 9]}
)


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    """One on which GP chooses either trial in turn, and TPE always the same."""

    def replays(table, name, seed, repeats, place):
        for number in repeats:
            chosen = "next" if name == "gp" and number % 2 else "best"
            yield searched.Choice(chosen, 10.0 + number)

    monkeypatch.setattr(searched, "REPEATS", {"gp": 4, "tpe": 3})
    monkeypatch.setattr(searched, "MORE", 4)
    monkeypatch.setattr(searched, "MONTE_CARLO", 1.0)
    monkeypatch.setattr(searched, "table_of", lambda scenario, place: None)
    monkeypatch.setattr(searched, "read_table", lambda path: None)
    monkeypatch.setattr(searched, "replays", replays)
    return Scenario(
        name="synth_rs",
        wanted=SEEDS,
        seeds=SEEDS,
        trials={"lora": TRIALS},
        records={},
        groups=(),
        archives=tmp_path,
    )


def test_replays_are_added_to_those_of_whom_the_error_is_too_large(scenario):
    rows = pd.read_csv(searched.replay(scenario)).drop(columns="scores")
    # half of n choices at 60 and half at 50 leave 5 / sqrt(n): 28 is the first multiple below 1
    for seed in SEEDS:
        own = rows[rows["seed"] == seed].drop(columns="seed").to_numpy().tolist()
        assert own == [["gp", "best", 14, 23.0], ["gp", "next", 14, 24.0], ["tpe", "best", 3, 11.0]]
    left = searched.monte_carlo(searched.searched_by_seed(scenario, "gp"))
    assert left == pytest.approx(5 / 28**0.5)


def test_what_was_replayed_is_kept_and_goes_on_by_number(scenario, monkeypatch):
    whole = searched.replay(scenario).read_bytes()
    rows = pd.read_csv(searched.kept_at(scenario))
    gp = rows["search"] == "gp"
    rows.loc[gp, ["times", "runs"]] = [[6, 15.0], [6, 16.0]] * 2  # of the first twelve
    rows[gp | (rows["seed"] == 100)].to_csv(searched.kept_at(scenario), index=False)
    assert searched.replayed(scenario) == (100,)
    assert searched.replay(scenario).read_bytes() == whole
    first = gp & (rows["seed"] == 100)  # killed between the seeds of a batch
    rows.loc[gp, ["times", "runs"]] = [[14, 23.0], [14, 24.0], [12, 21.0], [12, 22.0]]
    rows.to_csv(searched.kept_at(scenario), index=False)
    assert first.sum() == 2 and searched.replay(scenario).read_bytes() == whole
    asked = []
    monkeypatch.setattr(searched, "replays", lambda *what: asked.append(what) or iter(()))
    assert searched.replay(scenario).read_bytes() == whole and asked == []
