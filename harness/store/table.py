"""A finished exhaustive sweep as one self-describing Parquet file, and the file as an object.

The file has a row per trial and epoch: the cell's fields, `seed`, `trial_id`, `status`, `epoch`
(from 1), the selection scores of that epoch (null where it was not scored), and the device seconds
and FLOPs up to it (the trial's in proportion to its epochs; FLOPs without those of the test, where
the records tell them apart). A trial's last row also has its test scores (`test_*`), its selection
scores as recorded (`final_*`, those of the tested epoch), the `hits` and `class_counts` of both as
the record has them, and its `spec`. Scores are shares in [0, 1]; what a diverged trial does not
have is null. Its `trainable_params` (beside the head's) and `inference_flops` (of one image) stand
there, too, and of the selection split the `loss`; older tables lack these. The schema's metadata
says which study this is, on which versions and devices it ran, what the classes are called, what
one full run costs, and the commands that made it. Owns: this format. Must not know: torch, how a
search is replayed or shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from harness.errors import UserError, saving
from harness.metrics import (
    COSTS,
    LOSS,
    OVERALL,
    SHOWN,
    TAIL,
    Goal,
    Objective,
    no_tail,
    worth_of_chance,
)
from harness.spec import Frozen
from harness.store.comparisons import Reference
from harness.store.files import has_key, refuse_other, replacing
from harness.store.records import DONE
from harness.store.run_folder import RunFolder
from harness.store.runs import Asked, RunFiles, read_command, read_run
from harness.store.store import Store
from harness.store.summaries import Part, Summary, as_told, summaries
from harness.study.axes import Axis, cell_words
from harness.study.space import SearchSpace, cell_key
from harness.study.study import Study

FORMAT = 1
"""Version of the layout; a table with another one is refused."""
KEY = b"harness"
"""Of the schema's metadata."""
PER_IMAGE = ("hits", "class_counts")
"""Of both splits, as text; tables from before records had them lack them."""
COLUMNS = ("cell", "seed", "trial_id", "status", "epoch", "device_s", "flops", "spec")
"""Beside the cell's fields and the scores; `cell` is its `cell_key`."""


class TableInfo(Frozen):
    """The metadata of a table."""

    format: int = FORMAT
    study: Study
    """As it was run, with the seeds that every cell has."""
    environment: dict[str, str]
    """Versions, device, SEMANTICS."""
    devices: dict[str, int]
    """Name -> trials that ran on it."""
    reference: Reference
    cells: int
    groups: tuple[str, ...]
    """Names of the dataset's groups, head first."""
    num_classes: int
    class_names: tuple[str, ...] = ()
    """Empty in tables of records that do not have them."""
    commands: tuple[str, ...]
    """That made the runs and the table, in order."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that has been read: its metadata and its rows, as they are in the file."""

    info: TableInfo
    rows: pd.DataFrame

    @property
    def trials(self) -> pd.DataFrame:
        """The last row of every trial."""
        return self.rows.drop_duplicates("trial_id", keep="last")

    @property
    def tests(self) -> pd.Series[float]:
        """Of every one of `trials`, the shown test score in percent; chance where one diverged."""
        return 100 * self.trials[f"test_{SHOWN}"].fillna(1 / self.info.num_classes)

    @property
    def has_loss(self) -> bool:
        """Whether it has the selection loss; tables from before it was written down lack it."""
        return {"select_loss", "final_loss"} <= set(self.rows.columns)

    def refuse_unscored(self, goal: Goal, path: Path) -> None:
        """Raises `UserError` if the table does not have what is to be chosen by."""
        if goal in COSTS and (goal not in self.rows or self.trials[goal].isna().any()):
            raise UserError(
                f"--objective {goal}: {path} was tabulated without; tabulate its runs again, or "
                "choose by another."
            )
        if goal == TAIL and f"final_{TAIL}" not in self.rows:
            raise no_tail(self.info.groups)
        if goal == LOSS and not self.has_loss:
            raise UserError(
                f"--objective {LOSS}: {path} was tabulated without the selection loss; tabulate "
                "its runs again, or choose by another."
            )

    def worths(self, objective: Objective) -> pd.Series[float]:
        """Of every row, what its epoch is worth by the selection split, better when higher."""
        return -self.rows["select_loss"] if objective == LOSS else self.rows[f"select_{objective}"]

    def final_worths(self, objective: Objective) -> pd.Series[float]:
        """Of every one of `trials`, what it is worth; chance for one that diverged."""
        last = self.trials
        final = -last["final_loss"] if objective == LOSS else last[f"final_{objective}"]
        return final.fillna(worth_of_chance(objective, self.info.num_classes))

    def goal_worths(self, goal: Goal) -> pd.Series[float]:
        """As `final_worths`, or minus the cost where that is the goal."""
        return -self.trials[goal] if goal in COSTS else self.final_worths(goal)  # type: ignore[arg-type]

    def space(self) -> SearchSpace:
        """What a search ranges over: the table's axes."""
        return SearchSpace(self.info.study, 0)  # axes need no number of blocks


def tabulate(folders: Sequence[RunFolder], path: Path) -> TableInfo:
    """Write a finished sweep, and other finished runs of the same study, into one file.

    Raises:
        UserError: a trial has not finished, the runs are not of one study or one SEMANTICS, none of
            them is an exhaustive sweep, the study's space has no list of its points, or another
            kind of file is there.
        NotSavedError: the file cannot be written.
    """
    refuse_other(path, "--file", "a table", lambda there: has_key(there, KEY))
    runs = {folder: read_run(folder) for folder in folders}
    grids = [folder for folder, run in runs.items() if not run.searches]
    if not grids:
        raise UserError(
            f"{folders[0].name} is no exhaustive sweep: name one, from `harness sweep --study ...`."
        )
    study = runs[grids[0]].study
    if study.space and not all(isinstance(part, Axis) for part in study.space):
        raise UserError(
            f"The space of study {study.name} has variables without a list of values, so no table "
            "can hold it; compare its searches live."
        )
    for folder, run in runs.items():
        if run.study.derive(seeds=study.seeds) != study:
            raise UserError(
                f"{folder.name} is not of the same study as {grids[0].name}; give runs that differ "
                "in their seeds or their search alone."
            )
    semantics = sorted({run.environment.get("semantics", "?") for run in runs.values()})
    if len(semantics) > 1:
        raise UserError(
            f"The runs are of SEMANTICS {' and '.join(semantics)}, under which the same settings "
            "gave other numbers; give runs of one of them."
        )
    found: dict[str, tuple[Store, Asked]] = {}
    ended: dict[str, Summary] = {}
    for folder, run in runs.items():
        store = folder.store
        ended |= _finished(folder, run, store)
        found |= {asked.trial_id: (store, asked) for asked in run.asked if asked.trial_id in ended}
    common = set.intersection(*(set(runs[folder].study.seeds) for folder in grids))
    study = study.derive(seeds=tuple(sorted(common)))
    rows = [row for key, (store, asked) in found.items() for row in _rows(store, asked, ended[key])]
    scored = next((ended[key] for key in found if ended[key].test is not None), None)
    if scored is None:
        raise UserError(f"{grids[0].name}: every trial diverged, so there is nothing to tabulate.")
    environments = [run.environment for run in runs.values()]
    info = TableInfo(
        study=study,
        environment=environments[0],
        devices=dict(Counter(ended[key].device for key in found)),
        reference=_reference(study, found, ended),
        cells=len({cell_key(asked.cell) for _, asked in found.values()}),
        groups=tuple(scored.groups),
        num_classes=scored.num_classes,
        class_names=_class_names(found[scored.trial_id][0], scored.trial_id),
        commands=(
            *(_command(folder, run.study) for folder, run in runs.items()),
            f"harness tabulate {' '.join(folder.name for folder in folders)} --file {path.name}",
        ),
    )
    _write(path, rows, info)
    return info


def _finished(folder: RunFolder, run: RunFiles, store: Store) -> dict[str, Summary]:
    """The trials of a run that were trained to their end, or diverged.

    Pruned trials are excluded: their partial scores answer no study.

    Raises:
        UserError: one of the others is missing or failed.
    """
    ended = as_told(summaries(store, {asked.trial_id for asked in run.asked}), run.parts)
    stopped = {key for key, each in ended.items() if each.status == "PRUNED"}
    asked = [each for each in run.asked if each.trial_id not in stopped or not run.searches]
    whole = {key: each for key, each in ended.items() if each.status in DONE}
    lacking = [each for each in asked if each.trial_id not in whole]
    if lacking:
        failed = sum(ended[e.trial_id].status == "FAILED" for e in lacking if e.trial_id in ended)
        words = cell_words(lacking[0].cell)
        raise UserError(
            f"{folder.name} is not finished: of {len(asked)} trials {len(lacking) - failed} are "
            f"missing and {failed} failed, the first at {words}, seed {lacking[0].seed}; give "
            f"`{_command(folder, run.study)}` again."
        )
    return whole


def _reference(
    study: Study, found: dict[str, tuple[Store, Asked]], ended: dict[str, Summary]
) -> Reference:
    """Costs of the default configuration's trials, a diverged one's scaled to all its epochs.
    Raises `UserError` if it was not run."""
    cell = SearchSpace(study, 0).default_cell()
    key, epochs = cell_key(cell), study.base.recipe.epochs
    seconds, flops = [], []
    for own in (ended[i] for i, (_, asked) in found.items() if cell_key(asked.cell) == key):
        stretch = epochs / own.epochs_run if own.status == "DIVERGED" else 1.0
        seconds.append(own.device_s * stretch)
        flops.append(own.charged_flops * stretch)
    if not seconds:
        raise UserError(
            f"{study.name}: no trial has its space's defaults, {key}, the unit of cost: add them."
        )
    return Reference(cell=cell, device_s=sum(seconds) / len(seconds), flops=round(max(flops)))


def _rows(store: Store, asked: Asked, trial: Summary) -> list[dict[str, Any]]:
    """One trial's rows, an epoch each.

    Raises:
        UserError: its history is not that of its epochs, once each and in order.
    """
    history = store.history(asked.trial_id)
    if len(history) < trial.epochs_run:
        raise UserError(
            f"{store.trials / asked.trial_id}/history.jsonl has {len(history)} of the trial's "
            f"{trial.epochs_run} epochs; delete the folder and run the trial again."
        )
    epochs = [row.get("epoch") for row in history]
    if epochs != [*range(trial.epochs_run)]:
        raise UserError(
            f"{store.trials / asked.trial_id}/history.jsonl of trial {asked.trial_id} lists epochs "
            f"{_listed(epochs)} and not 0 to {trial.epochs_run - 1}, once each; move the folder "
            "out of the store, and run the trial again."
        )
    fields = {field: _plain(value) for field, value in asked.cell.items()}
    known = {**fields, "cell": cell_key(asked.cell), "seed": asked.seed}
    known |= {"trial_id": asked.trial_id, "status": trial.status}
    rows = []
    for epoch, event in enumerate(history, start=1):
        scores, share = event.get("select") or {}, epoch / trial.epochs_run
        row = {
            **known,
            "epoch": epoch,
            "device_s": share * trial.device_s,
            "flops": round(share * trial.charged_flops),
        }
        row |= {f"select_{name}": scores.get(name) for name in (*OVERALL, "loss")}
        # A diverged trial's summary names no groups; the epochs before have their own.
        row |= {f"select_{group}": value for group, value in scores.get("groups", {}).items()}
        rows.append(row)
    rows[-1] |= _named(trial, "select", "final") | _named(trial, "test", "test")
    rows[-1]["final_loss"] = trial.score("select", "loss")
    rows[-1]["trainable_params"] = trial.trainable_params
    rows[-1]["inference_flops"] = trial.cost("inference_flops") or None
    record = json.loads((store.trials / asked.trial_id / "record.json").read_bytes())
    rows[-1]["spec"] = json.dumps(record["spec"])
    for part, prefix in (("select", "final"), ("test", "test")):
        scores = record[part] or {}
        rows[-1][f"{prefix}_hits"] = scores.get("hits")
        counts = scores.get("class_counts")
        rows[-1][f"{prefix}_class_counts"] = None if counts is None else json.dumps(counts)
    return rows


def _class_names(store: Store, trial_id: str) -> tuple[str, ...]:
    record = store.record(trial_id)
    return () if record is None else record.class_names


def _listed(epochs: list[Any]) -> str:
    shown = ", ".join(str(epoch) for epoch in epochs[:20])
    return (shown or "none") + (", ..." if len(epochs) > 20 else "")


def _named(trial: Summary, part: Part, prefix: str) -> dict[str, float | None]:
    """Overall scores, group accuracies and their binomial standard errors, by column."""
    if trial.score(part, OVERALL[0]) is None:
        return {}
    named = {f"{prefix}_{name}": trial.score(part, name) for name in OVERALL}
    for group in trial.groups:
        named[f"{prefix}_{group}"] = trial.score(part, "groups", group)
        named[f"{prefix}_se_{group}"] = trial.score(part, "groups_se", group)
    return named


def _plain(value: JsonValue) -> JsonValue:
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _command(folder: RunFolder, study: Study) -> str:
    """The command that started a run."""
    known = read_command(folder)
    return f"harness sweep --study {study.name}" if known is None else known.line


def _write(path: Path, rows: list[dict[str, Any]], info: TableInfo) -> None:
    frame = pd.DataFrame(rows)
    texts = [f"{part}_{name}" for part in ("final", "test") for name in PER_IMAGE]
    frame = frame.astype(dict.fromkeys(texts, object))
    parts = ("select", "final", "test")
    scores = [c for c in frame.columns if c.split("_")[0] in parts and c not in texts]
    frame = frame.astype(dict.fromkeys([*scores, *COSTS], "float64"))
    for name in {field for row in rows for field in json.loads(row["cell"])}:
        values = frame[name].dropna()
        if len({isinstance(value, str) for value in values}) > 1:  # a column has one type
            frame[name] = [None if pd.isna(v) else json.dumps(v) for v in frame[name]]
    write_table(path, Table(info=info, rows=frame))


def write_table(path: Path, table: Table) -> None:
    """Write a table as one file. Raises `NotSavedError` if it cannot be written."""
    content = pa.Table.from_pandas(table.rows, preserve_index=False)
    content = content.replace_schema_metadata({KEY: table.info.model_dump_json().encode()})
    with saving(path), replacing(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, part, compression="zstd")


def read_table(path: Path) -> Table:
    """Read a file that `tabulate` wrote.

    Raises:
        UserError: there is no such file, or it is damaged, of another kind or of another version.
    """
    wrong = f"{path} is no table of `harness tabulate`, or it is damaged; make it again."
    if not path.is_file():
        raise UserError(f"Table {path} does not exist; make it with `harness tabulate`.")
    try:
        table = pq.read_table(path)
        text = (table.schema.metadata or {})[KEY]
        if json.loads(text)["format"] != FORMAT:
            raise UserError(f"{path} has another format than {FORMAT}; tabulate its runs again.")
        info = TableInfo.model_validate_json(text)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(wrong) from error
    needed = [*COLUMNS, *(f"{p}_{n}" for p in ("select", "final", "test") for n in OVERALL)]
    if not set(needed) <= set(table.column_names) or not _is_sound(table):
        raise UserError(wrong)
    return Table(info=info, rows=table.to_pandas())


def _is_sound(table: pa.Table) -> bool:
    """Whether the columns that every table has hold what they are read as."""
    for name in COLUMNS:
        column = table[name]
        is_right = {
            **dict.fromkeys(("seed", "epoch", "flops"), pa.types.is_integer),
            "device_s": pa.types.is_floating,
        }.get(name, _is_text)
        if not is_right(column.type) or (name != "spec" and column.null_count):
            return False
    for name in ("cell", "spec"):
        texts = table[name].drop_null().unique().to_pylist()
        try:
            if not all(isinstance(json.loads(text), dict) for text in texts):
                return False
        except (ValueError, RecursionError):
            return False
    return True


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
