"""Training-free searches: rank the sites at the start of training, then train the better half once.

Two trials: one in which nothing is trained and which ranks all sites by the training images alone
(the formulas are in `harness/baselines/metapeft/saliency.py`), charged for that pass, and one of
the half of the sites that scored best, at the α that the study's base has. Owns: this order. Must
not know: by what sites are ranked, where trials run.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from harness.search.base import Outcome, SearchTask, WholeTrials, refuse_other_order, tell_event
from harness.spec import Placement, TrialSpec
from harness.store.search_log import Ask, append_event, asks, read_log, tells
from harness.study.space import Values

NAMES = ("gradnorm", "snip", "fisher")
"""Of these searches, as `PeftMethod.rankings` has them."""


@dataclass(frozen=True)
class Rankable(Container[object]):
    """Configurations that are proposed outside a space: given ones, as that of the first trial is,
    and the placements that may come of it."""

    cells: tuple[Values, ...]

    def __contains__(self, values: object) -> bool:
        return values in self.cells or (isinstance(values, dict) and set(values) == {"placement"})


class RankingSearch(WholeTrials):
    """The trial that ranks, then the trial of the better half; over when both were told.

    A first trial that diverged or failed has ranked nothing, and ends it.
    """

    def __init__(self, task: SearchTask, cell: Values) -> None:
        self._task, self._cell = task, cell
        self._ranking = task.make(cell, task.seed)
        self._learned: Placement | None = None
        events = read_log(task.log, mend=True)
        self._asked = [ask.trial_id for ask in asks(events)]
        self._told = {tell.trial_id for tell in tells(events) if tell.objective is not None}
        for tell in tells(events):
            if tell.learned:
                self._learned = Placement(tell.learned)
        made = [self._ranking, *([] if self._learned is None else [self._half()[1]])]
        refuse_other_order(task.log, self._asked, [spec.trial_id for spec in made])
        self._begun: set[str] = set()

    def ask(self, count: int) -> list[TrialSpec]:
        cell, spec = self._cell, self._ranking
        if spec.trial_id in self._told:
            if self._learned is None:
                return []
            cell, spec = self._half()
        if spec.trial_id in self._told | self._begun:
            return []
        self._begun.add(spec.trial_id)
        if spec.trial_id not in self._asked:
            self._asked.append(spec.trial_id)
            event = Ask(params={}, cell=cell, seed=spec.seed, trial_id=spec.trial_id)
            append_event(self._task.log, event)
        return [spec]

    def tell(self, outcome: Outcome) -> None:
        if outcome.trial_id in self._told:
            return
        event = tell_event(outcome)
        if outcome.trial_id == self._ranking.trial_id and outcome.learned is not None:
            self._learned = outcome.learned
            event = replace(event, learned=outcome.learned.root)
        append_event(self._task.log, event)
        if outcome.objective is not None:
            self._told.add(outcome.trial_id)

    def _half(self) -> tuple[Values, TrialSpec]:
        """The configuration of the half of the sites that scored best, and its trial."""
        from harness.insertion.placements import derive  # here, because it imports torch

        assert self._learned is not None
        half = derive([self._learned], "topk", None, strengths=self._ranking.placement)
        cell: Values = {"placement": dict(half.root)}
        return cell, self._task.make(cell, self._task.seed)
