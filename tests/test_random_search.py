"""Random search in closed form: against all orders of small spaces, and as the search draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.reports.numbers.random_search import expected_by_cost
from harness.reports.numbers.statistics import expected_best

SELECT = np.array([0.1, 0.5, 0.3, 0.9, 0.2])
VALUES = np.array([[7.0, 1.0, 4.0, 2.0, 8.0], [0.0, 1.0, 0.0, 0.0, 3.0]])


def by_enumeration(select, values, costs, needs, limit):
    """Mean over all orders in which the cells can be drawn; those without a choice left out."""
    found = []
    for order in itertools.permutations(range(len(select))):
        spent, best = 0, None
        for cell in order:
            if spent + needs[cell] > limit:
                break
            spent += costs[cell]
            if best is None or select[cell] > select[best]:
                best = cell
        if best is not None:
            found.append(values[:, best])
    return np.mean(found, axis=0) if found else np.full(len(values), np.nan)


def test_it_is_the_mean_over_all_orders_whatever_cells_cost():
    costs = np.array([3, 1, 4, 2, 2])
    found, chance = expected_by_cost(SELECT, VALUES, costs, costs, 14)
    for limit in range(15):
        by_hand = by_enumeration(SELECT, VALUES, costs, costs, limit)
        np.testing.assert_allclose(found[:, limit], by_hand, err_msg=str(limit))
    assert chance.tolist()[:5] == pytest.approx([0, 1 / 5, 3 / 5, 4 / 5, 1])
    assert found[0, 12:] == pytest.approx(2.0)  # every cell was drawn


def test_epochs_that_a_trial_did_not_take_are_given_back():
    """Two cells diverge after 3 of 10 epochs, and may not begin with fewer than 10 left."""
    costs, needs = np.array([10, 3, 10, 10, 3]), np.full(5, 10)
    found, _ = expected_by_cost(SELECT, VALUES, costs, needs, 50)
    for limit in (9, 10, 12, 13, 20, 23, 26, 33, 50):
        by_hand = by_enumeration(SELECT, VALUES, costs, needs, limit)
        np.testing.assert_allclose(found[:, limit], by_hand, atol=1e-12, err_msg=str(limit))


def test_with_equal_costs_it_is_the_formula_for_a_number_of_trials():
    rng = np.random.default_rng(0)
    select, value = rng.integers(0, 40, 60) / 40, rng.normal(size=60)  # with ties
    costs = np.full(60, 2)
    found, _ = expected_by_cost(select, value[None], costs, costs, 121)
    assert found[0, 2:121:2] == pytest.approx(expected_best(select, value, 60))
    assert found[0, 3::2] == pytest.approx(found[0, 2:121:2])
    assert np.isnan(found[0, :2]).all()
