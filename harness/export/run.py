"""A run's trials for other tools: tables, a database for optuna-dashboard, TensorBoard's curves.

In all of them accuracies are in percent, and a column has the same name and unit.

Owns: these formats. Must not know: how trials were chosen or computed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import UserError, saving
from harness.export.loggers import TensorBoard
from harness.export.scalars import finals, scalars, settings
from harness.metrics import SplitMetrics, scale_of, worth
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run
from harness.store.store import Store

PARTS = ("select", "test")
"""The split that choices are made on, and the test split."""


def for_export(trials: pd.DataFrame, store: Store) -> pd.DataFrame:
    """A row per trial, with what its record has beside its scores.

    `data` and `backbone`, by name. Per split `*_by_class`, accuracies in percent by the classes'
    names (or their numbers, in records without names), and `*_class_counts` and `*_hits` as in the
    record (`SplitMetrics`). JSON text; null for what a record does not have.
    """
    columns: dict[str, list[str | None]] = {
        f"{part}_{name}": [] for part in PARTS for name in ("by_class", "class_counts", "hits")
    }
    names = {"data": list[str | None](), "backbone": list[str | None]()}
    for trial_id, status in zip(trials["trial_id"], trials["status"], strict=True):
        record = None if status == "MISSING" else store.record(trial_id)
        for field, values in names.items():
            values.append(None if record is None else getattr(record.spec, field).name)
        for part, scores in zip(PARTS, _splits(record), strict=True):
            classes = () if record is None else record.class_names
            found = (None, None, None) if scores is None else _by_image(scores, classes)
            for name, value in zip(("by_class", "class_counts", "hits"), found, strict=True):
                columns[f"{part}_{name}"].append(value)
    # An axis may be called so, and has its own column then.
    added = columns | {field: v for field, v in names.items() if field not in trials.columns}
    return pd.concat([trials, pd.DataFrame(added, index=trials.index, dtype=object)], axis=1)


def _splits(record: TrialRecord | None) -> tuple[SplitMetrics | None, SplitMetrics | None]:
    """Scores on the selection and the test split; a part of a training has none."""
    if record is None or record.status == "PRUNED":
        return None, None
    return record.select, record.test


def _by_image(
    scores: SplitMetrics, names: tuple[str, ...]
) -> tuple[str | None, str | None, str | None]:
    keys = names or [str(number) for number in range(len(scores.per_class))]
    shares = (None if share is None else 100 * share for share in scores.per_class)
    by_class = dict(zip(keys, shares, strict=False))
    counts = json.dumps(scores.class_counts)
    return json.dumps(by_class, ensure_ascii=False), counts, scores.hits


def export_optuna(folder: RunFolder, store: Store, url: str) -> int:
    """Write a run as a study of Optuna's, one trial for each of ours; their number.

    Every field is a choice among the values that the run has tried. Accuracies are in percent, as
    in the tables; a loss has its sign turned, because a study is maximised.

    Raises:
        UserError: the database cannot be used, or already has a study of this name.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.exceptions import DuplicatedStudyError
    from optuna.trial import TrialState, create_trial
    from sqlalchemy.exc import SQLAlchemyError

    files = read_run(folder)
    objective = files.study.objective
    factor = scale_of(objective).factor
    states = {
        "COMPLETE": TrialState.COMPLETE,
        "DIVERGED": TrialState.COMPLETE,
        "PRUNED": TrialState.PRUNED,
        "FAILED": TrialState.FAIL,
    }
    cells = [{field: _choice(v) for field, v in asked.cell.items()} for asked in files.asked]
    no_answers = files.no_answers
    fields = list(dict.fromkeys(field for cell in cells for field in cell))
    domains = {
        field: CategoricalDistribution(
            list(dict.fromkeys(cell[field] for cell in cells if field in cell))
        )
        for field in fields
    }
    trials = []
    for asked, cell in zip(files.asked, cells, strict=True):
        record = store.record(asked.trial_id)
        if record is None:
            continue
        state = states[record.status]
        if asked.trial_id in no_answers and state == TrialState.COMPLETE:
            state = TrialState.PRUNED
        curve = store.history(asked.trial_id)
        trials.append(
            create_trial(
                state=state,
                params=cell,
                distributions={field: domains[field] for field in cell},
                value=factor * record.objective(objective)
                if state == TrialState.COMPLETE
                else None,
                intermediate_values={
                    row["epoch"] + 1: factor * worth(objective, row["select"])
                    for row in curve
                    if "select" in row
                },
                user_attrs=_attributes(record),
            )
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(storage=url, study_name=folder.name, direction="maximize")
        study.add_trials(trials)
    except DuplicatedStudyError as error:
        raise UserError(
            f"--optuna {url} already has a study {folder.name}; write to another."
        ) from error
    except (SQLAlchemyError, ValueError, ImportError) as error:
        raise UserError(f"--optuna {url} cannot be used: {str(error).splitlines()[0]}.") from error
    return len(trials)


def _choice(value: Any) -> str | int | float | bool | None:
    is_plain = value is None or isinstance(value, str | int | float | bool)
    return value if is_plain else json.dumps(value)


def _attributes(record: TrialRecord) -> dict[str, Any]:
    """What else is known of a trial, under the names and in the units of the tables."""
    found: dict[str, Any] = {
        "trial_id": record.trial_id,
        "seed": record.spec.seed,
        "status": record.status,
        "data": record.spec.data.name,
        "backbone": record.spec.backbone.name,
        "trainable_params": record.trainable_params,
        "head_params": record.head_params,
        "epochs_run": record.epochs_run,
        "device_s": record.cost.device_s,
    }
    for part, scores in zip(PARTS, _splits(record), strict=True):
        if scores is not None:
            found |= {f"{part}_{name}": 100 * share for name, share in scores.shares.items()}
    return found


def export_tensorboard(folder: RunFolder, store: Store, out: Path) -> Path:
    """Write every trial's curves and final numbers, as `--log tensorboard` does; the folder.

    Raises:
        NotSavedError: it cannot be written.
    """
    with saving(out):
        logger = TensorBoard(out)
        for asked in read_run(folder).asked:
            rows, record = store.history(asked.trial_id), store.record(asked.trial_id)
            if not rows:
                continue
            words = [f"{field}={_choice(value)}" for field, value in asked.cell.items()]
            name = ",".join([*words, f"seed={asked.seed}"])
            logger.begin(asked.trial_id, name, {} if record is None else settings(record.spec))
            for row in rows:
                logger.log(asked.trial_id, row["epoch"] + 1, scalars(row))
            status = "UNFINISHED" if record is None else record.status
            last = {} if record is None else finals(record)
            logger.end(asked.trial_id, status, rows[-1]["epoch"] + 1, last)
    return out
