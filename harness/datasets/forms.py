"""Files that name images with their labels: lists, Hugging Face's tables, and webdataset shards.

Owns: what of each is read, and what in them can be read in no way or in two. Must not know: class
folders, how train and test are drawn, pixels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from harness.data.decode import column_of, image_column, member_bytes, schema_of, tar_members
from harness.data.listing import read_csv
from harness.datasets.reading import SUFFIXES
from harness.datasets.two_ways import SPLIT_WORDS, split_of
from harness.errors import UserError, unknown


class Found(NamedTuple):
    """An image whose class has a name but no number yet."""

    path: str
    label: str
    split: str | None
    origin: str
    """File and line or row, for a message."""


def of_list(file: Path, notes: list[str]) -> Iterator[Found]:
    rows: Iterable[tuple[int, dict[str, Any]]]
    if file.suffix == ".parquet":
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{file} cannot be read as Parquet: {error}.") from error
        missing = [name for name in ("path", "label") if name not in table.column_names]
        if missing:
            raise UserError(f"{file} has no column {missing[0]!r}: path and label are needed.")
        rows = enumerate(table.to_pylist(), start=1)
    else:
        rows = read_csv(file, ("path", "label"))
    seen: Counter[str] = Counter()
    ignored = 0
    for line, row in rows:
        word = row.get("split") or None
        split = None if word is None else split_of(str(word))
        if word is not None and split is None:
            raise UserError(f"{file}, line {line}: {unknown('split', word, ['train', 'test'])}")
        for name in ("path", "label"):
            if row[name] is None or row[name] == "":
                raise UserError(f"{file}, line {line}: write a value for path and label.")
        seen[row["path"]] += 1
        if split == "val":
            ignored += 1
            continue
        yield Found(row["path"], str(row["label"]), split, f"{file.name}, line {line}")
    if ignored:
        notes.append(f"{ignored} lines of {file.name} are of the split val and are left out.")
    repeats = sum(count - 1 for count in seen.values())
    if repeats:
        notes.append(f"{repeats} lines of {file.name} name a path that another line names too.")


def of_tables(root: Path, files: list[str]) -> tuple[list[Found], list[str] | None]:
    names: list[str] | None = None
    found = []
    for file in files:
        image_column(root / file)
        column, known = _label_column(root / file)
        names = names or known
        for row, label in enumerate(column_of(root / file, column)):
            origin = f"{file}, row {row}"
            if label is None or (known and isinstance(label, int) and not 0 <= label < len(known)):
                raise UserError(f"{origin}: label {label!r} is none of its {len(known or [])}.")
            name = known[label] if known and isinstance(label, int) else str(label)
            found.append(Found(f"{file}::{row}", name, _split_in(file), origin))
    return found, names


def _label_column(file: Path) -> tuple[str, list[str] | None]:
    """Name of the column of labels, and the names of the classes where the file holds them."""
    schema = schema_of(file)
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    for name, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            return name, list(feature["names"])
    if "label" in schema.names:
        return "label", None
    raise UserError(f"{file} has no column of labels: none is a ClassLabel or called 'label'.")


def _split_in(file: str) -> str | None:
    """The split that a file's name or a folder's starts with, as in `data/train-00000.parquet`."""
    for part in reversed(Path(file.casefold()).parts):
        for word, split in SPLIT_WORDS.items():
            if part == word or part.startswith((f"{word}-", f"{word}_", f"{word}.")):
                return split
    return None


def of_shards(root: Path, files: list[str]) -> Iterator[Found]:
    for file in files:
        images, labels = {}, {}
        for member in tar_members(root / file):
            folder, _, name = member.rpartition("/")
            key, _, suffix = name.partition(".")
            key = f"{folder}/{key}"
            if f".{suffix.lower()}" in SUFFIXES:
                images[key] = member
            elif suffix in ("cls", "json"):
                labels[key] = member
        orphans = sorted(images.keys() - labels.keys())
        if orphans:
            raise UserError(f"{file}: {images[orphans[0]]} has neither .cls nor .json beside it.")
        keys = list(images)
        texts = member_bytes(root / file, [labels[key] for key in keys])
        for key, text in zip(keys, texts, strict=True):
            label = _label_of_sample(text, f"{file}, {labels[key]}")
            yield Found(f"{file}::{images[key]}", label, _split_in(file), f"{file}, {labels[key]}")


def _label_of_sample(text: bytes, origin: str) -> str:
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text.decode("utf-8", "replace").strip()
    if isinstance(value, dict):
        value = next((value[key] for key in ("label", "cls", "class") if key in value), None)
    if not isinstance(value, str | int) or value == "":
        raise UserError(f"{origin}: no label; write a number or a name, or a field 'label'.")
    return str(value)
