"""Searches whose rungs are shares of the training data: a bad configuration never sees all of it.

Optuna's samplers and pruners, as in `optuna_search`, but where a pruner there looks at a trial
epoch by epoch, here each rung is a training of its own, by the whole recipe, on a ninth, a third
and all of the images: the second of Hyperband's resources (Li et al. 2018, "data set subsampling").
Owns: rungs, and which trial follows on which. Must not know: where trials run, how images are drawn
(`harness.data.dataset.share_of`).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.search.base import Decision, Outcome, SearchTask
from harness.search.optuna_search import REDUCTION, OnRepeat, OptunaSearch, Pruner, Sampler
from harness.search.resumed import fields_of, is_inside
from harness.spec import TrialSpec
from harness.store.search_log import SHARE, Ask, Tell
from harness.study.space import SearchSpace, Values

if TYPE_CHECKING:
    from optuna.trial import Trial

Fidelity = Literal["epochs", "data"]
"""What the rungs of a pruner are."""

RUNGS = 3
"""Of which the last is all of the data."""
STEPS = tuple(REDUCTION**rung for rung in range(RUNGS))
"""Of each rung, as pruners count: 1, 3, 9."""
SHARES = tuple(step / STEPS[-1] for step in STEPS)


@dataclass(frozen=True)
class Parts(Container[object]):
    """Configurations of a space on a part of the data."""

    space: SearchSpace

    def __contains__(self, values: object) -> bool:
        if not isinstance(values, dict) or values.get(SHARE) not in SHARES[:-1]:
            return False
        whole = {field: value for field, value in values.items() if field != SHARE}
        return is_inside(self.space, fields_of(self.space), whole)


class ShareSearch(OptunaSearch):
    """Proposes configurations, each of them first on a part of the data.

    The pruner says after each rung whether the next is trained, for which the sampler is not asked.
    What is trained on all of the data is an ordinary trial of the study; only such a one is told
    as complete.
    """

    def __init__(
        self,
        sampler: Sampler,
        task: SearchTask,
        *,
        on_repeat: OnRepeat,
        pruner: Pruner,
    ) -> None:
        self._cells: dict[int, Values] = {}
        """Optuna's number of a proposal -> its configuration, on all of the data."""
        self._answered: list[tuple[Trial, TrialSpec]] = []
        """Proposals whose trial has ended; what comes of them is seen when there is room for it."""
        self._following: list[Ask] = []
        """While a log is replayed: what came of its answers so far and has yet to be read."""
        rungs = replace(task, epochs=STEPS[-1])  # which are a pruner's epochs here
        super().__init__(sampler, rungs, on_repeat=on_repeat, pruner=pruner)
        self.needs_epoch_reports = False  # a rung is scored when its training ends
        for event in self._following:  # the command ended while this was written
            self._write(event)
        self._following = []

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        """Every trial is run to its end."""
        return Decision.GO_ON

    def tell(self, outcome: Outcome) -> None:
        """As any search; a trial on a part of the data is logged as one that was stopped."""
        is_part = self._specs[outcome.trial_id].data.train_share < 1
        if is_part and outcome.objective is not None:
            outcome = replace(outcome, status="PRUNED")
        super().tell(outcome)

    def _first(self, trial: Trial, values: Values) -> Values:
        self._cells[trial.number] = values
        return self._on(trial, self._first_rung(trial))

    def _enter(self, trial: Trial, spec: TrialSpec) -> TrialSpec | None:
        """Let a proposal wait for the first of its rungs that is not known yet."""
        while spec.trial_id in self._told:
            status, worths = self._told[spec.trial_id]
            rung = SHARES.index(spec.data.train_share)
            if worths is None or rung == RUNGS - 1:
                self._tell_study(trial, status, worths)
                return None
            trial.report(worths[0], STEPS[rung])
            if trial.should_prune():
                self._tell_study(trial, "PRUNED", worths)
                return None
            spec = self._follow(trial, rung + 1, spec.seed)
        return super()._enter(trial, spec)

    def _follow(self, trial: Trial, rung: int, seed: int) -> TrialSpec:
        cell = self._on(trial, rung)
        spec = self._make(cell, seed)
        event = Ask(params=trial.params, cell=cell, seed=seed, trial_id=spec.trial_id)
        if self._log is None:
            self._following.append(event)
        self._write(event)
        return spec

    def _has_followed(self, event: Ask) -> bool:
        while self._answered and not self._following:
            self._enter(*self._answered.pop(0))
        if not self._following or self._following[0].trial_id != event.trial_id:
            return False
        del self._following[0]
        return True

    def _learn(self, event: Tell) -> None:
        worths = None if event.objective is None else (event.objective,)
        self._told[event.trial_id] = (event.status, worths)
        waiting = self._running.pop(event.trial_id, [])
        self._answered += [(trial, self._specs[event.trial_id]) for trial in waiting]

    def _next(self) -> TrialSpec | None:
        """What follows on an answer, else a new proposal."""
        while self._answered:
            spec = self._enter(*self._answered.pop(0))
            if spec is not None:
                return spec
        return super()._next()

    def _on(self, trial: Trial, rung: int) -> Values:
        """A proposal's configuration on the share of a rung; all of it is left unsaid."""
        cell = self._cells[trial.number]
        return cell if rung == RUNGS - 1 else {**cell, SHARE: SHARES[rung]}

    def _first_rung(self, trial: Trial) -> int:
        """Hyperband's brackets differ in where they begin; other pruners begin at the smallest."""
        from optuna.pruners import HyperbandPruner

        if not isinstance(self._study.pruner, HyperbandPruner):
            return 0
        pruner: Any = self._study.pruner
        # Optuna says nowhere else which bracket a trial is in; all of them begin at the first step.
        if not pruner._pruners:
            pruner._try_initialization(self._study)
        bracket: int = pruner._get_bracket_id(self._study, trial)
        return bracket
