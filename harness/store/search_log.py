"""The log of a search, `search-*.jsonl`: what it asked for and was told, one event a line.

The log is all that a search is rebuilt from. It may hold an ask that was never told: its trial was
running when the command ended. Owns: the events, their form on disk, and their one reader and one
writer. Must not know: which search writes them, where a log lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from harness.errors import UserError
from harness.store.files import append_line, read_lines
from harness.store.liveness import still_driving
from harness.store.records import Status
from harness.study.space import cell_key

SHARE = "data.train_share"
"""In a configuration of a space without such a field: a rung of a search by shares of the data."""

KINDS = ("ask", "report", "tell", "warm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The search proposed a configuration."""

    params: dict[str, int | float]
    """Its variables, as a sampler sees them; empty for a search that has no such variables."""
    cell: dict[str, JsonValue]
    """The configuration's values, field by field."""
    seed: int
    trial_id: str
    drawn: bool = False
    """Not the sampler's, but drawn from what was untried, and the sampler is asked again to be
    rebuilt, so that it would propose another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A running trial has a selection score after its first `epoch` epochs."""

    trial_id: str
    epoch: int
    score: float


class Spent(NamedTuple):
    """What a trial has cost."""

    epochs: int
    device_s: float
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """A trial ended, or was stopped or paused by the search."""

    trial_id: str
    status: Status
    """`PRUNED`: stopped or paused before its last epoch, or trained on a part of the data as a rung
    of a search."""
    objective: float | None
    """None for a failed trial; chance level for a diverged one, the last seen for a pruned one."""
    epochs: int
    """Charged for this stretch of training, as are `device_s` and `flops`."""
    device_s: float
    flops: int
    until: int | None = None
    """The epoch at which the stretch ends, for a search that trains in stretches."""
    total: Spent | None = None
    """What the trial has cost since its first epoch, for such a search."""
    beside: tuple[float, ...] = ()
    """What its further objectives are worth, better when higher, for a search with several."""
    learned: dict[str, float] | None = None
    """Site -> the score that the trial gave it, for a search that goes on from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A configuration whose score was known from another run before the search began."""

    params: dict[str, int | float]
    objective: float


Event = Ask | Report | Tell | Warm


def append_event(path: Path, *events: Event) -> None:
    """Append an event to a log, or several at once.

    Raises:
        NotSavedError: it cannot be written; the log may then end in a torn line.
        TakenOver: another process drives the run by now.
    """
    append_line(path, *map(_as_row, events), may_write=lambda: still_driving(path.parent))


def read_log(path: Path, *, mend: bool = False) -> list[Event]:
    """The events of a log, oldest first, without a last line torn by a crash; none without a file.

    `mend` also removes that line from the file; only the log's writer may.

    Raises:
        UserError: a line is damaged, or is no event that this version knows.
    """
    rows = read_lines(path, mend=mend)
    return [_as_event(row, f"{path}, line {number}") for number, row in enumerate(rows, start=1)]


def asks(log: Iterable[Event]) -> list[Ask]:
    """The proposals in a log, in order."""
    return [event for event in log if isinstance(event, Ask)]


def tells(log: Iterable[Event]) -> list[Tell]:
    """The answers in a log, in order."""
    return [event for event in log if isinstance(event, Tell)]


def best_cells(log: Sequence[Event], count: int) -> list[tuple[dict[str, JsonValue], int]]:
    """The best configurations in a search's log, each with its seed, best first.

    Only trials that ran to their end count; of two with equal scores, the one that ended first.
    """
    asked = {ask.trial_id: ask for ask in asks(log)}
    scored = [
        (tell.objective, asked[tell.trial_id])
        for tell in tells(log)
        if tell.status == "COMPLETE" and tell.objective is not None
    ]
    found: dict[str, tuple[dict[str, JsonValue], int]] = {}
    for _, ask in sorted(scored, key=lambda pair: -pair[0]):
        found.setdefault(cell_key(ask.cell), (ask.cell, ask.seed))
    return list(found.values())[:count]


def _as_row(event: Event) -> dict[str, Any]:
    """An event as it stands in the file; the order of the keys is part of the format."""
    if isinstance(event, Ask):
        return {
            "ask": event.params,
            "cell": event.cell,
            "seed": event.seed,
            "trial": event.trial_id,
            **({"drawn": True} if event.drawn else {}),
        }
    if isinstance(event, Report):
        return {"report": event.trial_id, "epoch": event.epoch, "score": event.score}
    if isinstance(event, Warm):
        return {"warm": event.params, "objective": event.objective}
    row: dict[str, Any] = {
        "tell": event.trial_id,
        "status": event.status,
        "objective": event.objective,
        "epochs": event.epochs,
        "device_s": event.device_s,
        "flops": event.flops,
    }
    row |= {} if event.until is None else {"until": event.until}
    row |= {"beside": list(event.beside)} if event.beside else {}
    row |= {"learned": event.learned} if event.learned else {}
    total = {} if event.total is None else event.total._asdict()
    return row | {f"total_{name}": value for name, value in total.items()}


def _as_event(row: dict[str, Any], where: str) -> Event:
    """A line as an event; keys beside those of its kind are left alone."""
    match row:
        case {
            "ask": dict() as params,
            "cell": dict() as cell,
            "seed": int() as seed,
            "trial": str() as trial_id,
        } if _are_numbers(params):
            drawn = row.get("drawn") is True
            return Ask(params=params, cell=cell, seed=seed, trial_id=trial_id, drawn=drawn)
        case {
            "report": str() as trial_id,
            "epoch": int() as epoch,
            "score": int() | float() as score,
        }:
            return Report(trial_id=trial_id, epoch=epoch, score=score)
        case {"warm": dict() as params, "objective": int() | float() as objective} if _are_numbers(
            params
        ):
            return Warm(params=params, objective=objective)
        case {
            "tell": str() as trial_id,
            "status": "COMPLETE" | "DIVERGED" | "PRUNED" | "FAILED" as status,
            "objective": int() | float() | None as objective,
            "epochs": int() as epochs,
            "device_s": int() | float() as device_s,
            "flops": int() as flops,
        }:
            total = [row.get(f"total_{name}") for name in Spent._fields]
            until, beside, learned = row.get("until"), row.get("beside", []), row.get("learned")
            is_until = until is None or isinstance(until, int)
            is_learned = learned is None or (isinstance(learned, dict) and _are_numbers(learned))
            if is_until and is_learned and _are_worths(beside):
                return Tell(
                    trial_id=trial_id,
                    status=status,
                    objective=objective,
                    epochs=epochs,
                    device_s=device_s,
                    flops=flops,
                    until=until,
                    total=None if None in total else Spent(*total),  # type: ignore[arg-type]
                    beside=tuple(beside),
                    learned=learned,
                )
    kind = next((kind for kind in KINDS if kind in row), None)
    if kind is not None:
        raise UserError(
            f"{where}: the {kind} event lacks a value or has an unknown one; move the log away."
        )
    raise UserError(
        f"{where}: unknown event {next(iter(row), '')!r} (known: {', '.join(KINDS)}); a newer "
        "version may have written it: update the harness, or move the log away."
    )


def _are_numbers(params: dict[str, Any]) -> bool:
    return all(isinstance(value, int | float) for value in params.values())


def _are_worths(beside: Any) -> bool:
    return isinstance(beside, list) and all(isinstance(each, int | float) for each in beside)
