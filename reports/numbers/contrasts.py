"""Searches with a training seed as one replicate of the whole procedure.

Repeats of a search within a seed differ by the search's chance alone, so they are averaged there;
what is said of a search, and of two of them, rests on one value per seed. How far the chance of the
repeats that were run still moves those means is a number of its own (Monte-Carlo error), and what
it allows to be said within each seed alone stands apart.

Owns: means per seed, and the contrasts with their verdicts. Must not know: logs,
tables, how a choice was made.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.reports.numbers.statistics import Array, holm
from harness.reports.numbers.verdict import FEWEST, LEVEL, Contrast, judge
from harness.search.choice import search_chance


def by_seed(final: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """A row per search and training seed: means of `names` over its repeats.

    Of a frame with a row per repeat; `repeats` counts those that have a choice, `test_sd` is the
    standard deviation of `test` over them, NaN for fewer than two.
    """
    groups = final.groupby(["search", "seed"], sort=False)
    means = groups[names].mean()
    means["repeats"] = groups["test"].count()
    means["test_sd"] = groups["test"].std()
    return means.reset_index()


def contrasts(
    seeds: pd.DataFrame, arms: list[str], certain: tuple[str, ...], against: str | None = None
) -> pd.DataFrame:
    """Every pair of arms, the later one minus the earlier, by `test` in percent.

    With `against`, one of the arms, only the others minus that one.

    `seeds` as of `by_seed`; `certain` are those without chance of their own within a seed. A row
    has the arms' names (`first` minus `second`), the number of `seeds` that both have, the `mean`
    of the paired differences in points, their `sd`, `half_width` (95 %), `p` and `p_holm`
    (two-sided t, Holm over all rows), `deciding_level` and `deciding_half_width` of the interval
    that decides by that correction, the `verdict` of the rule and its `reason`, `verdict_alone` (at
    the protocol's level, as if there were no other row), and `chance_half_width`: what the repeats'
    chance leaves to the mean difference.
    """
    table = seeds.pivot(index="seed", columns="search", values="test")
    values = {name: table[name].to_numpy(float) for name in arms}
    chance = {
        name: 0.0
        if name in certain
        else search_chance(own["test_sd"].to_numpy(float), own["repeats"].to_numpy(float))
        for name, own in seeds.groupby("search")
    }
    rows: list[dict[str, Any]] = []
    found: list[Array] = []
    pairs = list(itertools.combinations(arms, 2))
    if against is not None:
        pairs = [(against, arm) for arm in arms if arm != against]
    for second, first in pairs:
        differences = values[first] - values[second]
        differences = differences[np.isfinite(differences)]
        if len(differences):
            found.append(differences)
            both = float(np.hypot(chance[first], chance[second]))
            rows.append({"first": first, "second": second, "chance_half_width": both})
    return _judged(rows, found, COLUMNS)


def within_seeds(
    final: pd.DataFrame, expected: pd.DataFrame, certain: tuple[str, ...]
) -> pd.DataFrame:
    """Every search against what random search is expected to find, in each training seed alone.

    Of a frame with a row per repeat, as `by_seed`; `expected` has `seed` and `test`, `certain` are
    searches without chance of their own. Here a repeat is a replicate, so the words speak of a
    search's chance on this one training of every cell, and of no other training. A row has the
    `search`, the `seed`, the number of `repeats` with a choice, and the columns of `contrasts` from
    `mean` to `verdict`, with Holm's correction over all rows. Fewer than `FEWEST_REPEATS` have
    none: a few repeats often make one choice, and seem to have no chance at all.
    """
    level = dict(zip(expected["seed"], expected["test"], strict=True))
    rows: list[dict[str, Any]] = []
    found: list[Array] = []
    for (name, seed), own in final.groupby(["search", "seed"], sort=False):
        differences = own["test"].to_numpy(float) - level.get(seed, np.nan)
        differences = differences[np.isfinite(differences)]
        if name not in certain and len(differences) >= FEWEST_REPEATS:
            rows.append({"search": name, "seed": seed, "repeats": len(differences)})
            found.append(differences)
    return _judged(rows, found, WITHIN)


def _judged(rows: list[dict[str, Any]], found: list[Array], columns: list[str]) -> pd.DataFrame:
    """The rows with what the rule says of the differences of each, in these columns."""
    adjusted, levels = holm(p := np.array([_p(each) for each in found]))
    for number, (row, differences) in enumerate(zip(rows, found, strict=True)):
        level = LEVEL if np.isnan(levels[number]) else float(levels[number])
        judged = judge(differences, level)
        row |= {
            "seeds": judged.n,
            "mean": judged.mean,
            "sd": judged.sd,
            "half_width": judged.half_width,
            "p": p[number],
            "p_holm": adjusted[number],
            "deciding_level": level,
            "deciding_half_width": judged.deciding_half_width,
            "verdict": judged.word,
            "reason": _reason(judged),
            "verdict_alone": judge(differences).word,
        }
    return pd.DataFrame(rows, columns=columns)


JUDGED = (
    *("mean", "sd", "half_width", "p", "p_holm", "deciding_level", "deciding_half_width"),
    "verdict",
)
COLUMNS = [
    *("first", "second", "seeds", *JUDGED),
    *("reason", "verdict_alone", "chance_half_width"),
]
FEWEST_REPEATS = 100
"""Of a search in a seed, for a word on that seed alone."""
WITHIN = ["search", "seed", "repeats", *JUDGED]
CHANCES = ("p", "p_holm", "deciding_level")
"""Columns that are probabilities, of which four decimals say too little."""


def _p(differences: Array) -> float:
    """Of a two-sided t test against 0; NaN for fewer than two."""
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    n = len(differences)
    ratio = abs(differences.mean()) / (differences.std(ddof=1) / np.sqrt(n))
    return float(2 * stats.t.sf(ratio, n - 1))


def _reason(judged: Contrast) -> str:
    """Why nothing is learned; empty where something is."""
    if judged.word != "not informative":
        return ""
    if judged.n < FEWEST:
        return f"{judged.n} seed{'s' if judged.n > 1 else ''} of at least {FEWEST}"
    return "too wide an interval"
