"""What a trial's files say, refused in one sentence where it cannot be so.

A record is that of its folder, its spec has its id, and its scores are shares. One that a newer
version wrote is kept, and said to be so. Owns: these checks. Must not know: who reads, and whether
the trial is then left out or ends the command.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import UserError
from harness.metrics import OVERALL
from harness.spec import Frozen, TrialSpec
from harness.spec import trial as identities
from harness.store.records import SCHEMA, TrialRecord

REMEDY = "move its folder out of the store, and give the command that trained it again"

T = TypeVar("T", bound=Frozen)


def checked_record(path: Path, text: bytes) -> TrialRecord:
    """A record, from the content of `path`, which lies in its trial's folder.

    Raises:
        UserError: it is damaged, of a newer version or of another trial, or it cannot be true.
    """
    try:
        record = TrialRecord.model_validate_json(text)
    except ValidationError as error:
        content = _json(path, text)
        version, provenance = content.get("schema_version"), content.get("provenance")
        if isinstance(version, int) and version > SCHEMA:
            raise _newer(path, f"schema {version}") from error
        semantics = _semantics(provenance if isinstance(provenance, dict) else {})
        if semantics is not None and semantics > identities.SEMANTICS:
            raise _newer(path, f"SEMANTICS {semantics}") from error
        raise _wrong(path, error) from error
    if record.schema_version > SCHEMA:
        raise _newer(path, f"schema {record.schema_version}")
    semantics = _semantics(record.provenance)
    _check_ids(path, record.trial_id, record.spec, semantics)
    for field, value in impossible(record):
        raise UserError(f"{path} is not used: {field} cannot be {value}; {REMEDY}.")
    return record


def checked_spec(path: Path, text: bytes) -> TrialSpec:
    """A spec, from the content of `path`, which lies in its trial's folder.

    Raises:
        UserError: it is damaged, of a newer version or of another trial.
    """
    try:
        spec = TrialSpec.model_validate_json(text)
    except ValidationError as error:
        _json(path, text)
        raise _wrong(path, error) from error
    _check_ids(path, path.parent.name, spec, None)
    return spec


def _json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged; {REMEDY}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged; {REMEDY}.")
    return content


def _semantics(provenance: dict[str, Any]) -> int | None:
    """Those under which a trial ran; None where its record does not say."""
    text = provenance.get("semantics")
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 10 else None


def _newer(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} was written by a newer version of the harness ({what}) and is kept as it is: "
        "update the harness to use it."
    )


def _wrong(path: Path, error: ValidationError) -> UserError:
    """A field that this version does not know is one of a newer version."""
    for each in error.errors(include_input=False, include_url=False):
        if each["type"] == "extra_forbidden":
            return _newer(path, f"field {_dotted(each['loc'])!r}")
    first = error.errors(include_input=False, include_url=False)[0]
    return UserError(
        f"{path} is damaged (field {_dotted(first['loc'])!r}: {first['msg'].lower()}); {REMEDY}."
    )


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)


def _check_ids(path: Path, trial_id: str, spec: TrialSpec, semantics: int | None) -> None:
    """Records from before they said so are of any `SEMANTICS` so far."""
    if trial_id != path.parent.name:
        raise UserError(f"{path} is not used: it is that of trial {trial_id}; {REMEDY}.")
    possible = range(identities.SEMANTICS, 0, -1) if semantics is None else [semantics]
    if all(spec.id_under(each) != trial_id for each in possible):
        own = spec.id_under(possible[0])
        raise UserError(
            f"{path} is not used: its spec is that of trial {own}, not of its folder; {REMEDY}."
        )


def impossible(record: TrialRecord) -> Iterator[tuple[str, float]]:
    """Fields whose values no training can have given."""
    for part, scores in (("select", record.select), ("test", record.test)):
        if scores is not None:
            shares = {name: getattr(scores, name) for name in OVERALL}
            shares |= {f"groups.{name}": share for name, share in scores.groups.items()}
            shares |= {f"per_class.{n}": share for n, share in enumerate(scores.per_class)}
            for name, share in shares.items():
                if share is not None and not 0 <= share <= 1:
                    yield f"{part}.{name}", share
    if record.epochs_run < 0:
        yield "epochs_run", record.epochs_run
    if record.num_classes < 1:
        yield "num_classes", record.num_classes
    for name in type(record.cost).model_fields:
        value = getattr(record.cost, name)
        if value is not None and not 0 <= value < math.inf:
            yield f"cost.{name}", value
