"""Statistics of searches against enumeration, independent formulas, hand-made data, simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.reports.numbers import statistics as own
from harness.reports.numbers.statistics import (
    area,
    best_from,
    cost_to,
    expected_best,
    foretold,
    holm,
    interactions,
    ranked,
    seed_sd,
    separately_best,
    value_at,
)

NAN = float("nan")


@pytest.mark.parametrize(
    "select", [(0.1, 0.5, 0.3, 0.9, 0.2, 0.4), (0.5, 0.5, 0.3, 0.9, 0.9, 0.9), (1.0,) * 6]
)
def test_random_search_in_closed_form_is_the_mean_over_all_orders(select):
    value = np.array([7.0, 1.0, 4.0, 2.0, 8.0, 5.0])
    found = expected_best(np.array(select), value, 99)
    for n in range(1, 7):
        values = []
        for order in itertools.permutations(range(6), n):
            best = max(order, key=lambda i: (select[i], -order.index(i)))  # ties: the earliest
            values.append(value[best])
        assert found[n - 1] == pytest.approx(np.mean(values))
    assert len(found) == 6


def test_random_search_in_closed_form_is_what_simulation_finds():
    rng = np.random.default_rng(0)
    select, value = rng.normal(size=864), rng.normal(size=864)
    found = expected_best(select, value, 24)
    drawn = np.array([rng.permutation(864)[:24] for _ in range(20_000)])
    best = drawn[np.arange(20_000), select[drawn].argmax(axis=1)]
    error = value[best].std() / math.sqrt(20_000)
    assert abs(found[-1] - value[best].mean()) < 4 * error
    assert found[0] == pytest.approx(value.mean())


COSTS, REGRETS = np.array([1.0, 2.0, 8.0]), np.array([4.0, 2.0, 0.5])


def test_steps_are_never_interpolated():
    assert value_at(COSTS, REGRETS, np.array([1.0, 1.9, 2.0, 7.9, 8.0, 99.0])).tolist() == [
        *(4.0, 4.0, 2.0, 2.0, 0.5, 0.5)
    ]
    assert np.isnan(value_at(COSTS, REGRETS, np.array([0.9])))


def test_area_under_regret_by_hand():
    """From 1 to 16: 4 for one doubling, 2 for two, 0.5 for the last."""
    assert area(COSTS, REGRETS, 1.0, 16.0) == pytest.approx((4 + 2 * 2 + 0.5) / 4)
    assert area(COSTS, REGRETS, 2.0, 4.0) == pytest.approx(2.0)
    # A search that ends early keeps what it has.
    assert area(COSTS[:1], REGRETS[:1], 1.0, 16.0) == 4.0
    assert math.isnan(area(COSTS, REGRETS, 0.5, 16.0))  # it had nothing yet
    assert math.isnan(area(COSTS, REGRETS, 4.0, 4.0))


def test_cost_to_a_target_by_hand():
    assert [cost_to(COSTS, REGRETS, target) for target in (5, 4, 2, 1, 0.5)] == [1, 1, 2, 8, 8]
    assert cost_to(COSTS, REGRETS, 0.4) == math.inf
    assert cost_to(COSTS, np.full(3, NAN), 1.0) == math.inf


def test_the_spread_over_seeds_is_that_of_the_best_tenth():
    scores = np.zeros((20, 2))
    scores[3], scores[7] = (9.0, 11.0), (10.0, 14.0)
    assert seed_sd(scores) == pytest.approx(math.sqrt((2.0 + 8.0) / 2))
    assert math.isnan(seed_sd(scores[:, :1]))


# Searches against each other.


def table(values, seeds=None, unranked=()):
    arrays = {name: np.array(found, dtype=float) for name, found in values.items()}
    count = max(len(found) for found in arrays.values())
    seeds = np.zeros(count, dtype=int) if seeds is None else np.array(seeds)
    return ranked(arrays, seeds, next(iter(arrays)), unranked)


def test_ranks_and_probabilities_by_hand():
    found = table({"random": [1, 2, 3], "a": [2, 2, 9], "b": [0, 5, NAN]})
    # Repeat by repeat: a random b; b, then a and random share; a random b.
    assert found["rank"].tolist() == pytest.approx([(2 + 2.5 + 2) / 3, (1 + 2.5 + 1) / 3, 7 / 3])
    # 2 > 1, 2 = 2, 2 < 3, twice; 9 > all.
    assert found["improves"]["a"] == pytest.approx((1.5 + 1.5 + 3) / 9)
    assert found["improves"]["b"] == pytest.approx((0 + 3 + 0) / 9)  # nothing is worse than any
    assert math.isnan(found["improves"]["random"])
    assert found["rank_low"].isna().all()  # three repeats are too few for a bootstrap


def test_one_trial_per_seed_is_compared_within_its_seed_and_has_no_rank():
    """Six repeats over two seeds against two trials."""
    values = {"random": [1, 10, 2, 11, 3, 12], "one": [4, 14]}
    found = table(values, seeds=[0, 1, 0, 1, 0, 1], unranked=("one",))
    assert found.loc["one", "improves"] == 1  # never 4 against 10
    assert math.isnan(found.loc["one", "rank"]) and found.loc["random", "rank"] == 1


def test_ranks_are_within_the_repeats_that_all_have():
    found = table({"random": [1, 2, 9, 9], "a": [5, 5, 0, 0], "few": [2, 4]})
    assert found["rank"].tolist() == [3, 1, 2]


def test_holm_by_hand():
    """Of four: 0.01 × 4, 0.02 × 3, 0.015 is larger than the one before, and what has no p."""
    adjusted, levels = holm(np.array([0.02, 0.01, NAN, 0.9, 0.04]))
    assert adjusted[[1, 0, 4, 3]] == pytest.approx([0.04, 0.06, 0.08, 0.9])
    assert math.isnan(adjusted[2]) and math.isnan(levels[2])
    # The first is tried at 1.25 %, the second at 5/3 %; that one stands, and so do all after it.
    assert levels[[1, 0, 4, 3]] == pytest.approx([1 - 0.05 / 4, *[1 - 0.05 / 3] * 3])


def test_an_interval_at_holms_level_excludes_0_exactly_where_holm_rejects():
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(200):
        samples = [rng.normal(shift, 1, 8) for shift in (0, 0.5, 1, 1.5, 2)]
        tests = [stats.ttest_1samp(each, 0) for each in samples]
        adjusted, levels = holm(np.array([each.pvalue for each in tests]))
        for each, p, level in zip(tests, adjusted, levels, strict=True):
            low, high = each.confidence_interval(level)
            assert (not low <= 0 <= high) == (p < 0.05)
            rejected += p < 0.05
    assert 100 < rejected < 900


@pytest.fixture
def fewer_draws(monkeypatch):
    monkeypatch.setattr(own, "BOOTSTRAP", 400)


def simulate(shift, comparisons=300, repeats=20, searches=3):
    """Verdicts of fake comparisons: repeats share a seed's shift, one search is `shift` better."""
    rng = np.random.default_rng(1)
    seeds = np.arange(repeats) % 4
    for _ in range(comparisons):
        of_seed = rng.normal(0, 2, 4)[seeds]
        values = {f"s{n}": 50 + of_seed + rng.normal(0, 1, repeats) for n in range(searches)}
        values["s1"] = values["s1"] + shift
        yield ranked(values, seeds, "s0", ())


@pytest.mark.slow
def test_intervals_cover_what_they_are_to_cover(fewer_draws):
    """Of 300: bootstrap of 20 repeats about 93 of 95 %."""
    truth = 0.7
    win = stats.norm.cdf(truth / math.sqrt(2))
    hits = {"improves": [], "rank": []}
    rank_truth = 1 + 2 * (1 - win)
    for t in simulate(truth):
        row = t.loc["s1"]
        hits["improves"].append(row["improves_low"] <= win <= row["improves_high"])
        hits["rank"].append(row["rank_low"] <= rank_truth <= row["rank_high"])
    assert 0.89 < np.mean(hits["improves"]) < 0.985
    assert 0.89 < np.mean(hits["rank"]) < 0.985


# The landscape.


def residual(design, y):
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def dummies(index, size):
    return np.eye(size)[index][:, 1:]


def test_the_analysis_of_variance_is_that_of_nested_linear_models():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(3, 4, 5)) + np.arange(4)[:, None] * np.arange(3)[:, None, None]
    p, d, s = (index.ravel() for index in np.indices(scores.shape))
    y = scores.ravel()
    one = np.ones((len(y), 1))
    columns = {
        "seeds": dummies(s, 5),
        "p": dummies(p, 3),
        "d": dummies(d, 4),
    }
    columns["p × d"] = np.einsum("na,nb->nab", columns["p"], columns["d"]).reshape(len(y), -1)
    full = np.hstack([one, *columns.values()])
    df = len(y) - full.shape[1]
    found = interactions(scores, ["p", "d"]).set_index("effect")
    assert list(found.index) == ["p", "d", "p × d"]
    without = np.hstack([one, columns["seeds"], columns["p"], columns["d"]])
    squares = residual(without, y) - residual(full, y)
    ratio = squares / 6 / (residual(full, y) / df)
    row = found.loc["p × d"]
    assert (row["df"], row["F"]) == (6, pytest.approx(ratio))
    assert row["p"] == pytest.approx(stats.f.sf(ratio, 6, df))
    main = residual(np.hstack([one, columns["seeds"], columns["d"]]), y) - residual(without, y)
    assert found.loc["p", "F"] == pytest.approx(main / 2 / (residual(full, y) / df))
    assert found["share"].sum() == pytest.approx(1)


def test_three_axes_share_the_variation_and_without_interaction_none_is_found():
    rng = np.random.default_rng(4)
    shape = (3, 4, 2)
    sums = sum(np.ix_(*(rng.normal(size=n) for n in shape)))
    found = interactions(sums[..., None] + rng.normal(0, 0.1, (*shape, 6)), ["a", "b", "c"])
    assert found["share"].sum() == pytest.approx(1)
    assert (found["p"][:3] < 1e-6).all() and (found["p"][3:] > 0.01).all()
    one_seed = interactions(sums[..., None], ["a", "b", "c"])
    assert one_seed["F"].isna().all() and one_seed["share"][3:].max() < 1e-20


def test_a_shift_of_all_cells_by_a_seed_is_no_error():
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(3, 4, 5))
    shifted = scores + rng.normal(0, 50, 5)
    plain, moved = (interactions(each, ["p", "d"])["F"] for each in (scores, shifted))
    assert moved.to_numpy() == pytest.approx(plain.to_numpy())


def test_how_well_early_scores_foretell_final_ones_by_hand():
    final = np.array([1.0, 2.0, 3.0, 4.0])
    # One pair of six is in another order: tau = (5 - 1) / 6.
    assert foretold(np.array([1.0, 3.0, 2.0, 4.0]), final, 0.5) == pytest.approx((4 / 6, 1.0))
    # The best of all is last early, as what is missing is.
    missing = np.array([1.0, 2.0, 3.0, np.nan])
    assert foretold(missing, final, 0.75) == pytest.approx((0.0, 0.0))
    assert foretold(missing, final, 1.0)[1] == 1.0
    # Two of the 20 are the best tenth; one of them is in the best third (six).
    early = np.arange(20.0)
    early[18] = 12.5
    assert foretold(early, np.arange(20.0), 1 / 3)[1] == 0.5


def test_separately_best_values_can_miss_the_best_cell():
    scores = np.array([[5.0, 5.0, 5.0], [9.0, 0.0, 0.0], [4.0, 6.0, 0.0]])
    assert separately_best(scores) == (0, 0)  # means 5, 3, 3.3 and 6, 3.7, 1.7
    assert best_from(scores, (2, 2)) == (0, 1)
    assert best_from(scores, (0, 0)) == (1, 0)
