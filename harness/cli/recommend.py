"""`harness recommend`: which LoRA to train, by a handful of trainings."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import click

from harness.cli.given import parse_settings, place_given, typed_command
from harness.cli.options import examples, trial_options, workers_option
from harness.cli.terminal import TERMINAL


@click.command(
    epilog=examples(
        "recommend --data folder --data-root my_images --backbone vit_small_patch16_dinov3",
        "recommend --data eurosat --data-root eurosat --backbone vit_tiny_local --weights vit.pth",
        "recommend --study protocol_mstar_pilot --data-root mstar --weights vit_tiny.safetensors",
        "recommend --budget 5runs --dry-run",
    )
)
@click.option("--data", help="Dataset; see `harness list datasets`.  [default: the study's]")
@click.option("--backbone", help="See `harness list backbones`.  [default: the study's]")
@click.option(
    "--budget",
    default="5runs",
    show_default=True,
    help="5runs (each the cost of one training of LoRA at every linear map), or 5 trainings.",
)
@click.option(
    "--study",
    "study_name",
    default="depth_vs_position",
    show_default=True,
    help="Study whose data, backbone and recipe are used where nothing else is said.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be trained and its cost, then stop."
)
@workers_option
@trial_options
def recommend(
    data: str | None,
    backbone: str | None,
    budget: str,
    study_name: str,
    dry_run: bool,
    workers: int | None,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    log: tuple[str, ...],
    out: str,
) -> None:
    """Recommend a LoRA for your data and backbone: its rate, then its place, within a budget.

    Four rates around the recipe's are tried at every linear map, then other places at the best
    rate, as far as the budget pays for them. The choice is made on validation. Given again with a
    larger budget, it goes on from there.
    """
    from harness.driver.request import EngineRequest, RecommendRequest

    asked = RecommendRequest(
        budget=budget,
        data=data,
        backbone=backbone,
        study=study_name,
        settings=parse_settings(settings),
        weights=weights,
        place=replace(place_given(out, data_root, on_bad_image, device, log), is_dry=dry_run),
        engine=EngineRequest(workers=workers),
        line=typed_command(),
    )
    if not dry_run:
        asked.engine.start_ahead(device)
    from harness.driver.recommend import plan_recommendation

    plan = plan_recommendation(asked, TERMINAL)
    plan.say(TERMINAL)
    if dry_run:
        estimate = plan.sweep.estimate(probing=True)
        if estimate is not None:
            TERMINAL.say(f"{estimate} At most.")
        return
    from harness.reports.files.write import write_report
    from harness.reports.recommended import Recommendation

    ran = plan.sweep.run()
    write_report(ran.folder, lambda trial_id, why: TERMINAL.warn(why))
    if ran.problem is not None:
        raise ran.problem
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(f"\n{Recommendation(plan.recommended()).text(width)}")
