"""What every search must keep, on trials whose score is a formula: nothing is trained.

Owns: these tests. Must not know: any search by name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from harness.driver.drive import drive
from harness.metrics import Goal
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import Outcome, SearchMaker, SearchTask
from harness.search.bounded import BoundedSearch, start_search
from harness.search.budget import Budget
from harness.search.catalogue import find_search
from harness.spec import Recipe, TrialSpec
from harness.store.records import TrialRecord
from harness.store.search_log import asks, read_log, tells
from harness.store.store import Store
from harness.study.axes import Axis, Range
from harness.study.space import SearchSpace
from harness.study.study import Study
from harness.testing.made import TINY, MadeEngine

EPOCHS = 4
MOST_PROPOSALS = 500
"""After which a search is taken to be endless."""

CELLS = (
    Axis(field="positions", values=("mlp1", "q", "v"), label="position"),
    Axis(field="alpha", values=(0.5, 1.0, 2.0, 4.0), label="alpha"),
)
PLANE = (
    Range(field="alpha", low=0.1, high=10.0, log=True, label="alpha"),
    Range(field="recipe.lr", low=0.01, high=1.0, log=True, label="lr"),
)


def made_score(spec: TrialSpec) -> float:
    """The best is mlp1 at α = 2; a later change of α counts as one from the start."""
    placement = spec.changes[-1].placement if spec.changes else spec.placement
    (position, *_), (alpha, *_) = zip(
        *((site.position, alpha) for site, alpha in placement.items()), strict=True
    )
    bonus = {"mlp1": 0.3, "v": 0.2}.get(position, 0.0)
    return 0.5 + bonus - 0.1 * abs(math.log2(alpha / 2))


class SearchContract:
    """Set `search`; or override the fixture `maker`."""

    search: str
    """Its name, as after `--search`."""
    budget: str = "8"
    further: tuple[Goal, ...] = ()
    """Objectives that it is told beside the class mean."""
    is_continuous: bool = False
    """It takes spaces of numbers alone."""
    learns_from_its_log: bool = True
    """It is rebuilt from its log, as all are but the grid, which is rebuilt from the store."""

    @pytest.fixture
    def maker(self) -> SearchMaker:
        return find_search(self.search)

    @pytest.fixture
    def space(self) -> SearchSpace:
        """A finite space of 12 configurations, or a plane."""
        study = Study(
            name="made",
            question="?",
            paper="none",
            base=TINY.model_copy(update={"recipe": Recipe(epochs=EPOCHS, precision="fp32")}),
            axes=CELLS,
            space=PLANE if self.is_continuous else (),
            views=(),
            fixed="",
        )
        return SearchSpace(study, 12)

    def start(
        self, maker: SearchMaker, space: SearchSpace, log: Path, budget: str | None = None
    ) -> BoundedSearch:
        """Start the search, or go on with the one in the log, as the driver does."""
        task = SearchTask(
            space=space,
            make=lambda values, seed: resolve(space.request(values, seed), Runtime()),
            name="made",
            seed=0,
            budget=Budget.parse(budget or self.budget),
            full_run_flops=1,
            epochs=EPOCHS,
            objectives=1 + len(self.further),
            log=log,
        )
        search = maker(task)
        if isinstance(search, BoundedSearch):
            return search
        return start_search("made", maker, task)

    def drive(self, search: BoundedSearch, folder: Path, *, most: int | None = None) -> MadeEngine:
        """Run what it asks for in the store `folder`; stop after `most` trials have been run."""
        store, stop = Store(folder), Event()
        engine = MadeEngine(store, made_score, watch=search.needs_epoch_reports)

        def ended(record: TrialRecord, is_fresh: bool) -> None:
            if len(engine.ran) == most:
                stop.set()
            assert len(engine.ran) < MOST_PROPOSALS, "it does not end"

        drive(
            search,
            engine,
            store=store,
            runtime=Runtime(),
            objective="class_mean",
            further=self.further,
            max_retries=0,
            stop=stop,
            on_end=ended,
        )
        return engine

    def test_it_proposes_trials_of_its_space_and_ends(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        ran = self.drive(self.start(maker, space, tmp_path / "log"), tmp_path / "store").ran
        assert len({spec.trial_id for spec in ran}) > 0
        if space.size < math.inf:
            cells = {_sites(space, params) for params in space.enumerate()}
            assert {tuple(spec.placement.root.items()) for spec in ran} <= cells

    def test_it_is_the_same_search_every_time(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        one, two = (
            self.drive(self.start(maker, space, tmp_path / f"{name}.log"), tmp_path / name)
            for name in "ab"
        )
        assert _ids(one.ran) == _ids(two.ran)
        if self.learns_from_its_log:
            assert (tmp_path / "a.log").read_text() == (tmp_path / "b.log").read_text()

    def test_stopping_anywhere_and_going_on_is_the_uninterrupted_search(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        whole = self.drive(self.start(maker, space, tmp_path / "whole.log"), tmp_path / "whole")
        parts: list[TrialSpec] = []
        for _ in range(MOST_PROPOSALS):
            search = self.start(maker, space, tmp_path / "parts.log")
            ran = self.drive(search, tmp_path / "parts", most=3).ran
            if not ran:
                break
            parts += ran
        assert _ids(parts) == _ids(whole.ran)

    def test_what_was_asked_and_never_told_is_asked_again_first(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        self.drive(self.start(maker, space, tmp_path / "log"), tmp_path / "store", most=2)
        (lost,) = self._ask(self.start(maker, space, tmp_path / "log"), tmp_path / "store")
        (again,) = self._ask(self.start(maker, space, tmp_path / "log"), tmp_path / "store")
        assert again.trial_id == lost.trial_id

    def test_its_log_has_what_it_asked_and_was_told(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        if not self.learns_from_its_log:
            return
        self.drive(self.start(maker, space, tmp_path / "log"), tmp_path / "store")
        events = read_log(tmp_path / "log")
        asked = {event.trial_id: event for event in asks(events)}
        told = {event.trial_id for event in tells(events)}
        assert told and told <= set(asked)
        for trial_id, event in asked.items():
            spec = resolve(space.request(event.cell, event.seed), Runtime())
            assert spec.trial_id == trial_id, "its cell and seed make another trial"

    def test_trials_that_fail_or_diverge_do_not_end_it(
        self, maker: SearchMaker, space: SearchSpace, tmp_path: Path
    ) -> None:
        search = self.start(maker, space, tmp_path / "log")
        ids = []
        for number in itertools.count():
            assert number < MOST_PROPOSALS, "it does not end"
            asked = search.ask(1)
            if not asked:
                break
            ids.append(asked[0].trial_id)
            fails = number % 3 == 1
            search.tell(
                Outcome(
                    trial_id=asked[0].trial_id,
                    status="FAILED" if fails else "DIVERGED",
                    objective=None if fails else 1 / 15,
                    epochs=0 if fails else EPOCHS,
                    device_s=1.0,
                    flops=1,
                    beside=() if fails else (1 / 15,) * len(self.further),
                )
            )
        assert len(ids) > 1, "it asked for nothing after a trial that went wrong"

    def _ask(self, search: BoundedSearch, folder: Path) -> Sequence[TrialSpec]:
        """The next trial that has to be run; those that the store has are told at once."""
        store = Store(folder)
        for _ in range(MOST_PROPOSALS):
            specs = search.ask(1)
            record = store.record(specs[0].trial_id) if specs else None
            if record is None or record.status != "COMPLETE":
                return specs
            search.tell(
                Outcome(
                    trial_id=record.trial_id,
                    status=record.status,
                    objective=record.objective("class_mean"),
                    epochs=record.epochs_run,
                    device_s=record.cost.device_s,
                    flops=record.cost.flops,
                    beside=tuple(map(record.worth, self.further)),
                )
            )
        raise AssertionError("it proposes nothing new")


def _ids(specs: Sequence[TrialSpec]) -> list[str]:
    return [spec.trial_id for spec in specs]


def _sites(space: SearchSpace, params: dict[str, int | float]) -> tuple[tuple[str, float], ...]:
    values = space.at(params)
    return tuple(resolve(space.request(values, 0), Runtime()).placement.root.items())
