"""What commands print: tables and reports.

Owns: how they look at a terminal and in a pipe. Must not know: what is in them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from harness.reports.brief import Brief
    from harness.store.run_folder import RunFolder


WIDEST = 32
"""Characters of a first column that are not broken."""


def print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(header):
        # What a row is of stays whole, where that leaves room for the others.
        names = [len(row[0]) for row in rows] if place == 0 else []
        widest = min(max(names, default=0), WIDEST)
        table.add_column(name, overflow="fold", min_width=widest or None)
    for row in rows:
        table.add_row(*row)
    # What stands in brackets or between colons is a name of the user's, not ours to interpret.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table)


def write_report(folder: RunFolder) -> None:
    """Write a run's report, and end with its answer in brief."""
    from harness.reports.files.write import read_brief, write_report

    write_report(folder, lambda trial_id, why: TERMINAL.warn(why))
    brief = read_brief(folder)
    if brief is not None:
        print_brief(brief, folder.store.root, folder.report / "index.html")


def write_beside(folder: RunFolder, other: RunFolder) -> None:
    """Write the page of two runs beside each other, and end with what differs in brief."""
    from harness.reports.files.beside import write_beside

    written = write_beside(folder, other)
    print_brief(written.brief, folder.store.root, written.page)


def print_brief(brief: Brief, store: Path, page: Path | None = None) -> None:
    """The few lines that a command ends with; broken at a terminal alone."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(f"\n{brief.text(store, page, width)}")
