"""A comparison, from what was asked to its run's folder: of methods, or of searches.

Owns: which of the three it is, and which fields make sense for each. Must not know: how any of them
is run, terminals, reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.comparison.request import (
    ComparisonRequest,
    Repeats,
    SearchesRequest,
    default_budget,
)
from harness.console import Console
from harness.driver.request import DEFAULT_STUDY, EngineRequest, StudyRequest
from harness.errors import UserError
from harness.store.run_folder import RunFolder
from harness.store.runs import known_run

if TYPE_CHECKING:
    from harness.driver.setup import Prepared

SEARCH_STUDY = "search_comparison"
"""Study on whose space searches are compared where no other is named."""


def compare(asked: ComparisonRequest, console: Console) -> RunFolder:
    """Judge methods or searches against each other; the run's folder.

    Raises:
        UserError: a field makes no sense, or names something that is not there.
        TrialsFailed: a trial failed, so that nothing is compared.
        Interrupted: the user stopped before the end.
    """
    if (asked.methods is None) == (asked.search is None):
        raise UserError("Give either --methods or --search, as in `harness compare --methods all`.")
    if asked.methods is not None:
        return _compare_methods(asked, asked.methods, console)
    store = asked.place.store
    wanted = SearchesRequest(
        searches=str(asked.search),
        budget=asked.budget or default_budget(asked.smoke),
        repeats=Repeats.parse(asked.repeats),
        half_width=asked.half_width,
        seeds=asked.seeds,
        objective=asked.objective,
        workers=asked.workers or 1,
        confirm=asked.confirm,
        tuning=tuple(known_run(run, store.root) for run in asked.charge),
        controls=None if asked.controls is None else known_run(asked.controls, store.root),
        line=asked.line,
    )
    if asked.replay:
        return _replay(asked, wanted, console)
    return _compare_live(asked, wanted, console)


def _compare_methods(asked: ComparisonRequest, methods: str, console: Console) -> RunFolder:
    of_searches = {
        "replay": asked.replay or None,
        "budget": asked.budget,
        "repeats": asked.repeats,
        "half-width": asked.half_width,
        "confirm": asked.confirm,
        "charge": asked.charge or None,
        "controls": asked.controls,
    }
    for flag, value in of_searches.items():
        if value is not None:
            raise UserError(f"--{flag} is for --search; methods all spend the same.")
    for field in asked.settings:
        if field.split(".")[0] not in ("data", "backbone", "recipe"):
            raise UserError(
                f"--set {field}: every method is compared at settings of its own; give fields of "
                "data, backbone and recipe."
            )
    prepared = _prepared(asked, DEFAULT_STUDY, console)
    if prepared.study.further:
        named = ",".join(prepared.study.objectives)
        raise UserError(f"--objective {named}: methods are chosen by one; give one.")
    from harness.comparison.methods import run_methods

    return run_methods(prepared, methods, asked.seeds, asked.line)


def _replay(asked: ComparisonRequest, wanted: SearchesRequest, console: Console) -> RunFolder:
    from harness.catalogue.studies import known_study
    from harness.comparison.replay import replay_searches
    from harness.comparison.spaces import replay_spaces
    from harness.store.shipped import find_table

    live = (asked.settings, asked.weights, asked.smoke, asked.place.device, asked.place.data_root)
    if any(live) or asked.place.log or asked.place.on_bad_image != "stop":
        raise UserError(
            "--set, --weights, --smoke, --device, --data-root, --on-bad-image and --log are for "
            "live trials; a table has its own."
        )
    if asked.half_width is not None and asked.repeats is not None:
        raise UserError("Give either --repeats or --half-width, which finds the number of repeats.")
    tables = [find_table(table) for table in asked.replay]
    if len(tables) > 1:
        if asked.study is not None:
            raise UserError("--study is for one table; several say which studies they are of.")
        return replay_spaces(wanted, tables, asked.place.store, console)
    name = None if asked.study is None else known_study(asked.study).name
    return replay_searches(wanted, tables[0], name, asked.place.store, console)


def _compare_live(asked: ComparisonRequest, wanted: SearchesRequest, console: Console) -> RunFolder:
    from dataclasses import replace

    if asked.half_width is not None:
        raise UserError(
            "--half-width is for --replay: live, every further repeat is trained; give --repeats."
        )
    prepared = _prepared(asked, SEARCH_STUDY, console, asked.seeds)
    from harness.comparison.live import LiveComparison
    from harness.driver.setup import refuse_chosen

    refuse_chosen(prepared.study, asked.settings)

    live = LiveComparison.of(replace(wanted, workers=prepared.workers), prepared)
    for words in live.words():
        console.say(words)
    return live.run().folder


def _prepared(
    asked: ComparisonRequest, default_study: str, console: Console, seeds: int | None = None
) -> Prepared:
    """The study on which methods or searches are compared by training."""
    engine = EngineRequest(workers=asked.workers)
    engine.start_ahead(asked.place.device)
    # Imported after that, and by no replay, which needs no torch.
    from harness.driver.setup import prepare

    study = StudyRequest(
        study=asked.study or default_study,
        settings=asked.settings,
        weights=asked.weights,
        smoke=asked.smoke,
        objective=asked.objective,
        seeds=seeds,
    )
    return prepare(study, asked.place, engine, console)
