"""Whether a search can go on from its log: only if the same trials would come of it now.

Owns: this comparison, and which configurations are of a space. Must not know: which search it is.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from harness.errors import UserError
from harness.search.base import Make
from harness.store.differences import why_another
from harness.store.run_folder import RunFolder
from harness.store.search_log import SHARE, Ask, Warm, asks, read_log
from harness.study.axes import cell_words
from harness.study.space import Params, SearchSpace, Values, cell_key


def refuse_another(
    log: Path, space: SearchSpace, make: Make, *, beyond: Container[object] = ()
) -> None:
    """See that a log, if it is there, is of the trials that the same proposals make now.

    `beyond` are configurations outside the space that the search may propose as well.

    Raises:
        UserError: it is not, because the study, its settings, the device or `SEMANTICS` changed;
            names what.
    """
    fields = fields_of(space)
    for ask in asks(read_log(log)):
        cell = _cell(space, ask)
        if cell not in beyond and not is_inside(space, fields, cell):
            raise _refused(log, ask, "would not be made", "it is not in the space of the study")
        now = make(cell, ask.seed)
        if now.trial_id != ask.trial_id:
            why = why_another(RunFolder(log.parent).store, ask.trial_id, now)
            raise _refused(log, ask, f"would be {now.trial_id}", why)


def refuse_another_start(log: Path, warm: Sequence[tuple[Params, float]], on_repeat: str) -> None:
    """See that a search of Optuna's in a log, if it has begun, was given what it is given now.

    `warm` are the configurations that are to be known before it; none: those of the log.

    Raises:
        UserError: it was not; names what.
    """
    events, given = read_log(log), [*warm]
    known = [(event.params, event.objective) for event in events if isinstance(event, Warm)]
    if given and known != (given if asks(events) else given[: len(known)]):
        raise UserError(
            f"--warm-start: the search of {log} has begun with {len(known)} known configurations, "
            "which are not those of the run as it is now; leave --warm-start out to go on, or give "
            "another --out."
        )
    seeds: dict[str, list[int]] = {}
    for ask in asks(events):
        seeds.setdefault(cell_key(ask.params), []).append(ask.seed)
    again = [each for each in seeds.values() if len(each) > 1]
    was = "next-seed" if any(len(set(each)) > 1 for each in again) else "cached"
    if again and was != on_repeat:
        raise UserError(
            f"--on-repeat {on_repeat}: the search of {log} has begun with {was}; give that, or "
            "another --out."
        )


def _refused(log: Path, ask: Ask, would: str, why: str) -> UserError:
    return UserError(
        f"The search of {log} cannot go on: its trial {ask.trial_id} ({cell_words(ask.cell)}, "
        f"seed {ask.seed}) {would} now, because {why}; undo that, or give another --out."
    )


def _cell(space: SearchSpace, ask: Ask) -> Values:
    """The configuration that the proposal's variables make now, if it has such variables.

    A share of the data is none of them.
    """
    try:
        cell = space.at(ask.params)
    except (KeyError, IndexError, TypeError, ValueError):
        return ask.cell
    return cell | ({SHARE: ask.cell[SHARE]} if SHARE in ask.cell else {})


def fields_of(space: SearchSpace) -> set[str]:
    """The fields of a configuration."""
    return set(space.default_cell())


def is_inside(space: SearchSpace, fields: set[str], values: Values) -> bool:
    """Whether a configuration, and what becomes of it in mid-training, are points of the space."""
    first = {field: value for field, value in values.items() if field != "changes"}
    changes = values.get("changes") or []
    assert isinstance(changes, list)
    points = [first]
    for change in changes:
        assert isinstance(change, dict) and isinstance(change["values"], dict)
        points.append({**first, **change["values"]})
    return all(set(point) == fields and space.params(point) is not None for point in points)
