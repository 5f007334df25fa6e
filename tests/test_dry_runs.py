"""`sweep --dry-run`: what would run is resolved, its cost is stated, and nothing is left behind."""

from __future__ import annotations

import pytest
from support.cli import harness


def dry(tmp_path, *words):
    result = harness(
        "sweep", "--study", "joint_space", *words, "--dry-run", "--out", tmp_path / "o"
    )
    assert not (tmp_path / "o").exists()
    return result


@pytest.mark.parametrize("search", ["tpe", "pbt", "metapeft"])
@pytest.mark.parametrize(
    "setting,word",
    [
        ("options.rnak=8", "rank"),
        ("data=nonsense", "synth-rs"),
        ("data.options.test_per_class=-1", "test_per_class"),
        ("backbone=nonsense", "backbone 'nonsense'"),
        ("recipe.precision=fp61", "fp16"),
    ],
)
def test_what_a_search_could_not_run_is_refused(tmp_path, search, setting, word):
    result = dry(tmp_path, "--search", search, "--set", setting)
    assert result.exit_code == 2 and word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_search_that_cannot_search_the_space_is_refused(tmp_path):
    result = dry(tmp_path, "--search", "cmaes")
    assert result.exit_code == 2 and "cmaes needs" in result.stderr


def test_a_budget_in_seconds_is_its_cost(tmp_path):
    words = ("--search", "random", "--budget", "90s", "--repeats", 2, "--workers", 1)
    result = dry(tmp_path, *words)
    assert result.exit_code == 0
    assert "Estimated cost: 3 min 00 s of cpu, 3 min 00 s with 1 workers." in result.stdout


@pytest.mark.parametrize(
    "search,budget,trials",
    [("tpe", "4", 4), ("gp", "20epochs", 2), ("random", "3runs", 3), ("metapeft", "2", 2)],
)
def test_other_budgets_cost_so_many_whole_trials(tmp_path, monkeypatch, search, budget, trials):
    monkeypatch.setattr("harness.driver.run.probe_seconds", lambda spec, runtime: 60.0)
    result = dry(tmp_path, "--search", search, "--budget", budget, "--workers", 1)
    assert f"Estimated cost: {trials} min 00 s of cpu" in result.stdout
