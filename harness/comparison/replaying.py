"""The repeats of replayed searches, side by side in processes; those that are there are kept.

Every repeat is a search of its own with its own log, and its chance comes from its name, so that
the logs are those of one repeat after the other. Owns: these processes, and which repeats have
nothing left to do. Must not know: how a search works, which ones take part, the report.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.comparison.contest import Contest, Given, makers_of
from harness.engines.processes import end_with_the_driver, starting
from harness.errors import UserError
from harness.search.bounded import is_over
from harness.search.budget import Budget
from harness.search.replay import Recording
from harness.store.comparisons import SearchComparison
from harness.store.liveness import Mark, help_driving, mark_of
from harness.store.run_folder import RunFolder
from harness.store.search_log import asks, read_log
from harness.store.table import Table, read_table
from harness.study.study import Study

LEAST_EACH = 20
"""Repeats for which it is worth while to start a process."""
AT_ONCE = 4
"""Repeats that a process is given at a time: few, so that all of them end at about one time."""


class Replayed(NamedTuple):
    """What became of all repeats of a search."""

    name: str
    trials: int
    """That were told now."""
    seconds: float
    """That the repeats took, summed over processes."""
    kept: int
    """Repeats that had nothing left to do."""


@dataclass(frozen=True, kw_only=True)
class Replaying:
    """All that a process needs to replay any repeat of a comparison."""

    folder: RunFolder
    comparison: SearchComparison
    study: Study
    budget: Budget
    given: Given
    path: Path
    """Of the table."""

    def anywhere(self) -> Replaying:
        """The same with paths that hold in a process that may work in another folder."""
        folder = RunFolder(self.folder.path.absolute())
        return replace(self, folder=folder, path=self.path.absolute())

    def begin(self, table: Table | None = None) -> Begun:
        """Make the searches ready to be started; None: the table is to be read."""
        table = table or read_table(self.path)
        recording = Recording(table, self.study.objective, self.study.further)
        contest = Contest(
            folder=self.folder,
            comparison=self.comparison,
            makers=makers_of(self.comparison.searches, self.given, self.study.objectives),
            space=table.space(),
            make=recording.make,
            budget=self.budget,
            study=self.study,
        )
        return Begun(contest=contest, recording=recording)

    def run(self, table: Table, processes: int | None = None) -> Iterator[Replayed]:
        """Replay what is left of every repeat, in at most so many processes (None: one per core).

        What is there does not depend on their number.

        Raises:
            UserError: as `Recording.replay`, or a process ended.
        """
        here = self.begin(table)
        left: dict[str, list[int]] = {}
        for name in self.comparison.searches:
            repeats = range(self.comparison.repeats_of(name))
            left[name] = [repeat for repeat in repeats if not here.is_over(name, repeat)]
        most = processes or len(os.sched_getaffinity(0))
        count = min(most, sum(map(len, left.values())) // LEAST_EACH)
        for name, told in _side_by_side(self, left, count) if count > 1 else here.run(left):
            kept = self.comparison.repeats_of(name) - len(left[name])
            yield Replayed(name, sum(told.trials), sum(told.seconds), kept)


@dataclass
class _Told:
    """Of some repeats: trials told, and seconds taken."""

    trials: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A comparison in the process that replays it."""

    contest: Contest
    recording: Recording

    def is_over(self, name: str, repeat: int) -> bool:
        """Whether nothing is left to do: its log is of this table's trials, and spent its budget.

        That it is of the same table and seed is seen to where the comparison is written down.
        """
        task = self.contest.task(name, repeat)
        events = read_log(task.log)
        return is_over(task, events) and all(
            self.recording.trial_id(ask.cell, ask.seed) == ask.trial_id for ask in asks(events)
        )

    def run(self, left: dict[str, list[int]]) -> Iterator[tuple[str, _Told]]:
        """One repeat after the other."""
        for name, repeats in left.items():
            yield name, self.replay(name, repeats)

    def replay(self, name: str, repeats: Sequence[int]) -> _Told:
        told = _Told()
        for repeat in repeats:
            start = time.perf_counter()
            search = self.contest.start(name, repeat)
            told.trials.append(self.recording.replay(search, self.contest.comparison.workers))
            told.seconds.append(time.perf_counter() - start)
        return told


def _side_by_side(
    replaying: Replaying, left: dict[str, list[int]], count: int
) -> Iterator[tuple[str, _Told]]:
    mark = mark_of(replaying.folder.path)
    # Spawned, because this process may have threads, and the server of workers other imports.
    pool = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=partial(_begin, replaying.anywhere(), mark),
    )
    try:
        with starting():  # with the first of these
            asked: dict[str, list[Future[_Told]]] = {
                name: [
                    pool.submit(_replay, name, repeats[at : at + AT_ONCE])
                    for at in range(0, len(repeats), AT_ONCE)
                ]
                for name, repeats in left.items()
            }
        for name, parts in asked.items():
            whole = _Told()
            for part in parts:
                told = part.result()
                whole.trials += told.trials
                whole.seconds += told.seconds
            yield name, whole
    except BrokenProcessPool as error:
        raise UserError(
            "A process that replayed searches ended before they did; give the command again, which "
            "keeps what is there (a script of yours has to ask below `if __name__ == '__main__':`)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_begun: Begun | None = None
"""In a process of the pool: what it replays."""


def _begin(replaying: Replaying, mark: Mark | None) -> None:
    """Make a process of the pool ready: Ctrl-C is the driver's, and what it writes is the run's."""
    global _begun
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_driver()
    if mark is not None:
        help_driving(replaying.folder.path, mark)
    _begun = replaying.begin()


def _replay(name: str, repeats: Sequence[int]) -> _Told:
    assert _begun is not None
    return _begun.replay(name, repeats)
