"""What to try next. A search asks for specs and is told outcomes; it never sees a test score.

Owns: the `Search` contract, the grid and restarts. Must not know: where trials run or how they are
stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from harness.errors import UserError
from harness.search.budget import Budget
from harness.spec import Placement, TrialSpec
from harness.store.records import Status
from harness.store.search_log import Ask, Tell, append_event, asks, read_log, tells
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
    """Without those of the test, which no choice needs."""
    learned: Placement | None = None
    """Strengths, or ranks, that the trial itself found for its sites, by the training images."""
    beside: tuple[float, ...] = ()
    """What the further objectives are worth, better when higher, where a search has several."""


class Decision(Enum):
    """What becomes of a trial that has reported."""

    GO_ON = "go on"
    PAUSE = "pause"
    """It ends for now, as `PRUNED`; the search asks for it, or for one that changes it, again."""
    STOP = "stop"
    """It ends as `PRUNED`, for good."""


class Search(Protocol):
    """A strategy over specs. It decides what to try; budget, retries and the end are the driver's.

    It is rebuilt from its own log (`SearchTask.log`): one that was interrupted asks first for what
    it had asked and was never told. See `harness.search.bounded` for what is refused.
    """

    needs_epoch_reports: bool
    """Whether trials are to be reported epoch by epoch, so that they can be stopped early."""

    def ask(self, count: int) -> Sequence[TrialSpec]:
        """Up to `count` specs to run now, made by `SearchTask.make`; none: nothing for now.

        After none, it is asked again once another trial has ended or reported; it is over when none
        is running. A trial asked for again is told again, at no cost.
        """

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        """A running trial has the selection score after its first `epoch` epochs.

        The epochs come in order. After an interruption a trial reports again from its first.
        """

    def tell(self, outcome: Outcome) -> None:
        """Report the end of an asked trial."""


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
    """What the driver will let it spend; some searches size themselves by it."""
    full_run_flops: int
    """What a budget in `runs` counts."""
    epochs: int
    """Of a whole trial."""
    objectives: int = 1
    """How many the search is told; more than one only to those that take several."""
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
        beside=outcome.beside,
    )


def refuse_other_order(log: Path, logged: Sequence[object], made: Sequence[object]) -> None:
    """Raises `UserError` unless the trials in a log are the first of those made now, as far as
    there are both."""
    if any(was != now for was, now in zip(logged, made, strict=False)):
        raise UserError(f"{log} belongs to another search, space or seed; move it away.")


class WholeTrials:
    """What searches that stop no trial early have in common."""

    needs_epoch_reports = False

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        """Every trial is run to its end."""
        return Decision.GO_ON


class GridSearch(WholeTrials):
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


class Restarts(WholeTrials):
    """Given configurations, as a search: a method that learns strengths on one seed or several, or
    a few that are tried in turn.

    It learns nothing from one to the next; `log` keeps their order, as for any search.
    """

    def __init__(self, trials: Sequence[tuple[dict[str, JsonValue], TrialSpec]], log: Path) -> None:
        self._log = log
        events = read_log(log, mend=True)
        logged = dict.fromkeys(ask.trial_id for ask in asks(events))
        refuse_other_order(log, [*logged], [spec.trial_id for _, spec in trials])
        self._told = {tell.trial_id for tell in tells(events) if tell.objective is not None}
        self._left = deque(trials)

    def ask(self, count: int) -> list[TrialSpec]:
        asked = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        for cell, spec in asked:
            if spec.trial_id not in self._told:
                event = Ask(params={}, cell=cell, seed=spec.seed, trial_id=spec.trial_id)
                append_event(self._log, event)
        return [spec for _, spec in asked]

    def tell(self, outcome: Outcome) -> None:
        if outcome.trial_id not in self._told:
            append_event(self._log, tell_event(outcome))
