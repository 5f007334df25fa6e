"""Where and how fast trials run; nothing here changes a number.

Owns: `Runtime`. Must not know: trials.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from harness.catalogue.studies import StudyFile, loaded_files
from harness.console import SILENT, Console
from harness.data.listing import OnBad


@dataclass(frozen=True, kw_only=True)
class ActivationCache:
    """Where what frozen blocks compute is kept for other trials, and how much of it."""

    folder: Path
    budget: int
    """Bytes at most."""
    uses: tuple[tuple[int | None, int], ...] | None = None
    """Lowest adapted block (None: no block is) and how many trials have it; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how fast a trial runs; never part of its identity."""

    device: str = "cpu"
    """`cuda`: each worker gets one of the machine's GPUs."""
    keep_weights: bool = False
    """Save the trained tensors (PEFT and head) beside the record."""
    keep_features: bool = False
    """Save the test images' features beside the record."""
    keep_checkpoints: bool = False
    """Keep the last checkpoint of a pruned trial, so that it can be continued."""
    weights: Path | None = None
    """File of the backbone's weights, where its spec says `file`."""
    data_root: str | None = None
    """Folder of the files of a dataset on disk."""
    packs: str = "runs/packs"
    """Folder where such datasets are packed, and where workers open them."""
    cache: ActivationCache | None = None
    """None: every trial computes all that it needs."""
    keep_memory: bool = True
    """Workers on a CPU keep memory that a step has freed (`runner.memory`)."""
    packs_images: bool = True
    """Whether a dataset is packed when it is asked for; not in a plan that leaves no trace."""
    on_bad_image: OnBad = "stop"
    """What to do about an image that cannot be read."""
    console: Console = field(default=SILENT, compare=False)
    """Told what packing does; workers have none."""
    study_files: tuple[StudyFile, ...] = field(default_factory=loaded_files)
    """Study files that a worker runs before its first trial, for the methods, datasets and
    backbones that they register: by default those that this process has loaded."""

    def on(self, number: int) -> Runtime:
        """The same on the GPU of worker `number`."""
        if self.device != "cuda":
            return self
        return self.at(f"cuda:{number % torch.cuda.device_count()}")

    def at(self, device: str) -> Runtime:
        """The same on another device."""
        return replace(self, device=device)

    def of_workers(self) -> Runtime:
        """The same without the console, which other processes cannot share."""
        return replace(self, console=SILENT)


def default_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"
