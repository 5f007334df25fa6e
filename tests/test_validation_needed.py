"""Choosing on parts of a dev set, on bits that were made up."""

from __future__ import annotations

import numpy as np
import pytest

from harness.findings.validation import IMBALANCE, Cells, chosen_on, subset

LABELS = np.repeat(np.arange(4), 100)


@pytest.mark.parametrize("share,each", [(1.0, 100), (0.1, 10), (0.001, 1)])
def test_a_balanced_part_has_as_many_of_every_class(share, each):
    images = subset(LABELS, "balanced", share, np.random.default_rng(0))
    assert len(set(images)) == len(images)
    assert list(np.bincount(LABELS[images])) == [each] * 4


def test_a_long_tailed_part_falls_by_the_imbalance_in_any_order_of_classes():
    orders = set()
    for seed in range(20):
        images = subset(LABELS, "long-tailed", 1.0, np.random.default_rng(seed))
        counts = np.bincount(LABELS[images])
        assert sorted(counts) == [100 / IMBALANCE, 22, 46, 100]
        orders.add(tuple(np.argsort(counts)))
    assert len(orders) > 5


def test_class_mean_and_micro_choose_differently_on_a_tail():
    labels = np.array([0] * 8 + [1] * 2)
    hits = np.array([[True] * 8 + [False] * 2, [True] * 5 + [False] * 3 + [True] * 2])
    cells = Cells(hits, labels, np.array([10.0, 20.0]))
    everything = np.arange(10)
    assert chosen_on(cells, everything, "micro") == (10, 10.0)  # 8 of 10 against 7
    assert chosen_on(cells, everything, "class mean") == (10, 20.0)  # 1/2 against 13/16


def test_equal_cells_share_their_test_score():
    hits = np.array([[True, False], [True, False], [False, False]])
    cells = Cells(hits, np.array([0, 1]), np.array([10.0, 30.0, 90.0]))
    assert chosen_on(cells, np.array([0, 1]), "class mean") == (2, 20.0)
