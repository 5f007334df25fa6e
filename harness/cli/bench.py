"""`harness bench`: what the harness costs beside training.

Owns: the group of these commands, and how their numbers are printed. Must not know: how anything is
measured.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.given import parse_settings
from harness.cli.options import device_option, examples, out_option, settings_option
from harness.cli.show import print_table
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from harness.bench.train import Setting

BATCHES = 8
"""Of one round."""
SMALL = {
    "backbone.name": "vit_tiny_patch16_224",
    "backbone.weights": "random",
    "backbone.img_size": 96,
    "recipe.batch_size": 32,
}
"""What is measured unless `--set` says otherwise: small enough for one core."""
AXES = ("backbone.name", "recipe.batch_size", "recipe.precision")
"""Fields that take several values."""

set_option = settings_option("a field of the backbone, or one of the recipe that a plain loop has")
ONE_EPOCH = {"epochs": 1, "early_stop": False, "epoch_rule": "last"}

rounds_option = click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Times that each way is timed, in turn.",
)


@click.group(
    epilog=examples(
        "bench overhead",
        "bench train --case q+v --case 'mlp1, last:1'",
        "bench scaling --trials 10000",
        "bench sweep --cells 12",
    )
)
def bench() -> None:
    """Measure what the harness costs, beside what it is compared with, in one run."""


@bench.command(
    epilog=examples(
        "bench train",
        "bench train --case q+v --set backbone.name=vit_small_patch16_224",
        "bench train --set 'recipe.batch_size=[32, 128]' --set recipe.precision=bf16",
    )
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    help="A method at its sites, such as q+v; repeatable.  [default: all]",
)
@rounds_option
@set_option
@device_option
@out_option
def train(
    cases: tuple[str, ...], rounds: int, settings: tuple[str, ...], device: str | None, out: str
) -> None:
    """Time training steps, beside a loop written by hand and Hugging Face peft.

    Ratios are of rounds that were timed in turn, on made-up images: the time of a step over that of
    the plain loop, images per second over peft's, FLOP/s over those of a large matrix product.
    Fields of --set can be lists: backbone.name, recipe.batch_size, recipe.precision. The table is
    written to --out too, as bench/train.csv.
    """
    from harness.bench import train as bench_train
    from harness.bench.files import write_rows

    known = {case.name: case for case in bench_train.CASES}
    for name in cases:
        if name not in known:
            raise unknown("case", name, known)
    found = _settings(settings, device, rounds)
    rows = []
    for setting in found:
        rows += (own := [r for n in cases or known for r in bench_train.measure(known[n], setting)])
        of = f"{own[0].backbone} at {own[0].size} px, batch {own[0].batch}, {own[0].precision}"
        click.echo(f"{of}, on {setting.device}:")
        print_table(bench_train.HEADER, bench_train.table(own))
    path = write_rows(Path(out) / "bench" / "train.csv", rows, str(found[0].device))
    click.echo(f"Wrote {path}")


def _settings(settings: tuple[str, ...], device: str | None, rounds: int) -> list[Setting]:
    """Every combination of what `--set` lists.

    Raises:
        UserError: a field has no effect here, or not on the loop that is timed beside.
    """
    import torch

    from harness.bench.plain import refuse_recipe
    from harness.bench.train import Setting
    from harness.driver.request import PlaceRequest
    from harness.driver.setup import make_runtime
    from harness.runner.resolve import recipe_on
    from harness.spec import TrialRequest

    runtime = make_runtime(PlaceRequest(device=device))
    asked = parse_settings(settings)
    for field in asked:
        if field.split(".")[0] not in ("backbone", "recipe"):
            raise UserError(
                f"--set {field}: made-up images are trained on, by methods of its own; give fields "
                "of backbone and recipe."
            )
    values = {**SMALL, **asked}
    axes = {name: values.pop(name) for name in AXES if isinstance(values.get(name), list)}
    found = []
    for chosen in itertools.product(*axes.values()):
        given = {**values, **dict(zip(axes, chosen, strict=True))}
        request = TrialRequest().with_values(given, source="--set")
        refuse_recipe(request.recipe)
        recipe = recipe_on(request.recipe.model_copy(update=ONE_EPOCH), runtime)
        place = torch.device(runtime.device)
        found.append(Setting(request.backbone, recipe, place, BATCHES, rounds))
    return found


@bench.command(epilog=examples("bench scaling", "bench scaling --trials 10000 --rounds 3"))
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="Made-up trials of the largest store; 0: no store.",
)
@rounds_option
@set_option
@device_option
@out_option
def scaling(
    trials: int, rounds: int, settings: tuple[str, ...], device: str | None, out: str
) -> None:
    """Time how steps, processes and stores grow, and draw it.

    Seconds of a step against adapted blocks and against the batch, of trials that one process runs
    one after the other, and of a plan, a status and a report against the trials in a store. Writes
    bench/scaling.csv, scaling.png and scaling.svg into --out.
    """
    from harness.bench import scaling as growth
    from harness.bench.files import facts, write_rows
    from harness.reports.figures.scaling import draw_scaling
    from harness.reports.files.write import write_report

    setting, *others = _settings(settings, device, rounds)
    if others:
        raise UserError("--set: bench scaling takes one value of a field; bench train takes lists.")
    name = str(setting.device)
    points = [*growth.steps(setting), *growth.trials(name), *growth.of_stores(trials, write_report)]
    rows = [[p.panel, p.line, f"{p.x:g}", f"{p.seconds:.4g}"] for p in points]
    print_table(["what grows", "line", "to", "seconds"], rows)
    folder = Path(out) / "bench"
    path = write_rows(folder / "scaling.csv", points, name)
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for point in points:
        lines = panels.setdefault(point.panel, {})
        lines.setdefault(point.line, []).append((point.x, point.seconds))
    known = facts(name)
    what = f"{setting.backbone.name}, batch {setting.recipe.batch_size}, LoRA at q and v"
    caption = f"{what}; {', '.join(f'{k} {v}' for k, v in known.items())}"
    drawn = draw_scaling(folder / "scaling", panels, caption)
    click.echo(f"Wrote {', '.join(map(str, [path, *drawn]))}")


@bench.command(epilog=examples("bench overhead", "bench overhead --workers 8 --trials 1000"))
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=200, show_default=True)
def overhead(workers: int, trials: int) -> None:
    """Measure engines per trial, and searches per proposal.

    Of engines: the workers' time beyond that of the trials, per trial, with trials of 5 ms that
    train nothing. Ray Tune by itself starts a process per trial, so fewer are run. Of searches:
    the time of one proposal when many trials are known.
    """
    from harness.bench.overhead import measure, measure_asks

    asks = [
        [ask.search, str(ask.told), str(ask.variables), f"{ask.seconds:.2f}"]
        for ask in measure_asks()
    ]
    print_table(["search", "told trials", "variables", "one proposal (s)"], asks)
    rows = [
        [row.engine, str(row.trials), f"{row.startup_s:.1f}", f"{row.per_trial_ms:.1f}"]
        for row in measure(workers, trials, max(workers, trials // 10))
    ]
    print_table(["engine", "trials", "start (s)", "overhead per trial (ms)"], rows)


@bench.command(epilog=examples("bench sweep", "bench sweep --cells 12"))
@click.option("--cells", type=click.IntRange(min=1), help="Of the study's 72.  [default: all]")
def sweep(cells: int | None) -> None:
    """Measure what the speed-ups of a sweep save: each trial with all of them and without.

    One seed of depth_vs_position on one core of the CPU: kept activations of frozen blocks, memory
    that workers keep, smaller evaluation batches. Results must be the same.
    """
    from harness.bench.speedups import compare
    from harness.cli.terminal import TERMINAL

    found = compare(cells, TERMINAL)
    rows = [
        [row.what, str(row.trials), f"{row.without_s:.2f}", f"{row.with_s:.2f}", f"{row.ratio:.3f}"]
        for row in found.rows
    ]
    print_table(["", "trials", "without (CPU s)", "with (CPU s)", "ratio"], rows)
    count = len(found.different)
    same = f"{count} trials differ: {', '.join(found.different[:5])}" if count else "all are equal"
    click.echo(f"Records, but for costs: {same}. Cache: {found.cache_mb:.0f} MB.")
    if count:
        raise click.exceptions.Exit(1)
