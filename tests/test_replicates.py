"""One choice per seed: by its own scores, at its own cost, whatever other seeds say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from support.runs import made_run, study

from harness.reports.files.anew import write_anew
from harness.reports.numbers.replicates import choices_by_seed, repeated
from harness.reports.numbers.run import load_run


def table(rows):
    return pd.DataFrame(rows, columns=["seed", "cell", "select", "test", "cost"])


def test_each_seed_chooses_pays_and_is_scored_by_itself():
    scores = table(
        [
            (7, "a", 50.0, 40.0, 1.0),
            (3, "a", 90.0, 41.0, 2.0),
            (7, "b", 60.0, 30.0, 4.0),
            (3, "b", 10.0, 99.0, 8.0),
            (7, "c", np.nan, np.nan, 16.0),  # failed: paid for, never chosen
        ]
    )
    found = choices_by_seed(scores)
    assert found.to_dict("records") == [
        {"seed": 7, "cell": "b", "select": 60, "test": 30, "row": 2, "cost": 21, "tried": 2},
        {"seed": 3, "cell": "a", "select": 90, "test": 41, "row": 1, "cost": 10, "tried": 2},
    ]


def test_ties_go_to_the_earlier_row_and_negative_scores_are_scores():
    scores = table([(0, "z", -2.0, 1.0, 1.0), (0, "a", -1.0, 2.0, 1.0), (0, "b", -1.0, 3.0, 1.0)])
    assert choices_by_seed(scores)["cell"].tolist() == ["a"]
    assert choices_by_seed(scores.iloc[::-1])["cell"].tolist() == ["b"]


def test_a_seed_without_a_score_chooses_nothing():
    scores = table([(0, "a", np.nan, np.nan, 1.0), (1, "a", 5.0, 6.0, 1.0)])
    assert choices_by_seed(scores)["seed"].tolist() == [1]
    assert choices_by_seed(scores.iloc[:1]).empty


FLIPPED = [
    [(0.50, 0.40), (0.50, 0.42)],  # by the mean over seeds the best of all: 0.50
    [(0.60, 0.55), (0.10, 0.57)],  # seed 0's own choice
    [(0.20, 0.30), (0.55, 0.32)],  # seed 1's
    ["FAILED", None],
    ["DIVERGED", "DIVERGED"],
    [(0.40, 0.80), (0.40, 0.82)],
]


def test_a_sweep_says_what_choosing_in_each_seed_brings(tmp_path):
    folder = made_run(tmp_path, study(), FLIPPED)
    again = repeated(load_run(folder))
    assert again.counts == [(1, 1), (2, 1)] and again.mean == pytest.approx((55 + 32) / 2)
    assert again.half_width == pytest.approx(12.7062 * (55 - 32) / 2, rel=1e-4)
    write_anew(folder)
    rows = pd.read_csv(folder.report / "choices_by_seed.csv")
    assert rows["depth"].tolist() == ["last:2", "last:3"] and rows["tried"].tolist() == [5, 5]
    assert rows["select_class_mean"].tolist() == pytest.approx([60, 55])
    assert rows["test_class_mean"].tolist() == pytest.approx([55, 32])
    assert rows["chosen_by"].tolist() == [1, 1]
    text = (folder.report / "report.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("- The choice repeated")]
    assert "43.5 ± 146.1 % test class mean over 2 seeds, +2.50 points to the chosen cell" in line
    assert "position = mlp1, depth = last:2 (1 of 2); position = mlp1, depth = last:3 (1 of" in line
    assert line.endswith("2 seeds lack scores of some cells.")


def test_one_seed_repeats_nothing(tmp_path):
    folder = made_run(tmp_path, study(seeds=(0,)), [result[:1] for result in FLIPPED])
    assert repeated(load_run(folder)) is None
