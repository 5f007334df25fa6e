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
        takes = _takes(of, schema.get("$defs", {}))
        default = "required" if field.is_required() else _default(of.get("default"))
        yield FieldWords(f"{prefix}{name}", takes, default, meanings.get(name, ""))


def _takes(schema: dict[str, Any], others: dict[str, Any]) -> str:
    if "$ref" in schema:
        other = others[schema["$ref"].rpartition("/")[2]]
        return "mapping" if "properties" in other else _takes(other, others)
    if "anyOf" in schema:
        return " or ".join(_takes(each, others) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    items, each = schema.get("items", {}), schema.get("additionalProperties")
    if schema.get("type") == "array" and "enum" in items:
        return f"some of {_takes(items, others)}"
    if isinstance(each, dict) and "type" in each:
        return f"names, each with a {_takes(each, others)}"
    words = KINDS.get(str(schema.get("type")), "any value")
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in BOUNDS.items()
        if key in schema and schema[key] < LARGEST
    ]
    return f"{words} {' and '.join(bounds)}".rstrip()


def _default(value: object) -> str:
    """As it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the words under it, as one line; nothing where there is no source."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, words in itertools.pairwise(body):
            if not isinstance(field, ast.AnnAssign) or not isinstance(words, ast.Expr):
                continue
            if isinstance(words.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(words.value.value).split())
    return found
