"""Building a comparison: arms run on the same seeds, with what was run to choose their settings.

Owns: running arms, choosing learning rates and cells by the selection score, charging. Must not
know: which arms there are, where trials run, how results are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.driver.batch import TrialRunner
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest
from harness.store.comparisons import Arm, Swept, SweptCell
from harness.store.records import TrialRecord
from harness.store.store import Store
from harness.study.study import Study

Tried = dict[float, list[TrialRecord]]
"""Learning rate, as a multiple of the recipe's -> a record per seed."""


class Arms:
    """Arms and notes of a comparison, in the order of running.

    `rates` are the learning rates tried where one is chosen, rising, as multiples of the recipe's;
    up to `further` ones follow where the best lies at an end.
    """

    def __init__(
        self,
        *,
        seeds: tuple[int, ...],
        study: Study,
        run: TrialRunner,
        store: Store,
        runtime: Runtime,
        rates: Sequence[float],
        further: int = 0,
    ) -> None:
        self.seeds, self.study, self.run = seeds, study, run
        self.store, self.runtime, self.rates, self.further = store, runtime, rates, further
        self.arms: list[Arm] = []
        self.swept: Swept | None = None
        self.notes: list[str] = []

    def add_tuned(self, plain: dict[str, TrialRequest], tuned: dict[str, TrialRequest]) -> None:
        """Run the plain arms, and those whose rate is chosen by the seeds' mean selection score.

        A tuned arm is charged for all rates that were tried.
        """
        cases = {(name, 1.0): request for name, request in plain.items()}
        for name, request in tuned.items():
            cases |= {(name, rate): _at_rate(request, rate) for rate in self.rates}
        results = self._run_seeds(cases)
        for name in plain:
            self.add(name, results[name, 1.0])
        tried = {name: {rate: results[name, rate] for rate in self.rates} for name in tuned}
        for _ in range(self.further):
            beyond = {
                (name, rate): _at_rate(request, rate)
                for name, request in tuned.items()
                if (rate := self._beyond(tried[name])) is not None
            }
            if not beyond:
                break
            for (name, rate), records in self._run_seeds(beyond).items():
                tried[name][rate] = records
        for name, results_of in tried.items():
            best = self._best(results_of)
            if self._beyond(results_of) is not None:
                self.notes.append(
                    f"{name}: × {best:.3g} is the end of the range; better rates may lie beyond."
                )
            charged = [record for records in results_of.values() for record in records]
            self.add(f"{name} (× {best:.3g})", results_of[best], charged)

    def _best(self, tried: Tried) -> float:
        return max(sorted(tried), key=lambda rate: self.score(tried[rate]))

    def _beyond(self, tried: Tried) -> float | None:
        """The next rate where the best one is the first or the last."""
        rates, best = sorted(tried), self._best(tried)
        if best == rates[0]:
            return rates[0] ** 2 / rates[1]
        return rates[-1] ** 2 / rates[-2] if best == rates[-1] else None

    def add_best_cell(self, request: TrialRequest) -> None:
        """The study's best cell by the selection score, if it has been run with these seeds, on
        the data, backbone and recipe of `request`."""
        same = {name: getattr(request, name) for name in ("data", "backbone", "recipe")}
        base = self.study.base.model_copy(update=same)
        study = self.study.derive(seeds=self.seeds, base=base)
        ids = [resolve(each, self.runtime).trial_id for _, each in study.requests()]
        records = [self.store.record(trial_id) for trial_id in ids]
        if any(record is None or record.status == "FAILED" for record in records):
            self.notes.append(
                f"The best cell of {study.name} is not here; in the same --out run `harness sweep "
                f"--study {study.name} --seeds {len(self.seeds)}`."
            )
            return
        everything = [record for record in records if record is not None]
        count = len(study.cells())
        cells = [everything[index::count] for index in range(count)]
        best = max(range(count), key=lambda index: self.score(cells[index]))
        words = ", ".join(str(value) for value in study.cells()[best].values())
        self.add(f"best cell of {study.name} ({words})", cells[best], everything)
        self.swept = Swept(
            study=study.name,
            labels={axis.field: axis.label for axis in study.axes},
            fixed=study.fixed,
            cells=tuple(
                SweptCell(cell=cell, trials=tuple(record.trial_id for record in own))
                for cell, own in zip(study.cells(), cells, strict=True)
            ),
        )

    def _run_seeds(
        self, cases: dict[tuple[str, float], TrialRequest]
    ) -> dict[tuple[str, float], list[TrialRecord]]:
        """Seeds outermost, so that what is compared for time runs side by side."""
        requests = [
            request.model_copy(update={"seed": seed})
            for seed in self.seeds
            for request in cases.values()
        ]
        records = self.run(requests)
        return {case: records[index :: len(cases)] for index, case in enumerate(cases)}

    def score(self, records: Sequence[TrialRecord]) -> float:
        """Mean selection score."""
        return float(np.mean([record.objective(self.study.objective) for record in records]))

    def arm(self, name: str) -> Arm:
        """The arm called `name`."""
        return next(arm for arm in self.arms if arm.name == name)

    def add(
        self,
        name: str,
        records: Sequence[TrialRecord],
        charged: Sequence[TrialRecord] | None = None,
    ) -> None:
        """An arm of a record per seed, charged for these or for its own alone."""
        ids = tuple(record.trial_id for record in records)
        spent = ids if charged is None else tuple(record.trial_id for record in charged)
        self.arms.append(Arm(name=name, trials=ids, charged=tuple(dict.fromkeys(spent))))


def _at_rate(request: TrialRequest, rate: float) -> TrialRequest:
    recipe = request.recipe.model_copy(update={"lr": rate * request.recipe.lr})
    return request.model_copy(update={"recipe": recipe})
