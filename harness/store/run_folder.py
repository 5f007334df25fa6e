"""Where a run lies, `<store>/studies/<name>/`, and what its files are called.

Owns: those names. Must not know: what the files hold (`runs`, `search_log` and `table` do).
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.store.store import Store

STUDIES = "studies"
"""Folder of a store that has a folder per run."""

LOG_NAME = re.compile(r"search-(?:[^/\\]+-)?[0-9]+\.jsonl")
"""Of a search's log; see `RunFolder.log`."""

LONGEST_VARIANT = 160
"""Bytes; a name may have 255, of which the study and the scale need some."""

Kind = Literal["sweep", "comparison", "searches", "counts"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, which may not exist yet; its text is its path."""

    path: Path

    @classmethod
    def of(cls, store: Store, name: str) -> RunFolder:
        """The folder of the run `name` in a store."""
        return cls(store.root / STUDIES / name)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name

    @property
    def store(self) -> Store:
        """The store that the run lies in, which holds its trials."""
        return Store(Path(os.path.normpath(self.path / ".." / "..")))

    def beside(self, name: str) -> RunFolder:
        """Another run of the same store."""
        return RunFolder.of(self.store, name)

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.study.is_file() or self.comparison.is_file()

    @property
    def kind(self) -> Kind:
        """What was run: a sweep, a comparison of arms or of searches, or counts of parameters."""
        if self.comparison.is_file():
            return "comparison"
        if self.counts.is_file():
            return "counts"
        return "searches" if self.searches.is_file() else "sweep"

    @property
    def study(self) -> Path:
        """The study as it is run, with a grid's trials; every run but a comparison of arms."""
        return self.path / "study.json"

    @property
    def comparison(self) -> Path:
        """Arms, of a comparison of arms."""
        return self.path / "comparison.json"

    @property
    def searches(self) -> Path:
        """What was compared, of a comparison of searches."""
        return self.path / "searches.json"

    @property
    def counts(self) -> Path:
        """Parameters by trial, of a study that trains nothing."""
        return self.path / "counts.json"

    @property
    def environment(self) -> Path:
        """Versions and device."""
        return self.path / "environment.json"

    @property
    def command(self) -> Path:
        """How the run was asked for; runs from before it was written down have none."""
        return self.path / "command.json"

    @property
    def table(self) -> Path:
        """The table that was replayed, of a comparison that trained nothing."""
        return self.path / "table.parquet"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    @property
    def drawn(self) -> Path:
        """Says what the report that is there was made of."""
        return self.path / "drawn.json"

    @property
    def driver_mark(self) -> Path:
        """Says which process drives the run; see `liveness.driving`."""
        return self.path / "driver.json"

    def log(self, repeat: int, search: str | None = None) -> Path:
        """The log of one repeat of the run's search, or of one of the searches it compares."""
        words = ["search", *([] if search is None else [search]), str(repeat)]
        return self.path / f"{'-'.join(words)}.jsonl"

    def logs(self) -> list[Path]:
        """The logs that are there, by the searches' names and then by repeat.

        Raises:
            UserError: a file is called almost so, as the copies of synchronising programs are.
        """
        found = list(self.path.glob("search-*.jsonl"))
        for path in found:
            if not LOG_NAME.fullmatch(path.name):
                raise UserError(
                    f"{path} is called like the log of a search and is none: if a program that "
                    "synchronises folders made it, keep the one that is whole as "
                    "search-<n>.jsonl; move the other away."
                )
        return sorted(found, key=_name_and_repeat)


def _name_and_repeat(log: Path) -> tuple[str, int]:
    name, _, repeat = log.stem.rpartition("-")
    return name, int(repeat)


def variant(values: dict[str, Any]) -> str:
    """What a run's name ends with: the settings in which it differs from its study.

    Of more than a file system takes, the beginning and a hash of all.
    """
    shown = {f: str(v)[:8] if f == "backbone.sha256" else v for f, v in values.items()}
    words = [f"{field}={value}" for field, value in sorted(shown.items())]
    name = "".join(f"+{word}" for word in words).replace("/", "_").replace(" ", "")
    name = name.replace("\0", "_")
    whole = name.encode()
    if len(whole) <= LONGEST_VARIANT:
        return name
    end = f"...{hashlib.sha256(whole).hexdigest()[:12]}"
    return whole[: LONGEST_VARIANT - len(end)].decode(errors="ignore") + end
