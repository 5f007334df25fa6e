"""A training seed as one replicate: means per seed, what chance leaves to them, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.reports.numbers.contrasts import by_seed, contrasts, within_seeds
from harness.search.choice import search_chance

NAN = float("nan")


def final(values):
    """Search -> seed -> scores of its repeats, as a row per repeat."""
    rows = [
        {"search": name, "seed": seed, "test": score}
        for name, seeds in values.items()
        for seed, scores in seeds.items()
        for score in scores
    ]
    return pd.DataFrame(rows)


def test_repeats_are_averaged_within_their_seed():
    found = by_seed(final({"a": {3: [1.0, 3.0], 5: [10.0], 7: [NAN, 4.0]}}), ["test"])
    assert found[["search", "seed", "repeats"]].values.tolist() == [
        ["a", 3, 2],
        ["a", 5, 1],
        ["a", 7, 1],
    ]
    assert found["test"].tolist() == [2, 10, 4]
    assert found["test_sd"][0] == pytest.approx(math.sqrt(2)) and found["test_sd"][1:].isna().all()


def test_what_chance_leaves_to_a_mean_over_seeds_by_hand():
    """Standard errors of 2/√4 and 3/√9 per seed; of their mean √(1 + 1)/2; 3 + 8 degrees."""
    half = search_chance(np.array([2.0, 3.0]), np.array([4.0, 9.0]))
    assert half == pytest.approx(stats.t.ppf(0.975, 11) * math.sqrt(2) / 2)
    assert math.isnan(search_chance(np.array([2.0, NAN]), np.array([4.0, 1.0])))
    one = np.array([1.0, 2.0, 4.0, 4.0])
    low, high = stats.ttest_1samp(one, 0).confidence_interval(0.95)
    assert search_chance(np.array([one.std(ddof=1)]), np.array([4.0])) == pytest.approx(
        (high - low) / 2
    )


def test_chance_is_covered_when_all_repeats_are_done_again():
    rng = np.random.default_rng(2)
    truth, hits = np.array([50.0, 60.0, 40.0]), 0
    for _ in range(500):
        own = rng.normal(truth[:, None], [[1.0], [4.0], [2.0]], (3, 12))
        half = search_chance(own.std(axis=1, ddof=1), np.full(3, 12.0))
        hits += abs(own.mean() - truth.mean()) <= half
    assert 0.92 < hits / 500 < 0.98


def of_seeds(values):
    """Arms -> a score per seed."""
    return pd.concat(
        [
            pd.DataFrame(
                {"search": n, "seed": range(len(v)), "test": v, "repeats": 4.0, "test_sd": 1.0}
            )
            for n, v in values.items()
        ]
    )


def test_differences_are_paired_by_seed_and_judged_by_the_rule():
    """A seed's own level, which both share, is out of their difference."""
    level = np.array([0.0, 9.0, -7.0, 3.0, 5.0, 1.0, -2.0, 4.0])
    wiggle = np.array([0.1, -0.1, 0.2, -0.2, 0.1, -0.1, 0.3, -0.3])
    arms = {"random": 50 + level, "same": 50.2 + level + wiggle, "good": 53 + level - wiggle}
    found = contrasts(of_seeds(arms), list(arms), ("random",)).set_index(["first", "second"])
    assert found.index.tolist() == [("same", "random"), ("good", "random"), ("good", "same")]
    assert found["mean"].tolist() == pytest.approx([0.2, 3, 2.8])
    assert found["verdict"].tolist() == ["equivalent", "better", "better"]
    assert found["seeds"].tolist() == [8, 8, 8]
    by_hand = stats.ttest_rel(arms["same"], arms["random"])
    row = found.loc["same", "random"]
    assert row["p"] == pytest.approx(by_hand.pvalue) and row["p_holm"] == pytest.approx(row["p"])
    low, high = by_hand.confidence_interval(0.95)
    assert row["half_width"] == pytest.approx((high - low) / 2)
    # Of search chance: 4 repeats in each of 8 seeds; the reference has none.
    one = stats.t.ppf(0.975, 24) * math.sqrt(8 / 4) / 8
    assert row["chance_half_width"] == pytest.approx(one)
    assert found.loc[("good", "same"), "chance_half_width"] == pytest.approx(math.sqrt(2) * one)


def test_more_pairs_need_a_wider_interval():
    """Alone, the protocol's level calls it better; among 28 pairs it is not."""
    rng = np.random.default_rng(0)
    differences = np.array([0.4, 2.2, 0.4, 1.9, 0.6, 1.8])
    assert 0.05 / 28 < stats.ttest_1samp(differences, 0).pvalue < 0.025
    arms = {"a": np.zeros(6), "b": differences}
    assert contrasts(of_seeds(arms), ["a", "b"], ())["verdict"].tolist() == ["better"]
    arms |= {f"c{n}": rng.normal(0, 1, 6) for n in range(6)}
    found = contrasts(of_seeds(arms), list(arms), ()).iloc[0]
    assert (found["verdict"], found["verdict_alone"]) == ("undecided", "better")
    assert found["p_holm"] > 0.05


@pytest.mark.parametrize("seeds,words", [(1, "1 seed of at least 6"), (5, "5 seeds of at least 6")])
def test_too_few_seeds_are_not_informative_whatever_the_difference(seeds, words):
    values = {"a": np.arange(seeds) * 1.0, "b": np.arange(seeds) + 30.0}
    (row,) = contrasts(of_seeds(values), ["a", "b"], ()).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not informative", words)
    assert row["mean"] == 30 and row["chance_half_width"] > 0


def test_a_seed_that_one_arm_lacks_is_out_of_the_pair():
    frame = of_seeds({"a": np.arange(7.0), "b": np.arange(7.0) + 2})
    frame.loc[(frame["search"] == "b") & (frame["seed"] == 3), "test"] = NAN
    (row,) = contrasts(frame, ["a", "b"], ()).to_dict("records")
    assert row["seeds"] == 6 and row["mean"] == 2 and row["verdict"] == "better"


def test_too_wide_an_interval_is_the_reason():
    values = {"a": np.zeros(6), "b": np.array([30.0, -30, 20, -25, 10, 2])}
    (row,) = contrasts(of_seeds(values), ["a", "b"], ()).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not informative", "too wide an interval")


@pytest.mark.slow
def test_of_equal_searches_any_is_called_different_in_at_most_five_percent():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        level = rng.normal(0, 3, 12)
        arms = {f"s{n}": 50 + level + rng.normal(0, 1, 12) for n in range(4)}
        words = contrasts(of_seeds(arms), list(arms), ())["verdict"]
        wrong += words.isin(["better", "worse"]).any()
    assert wrong / 300 < 0.08


def test_within_a_seed_a_repeat_is_a_replicate():
    """Beside one number per seed, by scipy; certain, too few and unexpected ones are left out."""
    rng = np.random.default_rng(3)
    scores = {
        "good": {0: 50.6 + rng.normal(0, 1, 100), 1: 50 + rng.normal(0, 0.5, 100)},
        "few": {0: np.full(99, 70.0), 1: np.array([*(70.0,) * 99, NAN]), 2: np.full(100, 70.0)},
        "learned": {0: np.array([60.0]), 1: np.array([60.0])},
    }
    expected = pd.DataFrame({"seed": [0, 1, 2], "test": [50.0, 50.0, NAN]})
    found = within_seeds(final(scores), expected, ("learned",))
    assert found[["search", "seed", "repeats"]].values.tolist() == [
        ["good", 0, 100],
        ["good", 1, 100],
    ]
    assert found["verdict"].tolist() == ["better", "equivalent"]
    tested = stats.ttest_1samp(scores["good"][0], 50.0)
    low, high = tested.confidence_interval(0.95)
    assert found["mean"][0] == pytest.approx((high + low) / 2 - 50)
    assert found["half_width"][0] == pytest.approx((high - low) / 2)
    assert found["p_holm"][0] == pytest.approx(2 * tested.pvalue, rel=1e-6, abs=0)
    assert within_seeds(final(scores)[:0], expected, ()).empty
