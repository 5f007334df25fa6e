"""The list of a dataset's images on disk, before any of them is opened.

Owns: the types that datasets on disk return, and reading CSV lists. Must not know: how files are
decoded or packed, where a trial runs.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from harness.errors import UserError
from harness.spec import Frozen

OnBad = Literal["stop", "skip"]
"""What becomes of an image that cannot be read: all stops, or it is left out, which is said."""


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


def _shown(names: Sequence[str]) -> str:
    text = repr(",".join(names))
    return text if len(text) <= 80 else f"{text[:80]} ..."


def read_csv(
    file: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers; bytes that are not UTF-8 become surrogates.

    Blanks after a comma do not count, nor does the case of the columns' names. Columns that are
    neither needed nor `optional` may have any names.

    Raises:
        UserError: there is no such file, it cannot be read, it lacks a column or a value or has a
            column twice, a field holds a line break, or it is no CSV in UTF-8.
    """
    try:
        with file.open("rb") as raw:
            if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise UserError(f"{file} is written in UTF-16: save it as UTF-8.")
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            first = list(reader.fieldnames or ())
            reader.fieldnames = [name.strip().casefold() for name in first]
            missing = [name for name in columns if name not in reader.fieldnames]
            if missing:
                other = next((sign for sign in (";", "\t", "|") if sign in ",".join(first)), None)
                hint = "" if other is None else f" It has {other!r} where commas belong."
                raise UserError(
                    f"{file} has no column {missing[0]!r}: its first line must name the columns, "
                    f"{', '.join(columns)} among them, and reads {_shown(first)}.{hint}"
                )
            for name in (*columns, *optional):
                if reader.fieldnames.count(name) > 1:
                    raise UserError(f"{file} has two columns called {name!r}: leave one.")
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist.") from error
    except OSError as error:  # such as a folder, or a file of somebody else's
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise UserError(f"{file} cannot be read: {error}.") from error
    above = 1
    for line, row in rows:
        _refuse_line_breaks(file, above, line, row.values())
        above = line
        if any(not row[name] for name in columns):
            raise UserError(f"{file}, line {line}: write a value for {' and '.join(columns)}.")
    return rows


def _refuse_line_breaks(
    file: Path, above: int, end: int, cells: Iterable[str | list[str] | None]
) -> None:
    """In a row that lies below line `above` and ends in line `end`: of quotation marks that do not
    match, one swallows lines."""
    # Where a row has more cells than there are columns, the last is a list of the others.
    flat = [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    breaks = sum(len(re.findall(r"\r\n|\r|\n", text)) for text in flat if text)
    if breaks:
        # A mark that none follows takes the end of the file's last line too.
        line = max(above + 1, end - breaks)
        raise UserError(
            f"{file}, line {line}: a field goes on in the next line: see to its quotation marks."
        )
