"""From a study to finished trials: the plan, the run folder, and the loop search -> engine.

Owns: `studies/<run>/` with `study.json` or `comparison.json`, and `environment.json`. Must not
know: how trials are computed, how progress is shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pydantic import JsonValue

from harness.comparison import Comparison
from harness.engine import Engine
from harness.errors import UserError
from harness.searches import Outcome, Search
from harness.spec import TrialSpec
from harness.store import Store, TrialRecord, write_atomically
from harness.study import Study
from harness.trial import Runtime, probe_seconds, provenance, record_crash, resolve

POLL_S = 1.0
"""How often to look for the end of a trial that another process runs."""


Cell = tuple[dict[str, JsonValue], TrialSpec]
"""A configuration's values, field by field, and one trial of it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study's trials, and which of them the store lacks."""

    study: Study
    folder: Path
    cells: list[Cell]
    done: list[TrialRecord]
    running: int
    failed: int
    to_run: list[TrialSpec]

    def estimated_device_s(self, runtime: Runtime) -> float | None:
        """Device seconds still to spend: by the study's finished trials, else by a short probe.

        None when the probe fails; the trials themselves will then say why.
        """
        known = [record.cost.device_s for record in self.done]
        if not known:
            probes = {0, len(self.to_run) // 2, len(self.to_run) - 1}
            try:
                known = [probe_seconds(self.to_run[index], runtime) for index in probes]
            except UserError:
                raise
            except Exception:
                return None
        return len(self.to_run) * sum(known) / len(known)


def make_plan(study: Study, *, store: Store, run_name: str, runtime: Runtime) -> Plan:
    """Resolve every cell and look up its state.

    Raises:
        UserError: a cell that cannot be run; names the study and the cell.
    """
    cells = []
    for cell, request in study.requests():
        try:
            cells.append((cell, resolve(request, runtime)))
        except UserError as error:
            raise UserError(f"study {study.name}, cell {cell}: {error}") from error
    specs = {spec.trial_id: spec for _, spec in cells}
    states = {trial_id: store.state(trial_id) for trial_id in specs}
    records = [store.record(trial_id) for trial_id, state in states.items() if state == "done"]
    return Plan(
        study=study,
        folder=store.root / "studies" / run_name,
        cells=cells,
        done=[record for record in records if record is not None],
        running=sum(state == "running" for state in states.values()),
        failed=sum(state == "failed" for state in states.values()),
        to_run=[specs[trial_id] for trial_id, state in states.items() if state != "done"],
    )


def write_run(folder: Path, study: Study, cells: Sequence[Cell], runtime: Runtime) -> None:
    """Put the study as it is run, and the environment, beside the results."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"cell": cell, "seed": spec.seed, "trial_id": spec.trial_id} for cell, spec in cells]
    content = {"study": study.model_dump(mode="json"), "cells": listed}
    write_atomically(folder / "study.json", json.dumps(content, indent=1))
    _write_environment(folder, runtime)


def _write_environment(folder: Path, runtime: Runtime) -> None:
    environment = json.dumps(provenance(runtime.device), indent=1)
    write_atomically(folder / "environment.json", environment)


def write_comparison(comparison: Comparison, store: Store, run_name: str, runtime: Runtime) -> Path:
    """Put a comparison and the environment into a run folder, and return the folder."""
    folder = store.root / "studies" / run_name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "comparison.json", comparison.model_dump_json(indent=1))
    _write_environment(folder, runtime)
    return folder


def drive(
    search: Search,
    engine: Engine,
    *,
    store: Store,
    runtime: Runtime,
    metric: str,
    stop: Event,
    on_end: Callable[[TrialRecord], None],
) -> None:
    """Keep the engine full of what the search asks for, until the search is over.

    Once `stop` is set nothing new starts, and the trials that run are finished.
    """
    running = 0
    elsewhere: list[TrialSpec] = []
    while True:
        while running < engine.slots and not stop.is_set():
            specs = search.ask(1)
            if not specs:
                break
            if store.state(specs[0].trial_id) == "done":
                _tell(search, store, specs[0], metric, on_end)
                continue
            engine.submit(specs[0])
            running += 1
        if running:
            ended = engine.next()
            running -= 1
            if ended.crash:
                record_crash(ended.spec, runtime, store, ended.crash)
            if store.record(ended.spec.trial_id) is None:
                elsewhere.append(ended.spec)
            else:
                _tell(search, store, ended.spec, metric, on_end)
        elif elsewhere and not stop.is_set():
            spec = elsewhere.pop(0)
            if store.state(spec.trial_id) == "running":
                elsewhere.append(spec)
                time.sleep(POLL_S)
            elif store.record(spec.trial_id) is None:
                engine.submit(spec)  # the other process died; its claim is free again
                running += 1
            else:
                _tell(search, store, spec, metric, on_end)
        else:
            return


def _tell(
    search: Search,
    store: Store,
    spec: TrialSpec,
    metric: str,
    on_end: Callable[[TrialRecord], None],
) -> None:
    record = store.record(spec.trial_id)
    assert record is not None
    objective = None if record.status == "FAILED" else record.objective(metric)
    search.tell(
        Outcome(
            trial_id=record.trial_id,
            status=record.status,
            objective=objective,
            device_s=record.cost.device_s,
            flops=record.cost.flops,
        )
    )
    on_end(record)
