"""Where trials run: workers that are jobs of a SLURM cluster, submitted by submitit.

A job is a worker, not a trial: it loads backbone and data once, and runs trials until its time is
over, which only then goes on in another job. Owns: these jobs. Must not know: which trial is worth
running, or why, how a worker is told what to run (`harness.engines.desk`).
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.engines.base import Ended, Reported, RunTrial
from harness.engines.desk import BEAT_S, POLL_S, Desk, serve
from harness.engines.processes import leaving_signals
from harness.errors import NotSavedError, TakenOver, UserError, unknown
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import TrialSpec
from harness.store.store import Store

CLUSTER = "cluster"
"""Option that says where jobs go."""
CLUSTERS = ("slurm", "local")
"""`local`: processes of this machine, to try it."""
SHARED = ("timeout_min", "mem_gb", "cpus_per_task", "name", "gpus_per_node")
"""Options that submitit has for every kind of cluster; SLURM's own are `slurm_...` for it."""
LOOK_S = 2.0
"""From one look at whether jobs live to the next."""
CLOSE_S = 10.0
"""How long to wait for jobs to end."""


class SlurmEngine:
    """The `Engine` contract on jobs of a cluster; at most `workers` of them at a time.

    `options` are those of a job, as submitit and sbatch name them: `timeout_min`, `partition`,
    `account`, `mem_gb`, `cpus_per_task`, `gres`. The store is on a file system that all nodes
    share, and through it trials are handed out.

    Raises:
        UserError: submitit is not installed, there is no SLURM here, or an option is unknown.
    """

    def __init__(
        self,
        *,
        store: Store,
        runtime: Runtime,
        workers: int,
        options: Mapping[str, Any],
        watch: bool = False,
        run: RunTrial = run_trial,
    ) -> None:
        self.slots = workers
        folder = store.root.resolve() / "slurm" / f"{os.getpid()}-{id(self)}"
        on_gpu = runtime.device.startswith("cuda")
        own = runtime.at("cuda:0") if on_gpu else runtime  # a job sees its own GPU alone
        self._task = (store.root.resolve(), own, watch, run)
        self._desk = Desk(folder)
        self._executor = _executor(folder, options, on_gpu)
        self._desk.lay_out()
        self._desk.beat(0)
        self._closed = threading.Event()
        threading.Thread(target=self._live, daemon=True).start()
        self._jobs: dict[int, Any] = {}
        """Number of the worker -> its job."""
        self._numbers, self._tickets = itertools.count(1), itertools.count(1)
        self._open: dict[int, TrialSpec] = {}
        """Number of a trial -> the trial, until it has ended."""
        self._reported: dict[str, tuple[int, int]] = {}
        """Trial -> its number and epoch, until it is answered."""
        self._looked = time.monotonic()

    def _live(self) -> None:
        for number in itertools.count(1):
            if self._closed.wait(BEAT_S):
                return
            with suppress(OSError, NotSavedError):  # a full disk is for the trials to say
                self._desk.beat(number)

    def submit(self, spec: TrialSpec) -> None:
        ticket = next(self._tickets)
        self._open[ticket] = spec
        self._desk.put(ticket, spec)
        if len(self._jobs) < min(self.slots, len(self._open)):
            self._start()

    def _start(self) -> None:
        number = next(self._numbers)
        try:
            with leaving_signals():
                job = self._executor.submit(serve, self._desk.folder, number, *self._task)
        except Exception as error:  # of sbatch, in classes of submitit's and of subprocess
            raise UserError(f"The cluster takes no job: {_last_line(str(error))}.") from error
        self._jobs[number] = job

    def next(self) -> Ended | Reported:
        """Raises `NotSavedError` when the store cannot be written, `UserError` as a trial does, or
        where a job ends before it can run one."""
        while True:
            over = self._over()
            message = self._desk.hear()  # after the look: nothing that a job said last is missed
            if message is not None:
                heard = self._heard(message)
                if heard is not None:
                    return heard
                continue
            for number in over:
                lost = self._bury(number)
                if lost is not None:
                    return lost
            while self._desk.waiting() and len(self._jobs) < min(self.slots, len(self._open)):
                self._start()
            time.sleep(POLL_S)

    def _heard(self, message: dict[str, Any]) -> Ended | Reported | None:
        """What was said of a trial; None: it has been taken to be lost, because file systems may
        show what a job said last only after its end."""
        ticket = message["ticket"]
        if ticket not in self._open:
            return None
        spec = self._open[ticket]
        if "epoch" in message:
            self._reported[spec.trial_id] = (ticket, message["epoch"])
            return Reported(spec, message["epoch"], message["scores"])
        del self._open[ticket]
        kind, words = message["problem"] or ("", "")
        if kind in ("", TakenOver.__name__):
            return Ended(spec, None, words or None)
        raise UserError(words) if kind == UserError.__name__ else NotSavedError(words)

    def _over(self) -> list[int]:
        """Workers whose jobs have ended, looked for from time to time."""
        if time.monotonic() - self._looked < LOOK_S:
            return []
        self._looked = time.monotonic()
        return [number for number, job in self._jobs.items() if job.done()]

    def _bury(self, number: int) -> Ended | None:
        """Take note that a job has ended; the trial that it was running, if it was.

        Where what it said of earlier trials is not to be seen yet, its job stays for the next look:
        until then that may be heard.
        """
        job = self._jobs[number]
        lost = self._desk.taken_by(number) & self._open.keys()
        if len(lost) < 2:
            del self._jobs[number]
        if not self._desk.has_begun(number):
            raise UserError(f"Job {job.job_id} ended before it could run a trial: {_why(job)}.")
        if not lost:
            return None  # its time was over
        spec = self._open.pop(max(lost))  # the last that it took
        return Ended(spec, f"Job {job.job_id} ended with its trial: {_why(job)}.")

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        self._desk.answer(*self._reported.pop(spec.trial_id), goes_on)

    def close(self) -> None:
        self._closed.set()
        self._desk.end()
        for job in self._jobs.values():
            job.cancel(check=False)
        deadline = time.monotonic() + CLOSE_S
        while time.monotonic() < deadline and not all(job.done() for job in self._jobs.values()):
            time.sleep(POLL_S)
        shutil.rmtree(self._desk.folder, ignore_errors=True)


def refuse_options(options: Mapping[str, Any], on_gpu: bool) -> None:
    """Whether jobs with such options can be submitted here; none is.

    Raises:
        UserError: as `SlurmEngine`.
    """
    with TemporaryDirectory() as folder:
        _executor(Path(folder), options, on_gpu)


def _executor(folder: Path, options: Mapping[str, Any], on_gpu: bool) -> Any:
    """What submits jobs, with the options of each."""
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "--engine slurm submits jobs by submitit, which is not installed: pip install "
            "'peft-hpo-harness[slurm]'."
        ) from error
    given = dict(options)
    cluster = given.pop(CLUSTER, CLUSTERS[0])
    if cluster not in CLUSTERS:
        raise unknown(f"value of --slurm {CLUSTER}:", str(cluster), CLUSTERS)
    if on_gpu and not any("gpu" in name or name == "gres" for name in given):
        given["gpus_per_node"] = 1
    named = {name if name in SHARED else f"slurm_{name}": value for name, value in given.items()}
    try:
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
        executor.update_parameters(**{"name": "harness", **named})
    except RuntimeError as error:
        raise UserError(
            "--engine slurm: there is no SLURM here (no srun); give the command on a login node."
        ) from error
    except (AssertionError, NameError, TypeError, ValueError) as error:  # each names the option
        raise UserError(f"--slurm: {str(error).splitlines()[0]}.") from error
    return executor


def _why(job: Any) -> str:
    """The last line of what a job has said before it ended."""
    with suppress(Exception):  # its files may be gone, or not there yet
        return _last_line(job.stderr() or "")
    return "it said nothing"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["it said nothing"]
    return lines[-1].strip().rstrip(".")
