"""What to try with a handful of trainings: the rate first, then where LoRA goes.

Four rates of LoRA at every linear map, coarse to fine around the best; then, at the best of them,
one training of every other place that still fits; then the rate again at the place that is best.
Why in this order: with its rate tuned, LoRA at every linear map is what its variants do not beat
(arXiv:2602.04998, arXiv:2601.22708), and with all places free those at the MLP matter most (LoRA
Without Regret, Thinking Machines 2025). A training begins only if all of it fits into the budget.

Owns: this order, which rates and places there are, and the plan as a `Search`. Must not know:
torch, test scores, where trials run, how FLOPs are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import UserError
from harness.search.base import Outcome, SearchTask, WholeTrials, tell_event
from harness.search.budget import Budget
from harness.spec import LINEAR_POSITIONS, Position, TrialSpec
from harness.store.search_log import Ask, Tell, append_event, asks, read_log, tells
from harness.study.space import Values

NAME = "recommend"
RATE_TRIALS = 4
"""Rates that are tried at the widest place before any other place is."""
STRIDE = 2
"""Levels between the first rates."""
RATES = tuple(2.0**level for level in range(-5, 6))
"""Levels of the rate, as multiples of the one that a plan starts from: a factor of 2 apart, so that
the first three are a factor of 4 apart."""
WIDEST = "every linear map"
PARTS: dict[str, tuple[Position, ...]] = {
    "MLP": ("mlp1", "mlp2"),
    "attention": ("q", "k", "v", "out"),
    "Q+V": ("q", "v"),
}
"""Places beside the widest, in the order in which they are tried, after its last half."""


def places_on(positions: Sequence[Position], num_blocks: int) -> dict[str, Values]:
    """The places of LoRA on a backbone with these positions, the widest first: name -> fields."""
    linear = tuple(each for each in LINEAR_POSITIONS if each in positions)
    places: dict[str, Values] = {WIDEST: {"positions": [*linear], "depth": "all"}}
    if num_blocks > 1:
        half = num_blocks // 2
        words = f"{WIDEST}, last {half} block{'s' if half > 1 else ''}"
        places[words] = {"positions": [*linear], "depth": f"last:{half}"}
    for name, part in PARTS.items():
        if set(part) < set(linear):
            places[name] = {"positions": [*part], "depth": "all"}
    return places


class Key(NamedTuple):
    """A trial of a plan."""

    place: int
    level: int


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a plan may try, and what each training of it costs."""

    places: tuple[Values, ...]
    """Fields of where LoRA goes: the widest, then the others in the order of trying."""
    strengths: tuple[Values, ...]
    """Fields of how strongly it is trained, by rising α² × rate."""
    runs: tuple[float, ...]
    """What one training costs at each place, in full runs."""
    start: int
    """Place in `strengths` that is tried first."""
    stride: int = STRIDE

    def cell(self, key: Key) -> Values:
        """The configuration of a trial."""
        return {**self.places[key.place], **self.strengths[key.level]}

    def key(self, cell: Values) -> Key | None:
        """The trial of a configuration; None for one that is not of the plan."""
        pairs = itertools.product(range(len(self.places)), range(len(self.strengths)))
        return next((Key(*pair) for pair in pairs if self.cell(Key(*pair)) == cell), None)

    @property
    def most(self) -> int:
        """Trials of a plan that any budget pays for: every strength at the place that is best, and
        a few at the widest and one at each other place before."""
        return RATE_TRIALS + len(self.places) - 1 + len(self.strengths) - 1

    def wave(self, told: Mapping[Key, float], left: float, count_trials: bool) -> list[Key]:
        """The trials that are next, to be run side by side; none: the plan is over.

        `told` are the selection scores so far, better when higher, in the order of trying; `left`
        is what is left of the budget, in runs, or in trials with `count_trials`.
        """
        for stage in (self._rates(told), self._others(told), self._finer(told)):
            fitting, rest = [], left
            for key in stage:
                cost = 1.0 if count_trials else self.runs[key.place]
                if cost <= rest + 1e-9:
                    fitting.append(key)
                    rest -= cost
            if fitting:
                return fitting
        return []

    def _rates(self, told: Mapping[Key, float]) -> list[Key]:
        """At the widest place, until `RATE_TRIALS` of them were tried or no finer one is left."""
        return [Key(0, level) for level in self._levels(0, told)][
            : max(0, RATE_TRIALS - sum(key.place == 0 for key in told))
        ]

    def _others(self, told: Mapping[Key, float]) -> list[Key]:
        """The other places, at the strength that was best at the widest."""
        widest = {key: score for key, score in told.items() if key.place == 0}
        # Without one, the budget had no room for it.
        level = max(widest, key=widest.__getitem__).level if widest else self.start
        tried = {0, *(key.place for key in told)}
        return [Key(place, level) for place in range(len(self.places)) if place not in tried]

    def _finer(self, told: Mapping[Key, float]) -> list[Key]:
        """More strengths at the place that is best."""
        if not told:
            return []
        place = max(told, key=told.__getitem__).place
        return [Key(place, level) for level in self._levels(place, told)]

    def _levels(self, place: int, told: Mapping[Key, float]) -> list[int]:
        """The strengths next to the best at a place: coarse ones first, then halfway to them, the
        one towards the better neighbour first."""
        tried = {key.level: score for key, score in told.items() if key.place == place}
        best = max(tried, key=tried.__getitem__) if tried else self.start
        stride = self.stride
        while stride:
            near = [best + stride, best - stride]
            near = [n for n in near if 0 <= n < len(self.strengths) and n not in tried]
            if near:
                beyond = {n: tried.get(2 * n - best, float("-inf")) for n in near}
                near.sort(key=beyond.__getitem__, reverse=True)
                return near if tried else [best, *near]
            stride //= 2
        return []


class Recommender(WholeTrials):
    """The plan as a search, rebuilt from its log. A wave begins when all of the last has ended, so
    that the same trials come of it with any number of workers.

    After a trial that failed nothing more is asked for: the next trials would hang on its score.
    """

    def __init__(self, task: SearchTask, steps: Steps) -> None:
        if task.budget.unit not in ("runs", "trials"):
            raise refused(task.budget)
        self._task, self._steps = task, steps
        self._asked: dict[Key, TrialSpec] = {}
        self._begun: set[str] = set()
        self._failed = False
        events = read_log(task.log, mend=True)
        for ask in asks(events):
            key = steps.key(ask.cell)
            if key is None:
                raise UserError(f"{task.log} belongs to another search or plan; move it away.")
            self._asked[key] = task.make(ask.cell, ask.seed)
        self._told = {tell.trial_id: tell for tell in tells(events) if tell.objective is not None}

    def ask(self, count: int) -> list[TrialSpec]:
        if self._failed:
            return []
        if all(spec.trial_id in self._told for spec in self._asked.values()):
            self._next_wave()
        waiting = [
            spec
            for spec in self._asked.values()
            if spec.trial_id not in self._told and spec.trial_id not in self._begun
        ][:count]
        self._begun.update(spec.trial_id for spec in waiting)
        return waiting

    def tell(self, outcome: Outcome) -> None:
        if outcome.trial_id in self._told:
            return
        event = tell_event(outcome)
        append_event(self._task.log, event)
        if outcome.objective is None:
            self._failed = True
        else:
            self._told[outcome.trial_id] = event

    def _next_wave(self) -> None:
        """Ask for all of it at once, so that a log which ends in it goes on with the same."""
        count_trials = self._task.budget.unit == "trials"
        told: dict[Key, float] = {}
        left = self._task.budget.amount
        for key, tell in self._ended():
            assert tell.objective is not None
            told[key] = tell.objective
            left -= 1.0 if count_trials else tell.flops / self._task.full_run_flops
        wave = []
        for key in self._steps.wave(told, left, count_trials):
            cell = self._steps.cell(key)
            spec = self._asked[key] = self._task.make(cell, self._task.seed)
            wave.append(Ask(params={}, cell=cell, seed=spec.seed, trial_id=spec.trial_id))
        if wave:
            append_event(self._task.log, *wave)

    def _ended(self) -> Iterator[tuple[Key, Tell]]:
        yield from ((key, self._told[spec.trial_id]) for key, spec in self._asked.items())


def refused(budget: Budget) -> UserError:
    """For a budget that no plan can be made for."""
    return UserError(
        f"--budget {budget.amount:g}{budget.unit}: a plan is made in full runs or in trials, as in "
        "5runs or 5."
    )
