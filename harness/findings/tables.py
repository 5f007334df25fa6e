"""The tables that ship for replay, from the archives: `python -m harness.findings.tables`.

`joint_space` is a study of its own. A complete scenario has two: LoRA's space, with MetaPEFT's
defaults beside it, and MetaPEFT's own space. Both count their cost in the protocol's *run*. Left
out is what no replay reads: which image was right.
Owns: what of the archives a shipped table has, and the page of data sheets. Must not know: how a
search is replayed, what the sheets say (`sheets`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from harness.findings.document import fill
from harness.findings.evidence import ARCHIVES, SCENARIOS, archive_of, command_of
from harness.findings.scenario import Scenario, read_scenario, run_flops
from harness.findings.searched import table_from, table_of
from harness.findings.sheets import sheets
from harness.store.comparisons import Reference
from harness.store.shipped import DEFAULT, file_of, shipped
from harness.store.table import PER_IMAGE, Table, read_table, write_table
from harness.study.space import cell_key

COMMAND = "python -m harness.findings.tables"
PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
DEFAULTS = "MetaPEFT, defaults"
"""Among the arms of one run."""
JOINT = (DEFAULT, f"{DEFAULT}_metapeft")
"""Archives of the table that no scenario has: every cell, and MetaPEFT on the same seeds."""


def joint_table(archives: Path = ARCHIVES) -> Table:
    """The table of the joint space.

    Raises:
        UserError: an archive is damaged, or not of a finished run.
    """
    files = [archive_of(name, archives) for name in JOINT]
    with TemporaryDirectory() as place:
        table = table_from(files, Path(place))
    *sweeps, _ = table.info.commands
    return _without_bits(table, commands=(*sweeps, COMMAND))


def tables_of(scenario: Scenario) -> dict[str, Table]:
    """Name -> table of a scenario; none before every seed of it has been trained."""
    if not scenario.is_whole:
        return {}
    with TemporaryDirectory() as place:
        lora, gamma, single = (
            table_of(scenario, Path(place) / kind, kind) for kind in ("lora", "gamma", "single")
        )
    reference = one_run(lora)
    arms = scenario.trials["single"]
    whole = with_method(lora, single, dict(zip(arms["trial_id"], arms["device"], strict=True)))
    found = {scenario.name: whole, f"{scenario.name}_gamma": gamma}
    return {name: _shipped(table, scenario, reference) for name, table in found.items()}


def one_run(lora: Table) -> Reference:
    """The protocol's *run*: LoRA at every linear map in all blocks, α = 4 and the lower rate."""
    last = lora.trials
    own = last[(last["where"] == "all") & (last["alpha"] == 4.0)]
    own = own[own["depth"] == "last:12"] if "depth" in own else own
    own = own[own["recipe.lr"] == own["recipe.lr"].min()]
    return Reference(
        cell=json.loads(own["cell"].iloc[0]),
        device_s=float(own["device_s"].mean()),
        flops=round(run_flops(last)),
    )


def with_method(lora: Table, single: Table, devices: dict[str, str]) -> Table:
    """LoRA's table and MetaPEFT's defaults, as a method that is no point of its space.

    `devices` are those that trials ran on, by their ids.
    """
    [axis] = single.info.study.axes
    cell = dict(axis.sets(DEFAULTS))
    added = single.rows[single.rows["cell"] == cell_key({axis.field: DEFAULTS})]
    plain = {name: v if isinstance(v, str) else json.dumps(v) for name, v in cell.items()}
    added = added.drop(columns=axis.field).assign(cell=cell_key(cell), **plain)
    ran = Counter(devices[trial_id] for trial_id in added["trial_id"].unique())
    return Table(
        info=lora.info.model_copy(
            update={
                "cells": lora.info.cells + 1,
                "devices": dict(Counter(lora.info.devices) + ran),
            }
        ),
        rows=pd.concat([lora.rows, added], ignore_index=True),
    )


def _shipped(table: Table, scenario: Scenario, reference: Reference) -> Table:
    commands = (command_of(scenario.name), COMMAND)
    return _without_bits(table, reference=reference, commands=commands)


def _without_bits(table: Table, **info: object) -> Table:
    """A table without what is of single images and what is empty, and with other `info`."""
    bits = [f"{part}_{name}" for part in ("final", "test") for name in PER_IMAGE]
    rows = table.rows.drop(columns=bits)
    return Table(
        info=table.info.model_copy(update=info),
        rows=rows[[name for name in rows if rows[name].notna().any()]],
    )


def _write(tables: Mapping[str, Table]) -> None:
    for name, table in tables.items():
        print(f"{name}: {len(table.trials)} trials, {_renewed(file_of(name), table)}")


def _renewed(path: Path, table: Table) -> str:
    """Write a table where its file holds another, and say whether it did.

    Bytes of equal tables differ with the version of pyarrow.
    """
    with TemporaryDirectory() as place:
        made = Path(place) / path.name
        write_table(made, table)
        if path.is_file():
            one, other = read_table(path), read_table(made)
            if one.info == other.info and one.rows.equals(other.rows):
                return "as they were"
        path.write_bytes(made.read_bytes())
    return "written"


def page(text: str) -> str:
    """The page of data sheets, with those of all tables that ship made anew."""
    tables = {name: read_table(path) for name, path in shipped().items()}
    sizes = {name: path.stat().st_size for name, path in shipped().items()}
    return fill(text, {"sheets": sheets(tables, sizes)})


def main() -> None:
    """Write the joint space's table, those of complete scenarios, and the page of data sheets."""
    _write({DEFAULT: joint_table()})
    for name in SCENARIOS:
        scenario = read_scenario(name, ARCHIVES)
        _write(tables_of(scenario))
        if not scenario.is_whole:
            print(f"{name}: {len(scenario.seeds)} of {len(scenario.wanted)} seeds, not shipped")
    PAGE.write_text(page(PAGE.read_text()))
    print(PAGE.name)


if __name__ == "__main__":
    main()
