"""What is made of results that are there: `derive`, `tabulate`, `status` and `report`.

They train nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import examples, file_option, out_option, study_file_option
from harness.cli.show import print_table, write_beside, write_report
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.store.records import TrialRecord

MOST_FAILURES = 5
"""Failed trials that `status` names."""


@click.command(
    epilog=examples(
        "derive 1d0932a60454a8f7 --rule topk --value 24 --file placement.json",
        "derive depth_vs_position+metapeft_lora --rule as_is --file mean.json",
        "train --method lora --sites placement.json",
    )
)
@click.argument("trials", nargs=-1, required=True)
@click.option(
    "--rule",
    type=click.Choice(["as_is", "threshold", "topk", "bottomk", "random"]),
    required=True,
    help="Keep every site, those of at least --value, or the --value strongest, weakest, or drawn "
    "by the trial's seed.",
)
@click.option("--value", type=float, help="[default: 0.5 for threshold, else half the sites]")
@file_option
@study_file_option(is_passed_on=True)
@out_option
def derive(
    trials: tuple[str, ...], rule: str, value: float | None, path: str, study: str | None, out: str
) -> None:
    """Turn learned strengths into a fixed placement, a JSON file, for any method.

    TRIALS are ids, or a run made with `train --controls`; the strengths of several are averaged.
    Of trials with options.variant=gradient_norm, topk keeps the sites of the largest gradient, at
    the alpha that they had.
    """
    from harness.catalogue.registered import refuse_unregistered
    from harness.catalogue.rerun import with_placement
    from harness.insertion.method import get_method
    from harness.insertion.placements import PlacementFile, is_placement
    from harness.insertion.placements import derive as derived
    from harness.reports.brief import OUT
    from harness.store.files import refuse_other, write_atomically

    if not path.endswith(".json"):
        raise UserError(f"--file {path}: `harness train --sites` knows a placement by .json.")
    refuse_other(Path(path), "--file", "a placement", is_placement)
    records = _that_learned(trials, Path(out))
    learned = [record.learned for record in records if record.learned is not None]
    spec = records[0].spec
    refuse_unregistered(spec)
    method = get_method(spec.method)
    parsed = method.parse_options(spec.options)
    base, options = method.unwrapped(parsed)
    chosen: Any = rule
    content = PlacementFile(
        placement=derived(
            learned,
            chosen,
            value,
            seed=spec.seed,
            strengths=spec.placement if method.ranks(parsed) else None,
        ),
        method=base,
        options=options,
        backbone=spec.backbone,
        rule=chosen,
        value=value,
        trials=tuple(record.trial_id for record in records),
    )
    command = with_placement(spec, base, options, path, study)
    write_atomically(Path(path), content.model_dump_json(indent=1))
    place = "" if out == OUT else f" --out {shlex.quote(out)}"
    strengths = list(content.placement.root.values())
    click.echo(
        f"Wrote {path}: {len(strengths)} of {len(learned[0])} sites, strengths "
        f"{min(strengths):.3g} to {max(strengths):.3g}.\n"
        f"Next: {command}{place}"
    )


def _that_learned(names: tuple[str, ...], root: Path) -> list[TrialRecord]:
    """The trials named, which have learned strengths.

    Raises:
        UserError: one has not, or there is none of a name.
    """
    from harness.store.runs import find_run, members
    from harness.store.store import Store

    for name in names:
        run = find_run(name, root)
        if run is not None and not run.comparison.is_file():
            raise UserError(
                f"Run {run.name} is none of `harness train --controls`, which have learned "
                "strengths; name trials that learned some by their ids."
            )
    store = Store(root)
    ids = [each for name in names for each in members(name, root)]
    records = [store.known_record(trial_id) for trial_id in dict.fromkeys(ids)]
    without = [record.trial_id for record in records if record.learned is None]
    if without:
        raise UserError(f"Trial {without[0]} learned no strengths, so there is nothing to derive.")
    _refuse_mixed(records)
    return records


def _refuse_mixed(records: list[TrialRecord]) -> None:
    """Whether the trials are one configuration's, on several seeds; only of those is a mean one's.

    Raises:
        UserError: two differ; names them and the field.
    """
    from harness.spec import identity, leaves

    first, *others = records
    known = dict(leaves(identity(first.spec)))
    for other in others:
        fields = dict(leaves(identity(other.spec)))
        for field in known | fields:
            one, two = known.get(field), fields.get(field)
            if field != "seed" and one != two:
                raise UserError(
                    f"Trials {first.trial_id} and {other.trial_id} differ in {field} ({one}, "
                    f"{two}); only strengths of one configuration, learned on several seeds, are "
                    "averaged."
                )


@click.command(
    epilog=examples(
        "tabulate joint_space --file joint_space.parquet",
        "tabulate joint_space joint_space+metapeft --file joint_space.parquet",
    )
)
@click.argument("runs", nargs=-1, required=True)
@file_option
@out_option
def tabulate(runs: tuple[str, ...], path: str, out: str) -> None:
    """Put a finished sweep into one table, for searches to be replayed on.

    RUNS are an exhaustive sweep and, if wanted, other finished runs of the same study.
    """
    from harness.store.runs import known_run
    from harness.store.table import tabulate as put

    folders = [known_run(run, Path(out)) for run in runs]
    paths = [folder.path.resolve() for folder in folders]
    for run, place in zip(runs, paths, strict=True):
        if paths.count(place) > 1:
            raise UserError(f"Run {run} is given twice: give it once.")
    info = put(folders, Path(path))
    click.echo(
        f"Wrote {path}: {info.cells} cells, {sum(info.devices.values())} trials, seeds "
        f"{', '.join(map(str, info.study.seeds))}; one full run takes "
        f"{info.reference.device_s:.1f} device s."
    )


@click.command(epilog=examples("status depth_vs_position", "status depth_vs_position+tpe"))
@click.argument("run")
@out_option
def status(run: str, out: str) -> None:
    """Show how far a run is, from any terminal: progress, best so far, failures, time left, cost.

    Reads the store only, so it may be asked while the run goes on. RUN is its name or folder.
    """
    from harness.console import duration
    from harness.metrics import scale_of
    from harness.store.runs import known_run
    from harness.store.status import look
    from harness.study.axes import cell_words

    seen = look(known_run(run, Path(out)))
    click.echo(f"{seen.name}: {seen.question}")
    known = f"of {seen.asked} " if seen.is_grid else ""
    counts = ", ".join(f"{count} {word}" for word, count in seen.counts.items() if count)
    click.echo(f"Trials: {counts or 'none yet'} {known}".rstrip() + ".")
    driver = seen.driver or ("none; the same command continues the run" if seen.goes_on else "none")
    click.echo(f"Driver: {driver}.")
    if seen.best is not None:
        words = cell_words(seen.best.cell)
        scale = scale_of(seen.objective)
        score = f"{scale.text(seen.best.score)} {scale.words} on {seen.split}"
        click.echo(f"Best so far: {words}, seed {seen.best.seed}: {score}.")
    if seen.left_s is not None:
        click.echo(f"Time left: about {duration(seen.left_s)} at {seen.running} at once.")
    rows = [[device, str(n), duration(s)] for device, (n, s) in seen.devices.items()]
    if rows:
        print_table(["device", "trials", "device time"], rows)
    for trial_id, error in seen.failures[:MOST_FAILURES]:
        click.echo(f"Failed: {trial_id}: {error}")
    if len(seen.failures) > MOST_FAILURES:
        click.echo(f"... and {len(seen.failures) - MOST_FAILURES} more.")
    for note in seen.notes:
        click.echo(note)


@click.command(
    epilog=examples(
        "report depth_vs_position",
        "report runs/studies/depth_vs_position",
        "report depth_vs_position --beside depth_vs_position+recipe.lr=0.1",
        "report --paper",
    )
)
@click.argument("run", required=False)
@click.option(
    "--beside",
    metavar="RUN",
    help="Put another sweep of the same axes beside it: each cell's difference, what differs in "
    "their settings, and what both cost.",
)
@click.option("--paper", is_flag=True, help="Recompute the paper's own averages from its cells.")
@out_option
def report(run: str | None, beside: str | None, paper: bool, out: str) -> None:
    """Draw a run's figures and tables again, without training. RUN is its name or folder."""
    if paper == (run is not None):
        raise UserError("Give either a run, as in `harness report depth_vs_position`, or --paper.")
    if run is not None:
        from harness.store.runs import known_run

        folder = known_run(run, Path(out))
        if beside is None:
            write_report(folder)
        else:
            write_beside(folder, known_run(beside, Path(out)))
        return
    if beside is not None:
        raise UserError("--beside needs a run to put another one beside, and --paper has none.")
    from harness.reports.numbers.paper_check import by_table, check, clashes, mixture

    checked = check()
    table = by_table(checked)
    print_table(list(table.columns), table.to_numpy().tolist())
    rules = mixture(checked)
    if len(rules) > 1:
        words = "; ".join(f"{rule} in {', '.join(tables)}" for rule, tables in rules.items())
        click.echo(f"\nNo single rule gives all averages: {words}.")
    click.echo("\nThe same cells, with other averages or under other names:")
    rows = [list(clash) for clash in clashes()]
    print_table(["dataset", "one", "other"], rows)
