"""What to try next. A search asks for specs and is told outcomes; it never sees a test score.

Owns: the `Search` contract and the grid. Must not know: where trials run or how they are stored.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.errors import UserError
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
    flops: int


class Search(Protocol):
    """A strategy over specs."""

    def ask(self, count: int) -> Sequence[TrialSpec]:
        """Up to `count` specs to run now; fewer, or none, when the search is over."""

    def tell(self, outcome: Outcome) -> None:
        """Report the end of an asked trial."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a search may spend. `runs` are full-run equivalents, by the FLOPs of one of them."""

    amount: float
    unit: Literal["trials", "epochs", "s", "runs"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `24`, `24trials`, `240epochs`, `600s` or `12.5runs`.

        Raises:
            UserError: none of these, or not positive.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(trials|epochs|s|runs)?", text.replace(" ", ""))
        if not match or float(match[1]) <= 0:
            raise UserError(f"Bad budget {text!r}: write 24, 24trials, 240epochs, 600s or 12runs.")
        unit: Any = match[2] or "trials"
        return cls(amount=float(match[1]), unit=unit)


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
