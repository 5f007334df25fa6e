"""What the studies that ship would cost on this machine, timed once and then known.

Owns: how many trials a study has, and for how long an estimate holds. Must not know: torch, which
is imported only where something has to be timed; stores, and what has been run already.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import NamedTuple

from harness.catalogue.answers import kept
from harness.catalogue.studies import load_study, study_names
from harness.comparison.request import BUDGET, REPEATS_LIVE, names_of
from harness.study.study import Study


class Costs(NamedTuple):
    """Estimates for every study that ships."""

    device: str
    seconds: dict[str, float | None]
    """Device seconds of all trials; None for other data, or another backbone, than was timed."""


def trial_count(study: Study) -> int:
    """Trials of a study: of its cells, or of the searches that it compares."""
    if study.searches is not None:
        return len(names_of(study.searches, [])) * REPEATS_LIVE * int(BUDGET)
    return len(study.cells()) * len(study.seeds) if study.trains else 0


def shipped_costs() -> Costs:
    """Estimates from one trial, timed for a moment when they are not known of this machine yet."""
    return Costs(**kept("costs", lambda: _measured()._asdict(), of=_machine()))


def _measured() -> Costs:
    from harness.bench.estimate import Estimate
    from harness.driver.request import PlaceRequest
    from harness.driver.setup import make_runtime

    runtime = make_runtime(PlaceRequest())
    reference = load_study("depth_vs_position").base.with_values(
        {"positions": "mlp1"}, source="depth_vs_position"
    )
    estimate = Estimate(reference, runtime)
    seconds = {}
    for name in study_names():
        study = load_study(name)
        seconds[name] = estimate.device_s(study, trial_count(study))
    return Costs(device=runtime.device, seconds=seconds)


def _machine() -> list[object]:
    """What another time would follow from: processor, GPUs, libraries."""
    try:
        cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line]
    except OSError:
        cpu = []
    gpus = sorted(str(path) for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    versions = [importlib.metadata.version(name) for name in ("torch", "timm")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [platform.node(), platform.machine(), cpu[:1], gpus, visible, versions]
