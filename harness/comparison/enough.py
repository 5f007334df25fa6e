"""How many repeats of a replayed search are enough for a wanted half-width.

Owns: the batches in which repeats are added, and when there are enough. Must not know: how repeats
are replayed, how many processes do so. What is decided follows from the logs alone, so it is the
same again for the same table and options.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.search.budget import Budget
from harness.search.choice import choice, search_chance
from harness.store.comparisons import MOST_REPEATS, SearchComparison
from harness.store.run_folder import RunFolder
from harness.store.search_log import read_log
from harness.store.table import Table

FIRST_REPEATS = 20
"""Of each search in the first batch, or as many more as give every seed the same number."""


def first_repeats(searches: list[str], seeds: int) -> dict[str, int]:
    """Search -> repeats of the first batch, at least two for each training seed."""
    count = seeds * max(2, -(-FIRST_REPEATS // seeds))
    return dict.fromkeys(searches, count)


def repeats_fields(counts: dict[str, int]) -> dict[str, Any]:
    """`SearchComparison`'s fields for so many repeats of each search."""
    most = max(counts.values())
    return {
        "repeats": most,
        "repeats_by": {name: count for name, count in counts.items() if count != most},
    }


def more_repeats(
    folder: RunFolder, comparison: SearchComparison, table: Table, budget: Budget
) -> dict[str, int] | None:
    """Search -> repeats of the next batch, twice as many where chance still leaves too much to the
    mean; None if there are enough of all, or as many as there may be."""
    assert comparison.half_width is not None
    names = [name for name in comparison.searches if name not in comparison.given]
    most = MOST_REPEATS - MOST_REPEATS % len(comparison.seeds)
    now = {name: comparison.repeats_of(name) for name in names}
    then = dict(now)
    tests = dict(zip(table.trials["trial_id"], table.tests, strict=True))
    for name, count in now.items():
        scores: dict[int, list[float]] = {seed: [] for seed in comparison.seeds}
        for repeat in range(count):
            log = read_log(folder.log(repeat, name))
            trial_id = choice(log, budget, comparison.reference.flops)
            if trial_id is not None:
                scores[comparison.seed(repeat)].append(tests[trial_id])
        if not _is_narrow(list(scores.values()), comparison.half_width):
            then[name] = max(count, min(most, 2 * count))
    return then if then != now else None


def _is_narrow(scores: list[list[float]], half_width: float) -> bool:
    """Whether chance leaves at most so much to the mean over seeds; of each seed its scores."""
    counts = np.array([float(len(each)) for each in scores])
    if (counts < 2).any():
        return False
    spread = np.array([np.std(each, ddof=1) for each in scores])
    return search_chance(spread, counts) <= half_width
