"""`harness compare`: methods or searches against each other, live or from a table."""

from __future__ import annotations

import click

from harness.cli.given import parse_settings, place_given, typed_command
from harness.cli.options import (
    examples,
    objective_option,
    trial_options,
    workers_option,
)
from harness.cli.show import write_report
from harness.cli.terminal import TERMINAL

SHIPPED = ""
"""`--replay` without a table."""


@click.command(
    epilog=examples(
        "compare --methods all --seeds 3",
        "compare --methods lora,bitfit,vpt_deep --seeds 5",
        "compare --search all --replay",
        "compare --search all --replay synth_rs",
        "compare --search tpe,gp --replay my_table.parquet --repeats 500,gp=200",
        "compare --search tpe,gp --replay my_table.parquet --half-width 0.5",
        "compare --search all --replay synth_rs --replay synth_rs_gamma --budget 12runs",
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
    is_flag=False,
    flag_value=SHIPPED,
    multiple=True,
    metavar="[TABLE]",
    help="Take results from a table, and train nothing: a file of `harness tabulate`, or the name "
    "of one that ships (`harness list tables`).  [default: joint_space] Repeatable, one table for "
    "each space: their searches are compared at one budget in full runs of the first.",
)
@click.option(
    "--budget",
    help="Of each search: 24 (trials, counted by their epochs), 240epochs, 600s or 12runs.  "
    "[default: 24]",
)
@click.option(
    "--repeats",
    metavar="N[,SEARCH=N]",
    help="Of each search in all, dealt to the seeds in turn, or of one that is to have more or "
    "fewer.  [default: 3; 20 in a replay]",
)
@click.option(
    "--half-width",
    type=float,
    metavar="POINTS",
    help="Replay each search until its chance leaves ± POINTS (95 %) to its mean test score, 2,000 "
    "times at most.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Seeds to train with, in turn; each is one replicate.  [default: study's]",
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
@objective_option
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@workers_option
@trial_options
def compare(
    methods: str | None,
    search: str | None,
    study_name: str | None,
    replay: tuple[str, ...],
    budget: str | None,
    repeats: str | None,
    half_width: float | None,
    seeds: int | None,
    confirm: int | None,
    charge: tuple[str, ...],
    controls: str | None,
    objective: str | None,
    smoke: bool,
    workers: int | None,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    log: tuple[str, ...],
    out: str,
) -> None:
    """Judge methods or searches against each other at equal cost, and say what the figures show.

    Methods: every one at its own sites, additive ones also at all their sites and with MetaPEFT;
    each chooses its learning rate, and is charged for all that it tries. Searches: live, or with
    --replay from a table of every trial, in the order in which --workers simulated workers would
    have ended them. Choices are made on validation, and the test class mean is shown.
    """
    from harness.comparison.compare import compare as compared
    from harness.comparison.request import ComparisonRequest

    asked = ComparisonRequest(
        methods=methods,
        search=search,
        study=study_name,
        replay=tuple(True if table == SHIPPED else table for table in replay),
        budget=budget,
        repeats=repeats,
        half_width=half_width,
        seeds=seeds,
        confirm=confirm,
        charge=charge,
        controls=controls,
        objective=objective,
        smoke=smoke,
        workers=workers,
        settings=parse_settings(settings),
        weights=weights,
        place=place_given(out, data_root, on_bad_image, device, log),
        line=typed_command(),
    )
    folder = compared(asked, TERMINAL)
    write_report(folder)
