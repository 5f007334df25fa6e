"""Searches by Optuna's samplers, rebuilt from their own log after any interruption.

Owns: how proposals become trials, what a repeated one means, and `search-*.jsonl`. Must not know:
where trials run. Optuna's state is disposable: a study in memory, filled again from the log.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.errors import UserError
from harness.searches import Budget, Outcome
from harness.space import Domain, Params, SearchSpace, Values
from harness.spec import TrialSpec
from harness.store import write_atomically

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

Sampler = Literal["random", "sobol", "tpe", "gp", "cmaes"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
SEQUENTIAL = ("sobol", "cmaes")
"""Samplers whose next point depends on state that only asking again rebuilds."""
OnRepeat = Literal["cached", "next-seed"]

MOST_IN_A_ROW = 3
"""After so many proposals in a row that are known, an unseen configuration is drawn at random, so
that a budget cannot evaporate (on 72 cells, GP proposed 14 different ones in 72 trials)."""


class OptunaSearch:
    """Proposes configurations of a space and learns from their outcomes.

    A proposal that repeats a configuration is answered from what is known (`cached`), or becomes
    its next seed (`next-seed`). `name` tells this search's chance from that of others. A repeat
    costs nothing; a trial that another study has run costs what it cost there. Trials and epochs
    are counted when they start, so those budgets are met exactly; no trial starts once a budget in
    seconds or runs is spent.
    """

    def __init__(
        self,
        sampler: Sampler,
        space: SearchSpace,
        make: Callable[[Values, int], TrialSpec],
        *,
        name: str,
        first_seed: int,
        on_repeat: OnRepeat,
        budget: Budget,
        full_run_flops: int,
        log: Path,
    ) -> None:
        import optuna

        if sampler == "cmaes" and not space.is_continuous:
            raise UserError("cmaes needs a space of continuous variables alone; use tpe or gp.")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._kind, self._space, self._make = sampler, space, make
        self._name, self._first_seed, self._on_repeat = name, first_seed, on_repeat
        self._budget, self._full_run_flops = budget, full_run_flops
        self._log = log
        self._asks = 0
        self._spent_s, self._spent_flops = 0.0, 0
        self._study = optuna.create_study(direction="maximize", sampler=self._sampler())
        self._running: dict[str, list[Trial]] = {}
        self._specs: dict[str, TrialSpec] = {}
        self.cells: list[tuple[Values, TrialSpec]] = []
        """Every trial that was proposed, in the order of the first proposal."""
        self._told: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._again: list[TrialSpec] = []
        self.repeated = 0
        """Proposals that repeated a configuration, so far."""
        self._replay()

    def ask(self, count: int) -> Sequence[TrialSpec]:
        specs: list[TrialSpec] = []
        while len(specs) < count:
            if not self._again and self._affords(len(self._specs) + 1):
                spec = self._next()
                self._again += [] if spec is None else [spec]
            if not self._again or not self._affords(len(self._specs)):
                break
            specs.append(self._again.pop(0))
        return specs

    def tell(self, outcome: Outcome) -> None:
        event = {
            "tell": outcome.trial_id,
            "objective": outcome.objective,
            "device_s": outcome.device_s,
            "flops": outcome.flops,
        }
        self._write(event)
        self._learn(event)

    def _affords(self, trials: int) -> bool:
        """Whether the budget has room with this many trials begun."""
        if self._budget.unit == "trials":
            return trials <= self._budget.amount
        if self._budget.unit == "epochs":
            epochs = sum(spec.recipe.epochs for spec in self._specs.values())
            return epochs <= self._budget.amount
        if self._budget.unit == "s":
            return self._spent_s < self._budget.amount
        return self._spent_flops < self._budget.amount * self._full_run_flops

    def _next(self) -> TrialSpec | None:
        """A trial whose answer is not known yet; None when the space is used up."""
        for _ in range(MOST_IN_A_ROW):
            spec = self._propose(None)
            if spec is not None:
                return spec
        if self._on_repeat == "next-seed" or self._space.size == float("inf"):
            return None
        left = [params for params in self._space.enumerate() if _key(params) not in self._seen]
        if not left:
            return None
        return self._propose(left[self._number("unseen") % len(left)])

    def _propose(self, params: Params | None) -> TrialSpec | None:
        """One proposal, Optuna's or a given one; None if it is known or under way already."""
        if self._kind not in SEQUENTIAL:
            # A sampler of its own for every ask: a resumed search goes on as if never stopped.
            self._study.sampler = self._sampler()
        if params is not None:
            self._study.enqueue_trial(dict(params))
        self._asks += 1
        trial = self._study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a variable that only some trials have
            values = self._space.values(lambda name, domain: _suggest(trial, name, domain))
        self._write({"ask": dict(trial.params)})
        return self._settle(trial, values)

    def _settle(self, trial: Trial, values: Values) -> TrialSpec | None:
        key = _key(trial.params)
        seen = self._seen.get(key, 0)
        self._seen[key] = seen + 1
        self.repeated += seen > 0
        step = seen if self._on_repeat == "next-seed" else 0
        spec = self._make(values, self._first_seed + step)
        if spec.trial_id in self._told:
            self._study.tell(trial, self._told[spec.trial_id])
            return None
        if spec.trial_id not in self._specs:
            self._specs[spec.trial_id] = spec
            self.cells.append((values, spec))
        waiting = self._running.setdefault(spec.trial_id, [])
        waiting.append(trial)
        return spec if len(waiting) == 1 else None

    def _learn(self, event: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        trial_id, objective = event["tell"], event["objective"]
        self._spent_s += event["device_s"]
        self._spent_flops += event["flops"]
        for trial in self._running.pop(trial_id, []):
            if objective is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, objective)
        if objective is not None:
            self._told[trial_id] = objective

    def _replay(self) -> None:
        """Do again what the log says was done; what failed or was never answered is asked again."""
        events = _events(self._log)
        log, self._log = self._log, Path("/dev/null")
        for event in events:
            if "ask" in event:
                self._propose(None if self._kind in SEQUENTIAL else event["ask"])
                if self._study.trials[-1].params != event["ask"]:
                    raise UserError(f"{log} belongs to another search or space; move it away.")
            elif event["objective"] is not None:
                self._learn(event)
        self._log = log
        self._again = [self._specs[trial_id] for trial_id in self._running]

    def _write(self, event: dict[str, Any]) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def _sampler(self) -> BaseSampler:
        """Optuna's sampler for the next ask; options that differ between its versions are fixed."""
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning

        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        if self._kind == "random":
            return samplers.RandomSampler(seed=self._number("random", self._asks))
        if self._kind == "tpe":
            # `group` lets a variable that only some trials have take part.
            return samplers.TPESampler(
                seed=self._number("tpe", self._asks),
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=10,
            )
        if self._kind == "gp":
            return samplers.GPSampler(
                seed=self._number("gp", self._asks),
                n_startup_trials=10,
                deterministic_objective=False,
                warn_independent_sampling=False,
            )
        if self._kind == "sobol":
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


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _events(path: Path) -> list[dict[str, Any]]:
    """The log's lines; a last one torn by a crash is taken off the file.

    Raises:
        UserError: another line is damaged.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    events = []
    for index, line in enumerate(lines):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError as error:
            if index < len(lines) - 1:
                raise UserError(f"{path}, line {index + 1} is damaged; move it away.") from error
            write_atomically(path, "".join(f"{whole}\n" for whole in lines[:-1]))
    return events


def _suggest(trial: Trial, name: str, domain: Domain) -> int | float:
    if domain.choices is None:
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    if domain.ordered:
        return trial.suggest_int(name, 0, domain.choices - 1)
    return int(trial.suggest_categorical(name, list(range(domain.choices))))
