"""A search driven against a table instead of an engine: recorded outcomes, nothing is trained.

Owns: the simulated workers, and trials from a table's rows. Must not know: torch, which search it
drives, how a report is made.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from harness.errors import UserError
from harness.metrics import Goal, Objective
from harness.search.base import Decision, Outcome, Search
from harness.search.bounded import bounded
from harness.spec import TrialSpec
from harness.store.records import Status
from harness.store.table import Table
from harness.study.axes import cell_words
from harness.study.space import Values, cell_key


@dataclass(frozen=True)
class _Recorded:
    """A trial of the table: its end, and its curve before."""

    status: Status
    objective: float
    device_s: float
    flops: int
    curve: tuple[float, ...]
    """Selection score after every epoch, better when higher; NaN after one that diverged."""
    beside: tuple[float, ...]
    """What the further objectives are worth."""


class Recording:
    """A table's trials, made ready to be asked for thousands of times."""

    def __init__(self, table: Table, objective: Objective, further: tuple[Goal, ...] = ()) -> None:
        self._specs: dict[tuple[str, int], TrialSpec] = {}
        self._ids: dict[tuple[str, int], str] = {}
        self._texts: dict[str, str] = {}
        self._trials: dict[str, _Recorded] = {}
        worths = table.worths(objective)
        curves = worths.groupby(table.rows["trial_id"], sort=False).agg(tuple)
        last = table.trials
        beside = [table.goal_worths(goal) for goal in further]
        for cell, seed, trial_id, status, score, device_s, flops, spec, *others in zip(
            last["cell"],
            last["seed"],
            last["trial_id"],
            last["status"],
            table.final_worths(objective),
            last["device_s"],
            last["flops"],
            last["spec"],
            *beside,
            strict=True,
        ):
            self._ids[cell, int(seed)] = trial_id
            self._texts[trial_id] = spec
            self._trials[trial_id] = _Recorded(
                status=status,
                objective=float(score),
                device_s=float(device_s),
                flops=int(flops),
                curve=curves[trial_id],
                beside=tuple(map(float, others)),
            )

    def trial_id(self, values: Values, seed: int) -> str | None:
        """The id of a recorded trial; None if the table has no such cell, or not with this seed."""
        return self._ids.get((cell_key(values), seed))

    def make(self, values: Values, seed: int) -> TrialSpec:
        """The spec of a recorded trial, read from the table once.

        Raises:
            UserError: the table has no such cell, or not with this seed.
        """
        key = (cell_key(values), seed)
        if key not in self._specs:
            if key not in self._ids:
                raise UserError(
                    f"The table has no trial of {cell_words(values)}, seed {seed}; tabulate a run "
                    "that has it."
                )
            trial_id = self._ids[key]
            spec = TrialSpec.model_validate_json(self._texts[trial_id])
            # A table keeps the ids that it was made with.
            self._specs[key] = spec.known_as(trial_id)
        return self._specs[key]

    def replay(self, search: Search, workers: int = 1) -> int:
        """Run a search to its end; the number of trials that it was told.

        Trials end in the order in which `workers` at once would have ended them, each taking its
        recorded device seconds. A trial that reports does so after every epoch but its last, and is
        charged for the epochs that it was given; a paused one goes on from there.

        Raises:
            UserError: the search raised, broke its contract, or asked for what the table lacks.
        """
        search = bounded(search)
        order = itertools.count()
        # (time, order of events at one time, trial, its epoch then)
        events: list[tuple[float, int, str, int]] = []
        paused: dict[str, int] = {}
        running, told, now = 0, 0, 0.0
        while True:
            while running < workers and (asked := search.ask(1)):
                trial_id = asked[0].trial_id
                if trial_id not in self._trials:
                    raise UserError(
                        f"Search {search.name!r} asked for trial {trial_id}, which the table lacks."
                    )
                trial = self._trials[trial_id]
                epochs, begun = len(trial.curve), paused.pop(trial_id, 0)
                first = begun + 1 if search.needs_epoch_reports else epochs
                wait = trial.device_s * (first - begun) / epochs
                heapq.heappush(events, (now + wait, next(order), trial_id, first))
                running += 1
            if not events:
                return told
            now, _, trial_id, epoch = heapq.heappop(events)
            trial = self._trials[trial_id]
            epochs = len(trial.curve)
            if epoch < epochs:
                decision = search.report(trial_id, epoch, trial.curve[epoch - 1])
                if decision is Decision.GO_ON:
                    wait = trial.device_s / epochs
                    heapq.heappush(events, (now + wait, next(order), trial_id, epoch + 1))
                    continue
                if decision is Decision.PAUSE:
                    paused[trial_id] = epoch
            search.tell(_outcome(trial_id, trial, epoch))
            running -= 1
            told += 1


def _outcome(trial_id: str, trial: _Recorded, epoch: int) -> Outcome:
    epochs = len(trial.curve)
    whole = epoch == epochs
    share = epoch / epochs
    return Outcome(
        trial_id=trial_id,
        status=trial.status if whole else "PRUNED",
        objective=trial.objective if whole else trial.curve[epoch - 1],
        epochs=epoch,
        device_s=share * trial.device_s,
        flops=trial.flops if whole else round(share * trial.flops),
        beside=trial.beside,
    )
