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

from harness.metrics import LOSS, OVERALL, SHOWN, TAIL, Objective, Scale, scale_of
from harness.reports.numbers.positions import in_block_order
from harness.store.records import DONE
from harness.store.run_folder import RunFolder
from harness.store.runs import Asked, read_run
from harness.store.search_log import SHARE, Event
from harness.store.summaries import (
    BY_GROUP,
    COSTS,
    OnUnusable,
    Part,
    Summary,
    as_told,
    in_bulk,
    summaries,
)
from harness.study.axes import Axis, in_words
from harness.study.figures import AnyView
from harness.study.space import cell_key
from harness.study.study import Study

PARTS: tuple[Part, ...] = ("select", "test")
COUNTS = ("trainable_params", "head_params", "epochs_run", "tested_epoch")
GRID_STATUSES = ("COMPLETE", "DIVERGED", "FAILED", "MISSING")
STATUSES = ("COMPLETE", "DIVERGED", "PRUNED", "FAILED", "MISSING")


class OfStudy:
    """Names of columns in the frames of a study's trials."""

    study: Study

    @property
    def scale(self) -> Scale:
        """How what choices are made by stands in the frames, and how it is read."""
        return scale_of(self.study.objective)

    @property
    def select(self) -> str:
        """The column that choices are made by, better when higher."""
        return self.scale.column

    @property
    def test(self) -> str:
        """The column that is shown of what was chosen."""
        return f"test_{SHOWN}"


@dataclass(frozen=True, kw_only=True)
class Run(OfStudy):
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
        """The axis's values as they stand in the frames, positions in the order of a block."""
        return in_block_order(plain(value) for value in self.axis(field).values)


@in_bulk()
def load_run(folder: RunFolder, on_unusable: OnUnusable | None = None) -> Run:
    """Read a run folder `<root>/studies/<run>` and its trials' records from `<root>`.

    A record that cannot be used counts as missing, and is told to `on_unusable`.

    Raises:
        UserError: the folder is not a run, or a record cannot be used and there is nobody to tell.
    """
    files = read_run(folder)
    store = folder.store
    parts = files.parts
    ended = summaries(store, {each.trial_id for each in files.asked}, on_unusable)
    ended = as_told(ended, files.no_answers)
    asked = [_whole(each) if each.trial_id in parts else each for each in files.asked]
    scored = next((ended[a.trial_id] for a in asked if _is_scored(ended, a.trial_id)), None)
    groups = tuple(scored.groups) if scored else ()
    keys = _keys(asked)
    tried = {key: each.cell for key, each in zip(keys, asked, strict=True)}
    cells = files.study.cells()
    on_axes = tried.keys() <= {cell_key(cell) for cell in cells}
    if not on_axes:
        cells = list(tried.values())
    numbers = {cell_key(cell): number for number, cell in enumerate(cells)}
    cell_numbers = np.array([numbers[key] for key in keys], dtype=int)
    cells = [{field: plain(value) for field, value in cell.items()} for cell in cells]
    fields = list(dict.fromkeys(field for cell in cells for field in cell))
    values = {field: [cells[n].get(field) for n in cell_numbers] for field in fields}
    ids = {"seed": [each.seed for each in asked], "trial_id": [each.trial_id for each in asked]}
    found = [ended.get(each.trial_id) for each in asked]
    results = _results(found, groups, files.study.objective)
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


def _whole(asked: Asked) -> Asked:
    """With the configuration that a trial on a part of the data stands for."""
    cell = {field: value for field, value in asked.cell.items() if field != SHARE}
    return asked._replace(cell=cell)


def _keys(trials: Sequence[Asked]) -> list[str]:
    """The `cell_key` of each, made once for the many seeds of a cell."""
    known: dict[str, str] = {}
    words = [repr(asked.cell) for asked in trials]
    for word, asked in zip(words, trials, strict=True):
        if word not in known:
            known[word] = cell_key(asked.cell)
    return [known[word] for word in words]


def rows_of(ended: Sequence[Summary], objective: Objective) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A row per trial, with the columns that `Run.trials` has of results; and the groups."""
    scored = next((each for each in ended if each.test is not None), None)
    groups = tuple(scored.groups) if scored else ()
    return _results(ended, groups, objective), groups


def plain(value: Any) -> Any:
    """A value of a cell as it stands in the frames: `["q", "v"]` as `q+v`, objects as JSON."""
    is_list = isinstance(value, list | tuple)
    if isinstance(value, dict) or (is_list and value and isinstance(value[0], dict)):
        return json.dumps(value)
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _is_scored(ended: dict[str, Summary], trial_id: str) -> bool:
    return trial_id in ended and ended[trial_id].test is not None


def _results(
    ended: Sequence[Summary | None], groups: tuple[str, ...], objective: Objective
) -> pd.DataFrame:
    """A row per trial; column by column, because there may be 100,000 of them."""
    columns: dict[str, Any] = {"status": [each.status if each else "MISSING" for each in ended]}
    for part in PARTS:
        scores = _percent(ended, part, groups)
        columns |= {f"{part}_{name}": scores[:, n] for n, name in enumerate(OVERALL)}
        for number, group in enumerate(groups):
            for block, word in enumerate((part, "binomial", "distance")):
                if block == 0 or part == "test":
                    place = len(OVERALL) + block * len(groups) + number
                    columns[f"{word}_{group}"] = scores[:, place]
    nan = float("nan")
    for name in COUNTS:
        columns[name] = [getattr(each, name) if each else nan for each in ended]
    costs = [each.costs if each else [nan] * len(COSTS) for each in ended]
    columns |= dict(zip(COSTS, map(list, zip(*costs, strict=True)), strict=bool(costs)))
    results = pd.DataFrame(columns, columns=_columns(groups))
    if objective == LOSS:
        results.insert(1, scale_of(LOSS).column, _negated_losses(ended))
    if objective == TAIL and scale_of(TAIL).column not in results:  # nothing has finished
        results.insert(1, scale_of(TAIL).column, nan)
    return results


def _percent(
    ended: Sequence[Summary | None], part: Part, groups: tuple[str, ...]
) -> NDArray[np.float64]:
    """Scores on a split, `[trials, columns]`, as `Summary` has them, but accuracies in percent.

    A diverged trial's accuracies are chance; a part of a training is no score.
    """
    width, names = len(OVERALL) + len(BY_GROUP) * len(groups) + 1, list(groups)
    nothing: list[float | None] = [None] * width
    rows, guesses = [], {}
    for index, trial in enumerate(ended):
        scores = None if trial is None else trial.select if part == "select" else trial.test
        if trial is None or scores is None or trial.status == "PRUNED":
            rows.append(nothing)
            if trial is not None and trial.status == "DIVERGED":
                guesses[index] = 100 / trial.num_classes
        elif trial.groups == names:
            rows.append(scores)
        else:  # of another dataset, or of a trial with fewer groups
            own = [trial.score(part, name) for name in OVERALL]
            by_group = [trial.score(part, n, g) for n in BY_GROUP for g in groups]
            rows.append([*own, *by_group, trial.score(part, "loss")])
    found = np.array(rows, dtype=float).reshape(len(rows), width)
    found[:, : len(OVERALL) + 2 * len(groups)] *= 100  # a distance is no share
    for index, guess in guesses.items():
        found[index, : len(OVERALL) + len(groups)] = guess
    return found


def _negated_losses(ended: Sequence[Summary | None]) -> list[float]:
    """What each trial is chosen by where that is the selection loss."""
    return [
        each.objective(LOSS) if each and each.status in DONE else float("nan") for each in ended
    ]


def _columns(groups: tuple[str, ...]) -> list[str]:
    """Names of the results, in their order."""
    names = ["status", *(f"select_{name}" for name in (*OVERALL, *groups))]
    names += [f"test_{name}" for name in OVERALL]
    for group in groups:
        names += [f"test_{group}", f"binomial_{group}", f"distance_{group}"]
    return [*names, *COUNTS, *COSTS]
