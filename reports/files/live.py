"""A sweep's page while it runs: written anew as trials end, by a process of its own.

Owns: when that process begins and ends, and how often it writes. It has a low priority, writes
only if something has ended, and works for a small share of the time, so that the sweep is not
slowed; it ends with the sweep, however that ends. Must not know: what is on the page.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event, Thread, Timer

from harness.errors import NotSavedError, UserError
from harness.reports.files.write import made_of
from harness.store.run_folder import RunFolder

FIRST_S = 15.0
"""A sweep that is over sooner has no page but its report's."""
EVERY_S = 10
"""The page is written, and loads itself, no more often than this."""
MOST_SHARE = 0.05
"""Of the time that passes, for writing pages."""
LAST_S = 2.0
"""How long a sweep that fails or is stopped waits for the page that says so; it is written then
even if that takes longer."""
NICENESS = 10
"""On cores that all train it gets a tenth of one, and not so little that the page comes late."""


@contextmanager
def live_page(folder: RunFolder | None, say: Callable[[str], None] | None) -> Iterator[None]:
    """Keep the run's page up to date within the context; no folder: there is no such run.

    `say` is told where the page is, once there is one.

    Where the context ends with an error, the page says that the run stopped; else the report, which
    is to be written then, takes its place.
    """
    if folder is None:
        yield
        return
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(_started(folder))
        if say is not None:
            say(f"Page of the run so far: {folder.report / 'index.html'}")

    timer = Timer(FIRST_S, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException:
        _end(timer)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=LAST_S)
        raise
    _end(timer)
    for process in started:
        process.terminate()
        process.communicate()
        (folder.report / f"index.html.{process.pid}.part").unlink(missing_ok=True)


def _end(timer: Timer) -> None:
    timer.cancel()
    timer.join()


def _started(folder: RunFolder) -> subprocess.Popen[bytes]:
    """The process; the end of its standard input tells it that this one has ended."""
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", __name__, str(folder.path.absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for the sweep
    )


def keep_up(folder: RunFolder, ended: Event, *, every_s: float = EVERY_S) -> None:
    """Write the page whenever trials have ended, until `ended`; then once more, as stopped."""
    from harness.reports.files.anew import write_live
    from harness.reports.files.html import Live

    seen, pause = "", every_s
    while True:
        is_over = ended.is_set()
        began, now = time.monotonic(), made_of(folder)
        if is_over or now != seen:
            live = Live(
                every_s=0 if is_over else max(1, round(pause)),
                written=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            )
            try:
                write_live(folder, live)
                seen = now
            except UserError:
                pass  # a file was being replaced; the report will say what is wrong if it stays
            except NotSavedError:
                return
        if is_over:
            return
        pause = max(every_s, (time.monotonic() - began) / MOST_SHARE)
        ended.wait(pause)


def main(path: str) -> None:
    """The process's life."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    ended = Event()

    def listen() -> None:
        sys.stdin.buffer.read()
        ended.set()

    Thread(target=listen, daemon=True).start()
    keep_up(RunFolder(Path(path)), ended)


if __name__ == "__main__":
    main(sys.argv[1])
