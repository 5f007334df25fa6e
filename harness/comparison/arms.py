"""Building a comparison: arms run on the same seeds, with what was run to choose their settings.

A seed is one replicate of the whole procedure: it chooses by its own selection scores, is charged
for what it tried itself, and is scored by its own choice. Owns: running arms, these choices of
learning rates and cells, charging. Must not know: which arms there are, where trials run, how
results are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.driver.batch import TrialRunner
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest
from harness.store.comparisons import Arm, Swept, SweptCell
from harness.store.records import TrialRecord
from harness.store.store import Store
from harness.study.study import Study

Tried = dict[float, TrialRecord]
"""What one seed has tried: learning rate, as a multiple of the recipe's -> its record."""


class ArmsBuilder:
    """Arms and notes of a comparison, in the order of running.

    `rates` are the learning rates tried where one is chosen, rising, as multiples of the recipe's;
    a seed whose best lies at an end tries up to `further` ones beyond it.
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
        """Run the plain arms, and those of which each seed chooses its rate by its own score.

        A tuned arm is charged for all rates that its seeds have tried.
        """
        cases = {(name, 1.0): request for name, request in plain.items()}
        for name, request in tuned.items():
            cases |= {(name, rate): _at_rate(request, rate) for rate in self.rates}
        results = self._run_seeds(cases)
        for name in plain:
            self.add(name, results[name, 1.0])
        tried: dict[str, list[Tried]] = {
            name: [
                {rate: results[name, rate][place] for rate in self.rates}
                for place in range(len(self.seeds))
            ]
            for name in tuned
        }
        for _ in range(self.further):
            beyond = [
                (name, place, rate)
                for name, of_seeds in tried.items()
                for place, seed_tried in enumerate(of_seeds)
                if (rate := self._beyond(seed_tried)) is not None
            ]
            if not beyond:
                break
            beyond.sort(key=lambda each: each[1])  # seeds outermost here too
            requests = [
                _at_rate(tuned[name], rate).model_copy(update={"seed": self.seeds[place]})
                for name, place, rate in beyond
            ]
            for (name, place, rate), record in zip(beyond, self.run(requests), strict=True):
                tried[name][place][rate] = record
        for name, of_seeds in tried.items():
            self._add_rates(name, of_seeds)

    def _add_rates(self, name: str, of_seeds: Sequence[Tried]) -> None:
        """A tuned arm of what its seeds have tried."""
        best = [self._best(tried) for tried in of_seeds]
        ends = [self._best(tried) for tried in of_seeds if self._beyond(tried) is not None]
        if ends:
            words = " or ".join(f"{rate:.3g}" for rate in sorted(set(ends)))
            several = f" for {len(ends)} of {len(best)} seeds" if len(best) > 1 else ""
            self.notes.append(
                f"{name}: × {words} is the end of the range{several}; better rates may lie beyond."
            )
        self.add(
            f"{name} (× {_each(f'{rate:.3g}' for rate in best)})",
            [tried[rate] for tried, rate in zip(of_seeds, best, strict=True)],
            [record for tried in of_seeds for record in tried.values()],
        )

    def _best(self, tried: Tried) -> float:
        """A seed's rate with its best score; of ties the smallest."""
        rates = sorted(tried)
        return rates[self._chosen([tried[rate] for rate in rates])]

    def _beyond(self, tried: Tried) -> float | None:
        """The next rate of a seed whose best one is its first or its last."""
        rates, best = sorted(tried), self._best(tried)
        if best == rates[0]:
            return rates[0] ** 2 / rates[1]
        return rates[-1] ** 2 / rates[-2] if best == rates[-1] else None

    def _chosen(self, records: Sequence[TrialRecord]) -> int:
        """The place of the best among a seed's records by its own selection score; of ties the
        first."""
        scores = [record.objective(self.study.objective) for record in records]
        return scores.index(max(scores))

    def add_best_cell(self, request: TrialRequest) -> None:
        """The study's best cell by each seed's own selection score, if the study has been run with
        these seeds, on the data, backbone and recipe of `request`; of ties the earlier cell."""
        same = {name: getattr(request, name) for name in ("data", "backbone", "recipe")}
        base = self.study.base.model_copy(update=same)
        study = self.study.derive(seeds=self.seeds, base=base)
        ids = [resolve(each, self.runtime).trial_id for _, each in study.requests()]
        records = [self.store.record(trial_id) for trial_id in ids]
        # A search that has ended a trial early has scored it for itself alone.
        if any(record is None or record.status in ("FAILED", "PRUNED") for record in records):
            self.notes.append(
                f"The best cell of {study.name} is not here; in the same --out run `harness sweep "
                f"--study {study.name} --seeds {len(self.seeds)}`."
            )
            return
        everything = [record for record in records if record is not None]
        count = len(study.cells())
        cells = [everything[index::count] for index in range(count)]
        of_seeds = [everything[at : at + count] for at in range(0, len(everything), count)]
        best = [self._chosen(own) for own in of_seeds]
        words = [", ".join(map(str, cell.values())) for cell in study.cells()]
        self.add(
            f"best cell of {study.name} ({_each((words[place] for place in best), '; ')})",
            [own[place] for own, place in zip(of_seeds, best, strict=True)],
            everything,
        )
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


def _each(words: Iterable[str], between: str = ", ") -> str:
    """What each seed has chosen, in the seeds' order; once where all have chosen the same."""
    each = list(words)
    return each[0] if len(set(each)) == 1 else between.join(each)


def _at_rate(request: TrialRequest, rate: float) -> TrialRequest:
    recipe = request.recipe.model_copy(update={"lr": rate * request.recipe.lr})
    return request.model_copy(update={"recipe": recipe})
