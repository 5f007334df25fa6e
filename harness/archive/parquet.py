"""The file of an archive: Parquet with a row per trial, and the run's own files in its metadata.

Columns: `trial_id`, `cell`, the record's fields by their paths (`record.status`,
`record.test.class_mean`, `record.test.per_class`, `record.spec` as JSON), each epoch's by theirs as
lists (`history.select.class_mean`), and what a method learned step by step (`trajectory.*`). Scores
are shares in [0, 1]. `shape` and `history_shape` say how to make the texts again (see `trees`). The
same content gives the same bytes. No image, tensor, claim, or path of data is in it; tracebacks of
failed trials have theirs. Owns: this format, and one sentence for every file that is not of it.
Must not know: stores.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.archive.content import (
    TRIAL_ID,
    Archive,
    ArchivedTrial,
    Trajectory,
    is_run_file,
    is_run_name,
)
from harness.archive.trees import columns, joined, leaf_of, nested, split
from harness.errors import UserError, saving
from harness.store.files import replacing

FORMAT = 1
"""Version of the layout; a file with a higher one is refused."""
KEY = b"harness-archive"
"""Of the metadata: format, run, and `files`, the run's as JSON, deflated, in base64."""
MOST_BYTES = 2**30
"""That a run's files may have."""
MOST_EPOCHS = 10**7
AS_TEXT = frozenset({"record.spec", "record.learned"})
"""Kept as JSON: a column for every site would be too many."""
LEVEL = 9
"""Of zstd."""


def write_archive(archive: Archive, path: Path) -> int:
    """Write an archive, whole or not at all; its bytes.

    Raises:
        NotSavedError: it cannot be written.
    """
    files = json.dumps({"run": archive.run, "files": archive.files}, sort_keys=True)
    packed = base64.b64encode(zlib.compress(files.encode(), 9)).decode()
    about = {"format": FORMAT, "run": archive.run, "trials": len(archive.trials), "files": packed}
    table = _table(archive.trials)
    smooth = [name for name in table.column_names if name == "trajectory.values"]
    with saving(path), replacing(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(
            part,
            table.schema,
            compression="zstd",
            compression_level=LEVEL,
            store_schema=False,  # it would hold the metadata a second time
            write_statistics=False,
            write_page_checksum=True,
            use_dictionary=[name for name in table.column_names if name not in smooth],
            use_byte_stream_split=[f"{name}.list.element" for name in smooth],
        ) as writer:
            writer.write_table(table, row_group_size=max(1, len(table)))
            writer.add_key_value_metadata({KEY.decode(): json.dumps(about)})
    return path.stat().st_size


def _table(trials: Sequence[ArchivedTrial]) -> pa.Table:
    records = [split(trial.record, "record", AS_TEXT) for trial in trials]
    histories = [[split(row, "history", frozenset()) for row in t.history] for t in trials]
    made: dict[str, pa.Array] = {
        "trial_id": pa.array([trial.trial_id for trial in trials], pa.string()),
        "cell": pa.array([trial.cell for trial in trials], pa.string()),
        **columns([leaves for _, leaves in records]),
        **nested([[leaves for _, leaves in rows] for rows in histories]),
    }
    if any(trial.trajectory for trial in trials):
        paths = [trial.trajectory for trial in trials]
        for name, kind in (("names", pa.string()), ("whole", pa.bool_()), ("values", pa.float64())):
            rows = [None if path is None else getattr(path, name) for path in paths]
            made[f"trajectory.{name}"] = pa.array(rows, pa.list_(kind))
    made["shape"] = pa.array([_json(shape) for shape, _ in records], pa.string())
    made["history_shape"] = pa.array(
        [_json(_runs([shape for shape, _ in rows])) for rows in histories], pa.string()
    )
    return pa.table(made)


def _runs(shapes: list[Any]) -> list[Any]:
    """Equal neighbours counted: most epochs have the same shape."""
    return [[len(list(same)), shape] for shape, same in itertools.groupby(shapes)]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def read_archive(path: Path) -> Archive:
    """Read a file that `write_archive` wrote.

    Raises:
        UserError: there is no such file, or it is damaged, of another kind or of a newer version.
    """
    if not path.is_file():
        raise UserError(
            f"Archive {path} does not exist; make it with `harness archive RUN --file {path}`."
        )
    damaged = UserError(f"{path} is damaged, or was changed by hand; copy or make it again.")
    try:
        metadata = pq.read_metadata(path).metadata or {}
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is no archive of `harness archive`, or it is damaged; copy or make it again."
        ) from error
    try:
        about = json.loads(metadata[KEY])
        if about["format"] > FORMAT:
            raise UserError(
                f"{path} was made by a newer version of the harness (format {about['format']}, "
                f"this one reads {FORMAT}): update the harness."
            )
        run, files = _files(about)
        trials = tuple(_trials(table))
        if len(trials) != about["trials"]:
            raise damaged
    except KeyError as error:
        if error.args == (KEY,):
            raise UserError(f"{path} is no archive of `harness archive`.") from error
        raise damaged from error
    # Whatever a file holds, it may not end the program.
    except (pa.ArrowException, zlib.error, RecursionError, MemoryError) as error:
        raise damaged from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged from error
    wrong = [name for name in files if not is_run_file(name)]
    if wrong or not is_run_name(run):
        raise UserError(
            f"{path} names {wrong[0] if wrong else run!r}, which no run has; nothing is imported."
        )
    return Archive(run=run, files=files, trials=trials)


def _files(about: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The run's name and files.

    Raises:
        ValueError: the metadata is damaged.
    """
    inflate = zlib.decompressobj()
    text = inflate.decompress(base64.b64decode(about["files"], validate=True), MOST_BYTES)
    content = json.loads(text)
    run, files = content["run"], content["files"]
    are_texts = all(isinstance(text, str) for text in [run, *files, *files.values()])
    if not inflate.eof or run != about["run"] or not are_texts:
        raise ValueError("a run's name and files are text")
    return run, files


def _trials(table: pa.Table) -> list[ArchivedTrial]:
    """The rows as trials.

    Raises:
        LookupError, ValueError, TypeError: columns and shapes do not belong together.
    """
    plain = {name: table.column(name).to_pylist() for name in table.column_names}
    leaves = {
        (leaf_of(field.name, field.type) or ""): plain[field.name]
        for field in table.schema
        if field.name.startswith("record.")
    }
    per_epoch = {
        (leaf_of(field.name, field.type.value_type) or ""): plain[field.name]
        for field in table.schema
        if field.name.startswith("history.")
    }
    made = []
    for row, trial_id in enumerate(plain["trial_id"]):
        own = {leaf: values[row] for leaf, values in leaves.items()}
        record = joined(json.loads(plain["shape"][row]), "record", own)
        shapes = _unpacked(json.loads(plain["history_shape"][row]))
        epochs = {leaf: values[row] for leaf, values in per_epoch.items()}
        history = [
            joined(shape, "history", {leaf: each[index] for leaf, each in epochs.items() if each})
            for index, shape in enumerate(shapes)
        ]
        if not TRIAL_ID.fullmatch(trial_id) or record["trial_id"] != trial_id:
            raise ValueError(f"{trial_id!r} is no id, or not the record's")
        path = _trajectory(plain, row)
        made.append(
            ArchivedTrial(
                trial_id=trial_id,
                cell=plain["cell"][row],
                record=record,
                history=history,
                trajectory=path,
            )
        )
    return made


def _unpacked(runs: list[Any]) -> list[Any]:
    """What `_runs` counted; raises `ValueError` for counts that no history has."""
    if sum(count for count, _ in runs) > MOST_EPOCHS:
        raise ValueError("too many epochs")
    return [shape for count, shape in runs for _ in range(count)]


def _trajectory(plain: dict[str, list[Any]], row: int) -> Trajectory | None:
    names = plain.get("trajectory.names", [None] * (row + 1))[row]
    if names is None:
        return None
    made = Trajectory(
        names=tuple(names),
        whole=tuple(plain["trajectory.whole"][row]),
        values=tuple(plain["trajectory.values"][row]),
    )
    _ = made.text  # raises where the numbers do not fill the columns
    return made
