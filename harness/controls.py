"""What a learned placement must be judged against, trained on the same seeds.

Owns: which trials make the arms of `harness train --controls`. Must not know: where trials run, how
results are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from harness.comparison import Arm, Comparison
from harness.errors import UserError
from harness.insertion import get_method
from harness.placements import derive
from harness.rng import generator
from harness.spec import Placement, TrialRequest
from harness.store import Store, TrialRecord
from harness.study import Study
from harness.trial import Runtime, resolve

RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Learning rates tried, as multiples of the recipe's; chosen by the seeds' mean selection score."""


Run = Callable[[Sequence[TrialRequest]], list[TrialRecord]]
"""Runs what the store lacks; gives the records in the order of the requests."""


class Controls:
    """The arms for a method that learns strengths for another's sites, in the order of running."""

    def __init__(
        self,
        request: TrialRequest,
        *,
        seeds: tuple[int, ...],
        study: Study,
        run: Run,
        store: Store,
        runtime: Runtime,
    ) -> None:
        self._seeds, self._study, self._run = seeds, study, run
        self._store, self._runtime = store, runtime
        self._arms: list[Arm] = []
        self._notes: list[str] = []
        method = get_method(request.method)
        if not method.wraps:
            raise UserError(
                f"--controls: {request.method!r} learns no strengths, so it needs none of them."
            )
        spec = resolve(request, runtime)
        self._meta = request
        parsed = method.parse_options(request.options)
        self._label = method.label(request.method, parsed)
        base, options = method.unwrapped(parsed)
        self._base = request.model_copy(
            update={
                "method": base,
                "options": options,
                "positions": None,
                "depth": "all",
                "alpha": 1.0,
                "placement": spec.placement,
            }
        )
        self._sites = f"all {len(spec.placement)} sites"

    def compare(self) -> Comparison:
        """Run everything and say what stands beside what."""
        meta, base = self._label, self._base.method
        alphas = set(self._base.placement.root.values()) if self._base.placement else set()
        alpha = f"α = {alphas.pop():g}" if len(alphas) == 1 else "its α"
        unit = f"{base}, {alpha}, {self._sites}"
        default = self._default_sites()
        plain = {f"{meta}, one shot": self._meta, unit: self._base, **default}
        self._tuned(plain, {f"{unit}, lr tuned": unit, f"{meta}, lr tuned": f"{meta}, one shot"})
        self._from_learned(f"{meta}, one shot")
        self._best_cell()
        options = resolve(self._meta, self._runtime).options
        steps = options.get("inner_steps")
        return Comparison(
            title=f"{meta} on {base}",
            request=self._meta,
            seeds=self._seeds,
            objective=self._study.objective,
            unit=unit,
            inner_steps=steps if isinstance(steps, int) else None,
            arms=tuple(self._arms),
            notes=tuple(self._notes),
        )

    def _default_sites(self) -> dict[str, TrialRequest]:
        """The base as one would use it without a search: at its own default positions."""
        method = get_method(self._base.method)
        positions = method.default_positions_with(method.parse_options(self._base.options))
        request = self._base.model_copy(update={"placement": None, "positions": positions})
        ids = {resolve(r, self._runtime).trial_id for r in (request, self._base)}
        name = f"{self._base.method}, α = 1, {'+'.join(positions)}"
        return {name: request} if len(ids) == 2 else {}

    def _tuned(self, plain: dict[str, TrialRequest], tuned: dict[str, str]) -> None:
        """Run the plain arms, and those whose learning rate is chosen from `RATES`."""
        cases = {(name, 1.0): request for name, request in plain.items()}
        for name in tuned.values():
            recipe = plain[name].recipe
            for rate in RATES:
                changed = recipe.model_copy(update={"lr": rate * recipe.lr})
                cases[name, rate] = plain[name].model_copy(update={"recipe": changed})
        results = self._run_seeds(cases)
        for name in plain:
            self._add(name, results[name, 1.0])
        for name, of in tuned.items():
            scores = {rate: self._score(results[of, rate]) for rate in RATES}
            best = max(RATES, key=lambda rate: scores[rate])
            if best in (RATES[0], RATES[-1]):
                self._notes.append(
                    f"{name}: × {best:g} is the end of the range; better rates may lie beyond."
                )
            charged = [record for rate in RATES for record in results[of, rate]]
            self._add(f"{name} (× {best:g})", results[of, best], charged)

    def _from_learned(self, searched: str) -> None:
        """What the learned strengths are worth in a fresh training, and what of it is selection."""
        found = [self._store.record(i) for i in self._arm(searched).trials]
        learned = [record.learned for record in found if record and record.learned]
        if len(learned) < len(found):
            self._notes.append("A search diverged, so nothing was made of the learned strengths.")
            return
        changes: dict[str, Callable[[int, Placement], Placement]] = {
            "learned γ, retrained": lambda seed, placement: placement,
            "strongest half of the sites, retrained": lambda s, p: derive([p], "topk", None),
            "uniform α = mean of γ": lambda seed, placement: _uniform(placement),
            "γ shuffled over the sites": _shuffled,
        }
        cases = {
            (name, seed): self._base.model_copy(
                update={"placement": change(seed, placement), "seed": seed}
            )
            for name, change in changes.items()
            for seed, placement in zip(self._seeds, learned, strict=True)
        }
        records = dict(zip(cases, self._run(list(cases.values())), strict=True))
        for name in changes:
            own = [records[name, seed] for seed in self._seeds]
            self._add(f"{self._base.method}, {name}", own, [*(r for r in found if r), *own])

    def _best_cell(self) -> None:
        """The study's best cell by the selection score, if it has been run with these seeds."""
        same = {name: getattr(self._meta, name) for name in ("data", "backbone", "recipe")}
        base = self._study.base.model_copy(update=same)
        study = self._study.derive(seeds=self._seeds, base=base)
        requests = list(study.requests())
        ids = [resolve(request, self._runtime).trial_id for _, request in requests]
        records = [self._store.record(trial_id) for trial_id in ids]
        if any(record is None or record.status == "FAILED" for record in records):
            self._notes.append(
                f"The best cell of {study.name} is not here; in the same --out run `harness sweep "
                f"--study {study.name} --seeds {len(self._seeds)}`."
            )
            return
        everything = [record for record in records if record is not None]
        count = len(study.cells())
        cells = [everything[index::count] for index in range(count)]
        best = max(range(count), key=lambda index: self._score(cells[index]))
        words = ", ".join(str(value) for value in study.cells()[best].values())
        self._add(f"best cell of {study.name} ({words})", cells[best], everything)

    def _run_seeds(
        self, cases: dict[tuple[str, float], TrialRequest]
    ) -> dict[tuple[str, float], list[TrialRecord]]:
        """Seeds outermost, so that what is compared for time runs side by side."""
        requests = [
            request.model_copy(update={"seed": seed})
            for seed in self._seeds
            for request in cases.values()
        ]
        records = self._run(requests)
        return {case: records[index :: len(cases)] for index, case in enumerate(cases)}

    def _score(self, records: Sequence[TrialRecord]) -> float:
        return float(np.mean([record.objective(self._study.objective) for record in records]))

    def _arm(self, name: str) -> Arm:
        return next(arm for arm in self._arms if arm.name == name)

    def _add(
        self,
        name: str,
        records: Sequence[TrialRecord],
        charged: Sequence[TrialRecord] | None = None,
    ) -> None:
        ids = tuple(record.trial_id for record in records)
        spent = ids if charged is None else tuple(record.trial_id for record in charged)
        self._arms.append(Arm(name=name, trials=ids, charged=tuple(dict.fromkeys(spent))))


def _uniform(learned: Placement) -> Placement:
    mean = float(np.mean(list(learned.root.values())))
    return Placement(dict.fromkeys(learned.root, mean))


def _shuffled(seed: int, learned: Placement) -> Placement:
    values = list(learned.root.values())
    order = torch.randperm(len(values), generator=generator(seed, "shuffled gamma")).tolist()
    return Placement({site: values[i] for site, i in zip(learned.root, order, strict=True)})
