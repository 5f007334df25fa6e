"""What an export and a table of predictions hold."""

from __future__ import annotations

import csv
import re


def rows_of(path):
    """Of a CSV with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def code_of(folder):
    """The Python of an export's README."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S))
