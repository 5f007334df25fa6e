"""From a study to finished trials: the plan, and the loop search -> engine.

Owns: what is to run, and what a search is told. Must not know: how trials are computed, how
progress is shown.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from harness.engine import Engine, Reported
from harness.errors import UserError
from harness.index import Summary, in_bulk, summaries
from harness.runs import Cell, read_run
from harness.searches import Budget, Outcome, Search
from harness.space import Params, SearchSpace, Values
from harness.spec import TrialSpec
from harness.store import State, Store, TrialRecord, state_of
from harness.study import Study
from harness.trial import Runtime, probe_seconds, record_crash, resolve

POLL_S = 1.0
"""How often to look for the end of a trial that another process runs."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study's trials, and of those to be done now, which the store lacks."""

    study: Study
    folder: Path
    cells: list[Cell]
    done: list[Summary]
    running: int
    failed: int
    to_run: list[TrialSpec]

    def estimated_device_s(self, runtime: Runtime) -> float | None:
        """Device seconds still to spend: by the study's finished trials, else by a short probe.

        None when the probe fails; the trials themselves will then say why.
        """
        known = [summary.device_s for summary in self.done]
        if not known:
            probes = {0, len(self.to_run) // 2, len(self.to_run) - 1}
            try:
                known = [probe_seconds(self.to_run[index], runtime) for index in probes]
            except UserError:
                raise
            except Exception:
                return None
        return len(self.to_run) * sum(known) / len(known)


@in_bulk()
def make_plan(
    study: Study, *, store: Store, run_name: str, runtime: Runtime, most: int | None = None
) -> Plan:
    """Resolve every cell, and look up the state of the first `most` trials (None: of all).

    Raises:
        UserError: a cell that cannot be run; names the study and the cell.
    """
    cells: list[list[Cell]] = []
    for cell, request in study.cell_requests():
        try:
            spec = resolve(request, runtime)
        except UserError as error:
            raise UserError(f"study {study.name}, cell {cell}: {error}") from error
        cells.append([(cell, seeded) for seeded in spec.over_seeds(study.seeds)])
    # Seeds outermost, so that maps fill evenly.
    trials = [cells_of_seed[index] for index in range(len(study.seeds)) for cells_of_seed in cells]
    distinct = {spec.trial_id: spec for _, spec in trials}
    specs = dict(itertools.islice(distinct.items(), most))
    ended = summaries(store, specs)
    states = {i: state_of(ended[i].status) if i in ended else _unfinished(store, i) for i in specs}
    return Plan(
        study=study,
        folder=store.root / "studies" / run_name,
        cells=trials,
        done=[ended[trial_id] for trial_id, state in states.items() if state == "done"],
        running=sum(state == "running" for state in states.values()),
        failed=sum(state == "failed" for state in states.values()),
        to_run=[spec for i, spec in specs.items() if states[i] != "done"],
    )


def trials_in(budget: str, study: Study) -> int:
    """Trials of a study's grid that a budget pays for, counted from the first cell.

    Raises:
        UserError: it is not a budget in trials or epochs.
    """
    limit = Budget.parse(budget)
    if limit.unit not in ("trials", "epochs"):
        raise UserError(f"--budget {budget}: that of a grid is in trials or epochs, as in 24.")
    return int(limit.amount / (study.base.recipe.epochs if limit.unit == "epochs" else 1))


def _unfinished(store: Store, trial_id: str) -> State:
    return "running" if store.is_claimed(trial_id) else "absent"


OnEnd = Callable[[TrialRecord, bool], None]
"""Told a trial that the search has got its answer from, and whether it was run just now."""


def drive(
    search: Search,
    engine: Engine,
    *,
    store: Store,
    runtime: Runtime,
    metric: str,
    max_retries: int,
    stop: Event,
    on_end: OnEnd,
) -> None:
    """Keep the engine full of what the search asks for, until the search is over.

    A trial whose worker died is tried again, `max_retries` times at most, and then recorded as
    failed. Once `stop` is set nothing new starts, and the trials that run are finished.
    """
    running = 0
    crashes: Counter[str] = Counter()
    elsewhere: list[TrialSpec] = []
    while True:
        while running < engine.slots and not stop.is_set():
            specs = search.ask(1)
            if not specs:
                break
            if store.state(specs[0].trial_id) == "done":
                _tell(search, store, specs[0], metric, on_end, is_fresh=False)
                continue
            store.branch(specs[0])
            engine.submit(specs[0])
            running += 1
        if running:
            event = engine.next()
            spec = event.spec
            if isinstance(event, Reported):
                goes_on = search.report(spec.trial_id, event.epoch, event.scores[metric])
                engine.answer(spec, goes_on)
                continue
            if event.crash:
                store.release(spec.trial_id)
                crashes[spec.trial_id] += 1
                if crashes[spec.trial_id] <= max_retries and not stop.is_set():
                    engine.submit(spec)
                    continue
                if not stop.is_set():
                    record_crash(spec, runtime, store, event.crash)
            running -= 1
            if store.record(spec.trial_id) is None:
                elsewhere.append(spec)
            else:
                _tell(search, store, spec, metric, on_end, is_fresh=True)
        elif elsewhere and not stop.is_set():
            spec = elsewhere.pop(0)
            if store.state(spec.trial_id) == "running":
                elsewhere.append(spec)
                time.sleep(POLL_S)
            elif store.record(spec.trial_id) is None:
                engine.submit(spec)  # the other process died; its claim is free again
                running += 1
            else:
                _tell(search, store, spec, metric, on_end, is_fresh=False)
        else:
            return


def _tell(
    search: Search,
    store: Store,
    spec: TrialSpec,
    metric: str,
    on_end: OnEnd,
    *,
    is_fresh: bool,
) -> None:
    record = store.record(spec.trial_id)
    assert record is not None
    outcome = Outcome(
        trial_id=record.trial_id,
        status=record.status,
        objective=None if record.status == "FAILED" else record.objective(metric),
        epochs=record.epochs_run,
        device_s=record.cost.device_s,
        flops=record.cost.flops,
    )
    if search.watches and not is_fresh:
        outcome = _as_watched(search, store, record, outcome, metric)
    search.tell(outcome)
    on_end(record, is_fresh)


def _as_watched(
    search: Search, store: Store, record: TrialRecord, outcome: Outcome, metric: str
) -> Outcome:
    """What a search that watches would have seen of a trial that ran without it.

    Its epochs are reported one by one, up to where the search would have stopped it, and it is
    charged for those alone.
    """
    for row in store.history(record.trial_id)[: record.epochs_run - 1]:
        epoch, score = row["epoch"] + 1, row.get("select", {}).get(metric)
        if score is None or search.report(record.trial_id, epoch, score):
            continue
        share = epoch / record.epochs_run
        return replace(
            outcome,
            status="PRUNED",
            objective=score,
            epochs=epoch,
            device_s=share * outcome.device_s,
            flops=round(share * outcome.flops),
        )
    return outcome


def known_points(
    folder: Path, space: SearchSpace, make: Callable[[Values, int], TrialSpec], metric: str
) -> list[tuple[Params, float]]:
    """Configurations of a space that another run has finished, with their mean score over seeds.

    Raises:
        UserError: there are none; the other run had another space, data, backbone or recipe.
    """
    store = Store(folder.parent.parent)
    scores: dict[str, tuple[Params, list[float]]] = {}
    run = read_run(folder).asked
    ended = summaries(store, {asked.trial_id for asked in run})
    for asked in run:
        params = space.params(asked.cell)
        if params is None or make(asked.cell, asked.seed).trial_id != asked.trial_id:
            continue
        summary = ended.get(asked.trial_id)
        if summary is not None and summary.status in ("COMPLETE", "DIVERGED"):
            key = json.dumps(params, sort_keys=True)
            scores.setdefault(key, (params, []))[1].append(summary.objective(metric))
    if not scores:
        raise UserError(
            f"--warm-start {folder.name}: none of its finished trials is one of this space, with "
            "the same data, backbone and recipe."
        )
    return [(params, sum(found) / len(found)) for params, found in scores.values()]
