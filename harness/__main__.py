"""The program `harness`, from its first moment on.

Owns: how it ends if it is interrupted while the command line is still being imported; from then on
`harness.cli.terminal` hears signals. Must not know: commands.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def main() -> None:
    """What the script `harness` calls."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, _end)
    from harness.cli import main as command

    command()


def _end(number: int, frame: object) -> None:
    with suppress(OSError):  # of a terminal that is gone
        os.write(2, b"Ended.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
