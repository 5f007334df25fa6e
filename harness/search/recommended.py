"""What a plan of `recommend` came to.

Owns: these types, and reading a plan's trainings back from its log. Must not know: torch, the order
of trying, words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.search.budget import Budget
from harness.search.recommend import Key, Steps
from harness.store.records import DONE, TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.search_log import asks, read_log, tells
from harness.study.study import Study

CONFIG = "adapter_config.json"
"""The file of the `LoraConfig`, in the run's folder."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training of a plan that has ended."""

    key: Key
    record: TrialRecord
    score: float
    """On the selection split, better when higher; chance for one that diverged."""
    runs: float
    """Charged, in full runs."""


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """What a plan came to."""

    study: Study
    """Whose base has the data, the backbone and the recipe."""
    steps: Steps
    names: tuple[str, ...]
    """Of the places."""
    budget: Budget
    trained: tuple[Trained, ...]
    """In the order of trying."""
    best: Trained
    """Of the highest score; of ties the first."""
    config: dict[str, Any] | str
    """Fields of the peft `LoraConfig`, or why there is none."""
    command: str
    """That trains the configuration and keeps its tensors."""
    folder: RunFolder

    @property
    def runs(self) -> float:
        """Charged for all trainings."""
        return sum(each.runs for each in self.trained)

    @property
    def left(self) -> float:
        """What is left of the budget, in its own unit."""
        spent = self.runs if self.budget.unit == "runs" else len(self.trained)
        return self.budget.amount - spent


def trained(steps: Steps, folder: RunFolder, full_run_flops: int) -> tuple[Trained, ...]:
    """The trainings of a plan's run that have ended, in the order of trying.

    Raises:
        UserError: the log or a record is damaged.
    """
    events = read_log(folder.log(0))
    ended = {tell.trial_id: tell for tell in tells(events) if tell.status in DONE}
    found = []
    for trial_id, cell in {ask.trial_id: ask.cell for ask in asks(events)}.items():
        key, tell = steps.key(cell), ended.get(trial_id)
        if key is not None and tell is not None and tell.objective is not None:
            record = folder.store.known_record(trial_id)
            runs = tell.flops / full_run_flops
            found.append(Trained(key=key, record=record, score=tell.objective, runs=runs))
    return tuple(found)
