"""What to try next. A search asks for specs and is told outcomes; it never sees a test score.

Owns: the `Search` contract and the grid. Must not know: where trials run or how they are stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.spec import TrialSpec
from harness.store import Status


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What may flow back from a trial: how it ended, its selection score and what it cost."""

    trial_id: str
    status: Status
    objective: float | None
    """None for a failed trial; chance level for a diverged one."""
    device_s: float


class Search(Protocol):
    """A strategy over specs."""

    def ask(self, count: int) -> Sequence[TrialSpec]:
        """Up to `count` specs to run now; fewer, or none, when the search is over."""

    def tell(self, outcome: Outcome) -> None:
        """Report the end of an asked trial."""


class GridSearch:
    """Every spec once, in order.

    Ours and not Optuna's: its `GridSampler` counts a failed cell as visited and adds a random
    trial when resumed (seen on 5.0.0).
    """

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self._left = deque(specs)

    def ask(self, count: int) -> list[TrialSpec]:
        return [self._left.popleft() for _ in range(min(count, len(self._left)))]

    def tell(self, outcome: Outcome) -> None:
        """Nothing to learn: the next cell does not depend on earlier ones."""
