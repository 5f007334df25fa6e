"""Population-based training: a search that changes strengths and learning rates in mid-training.

Owns: who goes on, who is replaced by whom, and with which values. Must not know: where trials run,
or how one goes on from another's weights. A member is an ordinary trial whose spec lists its
changes, so it can be trained again from the spec alone.

Ours and not Ray's scheduler (seen on 2.60): that one refuses to run beside a search algorithm,
draws from Python's global random numbers, and cannot be rebuilt from a log. Its rules and default
values are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import UserError
from harness.search.base import Decision, Outcome, SearchTask, refuse_other_order, tell_event
from harness.search.budget import Budget
from harness.spec import CHANGEABLE, TrialSpec
from harness.store.search_log import Ask, Event, Spent, Tell, append_event, asks, read_log, tells
from harness.study.space import Domain, Params, SearchSpace, Values

GENERATIONS = 4
"""Parts of a training, after each of which the population is looked at."""
QUANTILE = 0.25
"""Of the population that is replaced by copies from as large a part at the top."""
RESAMPLE = 0.25
"""Probability that a copy's value is drawn anew instead of moved."""
FACTORS = (0.8, 1.2)
"""By one of which a number of a range is moved; one of a list moves to a neighbour."""


@dataclass(frozen=True)
class _Member:
    params: Params
    values: Values
    spec: TrialSpec


class PopulationSearch:
    """`size` members are trained side by side, an equal number of epochs at a time.

    After each part the worst quarter is replaced: a copy of one of the best quarter, position,
    depth and weights included, goes on with moved alpha and learning rate. What the members cost
    together is `size` trainings or, where some diverge, less.
    """

    needs_epoch_reports = True

    def __init__(self, task: SearchTask, size: int) -> None:
        self._task = task
        part = math.ceil(task.epochs / GENERATIONS)
        self._stops = [*range(part, task.epochs, part), task.epochs]
        events = read_log(task.log, mend=True)
        self._logged = {event.trial_id for event in asks(events)}
        # A failed member is tried again after a restart, but where the population has gone on
        # without it: its rank then is what the later generations came of.
        part = self._part_reached(events)
        self._told: dict[tuple[str, int | None], Tell] = {
            (event.trial_id, event.until): event
            for event in tells(events)
            if event.objective is not None or (event.until is not None and event.until < part)
        }
        self._generation = 0
        self._members = self._first(size)
        first = [ask.trial_id for ask in asks(events) if "changes" not in ask.cell]
        refuse_other_order(task.log, first, [member.spec.trial_id for member in self._members])
        if part > self._stops[0] and len(first) != len(self._members):
            raise UserError(
                f"{task.log}: this population was begun with {len(first)} members, and has gone on "
                "from their ranks; give the same --budget again, or another --out."
            )
        self._left: list[TrialSpec] = []
        self._waiting: set[str] = set()
        self._begin(self._members)

    def ask(self, count: int) -> Sequence[TrialSpec]:
        while not self._left and not self._waiting and self._generation + 1 < len(self._stops):
            self._next_generation()
        asked, self._left = self._left[:count], self._left[count:]
        return asked

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        """Members wait for the others at the end of each part."""
        until: int = self._stops[self._generation]
        return Decision.GO_ON if epoch < until else Decision.PAUSE

    def tell(self, outcome: Outcome) -> None:
        until = self._stops[self._generation]
        # What a trial has cost since its first epoch, less what was told of it before.
        before = self._spent_before(outcome.trial_id)
        event = replace(
            tell_event(outcome),
            epochs=max(0, outcome.epochs - before.epochs),
            device_s=max(0, outcome.device_s - before.device_s),
            flops=max(0, outcome.flops - before.flops),
            until=until,
            total=Spent(outcome.epochs, outcome.device_s, outcome.flops),
        )
        append_event(self._task.log, event)
        self._told[outcome.trial_id, until] = event
        self._waiting.discard(outcome.trial_id)

    def _spent_before(self, trial_id: str) -> Spent:
        if self._generation == 0:
            return Spent(0, 0, 0)
        member = next(each for each in self._members if each.spec.trial_id == trial_id)
        until = self._stops[self._generation - 1]
        for spec in (member.spec, member.spec.parent):
            earlier = None if spec is None else self._told.get((spec.trial_id, until))
            if earlier is not None and earlier.total is not None:
                return earlier.total
        return Spent(0, 0, 0)

    def _part_reached(self, events: Sequence[Event]) -> int:
        """The end of the last part that a log has anything of."""
        changes: Any = [ask.cell["changes"] for ask in asks(events) if "changes" in ask.cell]
        copied = max((each[-1]["after"] for each in changes), default=0)
        begun = next((stop for stop in self._stops if stop > copied), 0)
        return max([begun, *(tell.until or 0 for tell in tells(events))])

    def _begin(self, members: Sequence[_Member]) -> None:
        """Have members trained to the end of the present part, if that is not known yet."""
        for member in members:
            trial_id = member.spec.trial_id
            if trial_id not in self._logged:
                self._logged.add(trial_id)
                seed = member.spec.seed
                event = Ask(params={}, cell=member.values, seed=seed, trial_id=trial_id)
                append_event(self._task.log, event)
            known = (trial_id, self._stops[self._generation]) in self._told
            if not known and trial_id not in self._waiting:
                self._waiting.add(trial_id)
                self._left.append(member.spec)

    def _next_generation(self) -> None:
        until = self._stops[self._generation]
        ended = [self._told[member.spec.trial_id, until] for member in self._members]
        order = sorted(range(len(ended)), key=lambda index: -_worth(ended[index]))
        cut = min(math.ceil(QUANTILE * len(order)), len(order) // 2)
        # One that ended before its time has no weights to go on from.
        best = [index for index in order[:cut] if ended[index].status == "PRUNED"]
        rng = self._rng("generation", self._generation)
        replaced = set(order[len(order) - cut :]) if best else set()
        members = list(self._members)
        for index in sorted(replaced):
            members[index] = self._copy(self._members[rng.choice(best)], until, rng)
        self._members = members
        self._generation += 1
        # Copies first: they start from weights that their originals are about to change.
        alive = [index for index, event in enumerate(ended) if event.status == "PRUNED"]
        self._begin([members[index] for index in sorted(replaced)])
        self._begin([members[index] for index in alive if index not in replaced])
        for index, event in enumerate(ended):
            if index not in replaced and index not in alive:
                self._told[members[index].spec.trial_id, self._stops[self._generation]] = event

    def _copy(self, original: _Member, after: int, rng: random.Random) -> _Member:
        moved: Params = {}

        def suggest(name: str, domain: Domain) -> int | float:
            value = original.params[name]
            can_move = can_change(name) and domain.choices != 1
            moved[name] = _moved(value, domain, rng) if can_move else value
            return moved[name]

        suggested = self._task.space.values(suggest)
        change = {field: suggested[field] for field in CHANGEABLE if field in suggested}
        changes: Any = original.values.get("changes", [])
        changes = [*changes, {"after": after, "values": change}]
        return self._member(moved, {**original.values, "changes": changes})

    def _first(self, size: int) -> list[_Member]:
        rng = self._rng("first")
        if self._task.space.size < math.inf:
            drawn = list(self._task.space.enumerate())
            rng.shuffle(drawn)
            drawn = drawn[:size]
        else:
            drawn = [{} for _ in range(size)]
        members = []
        for given in drawn:
            params: Params = {}

            def suggest(
                name: str, domain: Domain, given: Params = given, params: Params = params
            ) -> int | float:
                params[name] = given[name] if given else _drawn(domain, rng)
                return params[name]

            members.append(self._member(params, self._task.space.values(suggest)))
        return members

    def _member(self, params: Params, values: Values) -> _Member:
        return _Member(params, values, self._task.make(values, self._task.seed))

    def _rng(self, *words: object) -> random.Random:
        text = json.dumps([self._task.name, *map(str, words)])
        return random.Random(hashlib.sha256(text.encode()).hexdigest())  # noqa: S311 - a search's draws


def population_size(space: SearchSpace, budget: Budget, epochs: int) -> int:
    """Members that a budget pays for, each trained for `epochs`.

    Raises:
        UserError: a budget in other units, or too small; a space with nothing that can change, or
            in which trials have different numbers of epochs.
    """
    varies: list[str] = []
    default = space.default()

    def suggest(variable: str, domain: Domain) -> int | float:
        varies.extend([] if domain.choices == 1 else [variable])
        return default[variable]

    space.values(suggest)
    if not any(can_change(variable) for variable in varies):
        raise UserError(
            "pbt changes alpha or recipe.lr in mid-training, and this study varies neither; take "
            "one that does, such as position_vs_alpha."
        )
    if len(space.lengths) > 1:
        raise UserError(
            "pbt trains its members side by side for equally many epochs, and trials of this study "
            f"have {min(space.lengths)} to {max(space.lengths)}: keep one number, with --only."
        )
    size = int(budget.amount / (epochs if budget.unit == "epochs" else 1))
    if budget.unit not in ("trials", "epochs") or not size:
        raise UserError(
            f"pbt takes a --budget in trials, its members, or in epochs, at least {epochs} of them."
        )
    return size


def population_budget(size: int, epochs: int) -> Budget:
    """What a population spends: a copy and what it replaces are trained as one trial together."""
    return Budget(amount=size * epochs, unit="epochs")


def can_change(variable: str) -> bool:
    """Whether a variable of the space may change in mid-training."""
    return variable in CHANGEABLE or variable.endswith(" alpha")


def _drawn(domain: Domain, rng: random.Random) -> int | float:
    if domain.choices is not None:
        return rng.randrange(domain.choices)
    if domain.log:
        return math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return rng.uniform(domain.low, domain.high)


def _moved(value: int | float, domain: Domain, rng: random.Random) -> int | float:
    """Another value: with the same seed, a copy that changes nothing would be its original."""
    is_new = rng.random() < RESAMPLE
    if domain.choices is not None:
        others = [n for n in range(domain.choices) if n != value]
        near = [n for n in others if abs(n - value) == 1]
        return rng.choice(others if is_new or not domain.ordered else near)
    if is_new:
        return _drawn(domain, rng)
    return min(max(value * rng.choice(FACTORS), domain.low), domain.high)


def _worth(told: Tell) -> float:
    """What a member is ranked by; one that failed is the worst."""
    return -math.inf if told.objective is None else told.objective
