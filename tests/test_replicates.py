"""One choice per seed: by its own scores, at its own cost, whatever other seeds say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.reports.numbers.replicates import choices_by_seed


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
