"""What can be asked of the driver, by whoever asks: the command line, or a call from Python.

Owns: the fields of a request and their defaults. Must not know: torch, what becomes of a request,
how it was typed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from harness.data.listing import OnBad
from harness.errors import LONGEST_GIVEN, UserError, unknown
from harness.export.loggers import check_logs
from harness.metrics import Objective, goals_of
from harness.search.optuna_search import PRUNERS, SAMPLERS, OnRepeat, Pruner
from harness.search.shares import Fidelity
from harness.store.store import Store
from harness.study.study import Study

GRID = "grid"
DEFAULT_STUDY = "depth_vs_position"
"""Study whose data, backbone and recipe are used where no other is named."""

MOST_PER_CORE = 16
"""Processes that train; even trials that wait for a GPU gain nothing from more."""

DEFAULT_CACHE = "2G"
"""Disk space for activations of frozen blocks, beside the store."""

MOST_CACHE = 2**60
"""Bytes: more than any disk has."""

Keep = Literal["none", "best", "all"]
"""Whose trained tensors to keep, where the runtime has them saved at all."""
Split = Literal["val", "test"]
EngineKind = Literal["local", "ray", "slurm"]

NO_IDENTITY = frozenset(
    {
        *("out", "device", "workers", "engine", "address", "gpus_per_trial", "max_retries"),
        *("slurm", "keep", "dry_run", "cache", "log"),
    }
)
"""Parameters of commands that cannot change a trial's numbers."""
PLACES = {"weights": "FILE", "data_root": "FOLDER"}
"""Parameters whose paths differ between machines, with the words of `--help` for them; a trial
knows what lies there by its hash."""


MOST_SEEDS = 10_000
"""Of a run: far more than anyone trains, and few enough to be listed."""


def check(flag: str, value: object, allowed: object) -> None:
    """Whether a value is one of a `Literal`'s, or None.

    Raises:
        UserError: it is not; names the flag, the nearest and the choices.
    """
    if value is not None and value not in get_args(allowed):
        raise unknown(f"value of --{flag}:", str(value), get_args(allowed))


def check_count(flag: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Whether a value is a whole number of at least so much, and at most so much, or None.

    Raises:
        UserError: it is not; names the flag.
    """
    if value is None or (isinstance(value, int) and least <= value <= (most or value)):
        return
    upwards = "on" if most is None else f"to {most}"
    raise UserError(f"--{flag} {value}: it takes whole numbers from {least} {upwards}.")


def listed(flag: str, text: str) -> list[str]:
    """Names with commas between them.

    Raises:
        UserError: one is given twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--{flag} {text}: {name} is given twice; give it once.")
    return names


def parse_size(text: str | int) -> int:
    """Bytes: `0`, or a number with K, M, G or T behind it, each 1024 times the last.

    Raises:
        UserError: it is not such a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(text), re.IGNORECASE)
    unit = 1024 ** ("KMGT".find(match[2].upper()) + 1 if match and match[2] else 0)
    if match is None or float(match[1]) * unit > MOST_CACHE:
        raise UserError(
            f"--cache {str(text)[:LONGEST_GIVEN]}: write a size such as 500M or 2G, or 0 for none."
        )
    return int(float(match[1]) * unit)


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """A study, and in what it is to differ from itself."""

    study: str | Study
    """A shipped one's name, the path of a file, or the study itself."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted field -> value, as `--set` has them."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Field of an axis -> the values that are left of it, as `Study.only` has them."""
    weights: str | None = None
    """File of the backbone's weights; short for the setting `backbone.weights`."""
    smoke: bool = False
    seeds: int | None = None
    """Run seeds 0 to this one, exclusive; None: the study's own."""
    select_on: Split | None = None
    objective: str | None = None
    """What choices are made by; several, with commas between them, for a search that takes them;
    None: the study's own."""

    def __post_init__(self) -> None:
        check("select-on", self.select_on, Split)
        if self.objective is not None:
            goals_of(self.objective)
        check_count("seeds", self.seeds, most=MOST_SEEDS)


@dataclass(frozen=True, kw_only=True)
class PlaceRequest:
    """Where results, images and the computing are; nothing here changes a number."""

    out: str = "runs"
    data_root: str | None = None
    on_bad_image: OnBad = "stop"
    device: str | None = None
    is_dry: bool = False
    """Nothing is to be written: images are not packed."""
    cache: str | int = DEFAULT_CACHE
    """Bytes, as `parse_size` reads them, for what frozen blocks compute (`<out>/cache`)."""
    log: tuple[str, ...] = ()
    """Loggers that trials are written to while they run, as `--log` has them."""

    def __post_init__(self) -> None:
        check("on-bad-image", self.on_bad_image, OnBad)
        if not self.out:
            raise UserError("--out is empty: name a place, or leave it out.")
        parse_size(self.cache)
        check_logs(self.log)

    @property
    def store(self) -> Store:
        return Store(Path(self.out))


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What trials run on; None: left to the engine."""

    kind: EngineKind = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_trial: float | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    """What each job asks for, as submitit and sbatch name it."""
    max_retries: int = 2
    """Of a trial whose worker or machine is lost."""

    def __post_init__(self) -> None:
        check("engine", self.kind, EngineKind)
        check_count("workers", self.workers)
        check_count("max-retries", self.max_retries, 0)
        self._refuse_crowd()
        gpus = self.gpus_per_trial
        if gpus is not None and gpus <= 0:
            raise UserError(f"--gpus-per-trial {gpus:g}: it must be above 0.")
        if self.kind == "slurm":
            self._refuse_jobs()
        elif self.slurm:
            raise UserError(f"--slurm is for --engine slurm, not for --engine {self.kind}.")
        if self.kind != "ray":
            own = "--workers to share GPUs" if self.kind == "local" else "--slurm gpus_per_node=1"
            for flag, value in (("gpus-per-trial", gpus), ("address", self.address)):
                if value is not None:
                    raise UserError(f"--{flag} is for --engine ray; use {own}.")
        elif gpus is not None and gpus > 1 and gpus % 1:
            raise UserError(f"--gpus-per-trial {gpus:g}: above 1 it must be a whole number.")

    def _refuse_jobs(self) -> None:
        """Raises `UserError` for jobs of which too little, or too much, is said."""
        if self.workers is None:
            raise UserError("--engine slurm: say how many jobs there are to be, as in --workers 8.")
        if not {"timeout_min", "time"} & self.slurm.keys():
            raise UserError(
                "--engine slurm: say for how many minutes a job is to run, as in --slurm "
                "timeout_min=240."
            )
        for name in ("nodes", "tasks_per_node", "array_parallelism"):
            if name in self.slurm:
                raise UserError(f"--slurm {name}: a job is one worker; leave it out.")

    def _refuse_crowd(self) -> None:
        """Raises `UserError` for more processes than this machine could hold."""
        cores = len(os.sched_getaffinity(0))
        most = MOST_PER_CORE * cores
        if self.kind == "local" and self.workers is not None and self.workers > most:
            raise UserError(
                f"--workers {self.workers}: each is a process with a backbone of its own; on the "
                f"{cores} cores of this machine give {most} at most, best {cores}."
            )

    def refuse_watching(self, watcher: str) -> None:
        """Raises `UserError` where each trial trains on several devices, whose epochs nobody hears
        of, and `watcher` looks at every epoch."""
        if (self.gpus_per_trial or 1) > 1:
            raise UserError(
                f"--gpus-per-trial {self.gpus_per_trial:g}: a trial on several GPUs does not "
                f"report its epochs, which {watcher} watches; give 1 or less."
            )

    def start_ahead(self, device: str | None) -> None:
        """Begin what trials on such a device will need, before torch is imported here.

        See `harness.engines.processes.start_ahead`; nothing for an engine that is not of processes.
        """
        from harness.engines.processes import start_ahead

        if self.kind == "local":
            start_ahead(device)


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
    pruner: Pruner | None = None
    fidelity: Fidelity | None = None
    """What the pruner's rungs are; None: epochs."""
    on_repeat: OnRepeat | None = None
    warm_start: str | None = None
    """Name or folder of a run whose results the search is to know."""
    keep: Keep = "none"
    line: str
    """The command line that asks for the same, for the run's `command.json`."""

    def __post_init__(self) -> None:
        check("pruner", self.pruner, Pruner)
        check("fidelity", self.fidelity, Fidelity)
        check("on-repeat", self.on_repeat, OnRepeat)
        check("keep", self.keep, Keep)
        check_count("repeats", self.repeats)

    def with_pruner_apart(self) -> SweepRequest:
        """The same, with `tpe+hyperband`, as comparisons have it, as a sampler and its pruner.

        Raises:
            UserError: another pruner is asked for as well.
        """
        sampler, _, stop = self.search.partition("+")
        pruner = next((each for each in PRUNERS if each == stop), None)
        if sampler not in SAMPLERS or pruner is None:
            return self
        if self.pruner not in (None, pruner):
            raise UserError(f"--search {self.search} and --pruner {self.pruner}: give one of them.")
        return replace(self, search=sampler, pruner=pruner)

    @property
    def of_a_search(self) -> list[str]:
        """Flags that were given and make sense for one search alone."""
        flags = {
            "pruner": self.pruner,
            "fidelity": self.fidelity,
            "on-repeat": self.on_repeat,
            "warm-start": self.warm_start,
        }
        return [flag for flag, value in flags.items() if value is not None]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What is asked of one configuration; None: left to the method."""

    method: str
    base: str | None
    """For a method that learns strengths: the one whose sites it modulates."""
    sites: str | None
    """Positions, as in `q,v`, or a file from `harness derive`."""
    depth: str | None
    """None: all."""
    alpha: float | None
    """None: 1."""
    seed: int | None
    """None: 0."""
    seeds: int | None
    """Run seeds 0 to this one, exclusive, instead of `seed`."""
    study: str | Study
    settings: Mapping[str, Any]
    weights: str | None
    place: PlaceRequest
    workers: int | None
    controls: bool
    """Whether it is to be judged against its controls."""
    objective: Objective | None
    """What the controls' rates and cells are chosen by; None: what the study chooses by."""
    line: str
    """The command line that asks for the same."""

    def __post_init__(self) -> None:
        check_count("seeds", self.seeds, most=MOST_SEEDS)
        if self.seed is not None and self.seeds is not None:
            raise UserError(f"--seed {self.seed} and --seeds {self.seeds}: give one of them.")
        if self.objective is not None and "," in self.objective:
            raise UserError(f"--objective {self.objective}: one configuration takes one of them.")
        check("objective", self.objective, Objective)
        if self.objective is not None and not self.controls:
            raise UserError(
                "--objective is for --controls: of one configuration nothing is chosen."
            )


@dataclass(frozen=True, kw_only=True)
class RecommendRequest:
    """What is asked of a recommendation."""

    budget: str
    data: str | None
    """Dataset; short for the setting `data`."""
    backbone: str | None
    """Short for the setting `backbone`."""
    study: str | Study
    """Whose data, backbone, recipe and objective are used where nothing else is said."""
    settings: Mapping[str, Any]
    weights: str | None
    place: PlaceRequest
    engine: EngineRequest
    line: str
