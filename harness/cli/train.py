"""`harness train`: one configuration, on one seed or several, or against its controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.given import parse_settings, place_given, typed_command
from harness.cli.options import (
    examples,
    trial_options,
    workers_option,
)
from harness.cli.show import print_brief, print_table, write_report
from harness.cli.terminal import TERMINAL
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.store.records import TrialRecord


@click.command(
    epilog=examples(
        "train --method lora --sites mlp1 --depth last:8 --alpha 4",
        "train --method lora+adaptformer --seeds 5",
        "train --method lora --set backbone=vit_small_patch16_dinov3 --dry-run",
        "train --method metapeft --base lora --seeds 5 --controls",
        "train --method lora --sites placement.json",
        "train --method lora --set recipe.lr=0.05 --set options.init=released",
    )
)
@click.option("--method", required=True, help="See `harness list methods`; a+b combines two.")
@click.option("--base", help="For metapeft: the method whose sites it modulates.  [default: lora]")
@click.option(
    "--sites", help="Positions, as in q,v, or a file from `derive`.  [default: the method's own]"
)
@click.option("--depth", help="all, last:N, first:N, block:L, blocks:A-B.  [default: all]")
@click.option("--alpha", type=float, help="Strength at every site.  [default: 1]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--seeds", type=click.IntRange(min=1), help="Run seeds 0..N-1 instead of --seed.")
@click.option(
    "--controls",
    is_flag=True,
    help="Also train what a learned placement must be judged against, and compare.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be trained and at which layers, then stop."
)
@click.option(
    "--objective",
    metavar="NAME",
    help="With --controls: what their rates and cells are chosen by, on the selection split: "
    "class_mean, group_mean, flat_mean, micro, tail or val_loss.  [default: study's, class_mean]",
)
@workers_option
@click.option(
    "--study",
    "study_name",
    default="depth_vs_position",
    show_default=True,
    help="Study whose data, backbone and recipe are used.",
)
@trial_options
def train(
    method: str,
    base: str | None,
    sites: str | None,
    depth: str | None,
    alpha: float | None,
    seed: int | None,
    seeds: int | None,
    controls: bool,
    dry_run: bool,
    objective: str | None,
    workers: int | None,
    study_name: str,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    log: tuple[str, ...],
    out: str,
) -> None:
    """Train one configuration and print its scores; finished trials are shown from the store.

    The trained tensors are kept (see `export`), and what the method learned is drawn.
    """
    if controls and dry_run:
        raise UserError("--dry-run is of one configuration: leave --controls out.")
    from harness.comparison.controls import train_with_controls
    from harness.driver.cell import prepare_training
    from harness.driver.request import TrainRequest

    asked = TrainRequest(
        method=method,
        base=base,
        sites=sites,
        depth=depth,
        alpha=alpha,
        seed=seed,
        seeds=seeds,
        study=study_name,
        settings=parse_settings(settings),
        weights=weights,
        place=replace(place_given(out, data_root, on_bad_image, device, log), is_dry=dry_run),
        workers=workers,
        controls=controls,
        objective=objective,  # type: ignore[arg-type]
        line=typed_command(),
    )
    training = prepare_training(asked, TERMINAL)
    if dry_run:
        TERMINAL.say(training.words)
        if training.places:
            print_table(["position", "layer in a block", "features", "sites"], training.places)
        TERMINAL.say(training.size)
        return
    if controls:
        write_report(train_with_controls(training, asked.line))
        return
    records, store = training.run(), training.prepared.store
    _print_records(records)
    _write_gamma([store.trials / record.trial_id for record in records])
    from harness.reports.trained import TrainResults

    ids, chosen_by = [record.trial_id for record in records], training.prepared.study.objective
    results = TrainResults(training.label, store, ids, chosen_by, asked.line)
    print_brief(results.brief, store.root)


def _print_records(records: list[TrialRecord]) -> None:
    """Identity and cost of each trial, and their mean scores."""
    from pandas import Series

    from harness.insertion.method import get_method
    from harness.reports.numbers.statistics import mean_and_half_width
    from harness.reports.text.names import beside_test
    from harness.reports.text.numbers import with_interval

    for record in records:
        spec, cost = record.spec, record.cost
        sites = ", ".join(spec.placement.root) or "none"
        if len(spec.placement) > 6:
            sites = f"{len(spec.placement)} sites"
        method = get_method(spec.method)
        name = method.label(spec.method, method.parse_options(spec.options))
        click.echo(f"{record.trial_id}  {name}  {sites}  seed {spec.seed}  {record.status}")
        click.echo(
            f"  {record.trainable_params} PEFT + {record.head_params} head parameters; "
            f"{cost.device_s:.1f} device s, {cost.flops / 1e12:.2f} TFLOP, "
            f"{record.epochs_run} epochs"
        )
    scored = [record for record in records if record.test is not None]
    if not scored:
        return
    assert scored[0].test is not None
    data = scored[0].spec.data
    rows = []
    for name, part in ((beside_test(data), "select"), ("test", "test")):
        scores = [getattr(record, part) for record in scored]
        columns = [[s.groups.get(group) for s in scores] for group in scored[0].test.groups]
        columns += [[getattr(s, m) for s in scores] for m in ("class_mean", "group_mean", "micro")]
        values = [mean_and_half_width(100 * Series(column, dtype=float)) for column in columns]
        rows.append([name, *(with_interval(*value) for value in values)])
    header = ["accuracy %", *scored[0].test.groups, "class mean", "group mean", "micro"]
    print_table(header, rows)
    if len(scored) > 1:
        click.echo(f"Mean ± 95 % interval over {len(scored)} seeds.")
    if data.dev_per_class:
        click.echo(f"Chosen on: {data.chosen_on_in_full}; nothing is held out from training.")


def _write_gamma(trials: list[Path]) -> None:
    """Say what the trials learned, if they did, and draw it in each one's folder."""
    from harness.reports.files.anew import write_gamma
    from harness.reports.text.gamma import say_learned

    sentence = say_learned(trials)
    if sentence is not None:
        click.echo(sentence)
    for trial in trials:
        for path in write_gamma(trial):
            if path.suffix == ".png":
                click.echo(f"Picture: {path}")
