"""Made-up runs to be taken from one store to another, and what lies in a store."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from harness.store.files import write_atomically
from harness.store.runs import Command, write_command
from harness.store.store import Store
from support.cli import harness
from support.sweeps import made_sweep
from support.tables import small_study

TYPED = "harness sweep --study joint_space"


def made_run(root, **changes):
    """A store with the finished run of a small study, its records written as trials write them."""
    folder = made_sweep(root, small_study(**changes))
    store = Store(root)
    for path in store.trials.glob("*/record.json"):
        record = store.record(path.parent.name)
        write_atomically(path, record.model_dump_json(indent=1))
        (path.parent / "spec.json").write_text(record.spec.model_dump_json(indent=1))
    write_command(folder, Command(TYPED, "Every cell once for every seed."))
    return folder


def archive(root, file, run="joint_space"):
    result = harness("archive", run, "--file", file, "--out", root)
    assert result.exit_code == 0, result.output
    return file


def bring(root, *files):
    return harness("import", *files, "--out", root)


def contents(root, *below):
    """Every file in folders of a store, by path; without what anybody may delete."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in below or ("",)
        for path in sorted((root / name).rglob("*"))
        if path.is_file()
        and path.suffix not in (".lock", ".sqlite")
        and "report" not in path.parts
        and path.name != "drawn.json"
    }


def reports(root, run="joint_space"):
    """The tables of a run's report, made anew."""
    result = harness("report", run, "--out", root)
    assert result.exit_code == 0, result.output
    tables = (root / "studies" / run / "report").glob("*.csv")
    return {path.name: path.read_bytes() for path in tables}


def rewritten(file, to, *, columns=None, about=None, metadata=None):
    """A copy of an archive in which somebody has changed columns or metadata."""
    table, known = pq.read_table(file), dict(pq.read_metadata(file).metadata)
    for name, change in (columns or {}).items():
        values = [change(value) for value in table.column(name).to_pylist()]
        kind = table.schema.field(name).type
        at = table.column_names.index(name)
        table = table.set_column(at, name, [pa.array(values, kind)])
    if about is not None:
        known[b"harness-archive"] = json.dumps(about(json.loads(known[b"harness-archive"])))
    with pq.ParquetWriter(to, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(known if metadata is None else metadata)
    return to


def change_record(store, trial_id, change):
    """Let a record say something else; `change` is given it as plain data."""
    path = store.trials / trial_id / "record.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))


def some_trial(root, status="COMPLETE"):
    store = Store(root)
    ids = sorted(path.parent.name for path in store.trials.glob("*/record.json"))
    return next(key for key in ids if store.record(key).status == status)
