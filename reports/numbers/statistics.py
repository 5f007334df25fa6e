"""Statistics on plain arrays: means over seeds, and what a comparison of searches needs.

Scores are better when higher. Intervals are 95 % unless they say otherwise.

Owns: the formulas, with their sources. Must not know: runs, files, figures.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

BOOTSTRAP = 10_000
FEWEST = 5
"""Repeats below which a bootstrap says nothing."""


def half_width(values: NDArray[np.floating[Any]], confidence: float) -> float:
    """Half of Student's t interval for the mean of known values; NaN for fewer than two."""
    n = len(values)
    if n < 2:
        return float("nan")
    return _quantile(confidence, n - 1) * float(values.std(ddof=1) / np.sqrt(n))


@functools.cache
def _quantile(confidence: float, degrees: int) -> float:
    """Of Student's t, for a two-sided interval."""
    return float(stats.t.ppf(0.5 + confidence / 2, degrees))


def mean_and_half_width(values: pd.Series[float]) -> tuple[float, float]:
    """Mean and 95 % Student-t half-width of the known values; NaN where they do not exist."""
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0:
        return float("nan"), float("nan")
    return float(known.mean()), half_width(known, 0.95)


def expected_best(select: Array, value: Array, most: int) -> Array:
    """Random search in closed form: expected `value` of the best of n by `select`, n = 1...most.

    n different ones of N are drawn: E = Σᵢ value₍ᵢ₎·[C(i,n) − C(i−1,n)]/C(N,n), with `value` in
    rising order of `select` (expected validation performance; Dodge et al. 2019). Of equal
    `select` each is equally likely to be the first, so they share their values' mean.
    """
    order = np.argsort(select, kind="stable")
    tied = np.unique(select[order], return_inverse=True)[1]
    means = np.bincount(tied, value[order]) / np.bincount(tied)
    ranked = means[tied]
    count = len(select)
    below = np.ones(count + 1)  # C(i, n) / C(N, n) for i = 0...N
    places = np.arange(count + 1)
    expected = []
    for n in range(1, min(most, count) + 1):
        below = below * np.maximum(places - n + 1, 0) / (count - n + 1)
        expected.append(float(np.diff(below) @ ranked))
    return np.array(expected)


def value_at(costs: Array, values: Array, at: Array) -> Array:
    """A step function: the last of `values` whose cost is not above `at`; NaN before the first."""
    places = np.searchsorted(costs, at, side="right") - 1
    return np.where(places < 0, np.nan, values[np.maximum(places, 0)])


def area(costs: Array, values: Array, start: float, end: float) -> float:
    """Mean of a step function over log cost from `start` to `end`; NaN if it begins later."""
    if not start < end or costs[0] > start:
        return float("nan")
    inner = costs[(costs > start) & (costs < end)]
    edges = np.concatenate([[start], inner, [end]])
    heights = value_at(costs, values, edges[:-1])
    return float(heights @ np.diff(np.log(edges)) / np.log(end / start))


def cost_to(costs: Array, regrets: Array, target: float) -> float:
    """The cost at which the regret first is at most `target`; inf if it never is."""
    reached = np.flatnonzero(regrets <= target)
    return float(costs[reached[0]]) if len(reached) else float("inf")


def seed_sd(scores: Array) -> float:
    """Standard deviation over seeds of the best tenth of the cells `[cells, seeds]`, pooled."""
    if scores.shape[1] < 2:
        return float("nan")
    best = np.argsort(-scores.mean(axis=1), kind="stable")[: max(1, len(scores) // 10)]
    return float(np.sqrt(scores[best].var(axis=1, ddof=1).mean()))


def ranked(
    values: dict[str, Array],
    seeds: NDArray[np.int64],
    reference: str | None,
    unranked: tuple[str, ...],
) -> pd.DataFrame:
    """Searches by one value per repeat: a row each, with what chance does from repeat to repeat.

    `seeds` are the training seeds of the repeats. `improves` is the probability that a repeat is
    better than one of the reference with the same training seed, ties by half; NaN without a
    reference. `rank` is the mean rank within the repeats that all have, 1 being best, ties share
    theirs; searches that are `unranked` have none: they have one repeat per training seed. The
    bounds of both are `_low` and `_high`; NaN: there is none. A missing value is worse than any
    other.
    """
    ranks = _ranks({name: own for name, own in values.items() if name not in unranked})
    rng = np.random.default_rng(0)
    rows = []
    for name, own in values.items():
        row: dict[str, Any] = {"search": name}
        better = (float("nan"),) * 3
        if reference is not None:
            compared = _improves(own, values[reference], seeds, rng)
            better = better if name == reference else compared
        row["improves"], row["improves_low"], row["improves_high"] = better
        place = ranks.get(name)
        row["rank"] = float("nan") if place is None else float(place.mean())
        row["rank_low"], row["rank_high"] = _bootstrap_mean(place, rng)
        rows.append(row)
    return pd.DataFrame(rows).set_index("search")


def holm(p: Array) -> tuple[Array, Array]:
    """Holm's correction of p-values, at 5 % for all of them together.

    Returns the adjusted values, and the level of the two-sided interval that excludes 0 exactly
    where the adjusted value is below 0.05. A NaN stays one, and counts as no comparison.
    """
    adjusted, levels = np.full(len(p), np.nan), np.full(len(p), np.nan)
    order = [int(n) for n in np.argsort(p, kind="stable") if not np.isnan(p[n])]
    largest, still, level = 0.0, True, 0.95
    for place, number in enumerate(order):
        left = len(order) - place
        largest = max(largest, min(1.0, left * p[number]))
        adjusted[number] = largest
        if still:  # after the first that is not rejected, none is
            level, still = 1 - 0.05 / left, bool(largest < 0.05)
        levels[number] = level
    return adjusted, levels


def _ranks(values: dict[str, Array]) -> dict[str, Array]:
    if not values:
        return {}
    count = min(map(len, values.values()))
    table = np.nan_to_num(np.array([own[:count] for own in values.values()]), nan=-np.inf)
    ranks = stats.rankdata(-table, axis=0)
    return dict(zip(values, ranks, strict=True))


def _bootstrap_mean(values: Array | None, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile interval of a mean over repeats."""
    if values is None or len(values) < FEWEST:
        return float("nan"), float("nan")
    drawn = values[rng.integers(0, len(values), (BOOTSTRAP, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _improves(
    own: Array, other: Array, seeds: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Probability that a repeat of the one is better than one of the other, with its interval.

    Bootstrap over repeats within training seeds (stratified; Agarwal et al. 2021).
    """
    own, other = (np.nan_to_num(each, nan=-np.inf) for each in (own, other))
    total, drawn, weights = 0.0, np.zeros(BOOTSTRAP), 0
    for seed in np.unique(seeds):
        mine, theirs = own[seeds[: len(own)] == seed], other[seeds[: len(other)] == seed]
        if not len(mine) or not len(theirs):
            continue
        wins = (mine[:, None] > theirs) + 0.5 * (mine[:, None] == theirs)
        total += wins.mean() * len(mine)
        weights += len(mine)
        if min(len(own), len(other)) >= FEWEST:
            rows = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), BOOTSTRAP)
            columns = rng.multinomial(len(theirs), np.full(len(theirs), 1 / len(theirs)), BOOTSTRAP)
            drawn += ((rows @ wins) * columns).sum(axis=1) / len(theirs)  # exact: halves
    if min(len(own), len(other)) < FEWEST:
        return total / weights, float("nan"), float("nan")
    low, high = np.quantile(drawn / weights, [0.025, 0.975])
    return total / weights, float(low), float(high)


def interactions(scores: Array, names: list[str]) -> pd.DataFrame:
    """Analysis of variance of a full factorial `[axis 1, ..., axis k, seeds]`.

    A row per effect: its share of the sum of squares between cells, degrees of freedom, F and p.
    Seeds are blocks, so what a seed shifts in all cells alike is no error. One seed: no F.
    """
    *sizes, seeds = scores.shape
    cells = scores.mean(axis=-1)
    between = float(((cells - cells.mean()) ** 2).sum())
    error = scores - cells[..., None] - scores.mean(axis=tuple(range(len(sizes)))) + cells.mean()
    error_df = (cells.size - 1) * (seeds - 1)
    rows = []
    for count in range(1, len(sizes) + 1):
        for chosen in itertools.combinations(range(len(sizes)), count):
            effect = np.zeros_like(cells)
            for some in range(count + 1):
                for kept in itertools.combinations(chosen, some):
                    away = tuple(axis for axis in range(len(sizes)) if axis not in kept)
                    sign = (-1) ** (count - some)
                    effect = effect + sign * cells.mean(axis=away, keepdims=True)
            squares = float((effect**2).sum())
            df = int(np.prod([sizes[axis] - 1 for axis in chosen]))
            ratio = p = float("nan")
            if seeds > 1 and df:
                noise = float((error**2).sum()) / error_df
                ratio = seeds * squares / df / noise if noise else float("inf")
                p = float(stats.f.sf(ratio, df, error_df))
            share = squares / between if between else float("nan")
            effect_name = " × ".join(names[axis] for axis in chosen)
            rows.append({"effect": effect_name, "share": share, "df": df, "F": ratio, "p": p})
    return pd.DataFrame(rows)


def foretold(early: Array, final: Array, kept: float) -> tuple[float, float]:
    """How well scores in mid-training foretell final ones.

    Kendall's tau-b of the two, and which share of the best tenth by `final` is among the share
    `kept` that is best by `early`. NaN of `early` is worse than any other.
    """
    early = np.nan_to_num(early, nan=-np.inf)
    best = np.argsort(-final, kind="stable")[: max(1, len(final) // 10)]
    going_on = np.argsort(-early, kind="stable")[: max(1, int(kept * len(early)))]
    tau = stats.kendalltau(early, final).statistic
    return float(tau), float(np.isin(best, going_on).mean())


def separately_best(scores: Array) -> tuple[int, ...]:
    """Of each axis of `[axis 1, ..., axis k]`, the value with the best mean over all others."""
    axes = range(scores.ndim)
    return tuple(
        int(scores.mean(axis=tuple(a for a in axes if a != axis)).argmax()) for axis in axes
    )


def best_from(scores: Array, start: tuple[int, ...]) -> tuple[int, ...]:
    """Of each axis, the best value with all others at `start`."""
    found = []
    for axis in range(scores.ndim):
        line = scores[tuple(slice(None) if a == axis else start[a] for a in range(scores.ndim))]
        found.append(int(line.argmax()))
    return tuple(found)
