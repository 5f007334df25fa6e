"""Wall-clock and device time of a trial.

Owns: reading both clocks. Must not know: trials, records.
"""

from __future__ import annotations

import time

import torch

Seconds = tuple[float, float]
"""Wall-clock seconds and device seconds."""


class Stopwatch:
    """Counts from when it is made, on top of `earlier`.

    A GPU is charged for all of that time, because the trial holds it. A CPU trial is charged for
    the CPU time of its process, all threads together: the one that computes, and those that read
    images. Wall-clock time would make equal trials cost different amounts beside other programs, or
    in a process that was suspended.
    """

    def __init__(self, device: torch.device, earlier: Seconds = (0.0, 0.0)) -> None:
        self._is_gpu = device.type == "cuda"
        self._earlier = earlier
        self._start = self._now()

    def _now(self) -> Seconds:
        wall = time.perf_counter()
        return wall, wall if self._is_gpu else time.process_time()

    @property
    def spent(self) -> Seconds:
        """Seconds until now."""
        wall, device = (
            earlier + now - start
            for earlier, now, start in zip(self._earlier, self._now(), self._start, strict=True)
        )
        return wall, device
