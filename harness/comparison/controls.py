"""What a learned placement must be judged against, trained on the same seeds.

Owns: which trials make the arms of `harness train --controls`. Must not know: where trials run, how
results are drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from harness.comparison.arms import ArmsBuilder
from harness.comparison.baseline import LABEL, METHOD, baseline
from harness.driver.batch import TrialRunner
from harness.driver.cell import Training
from harness.errors import UserError
from harness.insertion.method import get_method
from harness.insertion.placements import derive
from harness.model.backbones import dims
from harness.rng import generator
from harness.runner.provenance import provenance
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import Placement, TrialRequest
from harness.store.comparisons import Comparison
from harness.store.liveness import driving
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, refuse_older, write_command, write_comparison
from harness.store.store import Store
from harness.study.study import Study

RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Learning rates that every seed of an arm chooses from, as multiples of the recipe's."""

GRADIENT = "gradient-norm half of the sites, retrained"

HALVES = (
    "The weakest, random and gradient-norm half of the sites take the strengths of the strongest "
    "half, the largest where γ was largest, so that the halves differ in their sites alone; the "
    "last is charged for the pass over the training images that ranks its sites, too."
)

SMALLEST = 1e-6
"""Strengths below count as this in logarithms: softplus never gives 0, a released γ may."""


def train_with_controls(training: Training, line: str) -> RunFolder:
    """Train a configuration and its controls, as far as the store lacks them; the run's folder.

    `line` is the command line that asks for the same.

    Raises:
        UserError: the method learns no strengths, or another process drives the run.
        TrialsFailed: a trial failed, so that nothing is compared.
        Interrupted: the user stopped before the end.
    """
    prepared = training.prepared
    controls = Controls(
        training.request,
        seeds=training.seeds,
        study=prepared.study,
        run=training.runner,
        store=prepared.store,
        runtime=prepared.runtime,
    )
    folder = RunFolder.of(prepared.store, training.run_name)
    refuse_older(folder)
    training.say_what_is_not_reused()
    with driving(folder.driver_mark):
        write_comparison(folder, controls.compare(), provenance(prepared.runtime.device))
        write_command(folder, Command(line, "Every arm once for every seed."))
    return folder


class Controls:
    """The arms for a method that learns strengths for another's sites, in the order of running."""

    def __init__(
        self,
        request: TrialRequest,
        *,
        seeds: tuple[int, ...],
        study: Study,
        run: TrialRunner,
        store: Store,
        runtime: Runtime,
    ) -> None:
        self._seeds, self._study, self._run = seeds, study, run
        self._store, self._runtime = store, runtime
        self._built = ArmsBuilder(
            seeds=seeds, study=study, run=run, store=store, runtime=runtime, rates=RATES
        )
        method = get_method(request.method)
        if not method.wraps:
            raise UserError(
                f"--controls: {request.method!r} learns no strengths, so it needs none of them."
            )
        spec = resolve(request, runtime)
        self._meta = request
        parsed = method.parse_options(request.options)
        if method.ranks(parsed):
            raise UserError(
                "--controls: what these options learn only ranks the sites; it is one of the "
                "controls of the default ones."
            )
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
        self._others: dict[str, TrialRequest] = {}
        """The same method with the options that these are judged against."""
        self._ranking: TrialRequest | None = None
        """What ranks the sites without learning strengths."""
        for each in method.controls(parsed):
            self._add_other(request.model_copy(update={"options": each}))
        self._sites = f"all {len(spec.placement)} sites"

    def _add_other(self, request: TrialRequest) -> None:
        method = get_method(request.method)
        options = method.parse_options(request.options)
        label = method.label(request.method, options)
        try:
            resolve(request, self._runtime)
        except UserError as error:
            self._built.notes.append(f"Without {label}: {error}")
            return
        if method.ranks(options):
            self._ranking = request
        else:
            self._others[f"{label}, one shot"] = request

    def compare(self) -> Comparison:
        """Run everything and say what stands beside what."""
        meta, base = self._label, self._base.method
        alphas = set(self._base.placement.root.values()) if self._base.placement else set()
        alpha = f"α = {alphas.pop():g}" if len(alphas) == 1 else "its α"
        unit = f"{base}, {alpha}, {self._sites}"
        standing = self._standing()
        plain = {f"{meta}, one shot": self._meta, unit: self._base, **self._default_sites()}
        tuned = {f"{name}, lr tuned": request for name, request in standing.items()}
        self._built.add_tuned(
            {**plain, **standing, **self._others},
            {f"{unit}, lr tuned": self._base, f"{meta}, lr tuned": self._meta, **tuned},
        )
        self._from_learned(f"{meta}, one shot")
        self._built.add_best_cell(self._meta)
        options = resolve(self._meta, self._runtime).options
        steps = options.get("inner_steps")
        return Comparison(
            title=f"{meta} on {base} and its controls",
            request=self._meta,
            seeds=self._seeds,
            objective=self._study.objective,
            chosen="per seed",
            unit=unit,
            inner_steps=steps if isinstance(steps, int) else None,
            arms=tuple(self._built.arms),
            swept=self._built.swept,
            notes=tuple(self._built.notes),
        )

    def _default_sites(self) -> dict[str, TrialRequest]:
        """The base as one would use it without a search: at its own default positions."""
        method = get_method(self._base.method)
        options = method.parse_options(self._base.options)
        positions = method.default_positions_on(dims(self._base.backbone), options)
        request = self._base.model_copy(update={"placement": None, "positions": positions})
        name = f"{self._base.method}, α = 1, {'+'.join(positions)}"
        return {} if self._is_base(request) else {name: request}

    def _standing(self) -> dict[str, TrialRequest]:
        """The baseline of every comparison, unless the base is it."""
        options = self._base.options if self._base.method == METHOD else {}
        request = baseline(self._base, options)
        return {} if self._is_base(request) else {LABEL: request}

    def _is_base(self, request: TrialRequest) -> bool:
        ids = {resolve(each, self._runtime).trial_id for each in (request, self._base)}
        return len(ids) == 1

    def _from_learned(self, searched: str) -> None:
        """What the learned strengths are worth in a fresh training, and what of it is selection."""
        found = [self._store.record(i) for i in self._built.arm(searched).trials]
        learned = [record.learned for record in found if record and record.learned]
        if len(learned) < len(found):
            self._built.notes.append(
                "A search diverged, so nothing was made of the learned strengths."
            )
            return
        changes: dict[str, Callable[[int, Placement], Placement]] = {
            "learned γ, retrained": lambda seed, placement: placement,
            "strongest half of the sites, retrained": lambda s, p: derive([p], "topk", None),
            "weakest half of the sites, retrained": lambda s, p: _as_strong(
                p, derive([p], "bottomk", None)
            ),
            "random half of the sites, retrained": lambda s, p: _as_strong(
                p, derive([p], "random", None, seed=s)
            ),
            "uniform α = mean of γ": lambda seed, placement: _uniform(placement),
            "γ shuffled over the sites": _shuffled,
            "random γ of the same spread": _random,
        }
        ranking = self._ranking_trials()
        norms = {record.spec.seed: record.learned for record in ranking if record.learned}
        if len(norms) == len(self._seeds):
            changes[GRADIENT] = lambda s, p: _as_strong(p, derive([norms[s]], "topk", None))
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
            spent = [*(r for r in found if r), *(ranking if name == GRADIENT else []), *own]
            self._built.add(f"{self._base.method}, {name}", own, spent)
        self._built.notes.append(HALVES)

    def _ranking_trials(self) -> list[TrialRecord]:
        """A trial per seed that ranks the sites, where the method has such options."""
        if self._ranking is None:
            return []
        return self._run([self._ranking.model_copy(update={"seed": seed}) for seed in self._seeds])


def _as_strong(learned: Placement, half: Placement) -> Placement:
    """The sites of a half, as strong together as the strongest half of what was learned."""
    most = sorted(learned.root.values(), reverse=True)
    sites = sorted(half.root, key=lambda site: -learned.root[site])
    return Placement(dict(zip(sites, most, strict=False)))


def _uniform(learned: Placement) -> Placement:
    mean = float(np.mean(list(learned.root.values())))
    return Placement(dict.fromkeys(learned.root, mean))


def _shuffled(seed: int, learned: Placement) -> Placement:
    values = list(learned.root.values())
    order = torch.randperm(len(values), generator=generator(seed, "shuffled gamma")).tolist()
    return Placement({site: values[i] for site, i in zip(learned.root, order, strict=True)})


def _random(seed: int, learned: Placement) -> Placement:
    """Drawn from the log-normal distribution with the learned strengths' log mean and spread."""
    logs = np.log(np.maximum(list(learned.root.values()), SMALLEST))
    draws = torch.randn(len(logs), generator=generator(seed, "random gamma"), dtype=torch.float64)
    values = np.exp(logs.mean() + logs.std() * draws.numpy())
    return Placement(dict(zip(learned.root, map(float, values), strict=True)))
