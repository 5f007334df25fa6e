"""Two runs beside each other: cells paired by seed, settings that differ, costs, and refusals."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from support.cli import harness
from support.fake_trials import Fake, controls, written
from support.records import TINY
from support.runs import RESULTS, made_run, study

from harness.errors import UserError
from harness.reports.numbers.beside import load_beside
from harness.store.store import Store
from harness.study.axes import Axis

POSITIONS = Axis(field="positions", values=("mlp1", "q"), label="position")
OTHER_RATE = TINY.with_values({"recipe.lr": 0.05}, source="test")


@pytest.fixture
def runs(tmp_path):
    """The made run with holes, and one at another rate, of one more depth and another seed."""
    depths = Axis(field="depth", values=("last:1", "last:2", "last:4"), label="depth")
    second = study(name="other", base=OTHER_RATE, seeds=(1, 2), axes=(POSITIONS, depths))
    results = [[(0.5, 0.70), (0.5, 0.75)]] * 4 + [[(0.5, 0.9), None]] * 2
    return made_run(tmp_path, study(), RESULTS), made_run(tmp_path, second, results)


def test_cells_are_paired_by_the_seeds_that_both_have(runs):
    found = load_beside(*runs)
    cells = found.cells.set_index(["positions", "depth"])
    assert len(cells) == 8  # six of the first, then the two that only the second has
    assert [*cells.index[-2:]] == [("mlp1", "last:4"), ("q", "last:4")]
    one = cells.loc["mlp1", "last:1"]
    assert (one["one"], one["other"]) == (pytest.approx(61), pytest.approx(72.5))
    assert one["difference"] == pytest.approx(70 - 62) and one["paired"] == 1  # seed 1 alone
    assert math.isnan(one["difference_ci"])
    alone = cells.loc["mlp1", "last:3"]
    assert math.isnan(alone["other"]) and alone["paired"] == 0 and not math.isnan(alone["one"])
    unscored = cells.loc["q", "last:2"]
    assert math.isnan(unscored["one"]) and math.isnan(unscored["difference"])


def test_an_interval_is_of_the_differences_and_not_of_the_scores(tmp_path):
    rises = [[(0.5, 0.2), (0.5, 0.6)]] * 6
    shifted = [[(0.5, 0.3), (0.5, 0.72)]] * 6
    second = study(name="other", base=OTHER_RATE)
    found = load_beside(made_run(tmp_path, study(), rises), made_run(tmp_path, second, shifted))
    row = found.cells.iloc[0]
    assert row["difference"] == pytest.approx(11) and row["paired"] == 2
    assert row["difference_ci"] == pytest.approx(12.7062, rel=1e-3)  # t(0.975, 1) of 10 and 12
    assert row["one_ci"] == pytest.approx(254.1, rel=1e-3)


def test_settings_that_differ_and_no_others_are_named(runs):
    found = load_beside(*runs)
    assert found.settings.loc["recipe.lr"].tolist() == [str(TINY.recipe.lr), "0.05"]
    assert found.settings.loc["seeds"].tolist() == ["0, 1", "1, 2"]
    assert set(found.settings.index) == {"study", "seeds", "values of depth", "recipe.lr"}


@pytest.mark.slow
def test_the_command_writes_a_page_a_text_and_a_table(runs):
    one, other = runs
    result = harness("report", "made", "--beside", "other", "--out", one.store.root)
    assert result.exit_code == 0, result.output
    assert "3 cells have scores of the same seeds in both" in result.stdout
    page = one.report / "beside_other.html"
    assert f"Page       {page}\n" in result.stdout
    text = page.read_text()
    for word in ("recipe.lr", "0.05", "+8.00", "harness report made --beside other", "72.5 ± "):
        assert word in text
    table = pd.read_csv(one.report / "beside_other.csv")
    pd.testing.assert_frame_equal(
        table, load_beside(one, other).cells, check_exact=False, atol=1e-3, check_dtype=False
    )
    words = (one.report / "beside_other.md").read_text()
    assert "## Settings that differ" in words and "| mlp1, last:1" in words
    # By a folder in another store as well, and the other way round.
    back = harness("report", other.path, "--beside", one.path, "--out", one.store.root)
    assert back.exit_code == 0 and "-8.00" in (other.report / "beside_made.html").read_text()


def test_what_cannot_stand_beside_is_refused(runs, tmp_path):
    one = runs[0]
    with pytest.raises(UserError, match="that is the same run"):
        load_beside(one, one)
    alpha = Axis(field="alpha", values=(1.0, 2.0), label="alpha")
    others = study(name="others", axes=(POSITIONS, alpha), views=(), reference=None)
    with pytest.raises(UserError, match="its cells are of alpha, positions, those of made of"):
        load_beside(one, made_run(tmp_path, others, [[None, None]] * 4))
    deep = Axis(field="depth", values=("last:9",), label="depth")
    apart = study(name="apart", axes=(POSITIONS, deep), views=(), reference=None)
    with pytest.raises(UserError, match="no cell in common with made"):
        load_beside(one, made_run(tmp_path, apart, [[None, None]] * 2))
    store = Store(tmp_path / "arms")
    arms = written(controls(store, Fake(store, lambda spec: 0.5)), store)
    with pytest.raises(UserError, match="cells is no sweep"):
        load_beside(one, arms)
    paper = harness("report", "--paper", "--beside", "x")
    assert paper.exit_code == 2 and "--beside needs a run" in paper.stderr
