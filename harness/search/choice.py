"""What a search would choose within its budget, by its log, and what its chance leaves to a mean.

Owns: the rule of choice (the best selection score of a whole trial; of equal ones the first), and
the Monte-Carlo error of repeats. Must not know: test scores, which search it is, where trials run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.search.budget import NOTHING, Budget
from harness.store.records import DONE
from harness.store.search_log import Event, Spent, Tell, tells


def within(
    log: Sequence[Event], budget: Budget, full_run_flops: int
) -> Iterator[tuple[Tell, Spent]]:
    """The trials that ended within a budget, each with what was spent by then."""
    spent = NOTHING
    for event in tells(log):
        spent = Spent(
            epochs=spent.epochs + event.epochs,
            device_s=spent.device_s + event.device_s,
            flops=spent.flops + event.flops,
        )
        if not budget.holds(spent, full_run_flops):
            return
        yield event, spent


def choice(log: Sequence[Event], budget: Budget, full_run_flops: int) -> str | None:
    """The trial that a search would choose among those that ended within a budget; None without."""
    chosen, best = None, float("-inf")  # which a loss that is not finite is worth
    for event, _ in within(log, budget, full_run_flops):
        if event.status not in DONE or event.objective is None:
            continue
        if chosen is None or event.objective > best:
            chosen, best = event.trial_id, event.objective
    return chosen


def search_chance(sd: NDArray[np.float64], repeats: NDArray[np.float64]) -> float:
    """Half of the 95 % interval that the chance of the repeats leaves to the mean over seeds.

    From standard deviations over the repeats of each seed, and their numbers. NaN where a seed has
    fewer than two, so that its chance is not known.
    """
    if not len(sd) or (repeats < 2).any():
        return float("nan")
    error = float(np.sqrt((sd**2 / repeats).sum())) / len(sd)
    return float(stats.t.ppf(0.975, (repeats - 1).sum())) * error
