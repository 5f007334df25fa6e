"""Why a trial that the store has is not the one that is made now of the same configuration.

Owns: those words. Must not know: who asks.
"""

from __future__ import annotations

import json
from typing import Any

from harness.errors import UserError
from harness.spec import TrialSpec, leaves
from harness.spec import trial as identities
from harness.store.checked import semantics_of
from harness.store.runs import why_not_reused
from harness.store.store import Store

UNKNOWN = "the study, its data or the version of the harness is another"


def why_another(store: Store, trial_id: str, now: TrialSpec) -> str:
    """The first field that differs, or the `SEMANTICS`; to stand after "because"."""
    try:
        kept = json.loads((store.trials / trial_id / "spec.json").read_bytes())
    except (OSError, ValueError):
        return UNKNOWN
    was, is_now = _flat(kept), _flat(now.model_dump(mode="json"))
    for field, value in is_now.items():
        if field in was and was[field] != value:
            auto = "; precision=auto follows the device" if field == "recipe.precision" else ""
            return f"{field} was {_short(was[field])} and is {_short(value)} now{auto}"
    gone = [field for field in was if field not in is_now]
    if gone:
        return f"{gone[0]} was {_short(was[gone[0]])} and is not there now"
    semantics = _semantics(store, trial_id)
    if semantics != identities.SEMANTICS:
        return why_not_reused("?" if semantics is None else str(semantics))
    return UNKNOWN


def _semantics(store: Store, trial_id: str) -> int | None:
    try:
        record = store.record(trial_id)
        return None if record is None else semantics_of(record)
    except UserError:
        return None


def _flat(value: Any) -> dict[str, Any]:
    """Values by their dotted names, without empty options."""
    return {name: part for name, part in leaves(value) if part != {}}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
