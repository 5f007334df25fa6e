"""How much a search may spend, and what it has spent.

Owns: budgets in words and in numbers, and what a trial is charged. Must not know: which search
spends, where trials run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UserError
from harness.spec import TrialSpec
from harness.store.search_log import Event, Spent, Tell

NOTHING = Spent(0, 0.0, 0)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a search may spend. `runs` are full-run equivalents, by the FLOPs of one of them."""

    amount: float
    unit: Literal["trials", "epochs", "s", "runs"]

    @classmethod
    def parse(cls, text: str, forms: str = "24, 24trials, 240epochs, 600s or 12runs") -> Budget:
        """Read `24`, `24trials`, `240epochs`, `600s` or `12.5runs`; `forms` are those to advise.

        Raises:
            UserError: none of these, not positive, or less than one trial or epoch.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(trials|epochs|s|runs)?", text.replace(" ", ""))
        least = 1 if match and match[2] in (None, "trials", "epochs") else 0
        if not match or not max(least, math.ulp(0)) <= float(match[1]) < math.inf:
            raise UserError(f"Bad --budget {text[:40]!r}: write {forms}.")
        unit: Any = match[2] or "trials"
        return cls(amount=float(match[1]), unit=unit)

    @classmethod
    def read(cls, words: str, epochs: int) -> Budget:
        """The budget of a stored comparison: `12 runs`, or `24 trials (240 epochs)`.

        `epochs` are those of a whole trial, which is how trials are counted.
        """
        amount, unit = re.findall(r"([\d.e+-]+) (trials|epochs|s|runs)", words)[-1]
        if unit == "trials":
            return cls(amount=float(amount) * epochs, unit="epochs")
        return cls(amount=float(amount), unit=unit)

    def refuse_below(self, lengths: Collection[int]) -> None:
        """Whether it pays for one of the trials that have so many epochs.

        Raises:
            UserError: it is in epochs, and does not.
        """
        fewest = min(lengths)
        if self.unit == "epochs" and self.amount < fewest:
            which = "each" if len(lengths) == 1 else "the shortest"
            raise UserError(
                f"--budget {self.amount:g}epochs pays for no trial: {which} has {fewest} epochs."
            )

    def holds(self, spent: Spent, full_run_flops: int) -> bool:
        """Whether so much is within a budget that is not in trials."""
        if self.unit == "epochs":
            return spent.epochs <= self.amount
        if self.unit == "s":
            return spent.device_s <= self.amount
        return spent.flops <= self.amount * full_run_flops


UNLIMITED = Budget(amount=float("inf"), unit="trials")


class Spending:
    """What one search has spent of its budget.

    Trials and epochs are charged when a trial begins, so those budgets are met exactly; the epochs
    that it did not take are given back when it ends. No trial begins once a budget in seconds or
    runs is spent. A trial that goes on from an earlier stop, its own or that of the trial which it
    changes, is charged for what comes after that.
    """

    def __init__(self, budget: Budget, *, full_run_flops: int = 1, fewest_epochs: int = 1) -> None:
        self._budget, self._full_run_flops = budget, full_run_flops
        self._fewest_epochs = fewest_epochs
        self._begun: set[str] = set()
        self._finished: set[str] = set()
        self._paused: set[str] = set()
        """Each has as little as one epoch left."""
        self._reserved: dict[str, int] = {}
        """Epochs that a running trial may still take."""
        self._spent = NOTHING
        self._totals: dict[str, dict[int, Spent]] = {}
        """Trial -> epochs after which it was told -> its cost since its first epoch."""

    def restore(self, events: Iterable[Event]) -> int:
        """Count what earlier processes spent, by the search's log; the number of trials told.

        A failed trial is tried again and a trial that was asked and never told runs again: both
        are charged then.
        """
        told = [each for each in events if isinstance(each, Tell) and each.objective is not None]
        for tell in told:
            self._begun.add(tell.trial_id)
            self._add(Spent(tell.epochs, tell.device_s, tell.flops))
            total = tell.total or Spent(tell.epochs, tell.device_s, tell.flops)
            is_paused = tell.status == "PRUNED" and tell.total is not None
            self._keep(tell.trial_id, total, is_paused=is_paused)
        return len(told)

    @property
    def has_room(self) -> bool:
        """Whether any trial may begin. Asking a search otherwise would leave a proposal that no
        trial follows."""
        if self._budget.unit == "trials":
            return len(self._begun) + 1 <= self._budget.amount or bool(self._paused)
        if self._budget.unit == "epochs":
            least = 1 if self._paused else self._fewest_epochs
            return self._epochs + least <= self._budget.amount
        return self._is_left

    def affords(self, spec: TrialSpec) -> bool:
        """Whether this trial may begin, or go on."""
        if self._budget.unit == "trials":
            begun = len(self._begun) + (spec.trial_id not in self._begun)
            return begun <= self._budget.amount
        if self._budget.unit == "epochs":
            return self._epochs + self._most_epochs(spec) <= self._budget.amount
        return self._is_left

    def begin(self, spec: TrialSpec) -> bool:
        """A trial begins or goes on; whether that alone costs something."""
        is_new = spec.trial_id not in self._begun
        self._begun.add(spec.trial_id)
        self._reserved[spec.trial_id] = self._most_epochs(spec)
        return is_new and self._budget.unit == "trials"

    def end(self, spec: TrialSpec, total: Spent, *, failed: bool, paused: bool) -> bool:
        """A trial has ended, at a `total` cost since its first epoch; whether it trained further.

        A failed one counts as no further: a search of which every trial fails would never end.
        """
        before = self.before(spec)
        self._reserved.pop(spec.trial_id, None)
        self._add(
            Spent(
                epochs=max(0, total.epochs - before.epochs),
                device_s=max(0.0, total.device_s - before.device_s),
                flops=max(0, total.flops - before.flops),
            )
        )
        if not failed:
            self._keep(spec.trial_id, total, is_paused=paused)
        return not failed and total.epochs > before.epochs

    def before(self, spec: TrialSpec) -> Spent:
        """What a trial had cost before it was last begun, with the trial that it changes."""
        own = self._totals.get(spec.trial_id)
        if own is not None:
            return own[max(own)]
        if spec.parent is None:
            return NOTHING
        earlier = self._totals.get(spec.parent.trial_id, {})
        return earlier.get(spec.changes[-1].after, NOTHING)

    @property
    def _epochs(self) -> int:
        return self._spent.epochs + sum(self._reserved.values())

    @property
    def _is_left(self) -> bool:
        if self._budget.unit == "s":
            return self._spent.device_s < self._budget.amount
        return self._spent.flops < self._budget.amount * self._full_run_flops

    def _most_epochs(self, spec: TrialSpec) -> int:
        if spec.trial_id in self._finished:
            return 0
        return max(0, spec.recipe.epochs - self.before(spec).epochs)

    def _add(self, charge: Spent) -> None:
        spent = self._spent
        self._spent = Spent(
            epochs=spent.epochs + charge.epochs,
            device_s=spent.device_s + charge.device_s,
            flops=spent.flops + charge.flops,
        )

    def _keep(self, trial_id: str, total: Spent, *, is_paused: bool) -> None:
        self._totals.setdefault(trial_id, {})[total.epochs] = total
        now, other = (self._paused, self._finished)[:: 1 if is_paused else -1]
        now.add(trial_id)
        other.discard(trial_id)
