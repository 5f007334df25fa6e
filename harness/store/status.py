"""How far a run is, read from the store alone.

Owns: the numbers of `harness status`. Must not know: how the run is driven.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from harness.errors import UserError
from harness.metrics import Objective
from harness.store.liveness import living_owner
from harness.store.records import state_of
from harness.store.run_folder import RunFolder
from harness.store.runs import Asked, RunFiles, not_gone_on_with, older, read_run, refuse_replayed
from harness.store.search_log import asks
from harness.store.store import Store
from harness.store.summaries import Summary, as_told, summaries


class Best(NamedTuple):
    """The trial with the best selection score, among those trained to their last epoch."""

    cell: dict[str, Any]
    seed: int
    score: float


class RunStatus(NamedTuple):
    """How far a run is at one moment."""

    name: str
    question: str
    objective: Objective
    """What `best` is chosen by, on `split`."""
    split: str
    is_grid: bool
    asked: int
    """Trials of the grid, or those that the search has asked for so far."""
    counts: dict[str, int]
    """Trials by what became of them: done, stopped early, running, failed, not used, waiting.

    Those done under other `SEMANTICS` than this version's are counted as that, and not as done, and
    nothing waits there."""
    driver: str | None
    """The process that drives the run, in words."""
    goes_on: bool
    """Whether its command would go on with it."""
    best: Best | None
    running: int
    left_s: float | None
    """Estimated seconds to the end of a grid that is being driven, from its finished trials."""
    devices: dict[str, tuple[int, float]]
    """Name -> trials and device seconds."""
    failures: list[tuple[str, str]]
    """Trial ids, each with the last line of its error."""
    notes: list[str]
    """Sentences on what is not as it should be: records that are not used, other `SEMANTICS`."""


def look(folder: RunFolder) -> RunStatus:
    """Read a run's folder and its trials.

    Raises:
        UserError: the folder is not that of a sweep, or its study trains nothing.
    """
    refuse_replayed(folder)
    files = read_run(folder)
    if not files.study.trains:
        raise UserError(f"{folder.name} trains nothing: its report holds all there is.")
    store = folder.store
    driver = living_owner(folder.driver_mark)
    phantoms = set() if driver is not None else _phantoms(files, store)
    asked = {each.trial_id: each for each in files.asked if each.trial_id not in phantoms}
    unusable: dict[str, str] = {}
    ended = as_told(summaries(store, asked, unusable.__setitem__), files.no_answers)
    left = [trial_id for trial_id in asked if trial_id not in ended and trial_id not in unusable]
    running = sum(store.is_claimed(trial_id) for trial_id in left)
    states = [state_of(summary.status) for summary in ended.values()]
    earlier = older(folder)
    done = "done" if earlier is None else f"done under SEMANTICS {earlier}"
    counts = {
        done: states.count("done"),
        "stopped early": states.count("absent"),
        "running": running,
        "failed": states.count("failed"),
        "not used": len(unusable),
        "waiting" if earlier is None else "never run": len(left) - running,
    }
    devices: dict[str, tuple[int, float]] = {}
    for summary in ended.values():
        count, seconds = devices.get(summary.device, (0, 0.0))
        devices[summary.device] = (count + 1, seconds + summary.device_s)
    is_grid = not files.searches
    left_s = None
    if driver is not None and is_grid and ended and running:
        mean = sum(summary.device_s for summary in ended.values()) / len(ended)
        left_s = mean * len(left) / running
    objective = files.study.objective
    return RunStatus(
        name=folder.name,
        question=files.study.question,
        objective=objective,
        split=files.study.base.data.chosen_on,
        is_grid=is_grid,
        asked=len(asked),
        counts=counts,
        driver=None if driver is None else str(driver),
        goes_on=earlier is None,
        best=_best(asked, ended, objective),
        running=running,
        left_s=left_s,
        devices=devices,
        failures=[(s.trial_id, s.error or "?") for s in ended.values() if s.status == "FAILED"],
        notes=[
            *unusable.values(),
            *([] if earlier is None else [not_gone_on_with(folder.name, earlier)]),
        ],
    )


def _phantoms(files: RunFiles, store: Store) -> set[str]:
    """Last proposals that never began, of searches that nothing drives.

    Versions up to ad7d1aa asked before they looked whether a budget in epochs had room. Such a
    proposal waits for nothing. A population logs its members before they begin; they have no
    variables.
    """
    last = [asks(log)[-1] for log in files.searches.values() if asks(log)]
    return {ask.trial_id for ask in last if ask.params and not store.has_begun(ask.trial_id)}


def _best(asked: dict[str, Asked], ended: dict[str, Summary], objective: Objective) -> Best | None:
    whole = [summary for summary in ended.values() if summary.status == "COMPLETE"]
    if not whole:
        return None
    best = max(whole, key=lambda summary: summary.objective(objective))
    of = asked[best.trial_id]
    return Best(of.cell, of.seed, best.objective(objective))
