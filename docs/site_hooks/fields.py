"""mkdocs: tables of fields with their types, ranges and defaults, from the types themselves.

`<!-- fields: harness.spec.Recipe recipe. -->` in a page becomes the table of that type, each name
with `recipe.` before it; `<!-- options: methods -->` becomes a table for each method's options.
Owns: these tables. Must not know: any particular type or method.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

MARK = re.compile(r"<!-- (fields|options): (\S+)(?: (\S+))? -->")
WORDS = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "fields of its own",
    "array": "list",
    "null": "none",
}
OVERFLOW = 2**31 - 1
"""Bounds from here on only keep torch and numpy from counting beyond what they can."""
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    return filled(markdown)


def filled(markdown: str) -> str:
    """A page with its tables."""
    return MARK.sub(lambda m: TABLES[m[1]](m[2], m[3] or ""), markdown)


def of_type(name: str, prefix: str) -> str:
    """The table of one type, named by its module and its own name."""
    module, _, own = name.rpartition(".")
    return table(getattr(importlib.import_module(module), own), prefix)


def of_registry(kind: str, _: str) -> str:
    """A heading, a line and a table for every registered method or dataset."""
    return "\n\n".join(
        f"### {name}\n\n{words}\n\n{table(options, 'data.' * (kind == 'datasets') + 'options.')}"
        for name, words, options in sorted(registered(kind))
    )


TABLES = {"fields": of_type, "options": of_registry}


def registered(kind: str) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Name, summary and type of the options of all that ship."""
    from harness.data.contract import DATASETS
    from harness.insertion.method import METHODS

    registry: Any = {"methods": METHODS, "datasets": DATASETS}[kind]
    for name, entry in registry.look():
        if registry.distribution(name) is None:
            yield name, entry.summary, entry.Options


def table(model: type[BaseModel], prefix: str) -> str:
    """A row for each field; a sentence where there is none."""
    schema = model.model_json_schema()
    words = meanings(model)
    rows = []
    for name, field in model.model_fields.items():
        kind = in_words(schema["properties"][name], schema.get("$defs", {}))
        default = "required" if field.is_required() else shown(field.get_default())
        cells = [f"`{prefix}{name}`", kind, default, words.get(name, "")]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if not rows:
        return "It has no options."
    return "\n".join(["| field | type and range | default | meaning |", "|---|---|---|---|", *rows])


def in_words(schema: dict[str, Any], others: dict[str, Any]) -> str:
    """A JSON schema as a person would say it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        other = others[name]
        return f"see {name}" if "properties" in other else in_words(other, others)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(in_words(part, others) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = WORDS.get(schema.get("type", ""), "any value")
    if isinstance(each := schema.get("additionalProperties"), dict) and "type" in each:
        return f"names, each with a {in_words(each, others)}"
    if kind == "list" and "$ref" not in schema.get("items", {"$ref": ""}):
        kind += f" of: {in_words(schema['items'], others)}"
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in LIMITS.items()
        if abs(schema.get(key, OVERFLOW)) < OVERFLOW
    ]
    return " ".join([kind, " and ".join(limits)]).strip()


def shown(value: Any) -> str:
    """A default as it is written in `--set`; of a type with fields of its own, its name."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return "its defaults"
    return "none" if value is None else f"`{json.dumps(value)}`"


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the words below it in the source, as one line."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.startswith("harness"):
            tree: Any = ast.parse(textwrap.dedent(inspect.getsource(kind)))
            body = tree.body[0].body
            for field, below in pairwise(body):
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and is_text:
                    found[field.target.id] = " ".join(str(below.value.value).split())
    return found
