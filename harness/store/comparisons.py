"""Comparisons of arms on the same seeds, and of searches on the same space and budget.

Owns: the types of `comparison.json` and `searches.json`. Must not know: which arms or searches
there are, how they are run.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from harness.metrics import Objective
from harness.spec import Frozen, TrialRequest

MOST_REPEATS = 2_000
"""Of a search, where their number follows from a wanted half-width."""


class Arm(Frozen):
    """One entry of a comparison: a trial per seed, and what was run to find its settings."""

    name: str
    trials: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order of the seeds."""
    charged: tuple[str, ...]
    """All trials that this arm is charged for: its own, and those that found its settings."""


class SweptCell(Frozen):
    """A cell of a sweep, with a trial per seed."""

    cell: dict[str, JsonValue]
    trials: tuple[str, ...]


class Swept(Frozen):
    """A sweep that was run with the comparison's seeds, on its data, backbone and recipe."""

    study: str
    labels: dict[str, str]
    """Field of an axis -> its label."""
    fixed: str
    """What all cells share, in words."""
    cells: tuple[SweptCell, ...]


class Comparison(Frozen):
    """Arms that share data, split, recipe and seeds; the others are there to judge the first."""

    title: str
    request: TrialRequest
    seeds: tuple[int, ...]
    objective: Objective
    chosen: Literal["over seeds", "per seed"] = "over seeds"
    """How learning rates and cells were chosen: one for all by the mean over the seeds, as it was
    before this was written down, or by each seed for itself."""
    unit: str
    """The arm whose mean cost is one full run, the unit of cost."""
    inner_steps: int | None
    """Inner steps per outer step of the first arm's method; None if it has no such option."""
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    """An arm with learned strengths, and the arm that differs from it in nothing else."""
    swept: Swept | None = None
    """The sweep whose best cell is one of the arms, if there is one."""
    reference: str | None = None
    """File of the paper's numbers in `baselines/paper`, without `.csv`, with a column `variant`."""
    notes: tuple[str, ...]
    """What was left out and why, and which choices lie at the end of their range."""


class Reference(Frozen):
    """What one full run is: a trial of the space's default configuration, trained to its end."""

    cell: dict[str, JsonValue]
    device_s: Annotated[float, Field(gt=0)]
    """Mean over its seeds."""
    flops: Annotated[int, Field(gt=0)]
    """The most of its seeds."""


class SearchComparison(Frozen):
    """Searches on one space with one budget, live or against a table; see `beside` for more spaces.

    `reference` is then that of the first of them.
    """

    searches: tuple[str, ...]
    learned: tuple[str, ...]
    """Those of them that find strengths in one trial; they have a repeat per training seed."""
    standing: tuple[str, ...] = ()
    """Those of them that are the baseline of every comparison; they have one, too."""
    repeats: int
    repeats_by: dict[str, int] = Field(default={})
    """Searches that have another number of repeats than the others, with that number."""
    budget: str
    """In words."""
    seeds: tuple[int, ...]
    """Training seeds; repeat r trains with `seeds[r % len(seeds)]`, and each of them is one
    replicate of the whole procedure."""
    workers: int
    table: str | None
    """SHA-256 of the table that was replayed, a copy of which lies in the folder; None if live."""
    reference: Reference
    confirm: int
    """How many of a search's best configurations are trained again on unseen seeds."""
    confirm_seeds: tuple[int, ...]
    """The seeds for that; a repeat uses those that it has not trained with."""
    tuning: tuple[str, ...]
    """Names of the runs that found the settings of the learned searches."""
    tuning_s: float
    """Device seconds of those runs."""
    controls: str | None = None
    """Name of the run in the same store that compares a learned search with its controls."""
    half_width: float | None = None
    """Points that the 95 % half-width of each search's Monte-Carlo error was to come down to, if
    the number of repeats followed from that."""
    beside: tuple[str, ...] = ()
    """Names of comparisons in the same store, of searches on other spaces, which are shown with
    these: of the same data, seeds and budget, with costs in the same reference."""
    notes: tuple[str, ...]
    """What was left out and why."""

    def seed(self, repeat: int) -> int:
        """Training seed of a repeat."""
        return self.seeds[repeat % len(self.seeds)]

    def repeats_of(self, search: str) -> int:
        """Repeats of a search. One whose trials are given differs by its seed alone, so it has one
        per seed."""
        count = self.repeats_by.get(search, self.repeats)
        return min(count, len(self.seeds)) if search in self.given else count

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """The training seeds that a repeat of any search has; fewer repeats leave some out."""
        return self.seeds[: self.most_repeats]

    @property
    def given(self) -> tuple[str, ...]:
        """The searches whose trials are given, so that they have no chance of their own."""
        return (*self.learned, *self.standing)

    @property
    def most_repeats(self) -> int:
        """Of any of the searches."""
        return max(map(self.repeats_of, self.searches), default=self.repeats)
