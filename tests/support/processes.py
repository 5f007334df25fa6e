"""Sweeps as processes of their own, which can be killed and paused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

GUARD_S = 900
"""When to believe that something hangs, on a machine that is busy with other work."""


def command(study, out, *arguments):
    code = "from harness.cli import main; main()"
    return [sys.executable, "-c", code, "sweep", "--study", study, "--out", out, *arguments]


def start(study, out, *arguments, **options):
    """A sweep in a process group of its own."""
    return subprocess.Popen(
        [str(part) for part in command(study, out, *arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def sweep(study, out, *arguments, **options):
    """Run a sweep to its end."""
    process = start(study, out, *arguments, **options)
    _, process.errors = process.communicate(timeout=GUARD_S)
    return process


def table(out):
    return next(Path(out).glob("studies/*/report/metrics.csv")).read_text()


def records(out):
    return {path.parent.name: path.read_bytes() for path in Path(out).glob("trials/*/record.json")}


def running(out):
    """The process of a trial that has begun to train; None if there is none."""
    for claim in Path(out).glob("trials/*/claim.json"):
        begun = (claim.parent / "history.jsonl").exists()
        if begun and not (claim.parent / "record.json").exists():
            with suppress(FileNotFoundError):  # released meanwhile
                pid = json.loads(claim.read_text())["pid"]
                if psutil.pid_exists(pid):
                    return pid
    return None


def wait_for(find):
    deadline = time.monotonic() + GUARD_S
    while (found := find()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
