"""The fields of a type as a person sets them: name, what it takes, default, meaning.

All of it is read from the type itself. Owns: these words. Must not know: any particular type.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from harness.spec.base import Frozen

KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
"""A type of JSON schema -> what it is called."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LARGEST = 2**31 - 1
"""A bound from here on only keeps numbers from overflowing, and is not shown."""


class FieldWords(NamedTuple):
    """One field, as it is set with `--set name=value`."""

    name: str
    takes: str
    default: str
    meaning: str


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[FieldWords]:
    """Every field in the type's order; one of a type of its own by the fields of that."""
    schema = model.model_json_schema()
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Frozen):
            yield from fields_of(inner, f"{prefix}{name}.")
            continue
        of = schema["properties"][name]
        default = "required" if field.is_required() else _default(of.get("default"))
        yield FieldWords(f"{prefix}{name}", _takes(of), default, meanings.get(name, ""))


def _takes(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_takes(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array" and "enum" in schema.get("items", {}):
        return f"some of {_takes(schema['items'])}"
    words = KINDS.get(str(schema.get("type")), "any value" if "$ref" not in schema else "mapping")
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in BOUNDS.items()
        if key in schema and schema[key] < LARGEST
    ]
    return f"{words} {', '.join(bounds)}".rstrip()


def _default(value: object) -> str:
    """As it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the first sentence of the words under it; nothing where there is no source."""
    found = {}
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, words in itertools.pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(words, ast.Expr):
            continue
        if isinstance(words.value, ast.Constant):
            text = " ".join(str(words.value.value).split())
            found[ast.unparse(field.target)] = f"{text.partition('. ')[0].removesuffix('.')}."
    return found
