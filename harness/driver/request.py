"""What can be asked of the driver, by whoever asks: the command line, or a call from Python.

Owns: the fields of a request and their defaults. Must not know: torch, what becomes of a request,
how it was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.store.store import Store
from harness.study.study import Study

GRID = "grid"
DEFAULT_STUDY = "depth_vs_position"
"""Study whose data, backbone and recipe are used where no other is named."""

Keep = Literal["none", "best", "all"]
"""Whose trained tensors to keep, where the runtime has them saved at all."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """A study, and in what it is to differ from itself."""

    study: str | Study
    """A shipped one's name, the path of a file, or the study itself."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted field -> value, as `--set` has them."""
    weights: str | None = None
    """File of the backbone's weights; short for the setting `backbone.weights`."""
    smoke: bool = False
    seeds: int | None = None
    """Run seeds 0 to this one, exclusive; None: the study's own."""
    select_on: Literal["val", "test"] | None = None


@dataclass(frozen=True, kw_only=True)
class PlaceRequest:
    """Where results, images and the computing are; nothing here changes a number."""

    out: str = "runs"
    data_root: str | None = None
    on_bad_image: Literal["stop", "skip"] = "stop"
    device: str | None = None

    @property
    def store(self) -> Store:
        return Store(Path(self.out))


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What trials run on; None: left to the engine."""

    kind: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_trial: float | None = None
    max_retries: int = 0
    """Of a trial whose worker or machine is lost."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What is asked of a sweep; None: left to it."""

    study: StudyRequest
    place: PlaceRequest = field(default_factory=PlaceRequest)
    engine: EngineRequest = field(default_factory=EngineRequest)
    search: str = GRID
    """A search's name; `grid`: every cell, or the searches that the study compares."""
    budget: str | None = None
    repeats: int | None = None
    pruner: Literal["none", "asha", "hyperband", "median"] | None = None
    on_repeat: Literal["cached", "next-seed"] | None = None
    warm_start: str | None = None
    """Name or folder of a run whose results the search is to know."""
    keep: Keep = "none"
    line: str
    """The command line that asks for the same, for the run's `command.json`."""

    @property
    def of_a_search(self) -> list[str]:
        """Flags that were given and make sense for one search alone."""
        flags = {
            "pruner": self.pruner,
            "on-repeat": self.on_repeat,
            "warm-start": self.warm_start,
        }
        return [flag for flag, value in flags.items() if value is not None]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What is asked of one configuration; None: left to the method."""

    method: str
    base: str | None = None
    """For a method that learns strengths: the one whose sites it modulates."""
    sites: str | None = None
    """Positions, as in `q,v`, or a file from `harness derive`."""
    depth: str = "all"
    alpha: float = 1.0
    seed: int = 0
    seeds: int | None = None
    """Run seeds 0 to this one, exclusive, instead of `seed`."""
    study: str | Study = DEFAULT_STUDY
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    place: PlaceRequest = field(default_factory=PlaceRequest)
    workers: int | None = None
    line: str
    """The command line that asks for the same."""
