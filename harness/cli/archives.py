"""Runs that travel: `archive`, `import` and `verify`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.given import place_given
from harness.cli.options import (
    Place,
    bad_image_option,
    data_root_option,
    device_option,
    examples,
    file_option,
    out_option,
    study_file_option,
    weights_option,
    workers_option,
)
from harness.cli.show import print_table
from harness.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from harness.archive.importing import Imported
    from harness.archive.verify import Verified

EXIT_DISAGREE = 1
"""Trials came in with other numbers than are here, or could not be had again."""


@click.command(
    epilog=examples(
        "archive depth_vs_position --file depth_vs_position.parquet",
        "archive runs/studies/joint_space+tpe --file tpe.parquet",
    )
)
@click.argument("run")
@file_option
@out_option
def archive(run: str, path: str, out: str) -> None:
    """Put a run, finished or not, into one Parquet file for `harness import` and `verify`.

    In it are specs, statuses, scores of every epoch, class and image, costs, provenance, and what
    the run is continued from; no images, no tensors. RUN is its name or folder.
    """
    from harness.archive.collect import archive_run
    from harness.store.runs import known_run

    made = archive_run(known_run(run, Path(out)), Path(path))
    trials = sum(made.statuses.values())
    words = ", ".join(f"{count} {status}" for status, count in sorted(made.statuses.items()))
    left = f" {made.unfinished} have not ended, and are not in it." if made.unfinished else ""
    size = f"{made.size / 1000:.1f} kB" + (
        f", {made.size / trials / 1000:.1f} per trial" if trials else ""
    )
    click.echo(f"Wrote {path}: {trials} trials ({words or 'none'}), {size}.{left}")
    if made.beside is not None:
        click.echo(f"Its report shows {made.beside} beside it: archive that run as well.")


@click.command(
    "import",
    epilog=examples(
        "import depth_vs_position.parquet --out elsewhere",
        "import first_half.parquet second_half.parquet",
    ),
)
@click.argument("files", nargs=-1, required=True, type=Place(dir_okay=False))
@out_option
def import_(files: tuple[str, ...], out: str) -> None:
    """Take runs from files of `harness archive` into a store, to be reported and continued there.

    A trial that the store has stays as it is. One that comes with other numbers, beyond the
    tolerance, is in conflict: it is named, kept in OUT/conflicts, and the command exits with 1.
    """
    from harness.archive.importing import import_archives
    from harness.store.store import Store

    done = import_archives([Path(file) for file in files], Store(Path(out)))
    for each in done:
        for line in _words(each, out):
            click.echo(line)
    conflicts = [sentence for each in done for sentence in each.conflicts]
    for sentence in conflicts:
        click.echo(sentence, err=True)
    if conflicts:
        click.get_current_context().exit(EXIT_DISAGREE)


def _words(done: Imported, out: str) -> list[str]:
    """What came of one file."""
    from harness.store.runs import older, read_command, why_not_reused

    counts = {
        "new": done.new,
        "known": done.known,
        "being trained here, left alone": done.running,
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"
    line = f"{done.path}: run {done.run.name}, trials: {words}."
    if done.differing:
        line += f" {done.differing} of the known differ within the tolerance; the store's stay."
    lines = [line]
    if done.older:
        made = ", ".join(map(str, sorted(done.older)))
        lines.append(
            f"Its results are reported, and none is reused, because {why_not_reused(made)}."
        )
    command = read_command(done.run)
    if command is not None and not done.older and older(done.run) is None:
        lines.append(f"To go on with it: {command.line} --out {shlex.quote(out)}")
    return lines


@click.command(
    epilog=examples(
        "verify depth_vs_position --sample 5",
        "verify depth_vs_position.parquet --sample 3 --seed 1",
    )
)
@click.argument("source", metavar="RUN|FILE")
@click.option(
    "--sample", type=click.IntRange(min=1), default=5, show_default=True, help="Trials to train."
)
@click.option("--seed", type=int, default=0, show_default=True, help="That they are drawn with.")
@study_file_option()
@workers_option
@weights_option
@data_root_option
@bad_image_option
@device_option
@out_option
def verify(
    source: str,
    sample: int,
    seed: int,
    workers: int | None,
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Train a sample of finished trials again, and compare with what is recorded of them.

    On the type of CPU and the versions that a trial was recorded with, every bit must be the same;
    elsewhere, accuracies within 2 points (of class means, one image of the smallest class more);
    a training that collapsed (a loss above that of its first epoch, scores of at most three times
    chance), to have done so there as well.
    No record is written into the store, packed images are. Exits with 1 if a trial disagrees. RUN
    is a run's name or folder, FILE one of `harness archive`.
    """
    from harness.archive.verify import VerifyRequest
    from harness.archive.verify import verify as verified

    asked = VerifyRequest(
        source=source,
        sample=sample,
        seed=seed,
        weights=weights,
        place=place_given(out, data_root, on_bad_image, device),
        workers=workers,
    )
    found = verified(asked, TERMINAL)
    header = ["trial", "seed", "what it is", "test, recorded", "again", "asked", "answer"]
    print_table(header, [_row(trial) for trial in found.trials])
    for trial in found.disagreeing:
        click.echo(trial.in_words)
    click.echo(found.sentence)
    if found.disagreeing:
        click.get_current_context().exit(EXIT_DISAGREE)


def _row(trial: Verified) -> list[str]:
    from harness.store.records import TrialRecord
    from harness.study.axes import cell_words

    def test(record: TrialRecord) -> str:
        return record.status if record.test is None else f"{100 * record.test.class_mean:.2f} %"

    agreement = trial.agreement
    answer = "agrees" if agreement.is_verified else "DISAGREES"
    asked = "2 points"
    if agreement.alike:
        asked = "same bits"
    elif agreement.collapsed:
        asked = "collapsed"
    spec = trial.recorded.spec
    cell = {} if trial.cell is None else json.loads(trial.cell)
    what = cell_words(cell) or spec.method
    again = test(trial.again)
    return [spec.trial_id, str(spec.seed), what, test(trial.recorded), again, asked, answer]
