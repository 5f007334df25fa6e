"""A cache of what reports and plans need of every record, so that 100,000 are read in seconds.

Owns: `index.sqlite`, which may be deleted at any time: what it lacks, or holds from before a record
was replaced, is read from the records. Must not know: what is made of the summaries.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from typing import Any, Literal

from harness.errors import UserError
from harness.metrics import OVERALL
from harness.store.records import Cost, Status
from harness.store.store import Store

VERSION = 3
"""Raised when `Summary` changes."""

Part = Literal["select", "test"]
"""The split that choices are made on, or the test split."""
BY_GROUP = ("groups", "groups_se", "distance")
"""Scores that a split has for every group; `OVERALL` are those that it has once."""
COSTS = tuple(Cost.model_fields)


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
    """`OVERALL`, then each of `BY_GROUP` for every group; so is `test`. None without scores."""
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
        """A field of the record's scores on a split: one of `OVERALL`, or of `BY_GROUP` in a group.

        Accuracies are shares in [0, 1]. None if the split was not scored, or has no such group.
        """
        scores = self.select if part == "select" else self.test
        if scores is None:
            return None
        if group is None:
            return scores[OVERALL.index(metric)]
        if group not in self.groups:
            return None
        block = len(OVERALL) + BY_GROUP.index(metric) * len(self.groups)
        return scores[block + self.groups.index(group)]

    def objective(self, metric: str) -> float:
        """As `TrialRecord.objective`."""
        score = self.score("select", metric)
        return 1 / self.num_classes if score is None else score


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


def summaries(store: Store, trial_ids: Iterable[str]) -> dict[str, Summary]:
    """The finished ones among the trials, whatever became of them.

    Raises:
        UserError: a record was written by another version or is damaged.
    """
    wanted = {trial_id: time for trial_id, time in _times(store, trial_ids)}
    path = store.root / "index.sqlite"
    known = _read(store, wanted)
    new = {i: _summary(store, i) for i in wanted if i not in known}
    if new:
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute(f"CREATE TABLE IF NOT EXISTS v{VERSION} (id PRIMARY KEY, time, json)")
            rows = [(i, wanted[i], json.dumps(astuple(summary)[1:])) for i, summary in new.items()]
            database.executemany(f"INSERT OR REPLACE INTO v{VERSION} VALUES (?, ?, ?)", rows)
    return {i: known.get(i) or new[i] for i in wanted}


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
    found = {}
    try:
        with closing(sqlite3.connect(path)) as database:
            for trial_id, time, text in database.execute(f"SELECT * FROM v{VERSION}"):
                if wanted.get(trial_id) == time:
                    found[trial_id] = Summary(trial_id, *json.loads(text))
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):  # damaged, not locked or of a version
            path.unlink(missing_ok=True)
        return {}
    return found


def _summary(store: Store, trial_id: str) -> Summary:
    path = store.trials / trial_id / "record.json"
    try:
        record = json.loads(path.read_bytes())
        store.check_schema(path, record)
        select, test, error = record["select"], record["test"], record["error"]
        groups = list((test or select or {"groups": ()})["groups"])
        return Summary(
            trial_id=trial_id,
            status=record["status"],
            num_classes=record["num_classes"],
            epochs_run=record["epochs_run"],
            tested_epoch=record["tested_epoch"],
            trainable_params=record["trainable_params"],
            head_params=record["head_params"],
            costs=_costs(record),
            groups=groups,
            select=_scores(select, groups),
            test=_scores(test, groups),
            device=record["provenance"].get("device", "?"),
            error=error.strip().splitlines()[-1] if error else None,
        )
    except (ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, UserError):
            raise
        raise store.damaged(path) from problem


def _costs(record: dict[str, Any]) -> list[float | None]:
    """In the order of `COSTS`, without what does not hold of this trial alone."""
    cost = {"inference_flops": 0, **record["cost"]}
    if record["provenance"].get("semantics") == "1" and not _is_of_gpus(cost):
        cost["peak_memory_mb"] = None  # of a CPU: the peak of all that its worker had run by then
    return [cost.get(name) for name in COSTS]


def _is_of_gpus(cost: dict[str, Any]) -> bool:
    """Whether a trial was charged for the time for which it held so many devices (`Stopwatch`)."""
    wall_s, device_s = cost["wall_s"], cost["device_s"]
    return bool(wall_s > 0 and device_s == round(device_s / wall_s) * wall_s)


def _scores(scores: dict[str, Any] | None, groups: list[str]) -> list[float | None] | None:
    if scores is None:
        return None
    by_group = [scores[name].get(group) for name in BY_GROUP for group in groups]
    return [*(scores[name] for name in OVERALL), *by_group]
