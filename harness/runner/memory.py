"""Memory of a process that trains: what it keeps, and the most that one trial takes.

Owns: the allocator's thresholds, where the platform has them; resetting and reading the peak, where
it can tell. Must not know: trials, records.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
"""Linux's description of this process."""
RESET_PEAK = "5"
"""What Linux takes in `clear_refs` for: the peak is what is resident now."""
SLACK_MIB = 16.0
"""What other threads may take between the reset and its check."""


MALLOPT = {-3: 2**25, -1: 2**28}
"""glibc's M_MMAP_THRESHOLD at the most that it takes, and M_TRIM_THRESHOLD, in bytes."""


def keep_freed_memory() -> bool:
    """Let malloc keep what a step has freed for the next one; False where it cannot be told to.

    By default glibc maps large blocks anew each time, and the system fills every page of them with
    zeros: more than 10 % of a step on a CPU. What is kept is bounded by the peak of a trial:
    `PeakMemory` gives everything back before the next one.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return all(mallopt(what, value) == 1 for what, value in MALLOPT.items())
    return False


class PeakMemory:
    """Counts from when it is made. `mib` is the peak since then, in MiB; None if it is not known.

    CUDA: memory allocated by torch. CPU: resident memory of the whole process. What an earlier
    trial has freed is given back to the system first, because the allocator keeps it otherwise.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._is_known = _reset()

    @property
    def mib(self) -> float | None:
        """The peak until now."""
        if not self._is_known:
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return _resident("VmHWM")


def _reset() -> bool:
    """Forget the process's peak so far; False if the platform cannot."""
    with suppress(AttributeError, OSError):  # a C library without it keeps some freed memory
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    peak, now = _resident("VmHWM"), _resident("VmRSS")
    return peak is not None and now is not None and peak <= now + SLACK_MIB


def _resident(name: str) -> float | None:
    """A line of the process's status in MiB; None if there is none."""
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found.group(1)) / 2**10
