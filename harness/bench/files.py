"""Measurements as files.

Owns: their CSV, with the device and the versions in every row. Must not know: what was measured.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import saving
from harness.runner.provenance import provenance
from harness.store.files import write_atomically

FACTS = ("device", "harness", "git", "torch", "timm", "python")


def facts(device: str) -> dict[str, str]:
    """The device's name and versions."""
    found = provenance(device)
    try:
        peft = importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        peft = "not installed"
    return {**{name: found[name] for name in FACTS}, "peft": peft}


def write_rows(path: Path, rows: Sequence[Any], device: str) -> Path:
    """Write named tuples of one type, and return the path.

    Raises:
        NotSavedError: it cannot be written.
    """
    known, text = facts(device), io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]._fields, *known], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row._asdict(), **known} for row in rows)
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path
