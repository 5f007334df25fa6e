"""What a trial takes: time on the wall, and time of its device.

Owns: reading both clocks. Must not know: trials, records.
"""

from __future__ import annotations

import time

import torch

Spent = tuple[float, float]
"""Seconds on the wall, and seconds of the device."""


class Stopwatch:
    """Counts from its making on, `earlier` included.

    A GPU is its trial's for all that time. A CPU trial computes in one thread, and of the CPU only
    that thread's own time is counted: what else runs on the machine, and a process that was stopped
    for a while, would make equal trials differ.
    """

    def __init__(self, device: torch.device, earlier: Spent = (0.0, 0.0)) -> None:
        self._is_gpu = device.type == "cuda"
        self._earlier = earlier
        self._start = self._now()

    def _now(self) -> Spent:
        wall = time.perf_counter()
        return wall, wall if self._is_gpu else time.process_time()

    @property
    def spent(self) -> Spent:
        """Seconds until now."""
        wall, device = (
            earlier + now - start
            for earlier, now, start in zip(self._earlier, self._now(), self._start, strict=True)
        )
        return wall, device
