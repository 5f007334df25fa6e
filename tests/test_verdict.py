"""The rule of docs/protocol.md, at its limits, and its error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.reports.numbers.verdict import FEWEST, judge


def with_moments(mean, sd, n=12):
    """n values with exactly this mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    values = (values - values.mean()) / values.std(ddof=1)
    return mean + sd * values


def deciding(sd, n=12):
    return stats.t.ppf(0.9875, n - 1) * sd / np.sqrt(n)


@pytest.mark.parametrize("sign,word", [(1, "better"), (-1, "worse")])
def test_a_difference_needs_an_interval_off_zero_and_a_size(sign, word):
    limit = deciding(1.0)
    assert judge(with_moments(sign * (limit + 0.01), 1.0)).word == word
    assert judge(with_moments(sign * (limit - 0.01), 1.0)).word == "undecided"
    assert judge(with_moments(sign * 0.51, 0.3)).word == word
    assert judge(with_moments(sign * 0.49, 0.3)).word == "equivalent"


def test_equivalence_is_an_interval_within_one_point():
    reach = stats.t.ppf(0.975, 11) * 0.9 / np.sqrt(12)
    assert judge(with_moments(0.99 - reach, 0.9)).word == "equivalent"
    assert judge(with_moments(-(0.99 - reach), 0.9)).word == "equivalent"
    assert judge(with_moments(1.01 - reach, 0.9)).word == "undecided"


def test_what_is_too_wide_or_too_few_is_not_informative():
    wide = 2.01 / deciding(1.0)
    assert judge(with_moments(0.3, wide)).word == "not informative"
    assert judge(with_moments(0.3, 1.99 / deciding(1.0))).word == "undecided"
    assert judge(with_moments(9.0, wide)).word == "better"
    assert judge(with_moments(9.0, 0.1, FEWEST - 1)).word == "not informative"
    assert judge(with_moments(9.0, 0.1, FEWEST)).word == "better"
    assert judge(np.array([1.0])).word == "not informative"


def test_figures_are_those_of_students_t():
    found = judge(with_moments(0.7, 1.3))
    assert found.mean == pytest.approx(0.7) and found.sd == pytest.approx(1.3)
    interval = stats.ttest_1samp(with_moments(0.7, 1.3), 0).confidence_interval(0.975)
    assert found.mean - found.deciding_half_width == pytest.approx(interval.low)


def test_no_score_gives_no_verdict():
    for values in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite difference"):
            judge(np.array(values))
