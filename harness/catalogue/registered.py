"""Which of the names in a trial every command knows, and which only a study file registers.

Owns: these questions, and the sentence that asks for the file. Must not know: what the names stand
for, beyond the methods that one is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.errors import UserError
from harness.registry import Registry
from harness.spec import TrialSpec


def is_known_anywhere(spec: TrialSpec) -> bool:
    """Whether all that a trial names ships or is installed."""
    return all(registry.is_found_without_a_file(name) for registry, name in _names(spec))


def file_needed(file: str | None, spec: TrialSpec) -> str | None:
    """The study file that a command for a trial must name; None: it needs none."""
    return None if file is None or is_known_anywhere(spec) else file


def refuse_unregistered(spec: TrialSpec) -> None:
    """Whether a finished trial's method, backbone and dataset are known here.

    Raises:
        UserError: one is not; asks for the study file that registers it.
    """
    for registry, name in _names(spec):
        if not registry.knows(name):
            raise UserError(
                f"Trial {spec.trial_id} is of {registry.kind} {name!r}, which neither ships nor is "
                "installed: name the study file that registers it with --study."
            )


def _names(spec: TrialSpec) -> Iterator[tuple[Registry[Any], str]]:
    # Reports of what ships never ask, and need no torch.
    from harness.data.contract import DATASETS
    from harness.insertion.method import METHODS, get_method
    from harness.model.backbones import BACKBONES

    yield BACKBONES, spec.backbone.name
    yield DATASETS, spec.data.name
    parts = spec.method.split("+")
    if len(parts) == 1 and METHODS.knows(spec.method):
        yield METHODS, spec.method
        if get_method(spec.method).wraps:  # its options cannot be read if the base is not known
            parts = str(spec.options.get("base", spec.method)).split("+")
    for part in parts:
        yield METHODS, part
