"""For those who work on the harness: its embedded backbone made again, and its own costs."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import examples
from harness.cli.show import print_table


@click.command(
    epilog=examples(
        "pretrain --file vit_pico.safetensors", "pretrain --file x.safetensors --seed 1"
    )
)
@click.option("--file", "path", required=True, type=click.Path(dir_okay=False), help="To write.")
@click.option("--seed", type=int, default=0, show_default=True)
def pretrain(path: str, seed: int) -> None:
    """Train the embedded backbone vit_pico on the SYNTHETIC source domain and save its weights."""
    from harness.training.pretrain import pretrain_pico

    accuracy = pretrain_pico(Path(path), seed=seed, log=click.echo)
    click.echo(f"Saved {path}; accuracy on unseen source images {100 * accuracy:.1f} %.")


@click.command(epilog=examples("bench", "bench --workers 8 --trials 1000"))
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=200, show_default=True)
def bench(workers: int, trials: int) -> None:
    """Measure what the harness costs beside training.

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
