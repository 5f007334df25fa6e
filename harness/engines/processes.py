"""How processes that run trials are started, and that none outlives its driver.

Owns: the start method and its server. Must not know: what the processes do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = ["harness.runner.trial"]
"""What the server imports once, so that a worker has torch and the runner from its first moment."""
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy's
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator
}
"""Without these, importing the runner starts threads, and a fork of a process that has threads may
inherit a lock that no one holds."""
DRIVER_OF_GPUS = Path("/proc/driver/nvidia")
"""Where there is none, neither is CUDA; torch, which knows, takes seconds to import."""


def context_for(device: str) -> BaseContext:
    """Forked from a server that has imported the runner and has one thread; CUDA: spawned.

    A forked copy of CUDA's state cannot be used, and neither can one of this process, whose torch
    has thread pools; the server has neither. It starts with the first process, or ahead of it, and
    keeps the environment and `sys.path` of that moment.
    """
    if device.startswith("cuda"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_ahead(device: str | None) -> None:
    """Let the server import the runner while this process imports it, too, and plans.

    To be called before either is imported here; `device` is what the user has named. Where the
    trials may run on CUDA nothing is done. The server has no processes yet, and ends with this one.
    """
    if device == "cpu" or (device is None and not DRIVER_OF_GPUS.exists()):
        context_for("cpu")
        with starting():
            forkserver.ensure_running()


def start(process: BaseProcess) -> None:
    """Start a process that leaves Ctrl-C to this one, from its first instruction on."""
    with starting():
        process.start()


@contextmanager
def starting() -> Iterator[None]:
    """As `leaving_signals`, and the processes start no threads on import."""
    with leaving_signals(), _one_thread():
        yield


def end_with_the_driver() -> None:
    """In a process that was started: have it end when the one that started it is gone."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def wait() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def ending_with_its_pipe() -> Iterator[None]:
    """In a process that was started: end it where the pipe to its driver is broken.

    The driver is gone then, and nobody is left to be told of an error.
    """
    try:
        yield
    except (EOFError, OSError):
        os._exit(1)


@contextmanager
def leaving_signals() -> Iterator[None]:
    """Processes that begin in it leave Ctrl-C, and the end of the terminal, to this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in theirs}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _one_thread() -> Iterator[None]:
    """These settings are for processes started here; what a user has set is kept."""
    added = {name: value for name, value in ONE_THREAD.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
