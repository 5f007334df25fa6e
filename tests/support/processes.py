"""Sweeps as processes of their own, which can be killed and paused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import psutil

from harness.driver import setup
from harness.engines.local import LocalEngine
from harness.engines.processes import context_for
from harness.runner.trial import run_trial

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


class Fork:
    """A function in a process that is forked from the server of this process's own workers.

    It begins where torch has long been imported, which takes most of the time of a process that is
    started anew. Of its group it is the only member: killed, it leaves its workers behind, which
    have to end by themselves.
    """

    def __init__(self, function, *args):
        self._said = [Path(tempfile.mkstemp(suffix=kind)[1]) for kind in (".stdout", ".stderr")]
        target = (self._said, dict(os.environ), function, args)
        self._process = context_for("cpu").Process(target=_apart, args=target)
        self._process.start()
        self.pid = self._process.pid

    def ends_within(self, seconds):
        self._process.join(seconds)
        return self._process.exitcode is not None

    def end(self):
        """Wait for it; its exit status and what it said."""
        assert self.ends_within(GUARD_S)
        self.output, self.errors = (path.read_text() for path in self._said)
        for path in self._said:
            path.unlink()
        self.returncode = self._process.exitcode
        return self


class Forked(Fork):
    """A sweep. `prepare` is called in it first; in its workers, only if `in_workers`, before each
    trial."""

    def __init__(self, study, out, *arguments, prepare=None, in_workers=False):
        words = ["sweep", "--study", study, "--out", out, *arguments]
        super().__init__(command_line, list(map(str, words)), prepare, in_workers)


def _apart(said, environment, function, args):
    os.setsid()
    os.environ.update(environment)  # the server has that of its own start
    for path, stream in zip(said, (sys.stdout, sys.stderr), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream.fileno())
    # Its workers come from the server that it came from, instead of from one of its own.
    forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
    function(*args)


def command_line(words, prepare=None, in_workers=False):
    """The command line in a fork, which it ends."""
    if prepare is not None:
        prepare()
    if in_workers:
        setup.LocalEngine = partial(LocalEngine, run=partial(_prepared, prepare))
    from harness.cli import main

    main(words)


def _prepared(prepare, *trial):
    prepare()
    run_trial(*trial)


def table(out):
    return next(Path(out).glob("studies/*/report/metrics.csv")).read_text()


def records(out):
    return {path.parent.name: path.read_bytes() for path in Path(out).glob("trials/*/record.json")}


def running(out):
    """The process of each trial that has begun to train, by trial."""
    found = {}
    for claim in Path(out).glob("trials/*/claim.json"):
        begun = (claim.parent / "history.jsonl").exists()
        if begun and not (claim.parent / "record.json").exists():
            with suppress(FileNotFoundError):  # released meanwhile
                pid = json.loads(claim.read_text())["pid"]
                if psutil.pid_exists(pid):
                    found[claim.parent.name] = pid
    return found


def one_running(out):
    """The process of a trial that has begun to train; None if there is none."""
    return next(iter(running(out).values()), None)


def wait_for(find, process=None):
    """What `find` finds, once it is not None; not after the end of the process that makes it."""
    deadline = time.monotonic() + GUARD_S
    while (found := find()) is None:
        assert time.monotonic() < deadline
        if process is None:
            time.sleep(0.02)
        else:
            assert not process.ends_within(0.02), process.end().errors
    return found
