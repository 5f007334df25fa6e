"""Comparisons: arms on the same seeds, each with the trials that its setting cost; or searches.

Owns: the types of `comparison.json` and `searches.json`. Must not know: which arms or searches
there are, how they are run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from harness.metrics import Metric
from harness.spec import Frozen, TrialRequest


class Arm(Frozen):
    """One line of a comparison: a trial per seed, and what was run to find its setting."""

    name: str
    trials: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order of the seeds."""
    charged: tuple[str, ...]
    """All trials whose cost this arm bears, its own included."""


class SweptCell(Frozen):
    """A cell of a sweep, with a trial per seed."""

    cell: dict[str, JsonValue]
    trials: tuple[str, ...]


class Swept(Frozen):
    """A sweep that was run with the comparison's seeds, on its data, backbone and recipe."""

    study: str
    labels: dict[str, str]
    """Field of an axis -> its name in words."""
    fixed: str
    cells: tuple[SweptCell, ...]


class Comparison(Frozen):
    """Arms that share data, split, recipe and seeds; the first is what the others judge."""

    title: str
    request: TrialRequest
    seeds: tuple[int, ...]
    objective: Metric
    unit: str
    """The arm whose mean cost is one full run, the unit of cost."""
    inner_steps: int | None
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    """Arms with learned strengths, and those that lack nothing else."""
    swept: Swept | None = None
    """Of the arm that is its best cell, if there is one."""
    reference: str | None = None
    """File of the paper's numbers in `baselines/paper`, without `.csv`, with a column `variant`."""
    notes: tuple[str, ...]
    """What could not be compared with and why, and choices at the end of their range."""


class Reference(Frozen):
    """What one full run is: a whole trial of the space's default configuration."""

    cell: dict[str, JsonValue]
    device_s: Annotated[float, Field(gt=0)]
    """Mean over its seeds."""
    flops: Annotated[int, Field(gt=0)]


class SearchComparison(Frozen):
    """Searches on one space with one budget, live or against a table."""

    searches: tuple[str, ...]
    learned: tuple[str, ...]
    """Those of them that find strengths in one trial; each has a repeat per training seed."""
    repeats: int
    budget: str
    """In words."""
    seeds: tuple[int, ...]
    """Training seeds; repeat r trains with number `r % len(seeds)` of them."""
    workers: int
    table: str | None
    """SHA-256 of the table that was replayed; it lies beside, as `table.parquet`."""
    reference: Reference
    confirm: int
    """Best configurations of a search that are trained again on unseen seeds."""
    confirm_seeds: tuple[int, ...]
    """Of these, those that the repeat has not trained with."""
    tuning: tuple[str, ...]
    """Runs that found the settings of the learned searches."""
    tuning_s: float
    """Device seconds of those runs."""
    controls: str | None = None
    """Run of the same store that compares a learned search with its controls."""
    notes: tuple[str, ...]
    """What was left out and why."""

    def seed(self, repeat: int) -> int:
        """Training seed of a repeat."""
        return self.seeds[repeat % len(self.seeds)]

    def repeats_of(self, search: str) -> int:
        """Repeats of a search: what finds strengths in one trial differs by its seed alone."""
        return min(self.repeats, len(self.seeds)) if search in self.learned else self.repeats
