"""The command line, called in this process."""

from __future__ import annotations

from click.testing import CliRunner

from harness.cli import main


def harness(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])
