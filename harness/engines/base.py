"""The contract of an engine, which takes specs and yields what becomes of them.

Owns: the contract and its events. Must not know: which trial is worth running, or why.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from harness.runner.runtime import Runtime
from harness.runner.trial import ShouldContinue
from harness.spec import TrialSpec
from harness.store.store import Store

RunTrial = Callable[[TrialSpec, Runtime, Store, ShouldContinue | None], object]
"""What a worker does with a spec: `run_trial`, or a stand-in that measures the engine itself."""


class Ended(NamedTuple):
    """A trial that left its worker."""

    spec: TrialSpec
    crash: str | None
    """How, when the worker died with it."""
    lost: str | None = None
    """A sentence, when another process took the trial over because the worker was paused."""


class Reported(NamedTuple):
    """The selection scores of a watched trial, which waits for an answer, after `epoch` epochs."""

    spec: TrialSpec
    epoch: int
    scores: dict[str, Any]


class Engine(Protocol):
    """Takes specs and yields what becomes of them."""

    slots: int
    """How many trials it can hold at once."""

    def submit(self, spec: TrialSpec) -> None:
        """Start a trial; at most `slots` may be unfinished."""

    def next(self) -> Ended | Reported:
        """Wait for a trial to end, with its result in the store, or to report."""

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        """Let a trial that has reported go on, or end it there."""

    def close(self) -> None:
        """End all workers, and with them any trial that still runs."""


StartEngine = Callable[[Store, bool], Engine]
"""Starts an engine on a store, for trials that report (True) or for those that do not."""


def local_workers(asked: int | None, runtime: Runtime) -> int:
    """Processes on this machine: as many as asked for, or one per core or GPU."""
    if runtime.device == "cuda":
        return asked or torch.cuda.device_count()
    return asked or (1 if runtime.device.startswith("cuda") else len(os.sched_getaffinity(0)))
