"""Trials run together: one engine for searches one after the other, and how all of them ended.

Owns: the engine's life, the best score so far, whose tensors are kept, and what is raised when
trials failed or the user stopped. Must not know: which trials these are, terminals, exit codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Self

from harness.console import SILENT, Console
from harness.driver.again import Again
from harness.driver.drive import drive
from harness.driver.request import Keep
from harness.engines.base import Engine, StartEngine
from harness.errors import Interrupted, NotSavedError, TrialsFailed
from harness.metrics import SHOWN, Goal, Objective, scale_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import GridSearch, Search
from harness.spec import TrialRequest, TrialSpec
from harness.store.activations import KeptFolder
from harness.store.records import TrialRecord
from harness.store.store import Store
from harness.store.summaries import Summary

TrialRunner = Callable[[Sequence[TrialRequest]], list[TrialRecord]]
"""Runs what the store lacks; gives the records in the order of the requests."""


@dataclass
class Batch:
    """Trials run together, with progress; knows afterwards whether all of them ended well.

    Searches that run one after the other share the engine's workers, which end with the context.
    """

    store: Store
    runtime: Runtime
    base: TrialRequest
    start_engine: StartEngine
    max_retries: int = 0
    keep: Keep = "none"
    console: Console = SILENT
    _failures: int = 0
    _first_failed: tuple[str, str] | None = None
    """Its trial, and the last line of its error; the records have the others."""
    _spending: _Spending = field(default_factory=lambda: _Spending())
    _stop: Event = field(default_factory=Event)
    _engine: Engine | None = None
    _watches: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _engine_for(self, search: Search) -> Engine:
        if self._engine is None or self._watches != search.needs_epoch_reports:
            self.__exit__()
            self._watches = search.needs_epoch_reports
            self._engine = self.start_engine(self.store, self._watches)
        return self._engine

    def run(
        self,
        search: Search,
        *,
        count: int | None,
        title: str,
        objective: Objective,
        further: tuple[Goal, ...] = (),
        done: Sequence[Summary] = (),
        whole_share: float = 0.0,
    ) -> None:
        """Run what `search` asks for, `count` trials if that is known.

        `done` are earlier trials, for the best score shown. A trial on a smaller share of the
        training data than `whole_share` is none that could be the best.

        Raises:
            Interrupted: the user wants to end at once.
            NotSavedError: records of trials that had ended are gone at the end.
            UserError: tensors are to be kept of a trial that had kept none, and it cannot be
                trained again, or gives other scores.
        """
        engine = self._engine_for(search)
        best = _Best(self.base.data.selected_on, objective)
        for record in done:
            best.update(record)
        shown = self.console.progress(title, count, "trials")
        with self.console.interruptible(self._stop), shown as advance:
            fresh: set[str] = set()
            known = [each.trial_id for each in done]

            def ended(record: TrialRecord, is_fresh: bool) -> None:
                known.append(record.trial_id)
                if record.status == "FAILED":
                    self._failures += 1
                    lines = (record.error or "").strip().splitlines() or ["?"]
                    self._first_failed = self._first_failed or (record.trial_id, lines[-1])
                fresh.update([record.trial_id] if is_fresh else [])
                if is_fresh:
                    self._spending.add(record)
                if record.spec.data.train_share >= whole_share:
                    best.update(record)
                advance(str(best))
                if self.keep == "best":
                    for trial_id in fresh - {best.trial_id}:
                        self.store.drop_weights(trial_id)
                    fresh.intersection_update({best.trial_id})

            drive(
                search,
                engine,
                store=self.store,
                runtime=self.runtime,
                objective=objective,
                further=further,
                max_retries=self.max_retries,
                stop=self._stop,
                on_end=ended,
            )
        lost = [] if self._stop.is_set() else self.store.lost(known)
        if lost:
            raise NotSavedError(
                f"The records of {len(lost)} of {len(known)} trials are gone from "
                f"{self.store.trials}, as {lost[0]}'s: something removed them in the meantime. "
                "Give the command again to train these trials again."
            )
        if self.problem is None and self.keep != "none":
            self.keep_weights(known if self.keep == "all" else [best.trial_id])

    def keep_weights(self, trial_ids: Iterable[str]) -> None:
        """Have the tensors of these trials, and train again those that kept none (`Again`).

        Raises:
            UserError: it cannot be done; names the trial.
            Interrupted: the user stopped.
        """
        again = Again(
            store=self.store,
            runtime=self.runtime,
            start_engine=self.start_engine,
            max_retries=self.max_retries,
            console=self.console,
        )
        lacking = [record.trial_id for record in again.lacking(trial_ids)]
        if lacking:
            self.__exit__()  # its workers make room for those that train again
            again.keep_weights(lacking)

    def complete(self, specs: Sequence[TrialSpec], *, title: str, objective: Objective) -> None:
        """Run those trials that the store has no result of.

        Raises:
            TrialsFailed: one of them failed.
            Interrupted: the user stopped before the end.
        """
        distinct = {spec.trial_id: spec for spec in specs}
        left = [spec for key, spec in distinct.items() if self.store.state(key) != "done"]
        self.run(GridSearch(left), count=len(left), title=title, objective=objective)
        if self.problem is not None:
            raise self.problem
        if self.keep == "all":
            self.keep_weights(distinct)

    def say_what_was_saved(self) -> None:
        """One line on what kept activations have saved, if any were used."""
        cache = self.runtime.cache
        if cache is not None and self._spending.begun:
            size = KeptFolder(cache.folder, cache.budget).size / 1e6
            where = self.store.root / cache.folder.name
            self.console.say(f"Cache: {self._spending}; {size:.0f} MB in {where}.")

    @property
    def problem(self) -> TrialsFailed | Interrupted | None:
        """What to raise because a trial failed or the user stopped; None if all is well."""
        failed = ""
        if self._first_failed is not None:
            trial_id, last = self._first_failed
            failed = f"{self._failures} trials failed; the first, {trial_id}, with: {last}"
        if self._stop.is_set():
            return Interrupted(f"Stopped. The same command continues from here. {failed}".strip())
        if failed:
            return TrialsFailed(
                f"{failed} Its record has the traceback. Run the same command to try again."
            )
        return None


def trial_runner(batch_of: Callable[[], Batch], *, title: str, objective: Objective) -> TrialRunner:
    """What runs requests that the store has no results of, in a batch of its own each time.

    What it gives raises `TrialsFailed` or `Interrupted` where not all of them ended well.
    """

    def run(wanted: Sequence[TrialRequest]) -> list[TrialRecord]:
        batch = batch_of()
        specs = [resolve(each, batch.runtime) for each in wanted]
        with batch:
            batch.complete(specs, title=title, objective=objective)
        records = [batch.store.record(spec.trial_id) for spec in specs]
        return [record for record in records if record is not None]

    return run


@dataclass
class _Spending:
    """What trials cost by themselves, and what of it kept activations have saved."""

    trials: int = 0
    begun: int = 0
    """Trials that began from kept activations."""
    own_s: float = 0.0
    saved_s: float = 0.0

    def add(self, record: TrialRecord) -> None:
        cost = record.cost
        saved = 0.0 if cost.actual_device_s is None else cost.device_s - cost.actual_device_s
        self.trials += 1
        self.begun += saved > 0
        self.own_s += cost.device_s
        self.saved_s += saved

    def __str__(self) -> str:
        by, unit = (60, "min") if self.own_s >= 60 else (1, "s")
        return (
            f"{self.begun} of {self.trials} trials began from kept activations; "
            f"{self.saved_s / by:.1f} of {self.own_s / by:.1f} {unit} of device time saved"
        )


@dataclass
class _Best:
    """The best selection score so far."""

    selected_on: str
    objective: Objective
    score: float = -math.inf
    trial_id: str = ""

    def update(self, record: TrialRecord | Summary) -> None:
        if record.status == "COMPLETE" and record.objective(self.objective) > self.score:
            self.score, self.trial_id = record.objective(self.objective), record.trial_id

    def __str__(self) -> str:
        scale = scale_of(self.objective)
        what = "" if self.objective == SHOWN else f" {scale.words}"
        score = scale.text(self.score) if self.trial_id else "-"
        return f"best {self.selected_on}{what} {score}"
