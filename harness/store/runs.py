"""A run's folder, `studies/<run>/`: what was asked, and in which order a search asked for it.

`study.json` (a sweep) or `comparison.json`, `environment.json`, `command.json`, `search-<n>.jsonl`
for every search, and `counts.json` where nothing is trained. A comparison of searches has
`study.json`, `searches.json` and `search-<name>-<n>.jsonl`; where it replayed a table,
`table.parquet`. Owns: finding, reading and writing them. Must not know: torch, how trials are
computed or shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from harness.errors import UserError, unknown
from harness.spec import TrialSpec
from harness.store.comparisons import Comparison, SearchComparison
from harness.store.files import write_atomically
from harness.store.records import Counted
from harness.store.run_folder import STUDIES, RunFolder
from harness.store.search_log import Event, asks, read_log
from harness.store.store import Store
from harness.study.study import Study

Cell = tuple[dict[str, JsonValue], TrialSpec]
"""A configuration's values, field by field, and one trial of it."""


class Asked(NamedTuple):
    """A trial of a run: its configuration's values, its seed and its id."""

    cell: dict[str, JsonValue]
    seed: int
    trial_id: str


class RunFiles(NamedTuple):
    """What a sweep's folder says."""

    study: Study
    asked: list[Asked]
    environment: dict[str, str]
    searches: dict[int, list[Event]]
    """Number of the search, in the order of names and numbers -> its log; empty for a grid."""


class Command(NamedTuple):
    """How a run was asked for."""

    line: str
    """What was typed, without what cannot change a number (store, device, workers, engine)."""
    plan: str
    """What that meant: the search and its budget, in one sentence."""


def find_run(name: str, root: Path) -> RunFolder | None:
    """The folder of a run, by its name in the store or by its path; None if it is neither."""
    folders = (RunFolder(Path(name)), RunFolder.of(Store(root), name))
    return next((folder for folder in folders if folder.exists), None)


def known_run(name: str, root: Path) -> RunFolder:
    """As `find_run`.

    Raises:
        UserError: there is no such run; names the nearest.
    """
    folder = find_run(name, root)
    if folder is None:
        known = [path.name for path in (root / STUDIES).glob("*") if path.is_dir()]
        raise unknown("run", name, known)
    return folder


def variant(values: dict[str, Any]) -> str:
    """Part of a run's name that tells changed settings, field by field, from a study's own."""
    shown = {f: v[:8] if f == "backbone.sha256" else v for f, v in values.items()}
    words = [f"{field}={value}" for field, value in sorted(shown.items())]
    return "".join(f"+{word}" for word in words).replace("/", "_").replace(" ", "")


def write_command(folder: RunFolder, command: Command) -> None:
    """Put how a run was asked for into its folder.

    Raises:
        NotSavedError: it cannot be written.
    """
    write_atomically(folder.command, json.dumps(command._asdict(), indent=1))


def read_command(folder: RunFolder) -> Command | None:
    """How a run was asked for; None for one from before this was written down."""
    path = folder.command
    return Command(**json.loads(path.read_text())) if path.is_file() else None


def write_run(
    folder: RunFolder, study: Study, cells: Sequence[Cell], environment: dict[str, str]
) -> None:
    """Put the study as it is run, and the environment, beside the results.

    Raises:
        NotSavedError: they cannot be written.
    """
    listed = [{"cell": cell, "seed": spec.seed, "trial_id": spec.trial_id} for cell, spec in cells]
    content = {"study": study.model_dump(mode="json"), "cells": listed}
    write_atomically(folder.study, json.dumps(content, indent=1))
    write_atomically(folder.environment, json.dumps(environment, indent=1))


def write_comparison(
    folder: RunFolder, comparison: Comparison, environment: dict[str, str]
) -> None:
    """Put a comparison and the environment into a run's folder.

    Raises:
        NotSavedError: they cannot be written.
    """
    write_atomically(folder.comparison, comparison.model_dump_json(indent=1))
    write_atomically(folder.environment, json.dumps(environment, indent=1))


def read_comparison(folder: RunFolder) -> Comparison:
    """The comparison of arms in a run's folder.

    Raises:
        UserError: it holds none.
    """
    path = folder.comparison
    if not path.is_file():
        raise UserError(
            f"{folder.name} compares no arms; name a run of `harness train --controls`."
        )
    return Comparison.model_validate_json(path.read_text())


def members(name: str, root: Path) -> tuple[str, ...]:
    """The trials that a name stands for: those of a comparison's first arm, or the one itself."""
    folder = RunFolder.of(Store(root), name)
    if not folder.comparison.is_file():
        return (name,)
    return read_comparison(folder).arms[0].trials


def write_counts(folder: RunFolder, counts: dict[str, Counted]) -> None:
    """Put trial id -> counts into a run's folder.

    Raises:
        NotSavedError: they cannot be written.
    """
    content = {trial_id: counted._asdict() for trial_id, counted in counts.items()}
    write_atomically(folder.counts, json.dumps(content, indent=1))


def read_counts(folder: RunFolder) -> dict[str, Counted]:
    """Trial id -> counts, of a study that trains nothing."""
    content = json.loads(folder.counts.read_text())
    return {trial_id: Counted(**counted) for trial_id, counted in content.items()}


def read_run(folder: RunFolder) -> RunFiles:
    """A sweep's folder, also while its driver is writing to it.

    Raises:
        UserError: the folder is not that of a sweep.
    """
    path = folder.study
    if not path.is_file():
        raise UserError(f"{folder} is not a run: it has no study.json; start one with a sweep.")
    content = json.loads(path.read_text())
    asked = [Asked(**cell) for cell in content["cells"]]
    searches = {number: read_log(log) for number, log in enumerate(folder.logs())}
    for events in searches.values():
        asked += [Asked(ask.cell, ask.seed, ask.trial_id) for ask in asks(events)]
    return RunFiles(
        study=Study.model_validate_json(json.dumps(content["study"])),
        asked=list({each.trial_id: each for each in asked}.values()) if searches else asked,
        environment=json.loads(folder.environment.read_text()),
        searches=searches,
    )


def write_search_comparison(folder: RunFolder, comparison: SearchComparison) -> None:
    """Put a comparison of searches into a run's folder.

    Raises:
        UserError: what is there was made with other seeds, workers or another table.
        NotSavedError: it cannot be written.
    """
    before = read_search_comparison(folder)
    for field in ("seeds", "workers", "table"):
        was, now = getattr(before, field, None), getattr(comparison, field)
        if before is not None and was != now:
            raise UserError(
                f"{folder} holds a comparison with other {field} ({was}, now {now}); move it away "
                "or give another --out."
            )
    write_atomically(folder.searches, comparison.model_dump_json(indent=1))


def refuse_replayed(folder: RunFolder) -> None:
    """Raises `UserError` if the run's trials are rows of a table, so that the store has none."""
    if folder.table.is_file():
        raise UserError(
            f"{folder.name} was replayed from a table: its report holds all there is, and the run "
            "that was tabulated has the trials."
        )


def read_search_comparison(folder: RunFolder) -> SearchComparison | None:
    """The comparison of searches in a run's folder; None if it holds none."""
    path = folder.searches
    if not path.is_file():
        return None
    return SearchComparison.model_validate_json(path.read_text())
