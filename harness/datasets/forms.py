"""Files that name images with their labels: lists, Hugging Face's tables, and webdataset shards.

Owns: what of each is read, and what in them can be read in no way or in two. Must not know: class
folders, how train and test are drawn, pixels.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from harness.data.decode import (
    column_of,
    image_column,
    member_bytes,
    one_column,
    schema_of,
    tar_members,
)
from harness.data.listing import read_csv
from harness.datasets.reading import SUFFIXES
from harness.datasets.two_ways import SPLIT_WORDS, say_unlisted, split_of
from harness.errors import UserError, unknown

FIELDS = ("label", "cls", "class")
"""Fields of a sample's .json that hold its label: the first that is there."""


class Found(NamedTuple):
    """An image whose class has a name but no number yet."""

    path: str
    label: str
    split: str | None
    origin: str
    """File and line or row, for a message."""


def of_list(file: Path, root: Path, notes: list[str]) -> Iterator[Found]:
    """Images that a CSV or Parquet list names, and in `notes` which lines and images are not used.

    Raises:
        UserError: it cannot be read, names no image, or a line of it is wrong or contradicts
            another; names the lines.
    """
    seen: Counter[str] = Counter()
    first: dict[str, tuple[int, str, str | None]] = {}
    ignored = 0
    is_parquet = file.suffix == ".parquet"
    rows = _parquet_rows(file) if is_parquet else read_csv(file, ("path", "label"), ("split",))
    for line, row in rows:
        word = row.get("split")
        split = None if word is None or word == "" else split_of(str(word))
        if word is not None and word != "" and split is None:
            known = unknown("split", str(word), ["train", "test"])
            raise UserError(f"{file}, line {line}: {known}")
        for name in ("path", "label"):
            if row[name] is None or row[name] == "":
                raise UserError(f"{file}, line {line}: write a value for path and label.")
        path, label = row["path"], _name(row["label"], f"{file}, line {line}")
        if not isinstance(path, str):
            raise UserError(f"{file}, line {line}: path {path!r} is no text: write a file's name.")
        image = posixpath.normpath(path)
        seen[image] += 1
        known_as = first.setdefault(image, (line, label, split))
        _refuse_contradiction(f"{file}, line {line}: {path!r}", (line, label, split), known_as)
        if split == "val":
            ignored += 1
            continue
        yield Found(path, label, split, f"{file.name}, line {line}")
    if seen.total() == ignored:
        part = " of train or test" if seen else ""
        raise UserError(f"{file} names no image{part}: write a line of path and label for each.")
    if ignored:
        notes.append(f"{ignored} lines of {file.name} are of the split val and are left out.")
    repeats = sum(count - 1 for count in seen.values())
    if repeats:
        notes.append(f"{repeats} lines of {file.name} name a path that another line names too.")
    say_unlisted(file, root, seen, notes)


def _refuse_contradiction(
    subject: str, here: tuple[int, str, str | None], before: tuple[int, str, str | None]
) -> None:
    """Whether two lines (number, label and split) say the same of one image.

    Raises:
        UserError: they give it two labels, or put it in two splits.
    """
    line, *said = before
    for what, one, other in zip(("label", "split"), here[1:], said, strict=True):
        if one != other:
            raise UserError(
                f"{subject} has the {what} {one or 'none'!r}, and by line {line} "
                f"{other or 'none'!r}: leave one of these lines."
            )


def _parquet_rows(file: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        columns = pq.read_schema(file).names
        repeated = [name for name, count in Counter(columns).items() if count > 1]
        if repeated:
            raise UserError(f"{file} has {repeated[0]!r} as the name of two columns: leave one.")
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        why = str(error).partition("\n")[0]
        raise UserError(f"{file} cannot be read as Parquet: {why}.") from error
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise UserError(f"{file} has no column {missing[0]!r}: path and label are needed.")
    return enumerate(table.to_pylist(), start=1)


def _name(label: object, origin: str) -> str:
    """A class's name, of a label in a table.

    Raises:
        UserError: it is a list, a fraction, missing or the like, which names no class.
    """
    if not isinstance(label, str | int) and not (isinstance(label, float) and label.is_integer()):
        raise UserError(f"{origin}: label {label!r} names no class: write text or a whole number.")
    return str(label)


def of_tables(root: Path, files: list[str]) -> tuple[list[Found], list[str] | None]:
    """Images in Hugging Face's files, and the classes in order where these say so.

    Raises:
        UserError: one cannot be read, lacks a column, is of two splits by its name, or a label
            names no class; or there is no row in any of them.
    """
    names: list[str] | None = None
    found = []
    for file in files:
        split = _split_in(file)
        image_column(root / file)
        column, known = _label_column(root / file)
        names = names or known
        for row, label in enumerate(column_of(root / file, column)):
            origin = f"{file}, row {row}"
            if label is None or (known and isinstance(label, int) and not 0 <= label < len(known)):
                raise UserError(f"{origin}: label {label!r} is none of its {len(known or [])}.")
            name = known[label] if known and isinstance(label, int) else _name(label, origin)
            found.append(Found(f"{file}::{row}", name, split, origin))
    if not found:
        raise UserError(f"{root / files[0]} names no image: it has no row.")
    return found, names


def _label_column(file: Path) -> tuple[str, list[str] | None]:
    """Name of the column of labels, and the names of the classes where the file holds them.

    Raises:
        UserError: there is none, or several may be meant.
    """
    schema = schema_of(file)
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    known = {
        name: list(feature["names"])
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    if chosen := one_column(file, [name for name in known if name in schema.names], "label"):
        return chosen, known[chosen]
    if "label" in schema.names:
        return "label", None
    raise UserError(f"{file} has no column of labels: none is a ClassLabel or called 'label'.")


def _split_in(file: str) -> str | None:
    """The split in a file's name, or else in a folder's, as in `train/0.parquet`, `x-test-0.tar`.

    Raises:
        UserError: a name holds words of two splits.
    """
    for part in reversed(Path(file).parts):
        found = {SPLIT_WORDS[word]: word for word in _words(part) if word in SPLIT_WORDS}
        if len(found) > 1:
            names = " and ".join(map(repr, found.values()))
            raise UserError(f"{file}: {part!r} names the splits {names}: leave one in its name.")
        if found:
            return next(iter(found))
    return None


def _words(name: str) -> list[str]:
    return re.split(r"[-_.]", name.casefold())


def of_shards(root: Path, files: list[str], notes: list[str]) -> Iterator[Found]:
    """Images in webdataset shards, and in `notes` which labels are not used.

    Raises:
        UserError: a shard cannot be read, a sample has no label, two images or two labels, a
            name is of two splits, or there is no image in any shard.
    """
    is_empty, seconds, lost = True, 0, 0
    for file in files:
        split = _split_in(file)
        images, labels = _samples(root, file)
        lost += len(labels.keys() - images.keys())
        members = [member for each in labels.values() for member in each]
        texts = dict(zip(members, member_bytes(root / file, members), strict=True))
        for key, image in images.items():
            is_empty = False
            if key not in labels:
                raise UserError(f"{file}: {image} has neither .cls nor .json beside it.")
            label, others = _label_of_sample(file, {each: texts[each] for each in labels[key]})
            seconds += others
            origin = f"{file}, {labels[key][-1]}"
            yield Found(f"{file}::{image}", label, split, origin)
    if is_empty:
        raise UserError(
            f"{root / files[0]} names no image: a sample is NAME.jpg (or another suffix of an "
            "image) beside NAME.cls or NAME.json, with no dot in NAME."
        )
    if lost:
        notes.append(f"{lost} labels in shards are of no image, and are left out.")
    if seconds:
        notes.append(
            f"{seconds} samples have another value beside the field {FIELDS[0]!r}, in "
            f"{' or '.join(map(repr, FIELDS[1:]))}, which is not used."
        )


def _samples(root: Path, file: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Key of a sample -> its image, and -> its files of labels, in a shard."""
    images: dict[str, str] = {}
    labels: dict[str, list[str]] = {}
    for member in tar_members(root / file):
        folder, _, name = member.rpartition("/")
        key, _, suffix = name.partition(".")
        key = f"{folder}/{key}"
        if f".{suffix.lower()}" in SUFFIXES:
            if key in images:
                raise UserError(
                    f"{file}: {images[key]} and {member} are two images of one sample: leave one."
                )
            images[key] = member
        elif suffix in ("cls", "json"):
            labels.setdefault(key, []).append(member)
    return images, labels


def _label_of_sample(file: str, texts: Mapping[str, bytes]) -> tuple[str, bool]:
    """What a sample's .cls, .json or both say, and whether another field of .json differs."""
    found: dict[str, str] = {}
    differs = False
    for member, text in texts.items():
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text.decode("utf-8", "replace").strip()
        if isinstance(value, dict):
            values = [value[key] for key in FIELDS if key in value]
            differs = any(str(other) != str(values[0]) for other in values[1:])
            if not values and len(texts) > 1 and member.endswith(".json"):
                continue  # it says other things of a sample that has its label in .cls
            value = values[0] if values else None
        if not isinstance(value, str | int) or value == "":
            raise UserError(
                f"{file}, {member}: no label; write a number or a name, or a field 'label'."
            )
        found[member] = str(value)
    (first, label), *others = found.items()
    for other, second in others:
        if second != label:
            raise UserError(
                f"{file}: {first} says {label!r} and {other} says {second!r} of one sample: "
                "leave one."
            )
    return label, differs
