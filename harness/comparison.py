"""A comparison: arms on the same seeds, each with the trials that its setting cost.

Owns: the types of `comparison.json`. Must not know: which arms there are, how they are run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.spec import Frozen, TrialRequest
from harness.study import Metric


class Arm(Frozen):
    """One line of a comparison: a trial per seed, and what was run to find its setting."""

    name: str
    trials: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order of the seeds."""
    charged: tuple[str, ...]
    """All trials whose cost this arm bears, its own included."""


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
    notes: tuple[str, ...]
    """What could not be compared with and why, and choices at the end of their range."""
