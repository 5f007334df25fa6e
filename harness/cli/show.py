"""What commands print: tables and reports.

Owns: how they look at a terminal and in a pipe. Must not know: what is in them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from harness.store.run_folder import RunFolder


def print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # What stands in brackets or between colons is a name of the user's, not ours to interpret.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table)


def print_markdown(path: Path) -> None:
    """A report as text: rendered for a terminal, as it is for a pipe."""
    from rich.console import Console
    from rich.markdown import Markdown

    text = path.read_text()
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        click.echo(text)


def write_report(folder: RunFolder) -> None:
    from harness.reports.files.write import write_report

    for path in write_report(folder, lambda trial_id, why: TERMINAL.warn(why)):
        click.echo(f"Wrote {path}")
