"""What to try next. A search asks for specs and is told outcomes; it never sees a test score.

Owns: the `Search` contract and the grid. Must not know: where trials run or how they are stored.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from harness.errors import UserError
from harness.spec import TrialSpec
from harness.store.records import Status
from harness.store.search_log import Ask, Tell, append_event, read_log, tells
from harness.study.space import SearchSpace, Values


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What may flow back from a trial: how it ended, its selection score and what it cost."""

    trial_id: str
    status: Status
    objective: float | None
    """None for a failed trial; chance level for a diverged one, the last seen for a pruned one."""
    epochs: int
    device_s: float
    flops: int


class Search(Protocol):
    """A strategy over specs."""

    watches: bool
    """Whether trials are to be reported epoch by epoch, so that they can be stopped early."""

    def ask(self, count: int) -> Sequence[TrialSpec]:
        """Up to `count` specs to run now; fewer, or none, when the search is over."""

    def report(self, trial_id: str, epoch: int, score: float) -> bool:
        """A watched trial has the selection score after its first `epoch` epochs; go on with it?"""

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


Make = Callable[[Values, int], TrialSpec]
"""A configuration's values and a seed -> the trial."""


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """All that a search is started with, whoever wrote it."""

    space: SearchSpace
    make: Make
    name: str
    """Tells its chance from that of other searches."""
    seed: int
    """Of the trials that it asks for."""
    budget: Budget
    """To be kept by the search itself."""
    full_run_flops: int
    """What a budget in `runs` counts."""
    epochs: int
    """Of a whole trial."""
    log: Path
    """Where the search writes what it asked and was told, and what it is rebuilt from."""


SearchMaker = Callable[[SearchTask], Search]
"""Starts a search, or goes on with the one in the task's log. An entry point in the group
`harness.searches` is one."""


def tell_event(outcome: Outcome) -> Tell:
    """An outcome as an event of a search's log."""
    return Tell(
        trial_id=outcome.trial_id,
        status=outcome.status,
        objective=outcome.objective,
        epochs=outcome.epochs,
        device_s=outcome.device_s,
        flops=outcome.flops,
    )


class GridSearch:
    """Every spec once, in order.

    Ours and not Optuna's: its `GridSampler` counts a failed cell as visited and adds a random
    trial when resumed (seen on 5.0.0).
    """

    watches = False

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self._left = deque(specs)

    def ask(self, count: int) -> list[TrialSpec]:
        return [self._left.popleft() for _ in range(min(count, len(self._left)))]

    def report(self, trial_id: str, epoch: int, score: float) -> bool:
        """Every trial is run to its end."""
        return True

    def tell(self, outcome: Outcome) -> None:
        """Nothing to learn: the next cell does not depend on earlier ones."""


class Restarts:
    """A method that finds its strengths while it trains, as a search: a trial, or one per seed.

    It learns nothing from one to the next; `log` keeps their order, as for any search.
    """

    watches = False

    def __init__(self, trials: Sequence[tuple[dict[str, JsonValue], TrialSpec]], log: Path) -> None:
        self._log = log
        events = tells(read_log(log, mend=True))
        self._told = {event.trial_id for event in events if event.objective is not None}
        self._left = deque(trials)

    def ask(self, count: int) -> list[TrialSpec]:
        asked = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        for cell, spec in asked:
            if spec.trial_id not in self._told:
                event = Ask(params={}, cell=cell, seed=spec.seed, trial_id=spec.trial_id)
                append_event(self._log, event)
        return [spec for _, spec in asked]

    def report(self, trial_id: str, epoch: int, score: float) -> bool:
        """Every trial is run to its end."""
        return True

    def tell(self, outcome: Outcome) -> None:
        if outcome.trial_id not in self._told:
            append_event(self._log, tell_event(outcome))
