"""Reports of which a part is missing, was not chosen, or needs more digits than four."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.runs import made_run, study

from harness.reports.figures.points import points as drawn
from harness.reports.files.csv_file import write_csv
from harness.reports.files.details import _by_interest
from harness.reports.files.write import write_report
from harness.reports.numbers.fronts import _over_seeds, _summary
from harness.reports.numbers.run import load_run
from harness.reports.numbers.sweep import choose, over_nuisance, summarise
from harness.reports.text.trials import Row, TrialList
from harness.store.runs import write_run
from harness.store.search_log import Ask, Tell, append_event
from harness.study.axes import Axis
from harness.study.figures import Points

POINTS = Points(rows="positions", title="Positions")
POSITIONS = Axis(field="positions", values=("mlp1", "q", "v"), label="position")


def test_a_value_without_a_score_yet_is_a_dash(tmp_path):
    made = study(axes=(POSITIONS,), views=(POINTS,), seeds=(0, 1))
    scored, failed, nothing = [(0.5, 0.6), (0.5, 0.7)], ["FAILED", "FAILED"], [None, None]
    folder = made_run(tmp_path, made, [scored, failed, nothing])
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    rows = [[word.strip() for word in line.split("|")] for line in text.splitlines()]
    of = {v: [row[2:-1] for row in rows if len(row) > 2 and row[1] == v] for v in ("q", "v")}
    scores, costs = of["v"]
    assert set(scores[:-1]) == set(costs) == {"-"} and scores[-1] == "0"  # none diverged
    assert of["q"][0] == scores and of["q"][1] == ["1", "1.0"]  # a failed trial costs
    assert "nan" not in text


def test_a_search_that_has_not_tried_every_value_is_reported(tmp_path):
    made = study(axes=(POSITIONS,), views=(POINTS,), seeds=(0,))
    folder = made_run(tmp_path, made, [[(0.5, 0.6)], [(0.4, 0.5)], [None]])
    cells = [{"positions": value} for value in POSITIONS.values]
    asked = zip(cells, load_run(folder).trials["trial_id"], strict=True)
    write_run(folder, made, [], {"semantics": "3"})
    for cell, trial_id in [*asked][:2]:
        append_event(folder.log(0), Ask(params={}, cell=cell, seed=0, trial_id=trial_id))
        told = Tell(
            trial_id=trial_id, status="COMPLETE", objective=0.5, epochs=1, device_s=1.0, flops=1
        )
        append_event(folder.log(0), told)
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "| v " in text and "nan" not in text


def test_a_figure_has_no_trial_at_a_nuisance_value_that_was_not_chosen(tmp_path):
    rates = Axis(field="recipe.lr", values=(0.1, 0.2), label="lr", role="nuisance")
    made = study(axes=(POSITIONS, rates), views=(POINTS,), seeds=(0, 1))
    poor, good = (0.2, 0.1), (0.6, 0.7)
    results = [[good, good], ["DIVERGED", poor], [poor, poor], [good, good]] * 2
    run = load_run(made_run(tmp_path, made, results[:6]))
    summary = summarise(run)
    figure = drawn(run, over_nuisance(run, summary), choose(run, summary), POINTS)
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [pytest.approx([70, 70])] * 3
    assert not [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]


def test_settings_keep_their_digits_and_scores_have_four_decimals(tmp_path):
    rates = [1e-5, 3e-5, 0.003125, 0.5, float("nan")]
    table = pd.DataFrame({"recipe.lr": rates, "test": [61.23456, 1e-5, 0.5, 2.0, 3.0]})
    text = write_csv(tmp_path / "t.csv", table, exact=("recipe.lr",)).read_text()
    assert text.splitlines() == [
        "recipe.lr,test",
        *("1e-05,61.2346", "3e-05,0.0000", "0.003125,0.5000", "0.5000,2.0000", ",3.0000"),
    ]


def test_details_go_to_the_least_loss_first():
    rows = [
        Row(trial_id=name, status="COMPLETE", command=None, words=["c", "0", "complete", loss])
        for name, loss in (("middle", "1.0"), ("worst", "9.0"), ("best", "0.5"))
    ]
    listed = TrialList(columns=[], rows=rows, count=3, failures=[], failed=0, example=None, axes=1)
    assert [*_by_interest(listed, "val_loss")] == ["best", "middle", "worst"]
    assert [*_by_interest(listed, "class_mean")] == ["worst", "middle", "best"]


def test_a_volume_is_compared_in_the_seeds_of_its_repeats():
    """Two repeats on three seeds: the third seed's random search is not theirs."""
    points = pd.DataFrame({"arm": "a", "repeat": [0, 1], "class_mean": 0.6, "trainable_params": -5})
    points["volume"] = [30.0, 40.0]
    read = SimpleNamespace(
        logs={("a", 0): [], ("a", 1): []},
        seeds=(7, 8, 9),
        study=SimpleNamespace(objectives=("class_mean", "trainable_params")),
    )
    expected = np.array([[28.0], [37.0], [90.0]])
    row = _summary(points, read, np.array([0.1, -10.0]), expected).loc["a"]
    assert (row["volume"], row["minus_random"], row["seeds"]) == (35.0, 2.5, 2)
    assert row["minus_random_ci"] == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_repeats_are_no_replicates_of_a_seed():
    """Two seeds a point apart, whose many repeats differ little: the interval is of two values."""
    values = pd.Series([1.0, 2.0] * 50)
    mean, half = _over_seeds(values, values.index.to_numpy() % 2)
    assert (mean, half) == (1.5, pytest.approx(12.706 * 0.5, rel=1e-3))
    assert _over_seeds(values, values.index.to_numpy() % 1)[1] < 0.2
