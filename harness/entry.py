"""The harness from Python: `recommend`, `train`, `sweep`, `compare` and `load`.

Each does what the command of its name does, by the same requests: the same trials in the same
store, the same numbers, the same report. Nothing is printed and nothing ends the process; a
`Console` may be given that is told what happens. Owns: these signatures, and the command line
that a run remembers of a call. Must not know: how any of it is done. Heavy imports stand inside the
functions, so that `import harness` and `harness.load` need no torch.

Called from a file, all of them but `load` belong below `if __name__ == "__main__":`, because worker
processes import that file.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.console import SILENT, Console
from harness.spec.arguments import with_plain_arguments

if TYPE_CHECKING:
    from harness.driver.request import PlaceRequest
    from harness.metrics import Objective
    from harness.reports.notebook import ComparisonResults, Results, SearchesResults
    from harness.reports.recommended import Recommendation
    from harness.reports.trained import TrainResults
    from harness.study.study import Study


@with_plain_arguments(Study="harness.study.study")
def train(
    method: str,
    *,
    base: str | None = None,
    sites: str | Path | Sequence[str] | None = None,
    depth: str | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    controls: bool = False,
    objective: Objective | None = None,
    workers: int | None = None,
    study: str | Path | Study = "depth_vs_position",
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    device: str | None = None,
    log: str | Sequence[str] = (),
    out: str | Path = "runs",
    console: Console = SILENT,
) -> TrainResults | ComparisonResults:
    """Train one configuration on one seed (0), or on seeds 0 to `seeds`, exclusive.

    `sites` are positions, or a file that `harness derive` wrote; the study gives data, backbone and
    recipe, and `settings` change any field, as in `{"recipe.lr": 0.02}`. With `controls`, also what
    a learned placement must be judged against, with rates and cells chosen by `objective`. Trials
    that the store `out` has are not run again.

    Raises:
        UserError: something that was asked for makes no sense or is not there; one sentence.
        TrialsFailed: trials failed; the same call tries them again.
        NotSavedError: results cannot be written.
    """
    line = _line(train, locals())
    from harness.comparison.controls import train_with_controls
    from harness.driver.cell import prepare_training
    from harness.driver.request import TrainRequest
    from harness.reports.files.anew import write_gamma
    from harness.reports.files.write import write_report
    from harness.reports.notebook import ComparisonResults
    from harness.reports.trained import TrainResults

    asked = TrainRequest(
        method=method,
        base=base,
        sites=None if sites is None else _names(sites),
        depth=depth,
        alpha=alpha,
        seed=seed,
        seeds=seeds,
        study=_study(study),
        settings=settings or {},
        weights=_path(weights),
        place=_place(out, data_root, on_bad_image, device, log),
        workers=workers,
        controls=controls,
        objective=objective,
        line=line,
    )
    training = prepare_training(asked, console)
    if controls:
        folder = train_with_controls(training, line)
        write_report(folder)
        return ComparisonResults(folder)
    records, store = training.run(), training.prepared.store
    for record in records:
        write_gamma(store.trials / record.trial_id)
    chosen_by = training.prepared.study.objective
    ids = [record.trial_id for record in records]
    return TrainResults(training.label, store, ids, chosen_by, line)


@with_plain_arguments(Study="harness.study.study")
def sweep(
    study: str | Path | Study,
    *,
    search: str = "grid",
    budget: str | int | None = None,
    repeats: int | None = None,
    pruner: Literal["none", "asha", "hyperband", "median"] | None = None,
    fidelity: Literal["epochs", "data"] | None = None,
    on_repeat: Literal["cached", "next-seed"] | None = None,
    warm_start: str | Path | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray", "slurm"] = "local",
    slurm: Mapping[str, Any] | None = None,
    address: str | None = None,
    gpus_per_trial: float | None = None,
    max_retries: int = 2,
    keep: Literal["none", "best", "all"] = "none",
    select_on: Literal["val", "test"] | None = None,
    only: Mapping[str, str | Sequence[Any]] | None = None,
    objective: str | None = None,
    cache: str | int = "2G",
    smoke: bool = False,
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    device: str | None = None,
    log: str | Sequence[str] = (),
    out: str | Path = "runs",
    console: Console = SILENT,
) -> Results:
    """Run every trial of a study that the store `out` lacks, or those that a search asks for.

    `study` is a shipped one's name, a path, or a `Study`. A study that names searches has each of
    them run and compared instead. The report is written as well; see `Results.report`. `cache` is
    the disk space for what frozen blocks compute, which trials share; 0: none. `objective` is what
    choices are made by, on the selection split; another than the study's makes a run of its own,
    and two or three with commas between them are for random, tpe and nsga2. `only` leaves some
    values of axes, as in `{"positions": ["q", "v"]}`.

    Raises:
        UserError: something that was asked for makes no sense or is not there; one sentence.
        TrialsFailed: trials failed; the report of the others is there, and the same call tries them
            again.
        NotSavedError: results cannot be written.
    """
    line = _line(sweep, locals())
    from harness.driver.request import EngineRequest, StudyRequest, SweepRequest

    asked = SweepRequest(
        study=StudyRequest(
            study=_study(study),
            settings=settings or {},
            only=only or {},
            weights=_path(weights),
            smoke=smoke,
            seeds=seeds,
            select_on=select_on,
            objective=objective,
        ),
        place=replace(_place(out, data_root, on_bad_image, device, log), cache=cache),
        engine=EngineRequest(
            kind=engine,
            workers=workers,
            slurm=slurm or {},
            address=address,
            gpus_per_trial=gpus_per_trial,
            max_retries=max_retries,
        ),
        search=search,
        budget=None if budget is None else str(budget),
        repeats=repeats,
        pruner=pruner,
        fidelity=fidelity,
        on_repeat=on_repeat,
        warm_start=_path(warm_start),
        keep=keep,
        line=line,
    )
    asked.engine.start_ahead(device)
    from harness.comparison.live import plan_any_sweep
    from harness.reports.files.live import live_page
    from harness.reports.files.write import write_report
    from harness.reports.notebook import results_of

    plan = plan_any_sweep(asked, console)
    for words in plan.words():
        console.say(words)
    with live_page(plan.watched, console.say):
        ran = plan.run()
    write_report(ran.folder)
    if ran.problem is not None:
        raise ran.problem
    return results_of(ran.folder)


@with_plain_arguments(Study="harness.study.study")
def compare(
    *,
    methods: str | Sequence[str] | None = None,
    search: str | Sequence[str] | None = None,
    study: str | Path | Study | None = None,
    replay: str | Path | Literal[True] | Sequence[str | Path] | None = None,
    budget: str | int | None = None,
    repeats: int | str | None = None,
    half_width: float | None = None,
    seeds: int | None = None,
    confirm: int | None = None,
    charge: str | Sequence[str] = (),
    controls: str | None = None,
    objective: str | None = None,
    smoke: bool = False,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    device: str | None = None,
    log: str | Sequence[str] = (),
    out: str | Path = "runs",
    console: Console = SILENT,
) -> ComparisonResults | SearchesResults:
    """Judge methods, or searches, against each other at equal cost, and write the report.

    Searches run live, or with `replay` on a table, which trains nothing: a file of `harness
    tabulate`, the name of a table that ships, as in "synth_rs" (True: joint_space), or several, one
    of each space. `repeats` is a number, or "500,gp=200" for another one of some searches; with
    `half_width` a replay finds it.

    Raises:
        UserError: something that was asked for makes no sense or is not there; one sentence.
        TrialsFailed: trials failed, so that nothing is compared; the same call tries them again.
        NotSavedError: results cannot be written.
    """
    line = _line(compare, locals())
    from harness.comparison.compare import compare as run
    from harness.comparison.request import ComparisonRequest
    from harness.reports.files.write import write_report
    from harness.reports.notebook import ComparisonResults, SearchesResults

    asked = ComparisonRequest(
        methods=None if methods is None else _names(methods),
        search=None if search is None else _names(search),
        study=None if study is None else _study(study),
        replay=_tables(replay),
        budget=None if budget is None else str(budget),
        repeats=repeats,
        half_width=half_width,
        seeds=seeds,
        confirm=confirm,
        charge=(charge,) if isinstance(charge, str) else tuple(charge),
        controls=controls,
        objective=objective,
        smoke=smoke,
        workers=workers,
        settings=settings or {},
        weights=_path(weights),
        place=_place(out, data_root, on_bad_image, device, log),
        line=line,
    )
    folder = run(asked, console)
    write_report(folder)
    return ComparisonResults(folder) if methods is not None else SearchesResults(folder)


@with_plain_arguments(Study="harness.study.study")
def recommend(
    *,
    data: str | None = None,
    backbone: str | None = None,
    budget: str | int = "5runs",
    study: str | Path | Study = "depth_vs_position",
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    device: str | None = None,
    log: str | Sequence[str] = (),
    out: str | Path = "runs",
    console: Console = SILENT,
) -> Recommendation:
    """A LoRA for a dataset and a backbone, chosen on validation by a handful of trainings.

    The study gives what is not named. With a larger budget, the same call goes on from there.

    Raises:
        UserError: something that was asked for makes no sense or is not there; one sentence.
        TrialsFailed: a training failed; the same call tries it again.
        NotSavedError: results cannot be written.
    """
    line = _line(recommend, locals())
    from harness.driver.request import EngineRequest, RecommendRequest

    asked = RecommendRequest(
        budget=str(budget),
        data=data,
        backbone=backbone,
        study=_study(study),
        settings=settings or {},
        weights=_path(weights),
        place=_place(out, data_root, on_bad_image, device, log),
        engine=EngineRequest(workers=workers),
        line=line,
    )
    asked.engine.start_ahead(device)
    from harness.driver.recommend import plan_recommendation
    from harness.reports.files.write import write_report
    from harness.reports.recommended import Recommendation

    plan = plan_recommendation(asked, console)
    plan.say(console)
    ran = plan.sweep.run()
    write_report(ran.folder)
    if ran.problem is not None:
        raise ran.problem
    return Recommendation(plan.recommended())


def load(run: str | Path, out: str | Path = "runs") -> Results:
    """Results of a run: `.brief`, `.trials`, `.table()`, `.best()`, `.figure()`, `.report`.

    `run` is its name in the store `out`, or its folder.

    Raises:
        UserError: there is no such run; names the nearest.
    """
    from harness.reports.notebook import results_of
    from harness.store.runs import known_run

    return results_of(known_run(str(run), Path(out).expanduser()))


def _place(
    out: str | Path,
    data_root: str | Path | None,
    on_bad_image: Literal["stop", "skip"],
    device: str | None,
    log: str | Sequence[str],
) -> PlaceRequest:
    from harness.driver.request import PlaceRequest

    return PlaceRequest(
        out=os.path.expanduser(out),
        data_root=_path(data_root),
        on_bad_image=on_bad_image,
        device=device,
        log=(log,) if isinstance(log, str) else tuple(log),
    )


def _path(given: str | Path | None) -> str | None:
    return None if given is None else os.path.expanduser(given)


def _tables(
    given: str | Path | Literal[True] | Sequence[str | Path] | None,
) -> tuple[str | Literal[True], ...]:
    if given is None or given is True:
        return (True,) if given else ()
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def _names(given: str | Path | Sequence[str]) -> str:
    """Names with commas between them, or one path."""
    return str(given) if isinstance(given, str | Path) else ",".join(given)


def _study(given: str | Path | Study) -> str | Study:
    return str(given) if isinstance(given, Path) else given


def _line(function: Callable[..., object], given: Mapping[str, Any]) -> str:
    """The command line that asks for what a call asks for, as the command itself would write it."""
    from harness.catalogue.rerun import typed
    from harness.driver.request import NO_IDENTITY, PLACES

    words = ["harness", function.__name__]
    for name, parameter in inspect.signature(function).parameters.items():
        value = given[name]
        if name in NO_IDENTITY or name == "console" or value == parameter.default:
            continue
        flag = f"--{'set' if name == 'settings' else name.replace('_', '-')}"
        for text in typed(name, PLACES.get(name, value)):
            words += [flag] if text is None else [flag, text]
    return shlex.join(words)
