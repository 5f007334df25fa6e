"""The terminal: messages, progress bars, Ctrl-C and exit codes.

Owns: how what happens below looks at a terminal and in a pipe, and how the program ends. Must not
know: what is being done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from time import monotonic
from types import FrameType
from typing import Any

import click

from harness.console import Advance, Unit, duration
from harness.errors import Interrupted, NotSavedError, TrialsFailed, UserError

EXIT_FAILED_TRIALS = 1
EXIT_USER_ERROR = 2
EXIT_NOT_SAVED = 3
EXIT_INTERRUPTED = 130
ENDED = "Ended. The same command continues from here."

LINE_EVERY = 6
"""Trials from one plain line to the next where there is no terminal for a bar."""


@dataclass(frozen=True)
class Terminal:
    """A `Console`: results on stdout; messages and progress on stderr."""

    def say(self, line: str) -> None:
        """Print to stdout."""
        click.echo(line)

    def warn(self, line: str) -> None:
        """Print to stderr."""
        click.echo(line, err=True)

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Advance]:
        """A bar with ETA and a note; plain lines where there is no terminal."""
        # Imported here, because `--help` needs no bar.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        console = Console(stderr=True)
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            *([TimeElapsedColumn()] if unit == "trials" else []),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        task = bar.add_task(title, total=total, note="")
        ended, started = 0, monotonic()

        def advance(note: str) -> None:
            nonlocal ended
            ended += 1
            left = (total or 0) - ended
            # By the mean since the beginning: the bar's own estimate forgets what is half a minute
            # old, and then takes trials that several workers end together for the speed of all.
            each = (monotonic() - started) / ended
            words = [note, f"ETA {duration(left * each)}"] if left > 0 else [note]
            note = ", ".join(filter(None, words))
            bar.update(task, advance=1, note=note)
            is_due = ended % LINE_EVERY == 0 or ended == total
            if not console.is_terminal and unit == "trials" and is_due:
                of = "" if total is None else f"/{total}"
                self.warn(f"{ended}{of} trials, {note}")

        if console.is_terminal and total != 0:
            with bar:
                yield advance
            return
        if unit == "images":  # counted too fast for lines
            self.warn(f"{title}: {total} images")
        bar.start_task(task)
        yield advance

    @contextmanager
    def interruptible(self, stop: Event) -> Iterator[None]:
        """First Ctrl-C, SIGTERM or SIGHUP: finish what runs. Second: end now; the store stays
        whole."""

        def handle(number: int, frame: object) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()
            with suppress(OSError):  # of a terminal that is gone
                self.warn("Finishing the running trials; press Ctrl-C again to end now.")
            if number == signal.SIGHUP:
                _leave_the_terminal()

        try:
            with _hearing(handle):
                yield
        except KeyboardInterrupt:
            raise Interrupted(ENDED) from None


TERMINAL = Terminal()


@contextmanager
def ending_when_told() -> Iterator[Event]:
    """While nothing runs that is to be finished: Ctrl-C, SIGTERM and SIGHUP raise
    KeyboardInterrupt, and set what is given; a second one ends the process at once.

    So does the first, where Python would only report that it cannot be raised.
    """
    heard = Event()

    def handle(number: int, frame: object) -> None:
        if heard.is_set():
            _end_now()
        heard.set()
        raise KeyboardInterrupt

    def unraisable(about: sys.UnraisableHookArgs) -> None:
        if issubclass(about.exc_type, KeyboardInterrupt):
            _end_now()
        before(about)

    before, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        with _hearing(handle):
            yield heard
    finally:
        sys.unraisablehook = before


@contextmanager
def _hearing(handle: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Signals that end the program are handled so; in another than the main thread, as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # as by nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now() -> None:
    """End this process without another step of Python's; what was saved is whole."""
    with suppress(OSError):
        os.write(2, f"{ENDED}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _leave_the_terminal() -> None:
    """Write nowhere instead of to a terminal that is gone; a file or a pipe is written on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        try:
            os.write(stream, b"")
            is_file = not os.path.realpath(f"/proc/self/fd/{stream}").startswith("/dev/")
        except OSError:
            is_file = False
        if not is_file:
            os.dup2(nowhere, stream)
    os.close(nowhere)


def exit_code_of(error: Exception) -> int:
    """Say what ended the program, in one sentence, and give its exit code.

    Raises:
        Exception: `error` itself, where it is nothing that a program may end with.
    """
    if isinstance(error, TrialsFailed | Interrupted):
        TERMINAL.warn(str(error))
        return EXIT_FAILED_TRIALS if isinstance(error, TrialsFailed) else EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        raise error  # the reader, such as `head`, has seen enough; click ends quietly
    if isinstance(error, UserError | NotSavedError | OSError):
        TERMINAL.warn(f"Error: {error}")
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_NOT_SAVED
    raise error
