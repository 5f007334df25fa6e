"""Running trials at a terminal: progress, Ctrl-C, and how the program ends.

Owns: what the user sees while trials run, and the exit codes that come of it. Must not know: which
trials these are, or what is made of them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Literal, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.driver.drive import drive
from harness.engines.base import Engine
from harness.metrics import Metric
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import GridSearch, Search
from harness.spec import TrialRequest
from harness.store.records import TrialRecord
from harness.store.store import Store
from harness.store.summaries import Summary

Run = Callable[[Sequence[TrialRequest]], list[TrialRecord]]
"""Runs what the store lacks; gives the records in the order of the requests."""


EXIT_FAILED_TRIALS = 1
EXIT_INTERRUPTED = 130


@dataclass
class Batch:
    """Trials run together, with progress; knows afterwards whether all of them ended well.

    Searches that run one after the other share the engine's workers, which end with the context.
    """

    store: Store
    runtime: Runtime
    base: TrialRequest
    start_engine: Callable[[bool], Engine]
    """Called with whether trials are to report."""
    max_retries: int = 0
    keep: Literal["none", "best", "all"] = "none"
    """Whose trained tensors to keep, where the runtime has them saved at all."""
    _failed: list[TrialRecord] = field(default_factory=list)
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
            self._engine = self.start_engine(self._watches)
        return self._engine

    def run(
        self,
        search: Search,
        *,
        count: int | None,
        title: str,
        objective: Metric,
        done: Sequence[Summary] = (),
    ) -> None:
        """Run what `search` asks for, `count` trials if that is known.

        `done` are earlier trials, for the best score shown.
        """
        engine = self._engine_for(search)
        best = _Best(self.base.data.select_on, objective)
        for record in done:
            best.update(record)
        with _stop_on_signal(self._stop), _progress(title, count, best) as advance:
            fresh: set[str] = set()

            def ended(record: TrialRecord, is_fresh: bool) -> None:
                if record.status == "FAILED":
                    self._failed.append(record)
                fresh.update([record.trial_id] if is_fresh else [])
                advance(record)
                if self.keep == "best":
                    for trial_id in fresh - {best.trial_id}:
                        self.store.drop_weights(trial_id)
                    fresh.intersection_update({best.trial_id})

            drive(
                search,
                engine,
                store=self.store,
                runtime=self.runtime,
                metric=objective,
                max_retries=self.max_retries,
                stop=self._stop,
                on_end=ended,
            )

    @property
    def is_incomplete(self) -> bool:
        """A trial failed or the user stopped."""
        return bool(self._failed) or self._stop.is_set()

    def exit_if_incomplete(self) -> None:
        """End the program when a trial failed or the user stopped."""
        if self._failed:
            last = (self._failed[0].error or "").strip().splitlines()[-1]
            click.echo(
                f"{len(self._failed)} trials failed; the first, {self._failed[0].trial_id}, with: "
                f"{last} Its record has the traceback. Run the same command to try again.",
                err=True,
            )
            sys.exit(EXIT_FAILED_TRIALS)
        if self._stop.is_set():
            click.echo("Stopped. The same command continues from here.", err=True)
            sys.exit(EXIT_INTERRUPTED)


def runner(
    start_engine: Callable[[bool], Engine],
    *,
    store: Store,
    runtime: Runtime,
    base: TrialRequest,
    title: str,
    objective: Metric,
) -> Run:
    """What runs requests that the store has no results of, and ends the program if one fails."""

    def run(wanted: Sequence[TrialRequest]) -> list[TrialRecord]:
        specs = {spec.trial_id: spec for spec in (resolve(each, runtime) for each in wanted)}
        left = [spec for key, spec in specs.items() if store.state(key) != "done"]
        batch = Batch(store=store, runtime=runtime, base=base, start_engine=start_engine)
        with batch:
            batch.run(GridSearch(left), count=len(left), title=title, objective=objective)
        batch.exit_if_incomplete()
        records = [store.record(resolve(each, runtime).trial_id) for each in wanted]
        return [record for record in records if record is not None]

    return run


@contextmanager
def _stop_on_signal(stop: Event) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish what runs. Second: end now; the store stays whole."""

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("Finishing the running trials; press Ctrl-C again to end now.", err=True)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Ended. The same command continues from here.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Best:
    """The best selection score so far."""

    select_on: str
    objective: Metric
    score: float = 0.0
    trial_id: str = ""

    def update(self, record: TrialRecord | Summary) -> None:
        if record.status == "COMPLETE" and record.objective(self.objective) > self.score:
            self.score, self.trial_id = record.objective(self.objective), record.trial_id

    def __str__(self) -> str:
        return f"best {self.select_on} {100 * self.score:.1f} %"


@contextmanager
def _progress(
    title: str, count: int | None, best: _Best
) -> Iterator[Callable[[TrialRecord], None]]:
    """A bar with ETA and the best score so far; plain lines where there is no terminal."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
        console=console,
    )
    task = bar.add_task(title, total=count, best="")
    ended = 0

    def advance(record: TrialRecord) -> None:
        nonlocal ended
        ended += 1
        best.update(record)
        bar.update(task, advance=1, best=str(best))
        if not console.is_terminal and (ended % 6 == 0 or ended == count):
            remaining = bar.tasks[0].time_remaining
            eta = "" if remaining is None else f", ETA {duration(remaining)}"
            of = "" if count is None else f"/{count}"
            click.echo(f"{ended}{of} trials, {best}{eta}", err=True)

    if console.is_terminal and count != 0:
        with bar:
            yield advance
    else:
        bar.start_task(task)
        yield advance


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
