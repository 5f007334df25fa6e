"""Searches by Optuna's samplers, rebuilt from their own log after any interruption.

Owns: how proposals become trials, what a repeated one means, and `search-*.jsonl`. Must not know:
where trials run. Optuna's state is disposable: a study in memory, filled again from the log.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.errors import UserError
from harness.search.base import Decision, Outcome, SearchTask, refuse_other_order, tell_event
from harness.search.gaussian import quick_gp_sampler
from harness.spec import TrialSpec
from harness.store.records import Status
from harness.store.search_log import Ask, Event, Report, Tell, Warm, append_event, read_log
from harness.study.space import Domain, Params, SearchSpace, Values, cell_key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

Sampler = Literal["random", "sobol", "tpe", "gp", "cmaes", "nsga2"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
SEQUENTIAL = ("sobol", "cmaes")
"""Samplers whose next point depends on how often they were asked."""
ASKED_AGAIN = (*SEQUENTIAL, "nsga2")
"""Samplers whose state only asking again rebuilds: of NSGA-II a trial's generation, which a trial
with given values has none of."""
SEVERAL: tuple[Sampler, ...] = ("random", "tpe", "nsga2")
"""Samplers that take several objectives; TPE is then Optuna's multi-objective one."""
GENERATION = 10
"""Trials of an NSGA-II generation: as many as other models draw at random before they begin. With
Optuna's 50, a search of some dozens of trials would never come to a second one."""
Pruner = Literal["none", "asha", "hyperband", "median"]
PRUNERS: tuple[Pruner, ...] = get_args(Pruner)
REDUCTION = 3
"""Of ASHA's and Hyperband's rungs: 1, 3, 9, ... epochs, and a third of the trials goes on."""
FITTED = 200
"""Trials that a model is fitted to, the best half and the latest, once all of them would make an
ask take longer than many a trial: more than these for GP, for TPE more than `MOST_VALUES`."""
MOST_VALUES = 100_000
"""Trials times variables."""
OnRepeat = Literal["cached", "next-seed"]

MOST_IN_A_ROW = 3
"""After so many proposals in a row that are known, an unseen configuration is drawn at random, so
that a budget cannot evaporate (on 72 cells, GP proposed 14 different ones in 72 trials)."""


def refuse_sampler(sampler: str, space: SearchSpace) -> None:
    """Raises `UserError` if a sampler cannot search a space."""
    if sampler == "cmaes" and not space.is_continuous:
        raise UserError("cmaes needs a space of continuous variables alone; use tpe or gp.")


class OptunaSearch:
    """Proposes configurations of a space and learns from their outcomes.

    A proposal that repeats a configuration is answered from what is known (`cached`), or becomes
    its next seed (`next-seed`). It goes on until its space is used up; the budget is the driver's.
    With a pruner, trials report and are stopped early; TPE with Hyperband is what is known as BOHB.
    `warm` are configurations whose score is known from an earlier run: they are learned from, and
    counted apart. With several objectives, NSGA-II (Deb et al. 2002) or TPE (Ozaki et al. 2020)
    seeks their Pareto front.
    """

    def __init__(
        self,
        sampler: Sampler,
        task: SearchTask,
        *,
        on_repeat: OnRepeat,
        pruner: Pruner = "none",
        warm: Sequence[tuple[Params, float]] = (),
    ) -> None:
        import optuna

        refuse_sampler(sampler, task.space)
        if sampler == "gp":
            import torch

            # GP fits with torch: the cores are the workers', and sums must not depend on them.
            torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._kind, self._space, self._make = sampler, task.space, task.make
        self._name, self._first_seed, self._on_repeat = task.name, task.seed, on_repeat
        self._log: Path | None = task.log
        self.needs_epoch_reports = pruner != "none"
        self._asks = 0
        # Hyperband reads the name: it decides which trial goes into which bracket.
        self._directions: list[Literal["minimize", "maximize"]] = ["maximize"] * task.objectives
        self._study = optuna.create_study(
            directions=self._directions,
            study_name=task.name,
            sampler=self._sampler(sampler),
            pruner=_pruner(pruner, task.epochs),
        )
        self._running: dict[str, list[Trial]] = {}
        self._specs: dict[str, TrialSpec] = {}
        self._told: dict[str, tuple[Status, tuple[float, ...] | None]] = {}
        self._reported: dict[str, tuple[int, Decision]] = {}
        """The last epoch that a trial reported, and what was decided: Optuna, asked again, may
        decide otherwise, since the trial's rung is taken by then."""
        self._seen: dict[str, int] = {}
        self._last: Params = {}
        self._made = ""
        self._again: list[TrialSpec] = []
        self.warm = 0
        """Configurations known from an earlier run."""
        self._replay(task.log)
        # After an interruption in between, those that are not in the log yet.
        for params, objective in [] if self._asks else warm[self.warm :]:
            self._warm(Warm(params=params, objective=objective))

    def ask(self, count: int) -> Sequence[TrialSpec]:
        specs: list[TrialSpec] = []
        while len(specs) < count:
            spec = self._again.pop(0) if self._again else self._next()
            if spec is None:
                break
            specs.append(spec)
        return specs

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        last, decided = self._reported.get(trial_id, (0, Decision.GO_ON))
        if epoch <= last:  # as was answered before an interruption
            return decided if epoch == last else Decision.GO_ON
        event = Report(trial_id=trial_id, epoch=epoch, score=score)
        self._write(event)
        return self._heard(event)

    def tell(self, outcome: Outcome) -> None:
        event = tell_event(outcome)
        self._write(event)
        self._learn(event)

    def _next(self) -> TrialSpec | None:
        """A trial whose answer is not known yet; None when the space is used up."""
        for _ in range(MOST_IN_A_ROW):
            spec = self._propose(None)
            if spec is not None:
                return spec
        if self._on_repeat == "next-seed" or self._space.size == float("inf"):
            return None
        left = [params for params in self._space.enumerate() if cell_key(params) not in self._seen]
        if not left:
            return None
        return self._propose(left[self._number("unseen") % len(left)])

    def _propose(self, params: Params | None) -> TrialSpec | None:
        """One proposal, Optuna's or a given one; None if it is known or under way already."""
        if params is None and self._has_too_many():
            params = self._fitted_to_fewer()
        if params is not None:
            self._study.enqueue_trial(dict(params))
        if self._kind not in SEQUENTIAL:
            # A sampler of its own for every ask: a resumed search goes on as if never stopped.
            # For given variables it is a cheap one, because Optuna fits it all the same.
            self._study.sampler = self._sampler("random" if params else self._kind)
        self._asks += 1
        trial = self._study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a variable that only some trials have
            values = self._space.values(lambda name, domain: _suggest(trial, name, domain))
        self._last = trial.params
        return self._settle(trial, values, drawn=params is not None and self._kind in ASKED_AGAIN)

    def _has_too_many(self) -> bool:
        """Whether the model would be slow with all trials."""
        trials = len(self._study.get_trials(deepcopy=False))
        if self._kind == "gp":
            return trials > FITTED
        return self._kind == "tpe" and trials * max(1, len(self._last)) > MOST_VALUES

    def _fitted_to_fewer(self) -> Params:
        """What the sampler proposes when it sees the best and the latest trials only."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        scored = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        best = {t.number for t in sorted(scored, key=lambda t: -t.values[0])[: FITTED // 2]}
        latest = {t.number for t in trials[-(FITTED - len(best)) :]}
        few = optuna.create_study(directions=self._directions, sampler=self._sampler(self._kind))
        few.add_trials([trial for trial in trials if trial.number in best | latest])
        trial = few.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._space.values(lambda name, domain: _suggest(trial, name, domain))
        return trial.params

    def _settle(self, trial: Trial, values: Values, *, drawn: bool) -> TrialSpec | None:
        key = cell_key(trial.params)
        seen = self._seen.get(key, 0)
        self._seen[key] = seen + 1
        step = seen if self._on_repeat == "next-seed" else 0
        values = self._first(trial, values)
        spec = self._make(values, self._first_seed + step)
        self._made = spec.trial_id
        event = Ask(
            params=trial.params,
            cell=values,
            seed=spec.seed,
            trial_id=spec.trial_id,
            drawn=drawn,
        )
        self._write(event)
        return self._enter(trial, spec)

    def _first(self, trial: Trial, values: Values) -> Values:
        """What of a proposed configuration is trained first."""
        return values

    def _enter(self, trial: Trial, spec: TrialSpec) -> TrialSpec | None:
        """Let a proposal wait for a trial; the trial, unless it is known or under way."""
        if spec.trial_id in self._told:
            self._tell_study(trial, *self._told[spec.trial_id])
            return None
        self._specs[spec.trial_id] = spec
        waiting = self._running.setdefault(spec.trial_id, [])
        waiting.append(trial)
        return spec if len(waiting) == 1 else None

    def _heard(self, event: Report) -> Decision:
        # A repeat that waits for the same answer is told with it, at the end.
        first = self._running[event.trial_id][0]
        first.report(event.score, event.epoch)
        decision = Decision.STOP if first.should_prune() else Decision.GO_ON
        self._reported[event.trial_id] = event.epoch, decision
        return decision

    def _learn(self, event: Tell) -> None:
        trial_id, status = event.trial_id, event.status
        worths = None if event.objective is None else (event.objective, *event.beside)
        for trial in self._running.pop(trial_id, []):
            self._tell_study(trial, status, worths)
        # A failed one is not tried again before the next command.
        self._told[trial_id] = (status, worths)

    def _tell_study(self, trial: Trial, status: Status, worths: tuple[float, ...] | None) -> None:
        """A pruned trial is told as one, never as complete with a part of its score."""
        from optuna.trial import TrialState

        if worths is None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif status == "PRUNED":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, list(worths))

    def _warm(self, event: Warm) -> None:
        from optuna.trial import create_trial

        params = event.params
        domains: dict[str, Domain] = {}

        def suggest(name: str, domain: Domain) -> int | float:
            domains[name] = domain
            return params[name]

        spec = self._make(self._space.values(suggest), self._first_seed)
        self._write(event)
        self._study.add_trial(
            create_trial(
                params=dict(params),
                distributions={name: _distribution(domain) for name, domain in domains.items()},
                value=event.objective,
            )
        )
        self._seen[cell_key(params)] = 1
        self._last = params
        self._told[spec.trial_id] = ("COMPLETE", (event.objective,))
        self.warm += 1

    def _replay(self, log: Path) -> None:
        """Do again what the log says was done; what failed or was never answered is asked again."""
        self._log = None
        for event in read_log(log, mend=True):
            if isinstance(event, Warm):
                self._warm(event)
            elif isinstance(event, Ask) and not self._has_followed(event):
                is_again = self._kind in ASKED_AGAIN and not event.drawn
                self._propose(None if is_again else event.params)
                was, now = (event.params, event.trial_id), (self._last, self._made)
                refuse_other_order(log, [was], [now])
            elif isinstance(event, Report):
                if event.trial_id in self._running:
                    self._heard(event)
            elif isinstance(event, Tell) and event.objective is not None:
                self._learn(event)
        self._log = log
        self._again = [self._specs[trial_id] for trial_id in self._running]

    def _has_followed(self, event: Ask) -> bool:
        """Whether a logged ask is no proposal, but came of what was told before it."""
        return False

    def _write(self, event: Event) -> None:
        if self._log is not None:  # None while the log is replayed
            append_event(self._log, event)

    def _sampler(self, kind: Sampler) -> BaseSampler:
        """Optuna's sampler for the next ask; options that differ between its versions are fixed."""
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning

        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        if kind == "random":
            return samplers.RandomSampler(seed=self._number("random", self._asks))
        if kind == "tpe":
            # `group` lets a variable that only some trials have take part.
            return samplers.TPESampler(
                seed=self._number("tpe", self._asks),
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=10,
            )
        if kind == "nsga2":
            return samplers.NSGAIISampler(
                seed=self._number("nsga2", self._asks), population_size=GENERATION
            )
        if kind == "gp":
            return quick_gp_sampler()(
                seed=self._number("gp", self._asks),
                n_startup_trials=10,
                deterministic_objective=False,
                warn_independent_sampling=False,
            )
        if kind == "sobol":
            return samplers.QMCSampler(
                qmc_type="sobol",
                scramble=True,
                seed=self._number("sobol"),
                independent_sampler=samplers.RandomSampler(seed=self._number("sobol, first")),
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
            )
        return samplers.CmaEsSampler(seed=self._number("cmaes"), warn_independent_sampling=False)

    def _number(self, *words: object) -> int:
        text = "/".join(str(word) for word in (self._name, *words))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _pruner(kind: Pruner, epochs: int) -> BasePruner:
    from optuna import pruners

    if kind == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if kind == "hyperband":
        return pruners.HyperbandPruner(
            min_resource=1, max_resource=epochs, reduction_factor=REDUCTION
        )
    if kind == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0, interval_steps=1)
    return pruners.NopPruner()


def _distribution(domain: Domain) -> BaseDistribution:
    """What `_suggest` asks Optuna for."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if domain.choices is None:
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if domain.ordered:
        return IntDistribution(0, domain.choices - 1)
    return CategoricalDistribution(list(range(domain.choices)))


def _suggest(trial: Trial, name: str, domain: Domain) -> int | float:
    if domain.choices is None:
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    if domain.ordered:
        return trial.suggest_int(name, 0, domain.choices - 1)
    return int(trial.suggest_categorical(name, list(range(domain.choices))))
