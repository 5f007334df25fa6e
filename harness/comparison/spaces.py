"""Searches on several spaces, one table of each, on one axis of cost.

Every search keeps its table, its space and its budget; what they share is the data, the seeds and
the full run that costs are counted in, which is that of the first table. Owns: which tables can
stand beside each other. Must not know: how a table is replayed, what the report says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.comparison.replay import Beside, given_cells, replay_searches
from harness.comparison.request import SearchesRequest
from harness.console import SILENT, Console
from harness.errors import UserError
from harness.search.budget import Budget
from harness.spec import leaves
from harness.store.run_folder import RunFolder
from harness.store.store import Store
from harness.store.table import Table, read_table
from harness.study.axes import in_words

RATE = "recipe.lr"
"""The one field of the recipe that spaces may differ in."""


def replay_spaces(
    asked: SearchesRequest,
    paths: list[Path],
    store: Store,
    console: Console = SILENT,
    *,
    processes: int | None = None,
) -> RunFolder:
    """Every search against every table; the folder of the first table's run, which shows all.

    Each other table has a run of its own, whose costs are in the first one's full run.

    Raises:
        UserError: the tables differ in more than their spaces, or as `replay_searches`.
    """
    for option, value in (("charge", asked.tuning), ("controls", asked.controls)):
        if value:
            raise UserError(f"--{option} is for one table.")
    if Budget.parse(asked.budget).unit != "runs":
        raise UserError(
            f"--budget {asked.budget}: with several tables write it in full runs, as in 12runs, "
            "because a trial or an epoch costs more on one than on another."
        )
    tables = [read_table(path) for path in paths]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        _refuse_apart(paths[0], tables[0], path, table, asked.objective)
    names = [table.info.study.name for table in tables]
    if len(set(names)) < len(names):
        raise UserError("Two of the tables are of one study; give one table of each space.")
    given = frozenset(name for table in tables for name in given_cells(table))
    reference, first = tables[0].info.reference, names[0]
    within = Beside(reference=reference, given=given, within=first)
    others = [
        replay_searches(asked, path, None, store, console, processes=processes, beside=within)
        for path in paths[1:]
    ]
    whole = Beside(
        reference=reference,
        given=given,
        shown=tuple(folder.name for folder in others),
    )
    return replay_searches(asked, paths[0], None, store, console, processes=processes, beside=whole)


def _refuse_apart(
    first_path: Path, first: Table, path: Path, table: Table, objective: str | None
) -> None:
    """Raises `UserError` unless two tables differ in their spaces alone; names a field."""
    one, other = dict(_shared(first, objective)), dict(_shared(table, objective))
    for field in dict.fromkeys([*one, *other]):
        if field != RATE and one.get(field) != other.get(field):
            raise UserError(
                f"{first_path} and {path} differ in {field} ({one.get(field)} and "
                f"{other.get(field)}), so their searches cannot stand beside each other."
            )


def _shared(table: Table, objective: str | None) -> Iterator[tuple[str, Any]]:
    """What tables must have in common, by field; one that an axis varies has all its values."""
    study, info = table.info.study, table.info
    yield "SEMANTICS", info.environment.get("semantics")
    yield "objective", objective or study.objective
    yield "seeds", list(study.seeds)
    base = study.base.model_dump(mode="json", include={"data", "backbone", "recipe"})
    yield from leaves(base)
    for axis in study.axes:
        for value in axis.values:
            for field in axis.sets(value):
                if field.split(".")[0] in base and field != RATE:
                    yield field, ", ".join(in_words(each) for each in axis.values)
