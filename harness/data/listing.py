"""The list of a dataset's images on disk, before any of them is opened.

Owns: the types that datasets on disk return, and reading CSV lists. Must not know: how files are
decoded or packed, where a trial runs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from harness.errors import UserError
from harness.spec import Frozen


class MissingData(UserError):
    """The files are not there; the message says what to get and where to put it."""


class Item(NamedTuple):
    """One labelled image of a dataset on disk."""

    path: str
    """Relative to the root, with `/`; `shard.tar::member` inside a tar file. May hold surrogates
    where a name is not UTF-8."""
    label: int
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels of the part to use, clipped to the image; None: all."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a dataset on disk, before any pixel is read."""

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    groups: dict[str, tuple[int, ...]] | None = None
    """Class indices of every named group; None: by the counts of the training data that is used
    (head > 100, medium 20 to 100, tail < 20 images)."""
    bands: tuple[int, ...] | None = None
    """Bands to use of images with many, counted from 0, in this order; None: RGB (gray is
    repeated)."""
    tail: tuple[int, ...] | None = None
    """Training images of each class that a trial draws from those listed; None: all, or as many as
    the options' imbalance says."""
    notes: tuple[str, ...] = ()
    """What `harness data check` tells the user: duplicates removed, lines ignored, ..."""


class BorderMask(Frozen):
    """An option for images whose background gives their class away."""

    border_mask: Annotated[int, Field(ge=0)] = 0
    """Pixels to blacken at every edge, counted in pixels of the file."""


def read_csv(file: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers; bytes that are not UTF-8 become surrogates.

    Raises:
        UserError: there is no such file, or it lacks a column or a value.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{file} has no column {missing[0]!r}: its first line names the columns, "
                    f"{', '.join(columns)} among them."
                )
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist.") from error
    for line, row in rows:
        if any(not row[name] for name in columns):
            raise UserError(f"{file}, line {line}: write a value for {' and '.join(columns)}.")
    return rows
