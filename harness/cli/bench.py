"""`harness bench`: what the harness costs beside training.

Owns: the group of these commands, and how their numbers are printed. Must not know: how anything is
measured.
"""

from __future__ import annotations

import click

from harness.cli.options import examples
from harness.cli.show import print_table


@click.group(epilog=examples("bench overhead", "bench sweep", "bench sweep --cells 12"))
def bench() -> None:
    """Measure what the harness costs, beside what it is compared with, in one run."""


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
