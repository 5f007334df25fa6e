"""Where, how deep and how strongly LoRA goes into a vision transformer, as a table to be searched.

Every configuration has been trained, and this looks its scores up. Owns: a table of `harness
tabulate` as a problem of OptunaHub. Must not know: torch, how trials are trained, who searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optunahub
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import StudyDirection

from harness.metrics import COSTS, LOSS, goals_of
from harness.store.shipped import DEFAULT, file_of
from harness.store.table import read_table
from harness.study.space import Domain, cell_key

__all__ = ["Problem"]


class Problem(optunahub.benchmarks.BaseProblem):
    """A table's validation scores over its space, the test scores beside them.

    `objectives`: names of scores (`class_mean`, `group_mean`, `micro`, `tail`, shares in [0, 1],
    maximised; `val_loss`, minimised) and of costs (`trainable_params`, `inference_flops`,
    minimised), with commas between them, in the order of `names`. `seed` is that of the training;
    None: the mean over all that the table has. `table` is a file of `harness tabulate`; None: the
    one that ships, `joint_space` on the embedded SYNTHETIC benchmark.

    Raises:
        ValueError: the table has no such objective, or no such seed.
    """

    def __init__(
        self,
        objectives: str = "class_mean",
        seed: int | None = None,
        table: str | Path | None = None,
    ) -> None:
        path = file_of(DEFAULT) if table is None else Path(table)
        read = read_table(path)
        self._space, self._axes = read.space(), {a.field: a.values for a in read.info.study.axes}
        first, further = goals_of(objectives)
        self.names = (first, *further)
        for name in self.names:
            read.refuse_unscored(name, path)
        if seed is not None and seed not in read.info.study.seeds:
            raise ValueError(
                f"seed {seed}: the table has {', '.join(map(str, read.info.study.seeds))}."
            )
        self.seeds = read.info.study.seeds if seed is None else (seed,)
        trials = read.trials.assign(
            **{f"goal {name}": read.goal_worths(name) for name in self.names},
            shown=read.trials["test_class_mean"].fillna(1 / read.info.num_classes),
        )
        columns = [*(f"goal {name}" for name in self.names), "shown"]
        self._found = trials[trials["seed"].isin(self.seeds)].groupby("cell")[columns].mean()
        curves = read.rows[read.rows["seed"].isin(self.seeds)].assign(worth=read.worths(first))
        self._curves = curves.groupby(["cell", "epoch"])["worth"].mean()

    @property
    def search_space(self) -> dict[str, BaseDistribution]:
        """An axis whose neighbours are alike is the place in its values (`values` gives them)."""
        found: dict[str, BaseDistribution] = {}

        def suggest(field: str, domain: Domain) -> int:
            values, last = self._axes[field], (domain.choices or 1) - 1
            found[field] = (
                IntDistribution(0, last) if domain.ordered else CategoricalDistribution(values)
            )
            return 0

        self._space.values(suggest)
        return found

    @property
    def directions(self) -> list[StudyDirection]:
        """Scores are maximised, losses and costs minimised."""
        return [
            StudyDirection.MINIMIZE if name in (*COSTS, LOSS) else StudyDirection.MAXIMIZE
            for name in self.names
        ]

    def values(self, params: dict[str, Any]) -> dict[str, Any]:
        """The configuration that parameters stand for, as in `{"depth": "last:4"}`.

        Raises:
            KeyError, IndexError, ValueError: the space has no such parameters.
        """

        def place(field: str, domain: Domain) -> int:
            return params[field] if domain.ordered else self._axes[field].index(params[field])

        return self._space.values(place)

    def evaluate(self, params: dict[str, Any]) -> float | Sequence[float]:
        """What the configuration scores on validation, or costs; chance where it diverged."""
        row = self._row(params)
        found = [
            (-1 if direction is StudyDirection.MINIMIZE else 1) * float(row[f"goal {name}"])
            for name, direction in zip(self.names, self.directions, strict=True)
        ]
        return found[0] if len(found) == 1 else found

    def test(self, params: dict[str, Any]) -> float:
        """The class mean on the test split, for reports: nothing may be chosen by it."""
        return float(self._row(params)["shown"])

    def curve(self, params: dict[str, Any]) -> list[float]:
        """The first objective after every epoch, for pruners; shorter where it diverged."""
        worths = self._curves.loc[cell_key(self.values(params))].dropna()
        return [(-1 if self.names[0] == LOSS else 1) * float(worth) for worth in worths]

    def _row(self, params: dict[str, Any]) -> Any:
        return self._found.loc[cell_key(self.values(params))]
