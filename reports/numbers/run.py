"""A run's trials as one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.metrics import OVERALL
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run
from harness.store.search_log import Event
from harness.store.summaries import COSTS, OnUnusable, Part, Summary, in_bulk, summaries
from harness.store.table import cell_key
from harness.study.axes import Axis, in_words
from harness.study.figures import AnyView
from harness.study.study import Study

PARTS: tuple[Part, ...] = ("select", "test")
COUNTS = ("trainable_params", "head_params", "epochs_run", "tested_epoch")
GRID_STATUSES = ("COMPLETE", "DIVERGED", "FAILED", "MISSING")
STATUSES = ("COMPLETE", "DIVERGED", "PRUNED", "FAILED", "MISSING")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A study as it was run: `trials` has one row per cell and seed, in the study's order."""

    study: Study
    store: Path
    environment: dict[str, str]
    trials: pd.DataFrame
    cells: list[dict[str, Any]]
    """Every configuration: those of the axes, or, on a space of its own, those a search tried."""
    on_axes: bool
    searches: dict[int, list[Event]]
    """Number -> log of every search; empty for a grid."""
    cell_numbers: NDArray[np.int64]
    """Which of `cells` each row of `trials` belongs to."""
    groups: tuple[str, ...]
    """Names of the dataset's groups, head first; empty until a trial has finished."""
    chance: float
    """Accuracy of guessing, percent; NaN until a trial has finished."""

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(field for cell in self.cells for field in cell))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; a search may add to those of the study."""
        return tuple(sorted({*self.study.seeds, *map(int, self.trials["seed"])}))

    @property
    def selected_on_test(self) -> bool:
        return self.study.base.data.select_on == "test"

    @property
    def figures(self) -> tuple[AnyView, ...]:
        """Figures of the axes; a search on a space of its own fills none of them."""
        return self.study.views if self.on_axes else ()

    def label(self, field: str) -> str:
        """The words for a field: its axis's, or its name."""
        labels = {axis.field: axis.label for axis in self.study.axes}
        return labels.get(field, field)

    def words(self, value: Any) -> str:
        """A field's value, as it stands in the frames, in a sentence."""
        if isinstance(value, str) and value[:1] in ("{", "["):
            return f"{in_words(json.loads(value))} (see metrics.csv)"
        return in_words(None if pd.isna(value) else value)

    def axis(self, field: str) -> Axis:
        return next(axis for axis in self.study.axes if axis.field == field)

    def order(self, field: str) -> list[Any]:
        """The axis's values as they stand in the frames."""
        return [_plain(value) for value in self.axis(field).values]


@in_bulk()
def load_run(folder: RunFolder, on_unusable: OnUnusable | None = None) -> Run:
    """Read a run folder `<root>/studies/<run>` and its trials' records from `<root>`.

    A record that cannot be used counts as missing, and is told to `on_unusable`.

    Raises:
        UserError: the folder is not a run, or a record cannot be used and there is nobody to tell.
    """
    files = read_run(folder)
    store = folder.store
    ended = summaries(store, {asked.trial_id for asked in files.asked}, on_unusable)
    scored = next((ended[a.trial_id] for a in files.asked if _is_scored(ended, a.trial_id)), None)
    groups = tuple(scored.groups) if scored else ()
    tried = {cell_key(asked.cell): asked.cell for asked in files.asked}
    cells = files.study.cells()
    on_axes = tried.keys() <= {cell_key(cell) for cell in cells}
    if not on_axes:
        cells = list(tried.values())
    numbers = {cell_key(cell): number for number, cell in enumerate(cells)}
    cell_numbers = np.array([numbers[cell_key(asked.cell)] for asked in files.asked], dtype=int)
    cells = [{field: _plain(value) for field, value in cell.items()} for cell in cells]
    fields = list(dict.fromkeys(field for cell in cells for field in cell))
    values = {field: [cells[n].get(field) for n in cell_numbers] for field in fields}
    ids = {"seed": [a.seed for a in files.asked], "trial_id": [a.trial_id for a in files.asked]}
    results = pd.DataFrame(
        [_row(ended.get(asked.trial_id), groups) for asked in files.asked], columns=_columns(groups)
    )
    return Run(
        study=files.study,
        on_axes=on_axes,
        cells=cells,
        store=store.root,
        environment=files.environment,
        searches=files.searches,
        trials=pd.concat([pd.DataFrame({**values, **ids}), results], axis=1),
        cell_numbers=cell_numbers,
        groups=groups,
        chance=100 / scored.num_classes if scored else float("nan"),
    )


def rows_of(ended: Sequence[Summary]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A row per trial, with the columns that `Run.trials` has of results; and the groups."""
    scored = next((each for each in ended if each.test is not None), None)
    groups = tuple(scored.groups) if scored else ()
    return pd.DataFrame([_row(each, groups) for each in ended], columns=_columns(groups)), groups


def _plain(value: Any) -> Any:
    is_list = isinstance(value, list | tuple)
    if isinstance(value, dict) or (is_list and value and isinstance(value[0], dict)):
        return json.dumps(value)
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _is_scored(ended: dict[str, Summary], trial_id: str) -> bool:
    return trial_id in ended and ended[trial_id].test is not None


def _columns(groups: tuple[str, ...]) -> list[str]:
    """Names for what `_row` gives."""
    names = ["status", *(f"select_{name}" for name in (*OVERALL, *groups))]
    names += [f"test_{name}" for name in OVERALL]
    for group in groups:
        names += [f"test_{group}", f"binomial_{group}", f"distance_{group}"]
    return [*names, *COUNTS, *COSTS]


def _row(trial: Summary | None, groups: tuple[str, ...]) -> list[Any]:
    nan = float("nan")
    if trial is None:
        return ["MISSING"] + [nan] * (len(_columns(groups)) - 1)
    guess = 100 / trial.num_classes if trial.status == "DIVERGED" else nan
    row: list[Any] = [trial.status]
    for part in PARTS:
        is_test = part == "test"
        scores = [trial.score(part, name) for name in OVERALL]
        if scores[0] is None or trial.status == "PRUNED":  # a part of a training is no score
            row += [guess] * len(OVERALL)
            row += [guess, nan, nan] * len(groups) if is_test else [guess] * len(groups)
            continue
        row += [100 * value for value in scores if value is not None]
        for group in groups:
            accuracy = trial.score(part, "groups", group)
            row.append(nan if accuracy is None else 100 * accuracy)
            if is_test:
                error = trial.score(part, "groups_se", group)
                distance = trial.score(part, "distance", group)
                row += [
                    nan if error is None else 100 * error,
                    nan if distance is None else distance,
                ]
    row += [getattr(trial, name) for name in COUNTS]
    return [*row, *(trial.cost(name) for name in COSTS)]
