"""What an archive holds, in memory: a run's files, and its trials as they lie in a store.

Owns: these types, which names may come out of a file, and a trial's texts. Must not know: how they
are written, stores.
"""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from harness.errors import UserError
from harness.store.run_folder import LOG_NAME, RunFolder

TRIAL_ID = re.compile(r"[0-9a-f]{16}")
LONGEST_NAME = 255
"""Bytes that file systems take."""
FILES = frozenset(
    f"{name}.json"
    for name in ("study", "comparison", "searches", "counts", "environment", "command")
)
"""A run's files beside its logs; its report is made anew, who drives it is not for elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A trial's `trajectory.csv`: what its method learned, a number per step and column."""

    names: tuple[str, ...]
    whole: tuple[bool, ...]
    """Of every column: whether its numbers are written without a decimal point."""
    values: tuple[float, ...]
    """Column after column, because neighbours in time are alike."""

    @classmethod
    def parse(cls, text: str) -> Trajectory | None:
        """None if the text is not such a table, digit for digit."""
        try:
            header, *rows = csv.reader(io.StringIO(text))
            columns = [[float(each) for each in column] for column in zip(*rows, strict=True)]
        except ValueError:
            return None
        whole = tuple(
            all(row[index].removeprefix("-").isdecimal() for row in rows)
            for index in range(len(header))
        )
        values = tuple(value for column in columns for value in column)
        made = cls(names=tuple(header), whole=whole, values=values)
        return made if made.text == text else None

    def shortened(self) -> Trajectory:
        """To seven digits between the first step and the last, which takes half the bytes.

        Tables show the two ends alone, and no figure has so many digits.
        """
        count = len(self.values) // len(self.names)
        ends = (0, count - 1)
        values = tuple(
            v if i % count in ends or self.whole[i // count] else _to_seven_digits(v)
            for i, v in enumerate(self.values)
        )
        return replace(self, values=values)

    @property
    def text(self) -> str:
        """As the store wrote it.

        Raises:
            ValueError: the numbers do not fill the columns, or one is not whole.
        """
        count = len(self.values) // len(self.names)
        if count * len(self.names) != len(self.values):
            raise ValueError("a trajectory's columns have different lengths")
        written = [
            [str(int(v)) if self.whole[index] else str(v) for v in self._column(index, count)]
            for index in range(len(self.names))
        ]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.names, *zip(*written, strict=True)])
        return out.getvalue()

    def _column(self, index: int, count: int) -> tuple[float, ...]:
        return self.values[index * count : (index + 1) * count]


@dataclass(frozen=True, kw_only=True)
class ArchivedTrial:
    """A trial that has ended, whichever way."""

    trial_id: str
    cell: str | None
    """Its configuration in the run, as JSON; None in a comparison of arms."""
    record: dict[str, Any]
    """`record.json` as plain data."""
    history: list[dict[str, Any]]
    """The lines of `history.jsonl`."""
    trajectory: Trajectory | None = None

    def files(self) -> dict[str, str]:
        """The files of its folder, by name, `record.json` last."""
        made = {"spec.json": _pretty(self.record["spec"])}
        if self.history:
            made["history.jsonl"] = "".join(f"{json.dumps(row)}\n" for row in self.history)
        if self.trajectory is not None:
            made["trajectory.csv"] = self.trajectory.text
        return {**made, "record.json": self.text}

    @property
    def text(self) -> str:
        """`record.json` as the store writes it."""
        return _pretty(self.record)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A run that can be taken elsewhere."""

    run: str
    """Its name."""
    files: dict[str, str]
    """Name -> text, of the run's folder."""
    trials: tuple[ArchivedTrial, ...]


def _to_seven_digits(value: float) -> float:
    """The nearest number of single precision; what is too large for it stays."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return value


def is_run_name(name: str) -> bool:
    """Whether a run may be called so: one folder's name that leads nowhere else."""
    leads_elsewhere = name in ("", ".", "..") or any(c in name for c in "/\\") or name[0] == "~"
    return not leads_elsewhere and name.isprintable() and len(name.encode()) <= LONGEST_NAME


def is_run_file(name: str) -> bool:
    """Whether a run's folder may have a file called so, and an archive hold it."""
    return name in FILES or (LOG_NAME.fullmatch(name) is not None and name.isprintable())


def run_texts(folder: RunFolder) -> dict[str, str]:
    """The files of a run's folder that travel; a log without a last line torn by a crash.

    Raises:
        UserError: one of them is not text.
    """
    found = {}
    for path in sorted(folder.path.iterdir()):
        if is_run_file(path.name) and path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is damaged: it is not text.") from error
            found[path.name] = _whole_lines(text) if path.suffix == ".jsonl" else text
    return found


def _whole_lines(text: str) -> str:
    lines = text.splitlines(keepends=True)
    try:
        for line in lines[-1:]:
            json.loads(line)
    except ValueError:
        lines.pop()
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _pretty(value: Any) -> str:
    return to_json(value, indent=1).decode()
