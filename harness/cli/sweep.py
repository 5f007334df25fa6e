"""`harness sweep`: the trials of a study, all of them or those that a search asks for."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from harness.cli.given import (
    parse_jobs,
    parse_only,
    parse_settings,
    place_given,
    typed_command,
)
from harness.cli.options import (
    examples,
    objective_option,
    only_option,
    trial_options,
    workers_option,
)
from harness.cli.show import write_report
from harness.cli.terminal import TERMINAL


@click.command(
    epilog=examples(
        "sweep --study depth_vs_position",
        "sweep --study depth_vs_position --seeds 3 --workers 8",
        "sweep --study depth_vs_position --search tpe --budget 24 --repeats 3",
        "sweep --study depth_vs_position --search tpe --pruner hyperband --budget 12runs",
        "sweep --study joint_space --search tpe+hyperband --fidelity data --budget 12runs",
        "sweep --study depth_vs_position --engine ray --address auto --gpus-per-trial 0.25",
        "sweep --study joint_space --engine slurm --workers 8 --slurm timeout_min=240",
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
    help="How to choose what to run: grid, random, sobol, tpe, gp, cmaes, nsga2 (several "
    "objectives), pbt (population-based training); metapeft, which learns strengths; gradnorm, "
    "snip or fisher, which rank sites first; or one that is installed.",
)
@click.option(
    "--budget", help="24, 240epochs, 600s or 12runs.  [default: 24; metapeft: 1; a grid: all]"
)
@click.option("--repeats", type=click.IntRange(min=1), help="Searches to run.  [default: 1]")
@click.option(
    "--pruner",
    type=click.Choice(["none", "asha", "hyperband", "median"]),
    help="Stop bad trials early; tpe with hyperband is BOHB.  [default: none]",
)
@click.option(
    "--fidelity",
    type=click.Choice(["epochs", "data"]),
    help="What the pruner stops by: epochs, or trainings on 1/9, 1/3 and all of the data.  "
    "[default: epochs]",
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
    type=click.Choice(["local", "ray", "slurm"]),
    default="local",
    show_default=True,
    help="Processes of this machine, Ray workers on one machine or many, or SLURM jobs.",
)
@click.option(
    "--slurm",
    multiple=True,
    metavar="NAME=VALUE",
    help="With slurm: what a job asks for, as in timeout_min=240, partition=gpu or gres=gpu:1.",
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
@only_option
@objective_option
@click.option(
    "--cache",
    metavar="SIZE",
    default="2G",
    show_default=True,
    help="Disk space in OUT/cache for what frozen blocks compute, shared by trials; 0: none.",
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
    fidelity: str | None,
    on_repeat: str | None,
    warm_start: str | None,
    seeds: int | None,
    workers: int | None,
    engine: str,
    slurm: tuple[str, ...],
    address: str | None,
    gpus_per_trial: float | None,
    max_retries: int,
    keep: str,
    select_on: str | None,
    only: tuple[str, ...],
    objective: str | None,
    cache: str,
    smoke: bool,
    dry_run: bool,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    log: tuple[str, ...],
    out: str,
) -> None:
    """Run every trial of a study that has not finished yet, then draw its report.

    With --search, run those that the search asks for until its budget is spent. A study that names
    searches runs each of them instead, and compares them.
    """
    from harness.driver.request import EngineRequest, StudyRequest, SweepRequest

    asked = SweepRequest(
        study=StudyRequest(
            study=study_name,
            settings=parse_settings(settings),
            only=parse_only(only),
            weights=weights,
            smoke=smoke,
            seeds=seeds,
            select_on=select_on,  # type: ignore[arg-type]
            objective=objective,
        ),
        place=replace(
            place_given(out, data_root, on_bad_image, device, log), cache=cache, is_dry=dry_run
        ),
        engine=EngineRequest(
            kind=engine,  # type: ignore[arg-type]
            workers=workers,
            slurm=parse_jobs(slurm),
            address=address,
            gpus_per_trial=gpus_per_trial,
            max_retries=max_retries,
        ),
        search=search,
        budget=budget,
        repeats=repeats,
        pruner=pruner,  # type: ignore[arg-type]
        fidelity=fidelity,  # type: ignore[arg-type]
        on_repeat=on_repeat,  # type: ignore[arg-type]
        warm_start=warm_start,
        keep=keep,  # type: ignore[arg-type]
        line=typed_command(),
    )
    if not dry_run:
        asked.engine.start_ahead(device)
    from harness.comparison.live import plan_any_sweep

    plan = plan_any_sweep(asked, TERMINAL)
    for line in plan.words():
        TERMINAL.say(line)
    estimate = plan.estimate(probing=dry_run)
    if estimate is not None:
        TERMINAL.say(estimate)
    if dry_run:
        return
    from harness.reports.files.live import live_page

    # Of a sweep that is slow enough, which is nothing that what reads a pipe should see.
    is_read = sys.stdout.isatty()
    with live_page(plan.watched, TERMINAL.say if is_read else None):
        ran = plan.run()
    write_report(ran.folder)
    if ran.problem is not None:
        raise ran.problem
