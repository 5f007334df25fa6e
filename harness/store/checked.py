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


def checked_record(
    where: str, trial_id: str, text: str | bytes, remedy: str = REMEDY
) -> TrialRecord:
    """The record of a trial, from its text; `where` that stands, and what to do if it is wrong.

    Raises:
        UserError: it is damaged, of a newer version or of another trial, or it cannot be true.
    """
    try:
        record = TrialRecord.model_validate_json(text)
    except ValidationError as error:
        content = _json(where, text, remedy)
        version, provenance = content.get("schema_version"), content.get("provenance")
        if isinstance(version, int) and version > SCHEMA:
            raise _newer(where, f"schema {version}") from error
        semantics = _semantics(provenance if isinstance(provenance, dict) else {})
        if semantics is not None and semantics > identities.SEMANTICS:
            raise _newer(where, f"SEMANTICS {semantics}") from error
        raise _wrong(where, error, remedy) from error
    if record.schema_version > SCHEMA:
        raise _newer(where, f"schema {record.schema_version}")
    if record.trial_id != trial_id:
        raise UserError(f"{where} is not used: it is that of trial {record.trial_id}; {remedy}.")
    if semantics_of(record) is None:
        raise _of_another(where, trial_id, record.spec, _semantics(record.provenance), remedy)
    for field, value in impossible(record):
        raise UserError(f"{where} is not used: {field} cannot be {value}; {remedy}.")
    return record


def semantics_of(record: TrialRecord) -> int | None:
    """The `SEMANTICS` under which the record's spec has its id; None if it has another's.

    Records from before they said so are of any so far.
    """
    return fitting(record.trial_id, record.spec, _semantics(record.provenance))


def checked_spec(path: Path, text: bytes) -> TrialSpec:
    """A spec, from the content of `path`, which lies in its trial's folder.

    Raises:
        UserError: it is damaged, of a newer version or of another trial.
    """
    where = str(path)
    try:
        spec = TrialSpec.model_validate_json(text)
    except ValidationError as error:
        _json(where, text, REMEDY)
        raise _wrong(where, error, REMEDY) from error
    if fitting(path.parent.name, spec, None) is None:
        raise _of_another(where, path.parent.name, spec, None, REMEDY)
    return spec


def _json(where: str, text: str | bytes, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is damaged; {remedy}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} is damaged; {remedy}.")
    return content


def _semantics(provenance: dict[str, Any]) -> int | None:
    """Those under which a trial ran; None where its record does not say."""
    text = provenance.get("semantics")
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 10 else None


def _newer(where: str, what: str) -> UserError:
    return UserError(
        f"{where} was written by a newer version of the harness ({what}) and is kept as it is: "
        "update the harness to use it."
    )


def _wrong(where: str, error: ValidationError, remedy: str) -> UserError:
    """A field that this version does not know is one of a newer version."""
    for each in error.errors(include_input=False, include_url=False):
        if each["type"] == "extra_forbidden":
            return _newer(where, f"field {_dotted(each['loc'])!r}")
    first = error.errors(include_input=False, include_url=False)[0]
    return UserError(
        f"{where} is damaged (field {_dotted(first['loc'])!r}: {first['msg'].lower()}); {remedy}."
    )


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)


def fitting(trial_id: str, spec: TrialSpec, semantics: int | None) -> int | None:
    """Of the `SEMANTICS` given, or of all so far, the one under which the spec has the id."""
    possible = range(identities.SEMANTICS, 0, -1) if semantics is None else [semantics]
    return next((each for each in possible if spec.id_under(each) == trial_id), None)


def _of_another(
    where: str, trial_id: str, spec: TrialSpec, semantics: int | None, remedy: str
) -> UserError:
    own = spec.id_under(identities.SEMANTICS if semantics is None else semantics)
    return UserError(
        f"{where} is not used: its spec is that of trial {own}, not of {trial_id}; {remedy}."
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
