"""Records and histories as typed columns, and back, without knowing their fields.

A record is a tree: dicts whose leaves are numbers, words, or lists of them. Each leaf goes into the
column that its path names, as `record.test.class_mean`; what is left, keys in their order and a
letter for the type of each leaf, is its shape, and most trials share one. So a record of a later
version travels with fields that nobody here has heard of, and what comes out is what went in, ones
told from 1.0 and nulls from what is absent. Owns: shapes, and names and types of columns. Must not
know: what the fields mean, files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

TEXT = "j"
"""Of a leaf that is kept as JSON: what no typed column can hold."""
TYPES = {
    "f": pa.float64(),
    "i": pa.int64(),
    "s": pa.string(),
    "b": pa.bool_(),
    TEXT: pa.string(),
    "lf": pa.list_(pa.float64()),
    "li": pa.list_(pa.int64()),
    "ls": pa.list_(pa.string()),
    "lb": pa.list_(pa.bool_()),
}
"""Letter of a leaf -> type of its column; the first that a path has goes by its bare name."""
NULL = "n"
"""Of a leaf that is null, and so has no column."""
LARGEST = 2**63

Shape = dict[str, Any] | str
"""Of a dict, or the letter of a leaf."""


def split(value: Any, path: str, as_text: frozenset[str]) -> tuple[Shape, dict[str, Any]]:
    """The shape of a tree, and its leaves by `path:letter`; those at `as_text` are kept as JSON."""
    if isinstance(value, dict) and path not in as_text:
        shape: dict[str, Any] = {}
        leaves: dict[str, Any] = {}
        for key, each in value.items():
            shape[key], below = split(each, _joined(path, key), as_text)
            leaves |= below
        return shape, leaves
    letter = TEXT if path in as_text and value is not None else _letter(value)
    if letter == NULL:
        return NULL, {}
    return letter, {f"{path}:{letter}": _as_text(value) if letter == TEXT else value}


def joined(shape: Shape, path: str, leaves: Mapping[str, Any]) -> Any:
    """The tree that `split` took apart.

    Raises:
        LookupError, ValueError, TypeError: the shape and the leaves do not belong together.
    """
    if isinstance(shape, dict):
        return {key: joined(each, _joined(path, key), leaves) for key, each in shape.items()}
    if shape == NULL:
        return None
    value = leaves[f"{path}:{shape}"]
    if value is None:
        raise ValueError(f"{path} has no value")
    return json.loads(value) if shape == TEXT else value


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """Leaves of many trees as columns; null where a tree has no such leaf."""
    found = dict.fromkeys(leaf for row in rows for leaf in row)
    return {name: _array(rows, leaf, TYPES[_kind(leaf)]) for name, leaf in _names(found)}


def nested(rows: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, pa.Array]:
    """As `columns`, for a list of trees in every row."""
    found = dict.fromkeys(leaf for row in rows for tree in row for leaf in tree)
    made = {}
    for name, leaf in _names(found):
        values = [[tree.get(leaf) for tree in row] for row in rows]
        made[name] = pa.array(values, pa.list_(TYPES[_kind(leaf)]))
    return made


def leaf_of(name: str, kind: pa.DataType) -> str | None:
    """The `path:letter` that a column stands for; None if it is none of those made here."""
    path, _, letter = name.rpartition(":")
    if path and letter in TYPES:
        return name if TYPES[letter] == kind else None
    return next((f"{name}:{letter}" for letter, each in TYPES.items() if each == kind), None)


def _names(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Columns in the order of `found`; bare names where nothing else could be meant."""
    order = list(TYPES)
    best: dict[str, str] = {}
    for leaf in sorted(found, key=lambda each: order.index(_kind(each))):
        best.setdefault(leaf.rpartition(":")[0], leaf)
    for leaf in found:
        path = leaf.rpartition(":")[0]
        # Text is a type of its own here, and not in the file.
        yield (path if best[path] == leaf and _kind(leaf) != TEXT else leaf), leaf


def _kind(leaf: str) -> str:
    return leaf.rpartition(":")[2]


def _array(rows: Sequence[Mapping[str, Any]], leaf: str, kind: pa.DataType) -> pa.Array:
    return pa.array([row.get(leaf) for row in rows], kind)


def _joined(path: str, key: str) -> str:
    """Dots and colons within a key are told from those between keys."""
    return f"{path}.{key.replace('%', '%25').replace('.', '%2E').replace(':', '%3A')}"


def _letter(value: Any) -> str:
    if isinstance(value, list):
        kinds = {_letter(each) for each in value} - {NULL}
        return f"l{kinds.pop()}" if len(kinds) == 1 and kinds <= {"f", "i", "s", "b"} else TEXT
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return "i" if -LARGEST <= value < LARGEST else TEXT
    return "f" if isinstance(value, float) else "s" if isinstance(value, str) else TEXT


def _as_text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
