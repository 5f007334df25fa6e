"""From a study to finished trials: the plan, and the loop search -> engine.

Owns: what is to run, and what a search is told. Must not know: how trials are computed, how
progress is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from threading import Event

from harness.engines.base import Engine, Reported
from harness.runner.runtime import Runtime
from harness.runner.trial import record_crash
from harness.search.base import Outcome, Search
from harness.spec import TrialSpec
from harness.store.records import TrialRecord
from harness.store.store import Store

POLL_S = 1.0
"""How often to look for the end of a trial that another process runs."""


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
