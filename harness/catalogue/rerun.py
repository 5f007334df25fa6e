"""Command lines that reproduce a trial.

Owns: which `harness train ...` gives a trial of the same id, how values stand on a command line.
Must not know: how it is trained or shown.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.catalogue.registered import file_needed
from harness.catalogue.studies import load_study, study_names, typed_name
from harness.spec import Frozen, Placement, TrialRequest, TrialSpec
from harness.study.study import Study

FALLBACK = "depth_vs_position"
"""Study whose data, backbone and recipe a command starts from if the run's own does not ship."""


def places(spec: TrialSpec) -> dict[str, str]:
    """Flags for files and folders that a trial needs, each with the placeholder from `--help`.

    Paths are not part of a trial: they differ between machines, so a command leaves them open for
    whoever types it.
    """
    weights = {"--weights": "FILE"} if spec.backbone.weights == "file" else {}
    return weights | ({"--data-root": "FOLDER"} if spec.data.sha256 else {})


def with_placement(
    spec: TrialSpec, method: str, options: dict[str, Any], placement: str, file: str | None
) -> str:
    """The command that trains a method, as another trial was trained, at the sites in a file.

    `file` is the study file that registers what the trial is of, if there is one.
    """
    from harness.data.contract import options_of

    defaults = options_of(spec.data.name, {}).model_dump(mode="json")
    own = {key: value for key, value in spec.data.options.items() if value != defaults[key]}
    base = TrialRequest(method=method, data=spec.data.model_copy(update={"options": own}))
    made = spec.model_copy(update={"method": method, "options": options, "changes": ()})
    return TrainCommands(base, FALLBACK, file).of(made, {"options": options}, placement)


def study_file(line: str | None) -> str | None:
    """The file of a study that a command line names, as it was typed; None: it names none."""
    words = shlex.split(line or "")
    named = next((word for flag, word in itertools.pairwise(words) if flag == "--study"), "")
    return named if named.endswith(".py") else None


class TrainCommands:
    """Commands for the trials that were made from one request.

    A command names a shipped study, for its data, backbone and recipe, and says with `--set` where
    the trial differs. Options that the request did not set are left to their defaults. A trial of
    what only the run's own study file registers names that `file`, and says all that it sets: its
    base may be another by now.
    """

    def __init__(self, base: TrialRequest, study: str, file: str | None = None) -> None:
        self._base = base
        self._study = study if study in study_names() else FALLBACK
        self._start = load_study(self._study).base
        self._file = file

    def of(self, spec: TrialSpec, cell: Mapping[str, Any], placement: str | None = None) -> str:
        """The command for a trial whose request was the base with a cell's values.

        Its sites and their strengths are in the file `placement`, if there is one.
        """
        file = file_needed(self._file, spec)
        words = ["harness", "train", "--study", file or self._study, "--method", spec.method]
        settings = dict(self._settings(spec, cell, is_own=file is not None))
        found = _as_product(spec)
        if placement is not None:
            words += ["--sites", placement]
        elif found is None or ("placement" in cell and not len(spec.placement)):
            settings["placement"] = spec.placement.root
        elif len(spec.placement):
            positions, depth, alpha = found
            words += ["--sites", positions, "--depth", depth]
            words += [] if alpha == 1 else ["--alpha", repr(alpha).removesuffix(".0")]
        if spec.changes:
            settings["changes"] = [
                {"after": each.after, "values": _change(each.placement, found, each.lr)}
                for each in spec.changes
            ]
        words += ["--seed", str(spec.seed)]
        words += [word for flag, place in places(spec).items() for word in (flag, place)]
        for field, value in settings.items():
            words += ["--set", f"{field}={as_setting(value)}"]
        return shlex.join(words)

    def _settings(
        self, spec: TrialSpec, cell: Mapping[str, Any], is_own: bool
    ) -> Iterator[tuple[str, Any]]:
        whole = is_own or (spec.method != self._base.method and "options" not in cell)
        asked = _named("options", self._base.options, cell)
        for key, value in spec.options.items():
            if whole or key in asked:
                yield f"options.{key}", value
        parts: dict[str, tuple[Frozen, Frozen]] = {
            "backbone": (self._start.backbone, spec.backbone),
            "data": (self._start.data, spec.data),
            "recipe": (self._start.recipe, spec.recipe),
        }
        idle = spec.recipe.idle
        for part, (at_start, own) in parts.items():
            start = at_start.model_dump(mode="json")
            for key, value in own.model_dump(mode="json").items():
                if key == "sha256" or value == "file":
                    continue  # follows from the name or the file
                if (part, key) == ("data", "options"):
                    asked = _named("data.options", self._base.data.options, cell)
                    other = is_own or spec.data.name != self._base.data.name
                    value = {k: v for k, v in value.items() if other or k in asked}
                if (part == "recipe" and key in idle) or (
                    key == "val_fraction" and spec.data.dev_per_class
                ):
                    continue  # without effect, so refused where it is set
                if is_own or value != start[key]:
                    yield f"{part}.{key}", value


def _named(field: str, given: Iterable[str], cell: Mapping[str, Any]) -> set[str]:
    """Keys of a free-form field for which the request or the cell has a value."""
    names = set(given)
    for path, value in cell.items():
        if path == field and isinstance(value, Mapping):
            names |= set(value)
        elif path.startswith(f"{field}."):
            names.add(path.removeprefix(f"{field}.").split(".")[0])
    return names


def _as_product(spec: TrialSpec) -> tuple[str, str, float] | None:
    """Positions, depth and α, if these three say where and how strongly the method acts.

    None if they do not, or if a change in mid-training has strengths that differ between sites.
    """
    placements = [spec.placement, *(each.placement for each in spec.changes)]
    if any(len(set(each.root.values())) > 1 for each in placements):
        return None
    sites = [site for site, _ in spec.placement.items()]
    if not sites:
        return "", "", 1.0
    blocks = sorted({site.block for site in sites})
    positions = list(dict.fromkeys(site.position for site in sites))
    if len(sites) != len(blocks) * len(positions) or blocks[-1] - blocks[0] >= len(blocks):
        return None
    depth = f"blocks:{blocks[0]}-{blocks[-1]}" if len(blocks) > 1 else f"block:{blocks[0]}"
    return ",".join(positions), depth, next(iter(spec.placement.root.values()))


def _change(placement: Placement, product: object, lr: float) -> dict[str, Any]:
    if product is None:
        return {"placement": placement.root, "recipe.lr": lr}
    return {"alpha": next(iter(placement.root.values())), "recipe.lr": lr}


def as_setting(value: Any) -> str:
    """A value in the form that `--set` reads: a word as it is, unless it would pass for JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except json.JSONDecodeError:
            return value
    return json.dumps(value)


def typed(name: str, value: Any) -> Iterator[str | None]:
    """What stands behind the flag of a parameter from Python, each time that it is given; None:
    nothing, it is a switch."""
    if value is True:
        yield None
    elif isinstance(value, Mapping):
        yield from (f"{field}={as_setting(each)}" for field, each in value.items())
    elif isinstance(value, Study):
        yield typed_name(value)
    elif name in ("charge", "replay") and isinstance(value, list | tuple):
        yield from map(str, value)
    else:
        yield ",".join(value) if isinstance(value, list | tuple) else str(value)
