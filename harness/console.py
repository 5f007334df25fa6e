"""What code below the command line may show while it works: a protocol, not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with ETA; one plain line where there is no terminal."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task(title, total=total)
    if console.is_terminal:
        with bar:
            yield lambda: bar.advance(task)
    else:
        click.echo(f"{title}: {total} images", err=True)
        yield lambda: None
