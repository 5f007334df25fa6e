"""A frame as a CSV file.

Owns: how numbers and texts stand in it. Must not know: what is in the frame.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from harness.store.files import write_atomically

QUOTED = re.compile(r'[",\r\n]')


def write_csv(path: Path, table: pd.DataFrame, exact: Collection[str] = ()) -> Path:
    """Write a frame without its index, numbers to four decimals, and return where it is.

    `exact` columns hold settings or probabilities, of which four decimals would make others.

    Raises:
        NotSavedError: the file cannot be written; names it.
    """
    # Put together here, because pandas takes many times as long, which shows with 100,000 trials.
    columns = [_cells(column, is_exact=name in exact) for name, column in table.items()]
    rows = [map(_quoted, map(str, table.columns)), *zip(*columns, strict=True)]
    write_atomically(path, "\n".join(map(",".join, rows)) + "\n")
    return path


def _cells(column: pd.Series[Any], *, is_exact: bool) -> list[str]:
    """A column as it stands in a CSV file; nothing where there is no number."""
    values = column.to_list()
    if column.dtype.kind == "f" and is_exact:
        return ["" if value != value else _exactly(value) for value in values]
    if column.dtype.kind == "f":
        return ["" if value != value else f"{value:.4f}" for value in values]
    if column.dtype.kind == "i":
        return [str(value) for value in values]
    if isinstance(column.dtype, pd.StringDtype):
        texts = column.fillna("").to_list()
        return [*map(_quoted, texts)] if QUOTED.search("".join(texts)) else texts
    known = {  # by type as well: 1 and True are one key, and two texts
        (kind, value): "" if pd.isna(value) else _quoted(str(value))
        for kind, value in {(type(value), value) for value in values}
    }
    return [known[type(value), value] for value in values]


def _exactly(value: float) -> str:
    """To four decimals where that is the number; else to as many digits as it has."""
    text = f"{value:.4f}"
    return text if float(text) == value else repr(value)


def _quoted(text: str) -> str:
    """Within quotation marks where it would else be read as more than one cell."""
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text
