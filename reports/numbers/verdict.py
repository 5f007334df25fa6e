"""The rule of docs/protocol.md: what paired differences over seeds allow to be said.

A seed is one replicate of a whole procedure, so one difference per seed is all that counts. Owns:
the rule, its limits and its words. Must not know: arms, runs, figures.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.reports.numbers.statistics import half_width

Word = Literal["better", "worse", "equivalent", "undecided", "not informative"]

LEVEL = 0.975
"""Of the interval that decides better or worse: 95 % for two contrasts (Bonferroni)."""
EQUIVALENT_LEVEL = 0.95
LEAST = 0.5
"""Points: a smaller mean difference is called neither better nor worse."""
MARGIN = 1.0
"""Points: an interval within ± this is called equivalent."""
TOO_WIDE = 2.0
"""Points: half-width of the interval at `LEVEL` beyond which nothing is learned."""
FEWEST = 6
"""Seeds below which nothing is learned either."""


class Contrast(NamedTuple):
    """Mean of paired differences in points, with its intervals, and the verdict."""

    mean: float
    sd: float
    n: int
    half_width: float
    """Of the 95 % interval."""
    deciding_half_width: float
    """Of the interval that decides better or worse."""
    word: Word


def judge(differences: NDArray[np.float64], level: float = LEVEL) -> Contrast:
    """The verdict on one arm minus another, a difference in points per seed.

    In this order: *better* if the deciding interval lies above 0 and the mean is at least `LEAST`,
    *worse* in the mirror image, *equivalent* if the 95 % interval lies within ± `MARGIN`, else
    *undecided*; of fewer than `FEWEST` seeds, or of an undecided one with too wide an interval,
    *not informative*. `level` is another one of the deciding interval, for more contrasts than two;
    what is too wide is seen at `LEVEL` all the same, because it is a matter of the data alone.

    Raises:
        ValueError: there is no difference, or one is not a number.
    """
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError("a verdict needs a finite difference for every seed")
    n, mean = len(differences), float(differences.mean())
    deciding = half_width(differences, level)
    equal = half_width(differences, EQUIVALENT_LEVEL)
    word: Word = "undecided"
    if n < FEWEST:
        word = "not informative"
    elif mean >= LEAST and mean - deciding > 0:
        word = "better"
    elif mean <= -LEAST and mean + deciding < 0:
        word = "worse"
    elif abs(mean) + equal <= MARGIN:
        word = "equivalent"
    elif half_width(differences, LEVEL) > TOO_WIDE:
        word = "not informative"
    sd = float(differences.std(ddof=1)) if n > 1 else float("nan")
    return Contrast(mean, sd, n, equal, deciding, word)
