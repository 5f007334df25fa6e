"""`harness bench`: what the harness costs beside training.

Owns: the group of these commands, and how their numbers are printed. Must not know: how anything is
measured.
"""

from __future__ import annotations

import click

from harness.cli.options import examples
from harness.cli.show import print_table


@click.group(epilog=examples("bench overhead", "bench overhead --workers 8 --trials 1000"))
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
