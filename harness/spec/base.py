"""The base of all types that are written to disk, their identity, and messages for wrong values.

Owns: strictness, which fields belong to an identity, and one sentence per mistake. Must not know:
any particular type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from harness.errors import UserError, unknown

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
LONGEST_SHOWN = 120
"""Characters of a value in a message."""
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""How many of something there are, below what overflows where torch or numpy count."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What random numbers are drawn from."""


class Added:
    """Marks a field that was added after trials with its type had been archived.

    At its default, such a field is left out of `identity`, so archived trials keep their ids:

        patience: Annotated[int, Field(ge=1), Added] = 3

    Every field added to a released type needs this mark and a default, in the options of methods
    and datasets too. The default means "as before", so it may never change without `SEMANTICS`.
    """


class Frozen(BaseModel):
    """Base of every type that is written to disk: immutable, strict, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        for name, field in cls.model_fields.items():
            if Added in field.metadata and field.is_required():
                raise TypeError(f"{cls.__name__}.{name} is marked as Added: give it a default")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced, whose values are taken as they are.

        Raises:
            UserError: there is no such field; pydantic's own would keep it aside and not say so.
        """
        for name in update or ():
            if name not in type(self).model_fields:
                raise unknown(f"field of {type(self).__name__}:", name, type(self).model_fields)
        return super().model_copy(update=update, deep=deep)


def identity(value: Frozen) -> dict[str, JsonValue]:
    """The value as plain JSON data, without the `Added` fields, however deep, at their defaults.

    Only this form may go into an id, or into an options dict that becomes part of one.
    """
    data: dict[str, JsonValue] = _stripped(value, value.model_dump(mode="json"))
    return data


def _stripped(value: object, data: Any) -> Any:
    """`data`, which is `value` as JSON, without those fields."""
    if isinstance(value, Frozen):
        return {
            name: _stripped(getattr(value, name), data[name])
            for name, field in type(value).model_fields.items()
            if Added not in field.metadata
            or getattr(value, name) != field.get_default(call_default_factory=True)
        }
    if isinstance(value, list | tuple):
        return [_stripped(*pair) for pair in zip(value, data, strict=True)]
    if isinstance(value, dict):
        pairs = zip(value.values(), data.values(), strict=True)
        return dict(zip(data, (_stripped(*pair) for pair in pairs), strict=True))
    return data


def leaves(
    value: Any, path: str = "", whole: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Every value of nested plain data, by its dotted name.

    An empty dict is a value, and so is what a name in `whole` holds.
    """
    if not isinstance(value, dict) or not value or path in whole:
        yield path, value
        return
    for name, part in value.items():
        yield from leaves(part, f"{path}.{name}" if path else name, whole)


def validated(model: type[M], data: object, *, source: str) -> M:
    """Validate plain data, turning pydantic's report into one sentence.

    Raises:
        UserError: names `source`, the field, what was given and what is allowed.
    """
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, model)}") from error


def read_as(kind: type[T], path: Path, remedy: str) -> T:
    """What a file of JSON holds, which is to be of a type; a byte order mark is left out.

    The one way in which files that the harness has written are read again, wherever they have been
    in between: they may be empty, torn, in another encoding, or of something else.

    Raises:
        UserError: it cannot be read, or is not that; names the file, the reason and the remedy.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        content: T = TypeAdapter(kind).validate_json(
            text.removeprefix(b"\xef\xbb\xbf"), strict=True
        )
        return content
    except ValidationError as error:
        why = explain(error).removesuffix(".")
        raise UserError(
            f"{path} is damaged, or of another version of the harness: {why}; {remedy}."
        ) from error


def _is_field(part: object) -> bool:
    """Whether a part of a place is a field's name; others are a class, a validator or an index."""
    return isinstance(part, str) and "[" not in part and not part[:1].isupper()


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """One sentence for the first problem: field, value given, what is allowed, nearest match.

    `model` is what was asked for; None: a direct subclass of `Frozen`, known by its name alone.
    """
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if _is_field(part)) or "value"
    given = first["input"]
    context = first.get("ctx", {})
    if first["type"] == "json_invalid":
        return f"it is no JSON ({context['error']})."
    if isinstance(context.get("error"), UserError):
        return str(context["error"])
    if first["type"] == "extra_forbidden":
        if model is None:
            model = next((m for m in Frozen.__subclasses__() if m.__name__ == error.title), None)
        return str(unknown("field", field, _fields_beside(model, first["loc"])))
    if first["type"] == "literal_error":
        allowed = [word.strip("'") for word in re.split(r", | or ", str(context["expected"]))]
        return str(unknown(f"value for {field!r}:", str(given), allowed))
    if first["type"] == "missing":
        return f"field {field!r} is required."
    return f"field {field!r} was given {_shown(given)}: {first['msg'].lower()}."


def _shown(value: object) -> str:
    """A value in a message: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."


def _fields_beside(model: object, loc: tuple[int | str, ...]) -> list[str]:
    """Dotted names that would have been right where an unknown field was found."""
    for part in loc[:-1]:
        known = _fields(model)
        model = known[part].annotation if isinstance(part, str) and part in known else None
    prefix = "".join(f"{part}." for part in loc[:-1])
    return [prefix + name for name in _fields(model)]


def _fields(model: object) -> dict[str, FieldInfo]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_fields
    return {}
