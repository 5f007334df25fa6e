"""mkdocs: tables of fields with their types, ranges and defaults, from the types themselves.

`<!-- fields: harness.spec.Recipe recipe. -->` in a page becomes the table of that type, each name
with `recipe.` before it; `<!-- options: methods -->` becomes a table for each method's options.
Owns: these tables. Must not know: any particular type or method.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.spec.fields import fields_of

if TYPE_CHECKING:
    from pydantic import BaseModel

MARK = re.compile(r"<!-- (fields|options): (\S+)(?: (\S+))? -->")


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
    rows = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        for name, takes, default, meaning in fields_of(model, prefix)
        for cells in [(f"`{name}`", takes, f"`{default}`", meaning)]
    ]
    if not rows:
        return "It has no options."
    return "\n".join(["| field | type and range | default | meaning |", "|---|---|---|---|", *rows])
