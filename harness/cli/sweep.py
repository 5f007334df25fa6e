"""`harness sweep`: the trials of a study, all of them or those that a search asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.compare import compare_live
from harness.cli.given import (
    asked_study,
    engine_starter,
    make_runtime,
    settings_and_weights,
    typed_command,
)
from harness.cli.options import examples, trial_options, workers_option
from harness.cli.show import write_report
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.driver.plan import Plan
    from harness.runner.runtime import Runtime


@click.command(
    epilog=examples(
        "sweep --study depth_vs_position",
        "sweep --study depth_vs_position --seeds 3 --workers 8",
        "sweep --study depth_vs_position --search tpe --budget 24 --repeats 3",
        "sweep --study depth_vs_position --search tpe --pruner hyperband --budget 12runs",
        "sweep --study depth_vs_position --engine ray --address auto --gpus-per-trial 0.25",
        "sweep --study position_vs_alpha --search pbt --budget 12",
        "sweep --study position_vs_alpha --dry-run",
        "sweep --study depth_vs_position --set backbone.name=vit_tiny_local --weights vit.pth",
        "sweep --study my_study.py --set recipe.lr=0.02 --set options.rank=8",
    )
)
@click.option("--study", "study_name", required=True, help="Name of a study, or a path to one.")
@click.option(
    "--search",
    default="grid",
    show_default=True,
    help="How to choose what to run: grid, random, sobol, tpe, gp, cmaes, pbt (population-based "
    "training); or a method that learns strengths, such as metapeft.",
)
@click.option("--budget", help="24, 240epochs, 600s or 12runs.  [default: 24; a grid: all]")
@click.option("--repeats", type=click.IntRange(min=1), help="Searches to run.  [default: 1]")
@click.option(
    "--pruner",
    type=click.Choice(["none", "asha", "hyperband", "median"]),
    help="Stop bad trials early; tpe with hyperband is BOHB.  [default: none]",
)
@click.option(
    "--on-repeat",
    type=click.Choice(["cached", "next-seed"]),
    help="A configuration proposed again: known answer, or its next seed.  [default: cached]",
)
@click.option("--warm-start", metavar="RUN", help="Let the search know another run's results.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run seeds 0..N-1.  [default: study's]")
@workers_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or Ray workers on one machine or many.",
)
@click.option("--address", help="With ray: of a running cluster, or auto.  [default: start one]")
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(min=0, min_open=True),
    help="With ray: below 1, trials share a GPU; 2 or more train one trial together.  [default: 1]",
)
@click.option(
    "--max-retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Of a trial whose worker or machine is lost.",
)
@click.option(
    "--keep",
    type=click.Choice(["none", "best", "all"]),
    default="none",
    show_default=True,
    help="Whose trained tensors to keep.",
)
@click.option(
    "--select-on",
    type=click.Choice(["val", "test"]),
    help="'test' is the paper's protocol; every output says so.  [default: val]",
)
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@click.option("--dry-run", is_flag=True, help="Print what would run and its cost, then stop.")
@trial_options
def sweep(
    study_name: str,
    search: str,
    budget: str | None,
    repeats: int | None,
    pruner: str | None,
    on_repeat: str | None,
    warm_start: str | None,
    seeds: int | None,
    workers: int | None,
    engine: str,
    address: str | None,
    gpus_per_trial: float | None,
    max_retries: int,
    keep: str,
    select_on: str | None,
    smoke: bool,
    dry_run: bool,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Run every trial of a study that has not finished yet, then draw its report.

    With --search, run those that the search asks for until its budget is spent. A study that names
    searches runs each of them instead, and compares them.
    """
    from dataclasses import replace

    from harness.comparison.searches import REPEATS_LIVE, default_budget
    from harness.comparison.searches import Wanted as Contestants
    from harness.driver.batch import Batch
    from harness.driver.plan import make_plan, trials_in
    from harness.engines.base import local_workers
    from harness.runner.provenance import provenance
    from harness.search.base import GridSearch
    from harness.search.catalogue import POPULATION
    from harness.search.plan import SearchRequest, plan_searches
    from harness.store.liveness import driving
    from harness.store.run_folder import RunFolder
    from harness.store.runs import Command, known_run, read_run, write_command, write_run
    from harness.store.store import Store

    settings, file = settings_and_weights(settings, weights)
    study, run_name = asked_study(study_name, settings, smoke, seeds, select_on)
    where = (out, data_root, on_bad_image)
    runtime = make_runtime(device, where, study.base.backbone, file)
    contest = None
    if study.searches is not None and search == "grid":
        contest = Contestants(
            searches=study.searches,
            budget=budget or default_budget(smoke),
            repeats=repeats,
            workers=local_workers(workers, runtime),
        )
    runtime = replace(
        runtime,
        keep_weights=keep != "none",
        keep_features=study.needs_features,
        keep_checkpoints=POPULATION in (search, *(contest.names([]) if contest else ())),
    )
    store = Store(Path(out))
    batch = Batch(
        store=store,
        base=study.base,
        start_engine=engine_starter(engine, store, runtime, workers, gpus_per_trial, address),
        runtime=runtime,
        max_retries=max_retries,
        keep=keep,  # type: ignore[arg-type]
    )
    of_a_search = {"pruner": pruner, "on-repeat": on_repeat, "warm-start": warm_start}
    given = [flag for flag, value in of_a_search.items() if value is not None]
    if contest is not None:
        if given:
            raise UserError(f"--{given[0]} is for one search; {study.name} compares several.")
        click.echo(f"{study.name}: {study.question}")
        times = contest.repeats or REPEATS_LIVE
        click.echo(f"Searches: {contest.searches}, each to a budget of {contest.budget}, {times}×.")
        if not dry_run:
            compare_live(contest, study, run_name, batch)
        return
    if search != "grid":
        if not study.trains:
            raise UserError(f"--search: study {study.name} trains nothing, so nothing is sought.")
        request = SearchRequest(
            name=search,
            budget=budget,
            repeats=repeats or 1,
            pruner=pruner,  # type: ignore[arg-type]
            on_repeat=on_repeat,  # type: ignore[arg-type]
            warm_start=None if warm_start is None else known_run(warm_start, store.root),
        )
        words = [search] if pruner in (None, "none") else [search, str(pruner)]
        if len(words) > 1 and (gpus_per_trial or 1) > 1:
            raise UserError("--pruner: trials on several GPUs each are not stopped early.")
        folder = RunFolder.of(store, "+".join([run_name, *words]))
        click.echo(f"{study.name}: {study.question}")
        planned = plan_searches(study, runtime, folder, request)
        click.echo(planned.words)
        if dry_run:
            return
        with driving(folder.driver_mark), batch:
            write_run(folder, study, [], provenance(runtime.device))
            write_command(folder, Command(typed_command(), planned.words))
            for number, start in enumerate(planned.starts):
                title = study.name if not repeats else f"{study.name} {number + 1}/{repeats}"
                batch.run(start(), count=planned.count, title=title, objective=study.objective)
                if batch.is_incomplete:
                    break
            if runtime.keep_checkpoints and not batch.is_incomplete:
                for asked in read_run(folder).asked:
                    store.drop_checkpoint(asked.trial_id)
    else:
        given += ["repeats"] if repeats is not None else []
        if given:
            raise UserError(f"--{given[0]} is for a search; the grid runs every cell once.")
        most = None if budget is None else trials_in(budget, study)
        plan = make_plan(study, store=store, run_name=run_name, runtime=runtime, most=most)
        folder = plan.folder
        if not study.trains:
            _count(plan, dry_run, provenance(runtime.device))
            return
        _print_plan(plan, runtime, local_workers(workers, runtime))
        if dry_run:
            return
        with driving(folder.driver_mark), batch:
            write_run(folder, study, plan.cells, provenance(runtime.device))
            limit = "" if budget is None else f", {budget} at most"
            write_command(
                folder, Command(typed_command(), f"Every cell once for every seed{limit}.")
            )
            batch.run(
                GridSearch(plan.to_run),
                count=len(plan.to_run),
                title=study.name,
                objective=study.objective,
                done=plan.done,
            )
    write_report(folder)
    batch.exit_if_incomplete()


def _count(plan: Plan, dry_run: bool, environment: dict[str, str]) -> None:
    """Count the trainable parameters of a study that trains nothing, and write its report."""
    from harness.runner.cost import count_params
    from harness.store.liveness import driving
    from harness.store.runs import write_counts, write_run

    click.echo(f"{plan.study.name}: {plan.study.question}")
    click.echo(f"Trials: none; the parameters of {len(plan.cells)} cells are counted.")
    if dry_run:
        return
    with driving(plan.folder.driver_mark):
        write_run(plan.folder, plan.study, plan.cells, environment)
        write_counts(plan.folder, {spec.trial_id: count_params(spec) for _, spec in plan.cells})
    write_report(plan.folder)


def _print_plan(plan: Plan, runtime: Runtime, workers: int) -> None:
    from harness.driver.batch import duration

    study = plan.study
    click.echo(f"{study.name}: {study.question}")
    to_run = len(plan.to_run) - plan.running - plan.failed
    workers = min(workers, max(1, len(plan.to_run)))
    click.echo(
        f"Trials: {len(plan.done)} done, {plan.running} running, {plan.failed} failed (will be "
        f"tried again), {to_run} to run."
    )
    if study.base.data.select_on == "test":
        click.echo("SELECTED ON TEST: the paper's protocol, which flatters every choice.")
    device_s = plan.estimated_device_s(runtime) if plan.to_run else 0.0
    if device_s is None:
        click.echo("Estimated cost: unknown, because a trial could not be started.")
    elif plan.to_run:
        wall = f"{duration(device_s / workers)} with {workers} workers"
        click.echo(f"Estimated cost: {duration(device_s)} of {runtime.device}, {wall}.")
