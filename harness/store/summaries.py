"""A cache of what reports and plans need of every record, so that 100,000 are read in seconds.

Owns: `index.sqlite`, which may be deleted at any time: what it lacks, or holds from before a record
was replaced, is read from the records. Must not know: what is made of the summaries.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from typing import Literal

from harness.errors import UserError
from harness.metrics import (
    LOSS,
    OVERALL,
    TAIL,
    Objective,
    SplitMetrics,
    no_tail,
    worth_of_chance,
)
from harness.store.records import DONE, Cost, Status, TrialRecord
from harness.store.store import Store

VERSION = 4
"""Raised when `Summary` changes."""

Part = Literal["select", "test"]
"""The split that choices are made on, or the test split."""
BY_GROUP = ("groups", "groups_se", "distance")
"""Scores that a split has for every group; `OVERALL` are those that it has once."""
COSTS = tuple(name for name in Cost.model_fields if name != "actual_device_s")


@dataclass(frozen=True, slots=True)
class Summary:
    """A record without its spec, its scores per class and its provenance.

    Scores and costs are kept as lists, because names would take most of the time to read; `score`
    and `cost` find a value by its name.
    """

    trial_id: str
    status: Status
    num_classes: int
    epochs_run: int
    tested_epoch: int | None
    trainable_params: int
    head_params: int
    costs: list[float | None]
    """In the order of `COSTS`; None for what was not measured or not told apart."""
    groups: list[str]
    """Head first."""
    select: list[float | None] | None
    """`OVERALL`, then each of `BY_GROUP` for every group, then the loss; so is `test`. None without
    scores."""
    test: list[float | None] | None
    device: str
    error: str | None
    """Its last line."""

    @property
    def device_s(self) -> float:
        return self.cost("device_s") or 0.0

    @property
    def charged_flops(self) -> float:
        """As `Cost.charged_flops`."""
        return (self.cost("flops") or 0.0) - (self.cost("test_flops") or 0.0)

    def cost(self, name: str) -> float | None:
        """A field of the record's `Cost`, one of `COSTS`; None if the record does not say."""
        return self.costs[COSTS.index(name)]

    def score(self, part: Part, metric: str, group: str | None = None) -> float | None:
        """A field of the record's scores on a split: `loss`, one of `OVERALL`, or of `BY_GROUP` in
        a group.

        Accuracies are shares in [0, 1]. None if the split was not scored, or has no such group.
        """
        scores = self.select if part == "select" else self.test
        if scores is None:
            return None
        if metric == "loss":
            return scores[-1]
        if group is None:
            return scores[OVERALL.index(metric)]
        if group not in self.groups:
            return None
        block = len(OVERALL) + BY_GROUP.index(metric) * len(self.groups)
        return scores[block + self.groups.index(group)]

    def objective(self, objective: Objective) -> float:
        """As `TrialRecord.objective`."""
        if objective == TAIL:
            score = self.score("select", "groups", TAIL)
            if score is None and self.select is not None:
                raise no_tail(self.groups)
        else:
            score = self.score("select", "loss" if objective == LOSS else objective)
        if score is None:
            return worth_of_chance(objective, self.num_classes)
        return -score if objective == LOSS else score


@contextmanager
def in_bulk() -> Iterator[None]:
    """Switch the garbage collector off while very many objects are made and kept.

    It would look through all of them again and again, for as long as it takes to make them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


OnUnusable = Callable[[str, str], None]
"""Told the id of a trial whose record cannot be used, and why, in one sentence."""


def summaries(
    store: Store, trial_ids: Iterable[str], on_unusable: OnUnusable | None = None
) -> dict[str, Summary]:
    """The finished ones among the trials, whatever became of them.

    A record that cannot be used (see `Store.record`) is left out and told to `on_unusable`.

    Raises:
        UserError: a record cannot be used, and there is no `on_unusable`.
    """
    wanted = {trial_id: time for trial_id, time in _times(store, trial_ids)}
    path = store.root / "index.sqlite"
    known, new = _read(store, wanted), {}
    for trial_id in [each for each in wanted if each not in known]:
        try:
            new[trial_id] = _summary(store, trial_id)
        except UserError as problem:
            if on_unusable is None:
                raise
            on_unusable(trial_id, str(problem))
    if new:
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute(f"CREATE TABLE IF NOT EXISTS v{VERSION} (id PRIMARY KEY, time, json)")
            rows = [(i, wanted[i], json.dumps(astuple(summary)[1:])) for i, summary in new.items()]
            database.executemany(f"INSERT OR REPLACE INTO v{VERSION} VALUES (?, ?, ?)", rows)  # noqa: S608 - a constant
    found = known | new
    return {i: found[i] for i in wanted if i in found}


def as_told(ended: dict[str, Summary], no_answers: Collection[str]) -> dict[str, Summary]:
    """The same, where those that are no answers of a run (`RunFiles.no_answers`) are `PRUNED`.

    So they were told to their search, and a part of a training is no score.
    """
    return {
        trial_id: replace(each, status="PRUNED")
        if trial_id in no_answers and each.status in DONE
        else each
        for trial_id, each in ended.items()
    }


def _times(store: Store, trial_ids: Iterable[str]) -> Iterator[tuple[str, int]]:
    """When each record was written; those that do not exist are left out."""
    for trial_id in trial_ids:
        with suppress(FileNotFoundError):
            yield trial_id, os.stat(f"{store.trials}/{trial_id}/record.json").st_mtime_ns


def _read(store: Store, wanted: dict[str, int]) -> dict[str, Summary]:
    """What the cache has that is not older than the record."""
    path = store.root / "index.sqlite"
    if not path.is_file():
        return {}
    try:
        with closing(sqlite3.connect(path)) as database:
            found = database.execute(f"SELECT id, time, json FROM v{VERSION}")  # noqa: S608 - a constant
            rows = found.fetchall()
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):  # damaged, not locked or of a version
            path.unlink(missing_ok=True)
        return {}
    current = [(trial_id, text) for trial_id, time, text in rows if wanted.get(trial_id) == time]
    try:
        # All at once, which takes half of the time.
        contents = json.loads(f"[{','.join(text for _, text in current)}]")
        ids = (trial_id for trial_id, _ in current)
        return {i: Summary(i, *content) for i, content in zip(ids, contents, strict=True)}
    except (ValueError, TypeError, RecursionError):  # of something else, so all of it is in doubt
        path.unlink(missing_ok=True)
        return {}


def _summary(store: Store, trial_id: str) -> Summary:
    record = store.record(trial_id)
    if record is None:
        raise UserError(f"Trial {trial_id} went missing while it was read; give the command again.")
    scored = record.test or record.select
    groups = [] if scored is None else list(scored.groups)
    return Summary(
        trial_id=trial_id,
        status=record.status,
        num_classes=record.num_classes,
        epochs_run=record.epochs_run,
        tested_epoch=record.tested_epoch,
        trainable_params=record.trainable_params,
        head_params=record.head_params,
        costs=_costs(record),
        groups=groups,
        select=_scores(record.select, groups),
        test=_scores(record.test, groups),
        device=record.provenance.get("device", "?"),
        error=record.error.strip().splitlines()[-1] if record.error else None,
    )


def _costs(record: TrialRecord) -> list[float | None]:
    """In the order of `COSTS`, without what does not hold of this trial alone."""
    cost = record.cost
    if record.provenance.get("semantics") == "1" and not _is_of_gpus(cost):
        # of a CPU: the peak of all that its worker had run by then
        cost = cost.model_copy(update={"peak_memory_mb": None})
    return [getattr(cost, name) for name in COSTS]


def _is_of_gpus(cost: Cost) -> bool:
    """Whether a trial was charged for the time for which it held so many devices (`Stopwatch`)."""
    wall_s, device_s = cost.wall_s, cost.device_s
    return bool(wall_s > 0 and device_s == round(device_s / wall_s) * wall_s)


def _scores(scores: SplitMetrics | None, groups: list[str]) -> list[float | None] | None:
    if scores is None:
        return None
    by_group = [getattr(scores, name).get(group) for name in BY_GROUP for group in groups]
    return [*(getattr(scores, name) for name in OVERALL), *by_group, scores.loss]
