"""`harness runs`: the runs of a store, and how to be rid of one."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import examples, out_option
from harness.cli.show import print_table
from harness.console import duration

DAY = 24 * 3600


@click.group(invoke_without_command=True, epilog=examples("runs", "runs delete joint_space+tpe"))
@out_option
@click.pass_context
def runs(context: click.Context, out: str) -> None:
    """List the runs of the store, the latest first.

    Trials are those that have ended, of those of the run where their number is known. Size is that
    of the run's own folder, and age the time since something was written there. An idle run is a
    search that nothing drives: its command goes on if its budget has room.
    """
    if context.invoked_subcommand is not None:
        return
    from harness.store.overview import overview
    from harness.store.store import Store

    lines = overview(Store(Path(out)))
    if not lines:
        click.echo(f"No runs in {out} yet. Begin: harness sweep --study depth_vs_position --smoke")
        return
    rows = [
        [
            line.name,
            line.command,
            line.state,
            _trials(line.done, line.planned),
            size(line.size),
            _age(line.age_s),
        ]
        for line in lines
    ]
    print_table(["run", "command", "state", "trials", "size", "age"], rows)


@runs.command(epilog=examples("runs delete joint_space+tpe", "runs delete joint_space+tpe --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Without being asked.")
@out_option
@click.pass_context
def delete(context: click.Context, name: str, yes: bool, out: str) -> None:
    """Delete a run: its report, its searches' logs, what was asked for.

    Trials stay in the store, so that other runs keep theirs and the run's command trains none of
    them again. NAME is the run's name, the beginning of it, or its folder.
    """
    from harness.store.overview import delete_run, size_of
    from harness.store.runs import known_run, run_folders

    given = context.get_parameter_source("out")
    if given is not click.core.ParameterSource.COMMANDLINE and context.parent is not None:
        out = context.parent.params["out"]
    # Also one that was killed before it was written, but then by its name alone: what lies
    # elsewhere and is no run is not this program's to delete.
    own = {folder.name: folder for folder in run_folders(Path(out))}
    folder = own[name] if name in own else known_run(name, Path(out))
    if not yes:
        held = size(size_of(folder))
        words = f"Delete the run {folder.name} ({held} in {folder})? Its trials stay."
        click.confirm(words, abort=True)
    delete_run(folder)
    click.echo(f"Deleted {folder.name}; trials stay in {folder.store.trials}.")


def _trials(done: int | None, planned: int | None) -> str:
    if done is None:
        return "-"
    return str(done) if planned is None else f"{done}/{planned}"


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _age(seconds: float) -> str:
    days = int(seconds // DAY)
    if days:
        return f"{days} day{'s' if days > 1 else ''}"
    return duration(seconds) if seconds >= 60 else f"{seconds:.0f} s"
