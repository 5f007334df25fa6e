"""What code below the command line may show while it works: a protocol, not a terminal.

A `Console` is handed in by whoever asked for the work: the command line's own draws at a terminal
(`harness.cli.terminal`), a Python caller's may be any object with these methods. Owns: the
protocol, a console that shows nothing, and times in words. Must not know: terminals, signals, what
is being done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol

Unit = Literal["trials", "images"]
"""What a progress counts."""

Advance = Callable[[str], None]
"""Counts one more as done; the text is what there is to say so far, such as the best score."""


class Console(Protocol):
    """Where messages and progress go."""

    def say(self, line: str) -> None:
        """Show what was asked for: a plan, a result."""

    def warn(self, line: str) -> None:
        """Show what went otherwise than expected."""

    def progress(
        self, title: str, total: int | None, unit: Unit
    ) -> AbstractContextManager[Advance]:
        """Show how far a piece of work is; None: nobody knows how much there is."""

    def interruptible(self, stop: Event) -> AbstractContextManager[None]:
        """While it is open the user may set `stop`, so that running trials are finished, no more.

        Raises:
            Interrupted: out of the context, where the user wants to end at once.
        """


@dataclass(frozen=True)
class Silent:
    """Shows nothing, and leaves Ctrl-C to Python, which raises KeyboardInterrupt."""

    def say(self, line: str) -> None:
        """Nothing is shown."""

    def warn(self, line: str) -> None:
        """Nothing is shown."""

    def progress(
        self, title: str, total: int | None, unit: Unit
    ) -> AbstractContextManager[Advance]:
        return nullcontext(_ignore)

    def interruptible(self, stop: Event) -> AbstractContextManager[None]:
        return nullcontext()


def _ignore(note: str) -> None:
    pass


SILENT: Console = Silent()


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
