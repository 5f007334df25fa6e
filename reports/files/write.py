"""A run's report, drawn anew only where something that it is made of has changed.

Owns: what a report is made of, and `drawn.json`, which says of what the one that is there was made.
Must not know: what a report says, which files it has. pandas and matplotlib are imported only where
something is drawn.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.reports.brief import Brief
from harness.spec import read_as
from harness.store.files import write_atomically
from harness.store.run_folder import RunFolder
from harness.store.runs import read_search_comparison
from harness.store.summaries import OnUnusable
from harness.version import source_hash

TRIAL = re.compile(rb'"([0-9a-f]{16})"')
"""An id of a trial as it stands in a run's files."""
LIBRARIES = (
    *("matplotlib", "numpy", "pandas", "pillow", "scikit-learn", "scipy", "seaborn"),
    *("jinja2", "tabulate"),
)
"""What draws and computes."""

Seen = tuple[str, str]
"""A trial whose record could not be used, and why, in a sentence."""


class _Drawn(NamedTuple):
    """What `drawn.json` says of the report that is there."""

    made_of: str
    files: dict[str, str]
    """Name -> hash, in the order of writing."""
    unusable: list[Seen]
    brief: Brief


def write_report(folder: RunFolder, on_unusable: OnUnusable | None = None) -> list[Path]:
    """Write `report/` in the folder of a sweep or a comparison, and return its files.

    Files stay as they are if they would be written with the same bytes again: the run's files, its
    trials' records, this package's source and the libraries that draw are as they were then, and
    the files themselves are, too. Without the folder all of it is written anew.

    A sweep's records that cannot be used are told to `on_unusable`, and missing in its tables.

    Raises:
        UserError: the folder is not a run, or a record cannot be used: in a comparison, or without
            `on_unusable`.
        NotSavedError: a file cannot be written; names it.
    """
    now_of, before = made_of(folder), _drawn(folder)
    if before is not None and before.made_of == now_of and _is_whole(folder, before):
        for seen in before.unusable:
            if on_unusable is None:
                raise UserError(seen[1])
            on_unusable(*seen)
        return [folder.report / name for name in before.files]
    from harness.reports.files.anew import write_anew

    unusable: list[Seen] = []

    def told(trial_id: str, why: str) -> None:
        unusable.append((trial_id, why))
        if on_unusable is not None:
            on_unusable(trial_id, why)

    folder.drawn.unlink(missing_ok=True)
    written = write_anew(folder, None if on_unusable is None else told)
    files = {path.name: _hash(path) for path in written.files}
    brief = written.brief._asdict()
    now = {"made_of": now_of, "files": files, "unusable": unusable, "brief": brief}
    write_atomically(folder.drawn, json.dumps(now, indent=1))
    return written.files


def read_brief(folder: RunFolder) -> Brief | None:
    """The answer in brief of the report that was written last; None without one."""
    drawn = _drawn(folder)
    return None if drawn is None else drawn.brief


def made_of(folder: RunFolder) -> str:
    """Hash of everything that the report's bytes follow from."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    found = hashlib.sha256(f"{source_hash()} {versions} {folder.name}".encode())
    _add_run(found, folder)
    searches = read_search_comparison(folder)
    if searches is not None:
        shown = [] if searches.controls is None else [searches.controls]
        for name in (*shown, *searches.beside):
            _add_run(found, folder.beside(name))
    return found.hexdigest()


def _add_run(found: hashlib._Hash, folder: RunFolder) -> None:
    """Add a run's files, and when each of its trials was last written to.

    A record never changes, and neither does a trial's folder once it has one, but for files that
    come or go: so times are enough, and quick to look up; a spec that somebody changed is seen too.
    """
    named = (folder.study, folder.comparison, folder.searches, folder.counts)
    trials: set[bytes] = set()
    for path in (*named, folder.environment, folder.command, folder.table, *folder.logs()):
        content = path.read_bytes() if path.is_file() else b""
        found.update(f"\n{path.name} {len(content)}\n".encode() + content)
        trials.update(TRIAL.findall(content) if path != folder.table else ())
    root = folder.store.trials
    for trial_id in sorted(trials):
        where = f"{root}/{trial_id.decode()}"
        for each in (f"{where}/record.json", f"{where}/spec.json", where):
            try:
                seen = os.stat(each)
                words = f"{seen.st_mtime_ns} {seen.st_size}"
            except OSError:
                words = "none"
            found.update(trial_id + words.encode())


def _drawn(folder: RunFolder) -> _Drawn | None:
    """What is known of the report that is there; None without one, or of another version."""
    try:
        return read_as(_Drawn, folder.drawn, "")
    except UserError:
        return None


def _is_whole(folder: RunFolder, drawn: _Drawn) -> bool:
    """Whether all files are as they were written."""
    paths = {folder.report / name: known for name, known in drawn.files.items()}
    return all(path.is_file() and _hash(path) == known for path, known in paths.items())


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
