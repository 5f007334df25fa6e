"""What a page knows of each trial beside its row in the list, as compact JSON.

Owns: which of a record's numbers are embedded, how finely, and how many bytes of them at most. Must
not know: how they are shown (`templates/page_*.js` do).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.metrics import Objective, scale_of, worth
from harness.reports.text.trials import TrialList
from harness.store.records import TrialRecord
from harness.store.store import Store

MOST_BYTES = 1_500_000
"""Of all trials' details together."""
MOST_DETAILED = 500
"""Trials with details: more records and histories take longer to read than the rest of a report."""
MOST_POINTS = 60
"""Of a learning curve."""


class Details(NamedTuple):
    """Details of the trials of a list."""

    trials: dict[str, dict[str, Any]]
    """By trial: `e` epochs, `s` selection scores and `l` training losses at them, `c` test accuracy
    by class (%), `n` number of the list of classes; what a trial lacks is left out."""
    classes: list[dict[str, list[Any]]]
    """`names` and test images (`counts`) of the classes, in their order."""
    left_out: int
    """Trials with a record whose details had no room."""


def read_details(store: Store, listed: TrialList, objective: Objective) -> Details:
    """The details of listed trials: the chosen ones first, then by selection score.

    A record or a history that cannot be read gives none; the report says so elsewhere.
    """
    trials: dict[str, dict[str, Any]] = {}
    classes: list[dict[str, list[Any]]] = []
    room, left_out = MOST_BYTES, 0
    for trial_id in _by_interest(listed, objective):
        if room <= 0 or len(trials) >= MOST_DETAILED:
            left_out += 1
            continue
        found = _detail(store, trial_id, objective, classes)
        if found:
            trials[trial_id] = found
            room -= len(compact(found))
    return Details(trials, classes, left_out)


def compact(value: Any) -> str:
    """JSON that may stand within `<script>`: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _by_interest(listed: TrialList, objective: Objective) -> Iterable[str]:
    place, sign = listed.select_column, scale_of(objective).sign
    ended = [row for row in listed.rows if row.status != "MISSING"]

    def key(row: Any) -> tuple[bool, float]:
        try:
            return not row.is_chosen, -sign * float(row.words[place])
        except ValueError:
            return not row.is_chosen, math.inf

    return dict.fromkeys(row.trial_id for row in sorted(ended, key=key))


def _detail(
    store: Store, trial_id: str, objective: Objective, classes: list[dict[str, list[Any]]]
) -> dict[str, Any]:
    try:
        record, history = store.record(trial_id), store.history(trial_id)
    except UserError:
        return {}
    return {**_curve(history, objective), **({} if record is None else _scores(record, classes))}


def _curve(history: list[dict[str, Any]], objective: Objective) -> dict[str, Any]:
    rows = [row for row in history if isinstance(row.get("epoch"), int)]
    if len(rows) > MOST_POINTS:  # evenly, and the last
        step = (len(rows) - 1) / (MOST_POINTS - 1)
        rows = [rows[round(number * step)] for number in range(MOST_POINTS)]
    if not rows:
        return {}
    scale = scale_of(objective)
    scores = []
    for row in rows:
        try:
            scores.append(_short(scale.sign * scale.factor * worth(objective, row["select"])))
        except (KeyError, TypeError, UserError):
            scores.append(None)
    return {
        "e": [row["epoch"] + 1 for row in rows],
        "s": scores,
        "l": [_short(row.get("train_loss")) for row in rows],
    }


def _scores(record: TrialRecord, classes: list[dict[str, list[Any]]]) -> dict[str, Any]:
    test = record.test
    if test is None or record.status == "PRUNED":
        return {}
    names = list(record.class_names) or [f"class {n}" for n in range(len(test.per_class))]
    known: dict[str, list[Any]] = {"names": names, "counts": list(test.class_counts)}
    if known not in classes:
        classes.append(known)
    shares = [None if share is None else _short(100 * share) for share in test.per_class]
    return {"c": shares, "n": classes.index(known)}


def _short(value: Any) -> float | None:
    """Four digits are more than a drawing shows."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
