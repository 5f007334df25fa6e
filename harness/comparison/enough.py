"""How many repeats of a replayed search are enough for a wanted half-width.

Owns: the batches in which repeats are added, and when there are enough. Must not know: how repeats
are replayed, how many processes do so. What is decided follows from the logs alone, so it is the
same again for the same table and options.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.reports.numbers.contrasts import by_seed, search_chance
from harness.reports.numbers.incumbents import chosen_test
from harness.reports.numbers.recorded import trials_of
from harness.search.budget import Budget
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
    trials = trials_of(table).set_index("trial_id")
    scores = trials[f"test_{table.info.study.objective}"]
    tests = dict(zip(map(str, scores.index), scores, strict=True))
    names = [name for name in comparison.searches if name not in comparison.learned]
    most = MOST_REPEATS - MOST_REPEATS % len(comparison.seeds)
    now = {name: comparison.repeats_of(name) for name in names}
    then = dict(now)
    for name, count in now.items():
        found = pd.DataFrame(
            {
                "search": name,
                "seed": [comparison.seed(repeat) for repeat in range(count)],
                "test": [
                    chosen_test(
                        read_log(folder.log(repeat, name)), tests, budget, comparison.reference
                    )
                    for repeat in range(count)
                ],
            }
        )
        seeds = by_seed(found, ["test"])
        spread, repeats = (seeds[each].to_numpy(float) for each in ("test_sd", "repeats"))
        left = search_chance(spread, repeats)
        if np.isnan(left) or left > comparison.half_width:
            then[name] = max(count, min(most, 2 * count))
    return then if then != now else None
