"""`harness compare`: methods or searches against each other, live or from a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.given import (
    asked_study,
    engine_starter,
    make_runtime,
    settings_and_weights,
    typed_command,
)
from harness.cli.options import examples, trial_options, workers_option
from harness.cli.show import print_markdown, write_report
from harness.errors import UserError
from harness.store.table import TABLE

if TYPE_CHECKING:
    from harness.comparison.searches import Wanted
    from harness.driver.batch import Batch
    from harness.runner.runtime import Runtime
    from harness.store.store import Store
    from harness.study.study import Study


@click.command(
    epilog=examples(
        "compare --methods all --seeds 3",
        "compare --methods lora,bitfit,vpt_deep --seeds 5",
        "compare --search all --replay",
        "compare --search tpe,gp --replay my_table.parquet --repeats 100",
        "compare --search random,tpe --study depth_vs_position --budget 600s --repeats 5",
        "compare --search random,metapeft --seeds 3 --charge outer_lr",
    )
)
@click.option("--methods", help="Methods with commas between; or all. Each tunes its own rate.")
@click.option(
    "--search", help="Searches with commas between, as in random,tpe+hyperband,metapeft; or all."
)
@click.option(
    "--study",
    "study_name",
    help="Name of a study, or a path to one.  [default: depth_vs_position for methods, "
    "search_comparison for searches]",
)
@click.option(
    "--replay",
    type=click.Path(dir_okay=False),
    is_flag=False,
    flag_value=str(TABLE),
    metavar="[TABLE]",
    help="Take results from a table of `harness tabulate`, and train nothing; without TABLE, from "
    "that of joint_space on the embedded benchmark.",
)
@click.option(
    "--budget",
    help="Of each search: 24 (trials, counted by their epochs), 240epochs, 600s or 12runs.  "
    "[default: 24]",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), help="Of each search.  [default: 3; 20 in a replay]"
)
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Seeds to train with, in turn.  [default: study's]"
)
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="K",
    help="Train the K best of each again on unseen seeds.  [default: 0; 3 in a replay]",
)
@click.option(
    "--charge",
    multiple=True,
    metavar="RUN",
    help="Run that tuned the methods that learn strengths; repeatable.",
)
@click.option(
    "--controls",
    metavar="RUN",
    help="Run of `harness train --controls`, to be shown beside the searches.",
)
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@workers_option
@trial_options
def compare(
    methods: str | None,
    search: str | None,
    study_name: str | None,
    replay: str | None,
    budget: str | None,
    repeats: int | None,
    seeds: int | None,
    confirm: int | None,
    charge: tuple[str, ...],
    controls: str | None,
    smoke: bool,
    workers: int | None,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Judge methods or searches against each other at equal cost, and say what the figures show.

    Methods: every one at its own sites, additive ones also at all their sites and with MetaPEFT;
    each chooses its learning rate, and is charged for all that it tries. Searches: live, or with
    --replay from a table of every trial, in the order in which --workers simulated workers would
    have ended them. Choices are made on validation, and shown on test.
    """
    from harness.comparison.searches import Wanted, default_budget, replay_searches
    from harness.store.runs import Command, known_run, write_command
    from harness.store.store import Store

    store = Store(Path(out))
    settings, file = settings_and_weights(settings, weights)
    where = (out, data_root, on_bad_image)
    if (methods is None) == (search is None):
        raise UserError("Give either --methods or --search, as in `harness compare --methods all`.")
    if methods is not None:
        flags = {"replay": replay, "budget": budget, "repeats": repeats, "confirm": confirm}
        flags |= {"charge": " ".join(charge) or None, "controls": controls}
        for flag, value in flags.items():
            if value is not None:
                raise UserError(f"--{flag} is for --search; methods all spend the same.")
        study, run_name = asked_study(study_name or "depth_vs_position", settings, smoke)
        runtime = make_runtime(device, where, study.base.backbone, file)
        _compare_methods(methods, study, run_name, seeds or 3, store, runtime, workers)
        return
    assert search is not None
    wanted = Wanted(
        searches=search,
        budget=budget or default_budget(smoke),
        repeats=repeats,
        seeds=seeds,
        workers=workers or 1,
        confirm=confirm,
        tuning=tuple(known_run(run, store.root) for run in charge),
        controls=None if controls is None else known_run(controls, store.root),
    )
    if replay is not None:
        if settings or smoke or device or data_root:
            raise UserError(
                "--set, --weights, --smoke, --device and --data-root are for live trials; a table "
                "has its own."
            )
        from harness.catalogue.studies import load_study

        asked = None if study_name is None else load_study(study_name).name
        folder = replay_searches(wanted, Path(replay), asked, store, click.echo)
        write_command(
            folder, Command(typed_command(), f"Each search to a budget of {wanted.budget}.")
        )
        write_report(folder)
        return
    from dataclasses import replace

    from harness.driver.batch import Batch
    from harness.engines.base import local_workers
    from harness.search.catalogue import POPULATION

    study, run_name = asked_study(study_name or "search_comparison", settings, smoke, seeds)
    runtime = make_runtime(device, where, study.base.backbone, file)
    runtime = replace(runtime, keep_checkpoints=POPULATION in wanted.names([]))
    batch = Batch(
        store=store,
        base=study.base,
        start_engine=engine_starter("local", store, runtime, workers, None, None),
        runtime=runtime,
    )
    count = local_workers(workers, runtime)
    compare_live(replace(wanted, workers=count), study, run_name, batch)


def compare_live(wanted: Wanted, study: Study, run_name: str, batch: Batch) -> None:
    """Searches against each other, live, and their report."""
    from harness.comparison.searches import run_searches
    from harness.store.run_folder import RunFolder
    from harness.store.runs import Command, write_command

    folder = RunFolder.of(batch.store, f"{run_name}+searches")
    run_searches(wanted, study, folder, batch=batch, say=click.echo)
    if not batch.is_incomplete:
        write_command(
            folder, Command(typed_command(), f"Each search to a budget of {wanted.budget}.")
        )
        write_report(folder)
    batch.exit_if_incomplete()


def _compare_methods(
    names: str,
    study: Study,
    run_name: str,
    seeds: int,
    store: Store,
    runtime: Runtime,
    workers: int | None,
) -> None:
    from harness.comparison.methods import FURTHER, RATES, compare_methods, compared_methods
    from harness.driver.batch import runner
    from harness.runner.provenance import provenance
    from harness.store.liveness import driving
    from harness.store.run_folder import RunFolder
    from harness.store.runs import Command, write_command, write_comparison

    chosen = compared_methods(names)
    words = "methods" if names == "all" else f"methods={'_'.join(chosen)}"
    folder = RunFolder.of(store, f"{run_name}+{words}")
    run = runner(
        engine_starter("local", store, runtime, workers, None, None),
        store=store,
        runtime=runtime,
        base=study.base,
        title="methods",
        objective=study.objective,
    )
    with driving(folder.driver_mark):
        compared = compare_methods(
            chosen,
            study=study,
            seeds=tuple(range(seeds)),
            run=run,
            store=store,
            runtime=runtime,
        )
        write_comparison(folder, compared, provenance(runtime.device))
        plan = (
            f"Every arm at {len(RATES)} learning rates for every seed, and at up to {FURTHER} more "
            "where the best is the first or the last."
        )
        write_command(folder, Command(typed_command(), plan))
    write_report(folder)
    print_markdown(folder.report / "report.md")
