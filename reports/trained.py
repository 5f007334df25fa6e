"""Results of one configuration, which is no run of its own; `harness.train` gives them.

Owns: this part of the interface of `harness.reports.notebook`. Must not know: how numbers, words or
figures are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.errors import UserError
from harness.metrics import OVERALL, SHOWN, Objective, scale_of
from harness.reports.brief import Brief
from harness.reports.figures.comparison import gamma
from harness.reports.notebook import Best, Results, html_of, score_words
from harness.reports.numbers.gamma import load_learned
from harness.reports.numbers.run import rows_of
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.text.brief import train_brief
from harness.reports.text.captions import setting
from harness.reports.text.numbers import with_interval
from harness.store.store import Store
from harness.store.summaries import summaries


class TrainResults(Results):
    """One configuration on one seed or several; `trials` has a row per seed."""

    def __init__(
        self,
        name: str,
        store: Store,
        trial_ids: Sequence[str],
        objective: Objective,
        line: str | None = None,
    ) -> None:
        records = [store.known_record(trial_id) for trial_id in trial_ids]
        spec, self._ids = records[0].spec, tuple(trial_ids)
        self.name, self.records = name, tuple(records)
        self._objective, self._chosen_on = objective, spec.data.chosen_on
        self._line = line
        self._store = store
        self._paths = [store.trials / trial_id for trial_id in trial_ids]
        ended = summaries(store, trial_ids)
        rows, self._groups = rows_of([ended[i] for i in trial_ids], objective)
        ids = pd.DataFrame({"seed": [r.spec.seed for r in records], "trial_id": self._ids})
        self.trials = pd.concat([ids, rows], axis=1)

    def best(self) -> Best | None:
        """The configuration itself; None where no seed has both scores."""
        row, names = self.table().iloc[0], [*OVERALL, *self._groups]
        if not row["n"]:
            return None
        return Best(
            trial_ids=self._ids,
            chosen_by=score_words(self._objective, self._chosen_on),
            cell={"method": self.name},
            select=float(row[scale_of(self._objective).column]),
            test={name: float(row[f"test_{name}"]) for name in names},
            half_width={name: float(row[f"test_{name}_ci"]) for name in names},
        )

    @property
    def brief(self) -> Brief:
        row, name = self.table().iloc[0], f"test_{SHOWN}"
        test = row[name], row[f"{name}_ci"]
        return train_brief(self.name, self.records, self._objective, test, self._line)

    def __str__(self) -> str:
        return self.brief.text(self._store.root)

    def table(self) -> pd.DataFrame:
        """As described, with one row; `n` counts the seeds that have a score."""
        row: dict[str, Any] = {"method": self.name, "n": int(self.trials["test_micro"].count())}
        names = [f"{p}_{n}" for p in ("select", "test") for n in (*OVERALL, *self._groups)]
        for name in dict.fromkeys([*names, scale_of(self._objective).column]):
            row[name], row[f"{name}_ci"] = mean_and_half_width(self.trials[name].astype(float))
        return pd.DataFrame([row])

    @property
    def figures(self) -> tuple[str, ...]:
        return () if load_learned(self._paths) is None else ("gamma",)

    def _draw(self, name: str) -> Figure:
        learned = load_learned(self._paths)
        assert learned is not None
        words = setting(self.records[0].spec, len(self.records))
        return gamma(learned, f"Learned strengths, {self.name}", words)

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} is one configuration and has no axes: see table().")

    def _repr_html_(self) -> str:
        row, name = self.table().iloc[0], SHOWN
        words = with_interval(row[f"test_{name}"], row[f"test_{name}_ci"])
        line = f"{score_words(name, 'test')}: {words} %, {len(self._ids)} seeds."
        return html_of(self.name, [line], "")
