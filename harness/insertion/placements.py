"""Fixed placements from learned strengths, and their files.

Owns: the rules that turn γ into a configuration, and `placement.json`. Must not know: methods,
training, stores.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from harness.errors import UserError
from harness.rng import generator
from harness.spec import BackboneSpec, Frozen, Placement, read_as

Rule = Literal["as_is", "threshold", "topk", "bottomk", "random"]


class PlacementFile(Frozen):
    """A fixed placement, what it was learned for, and where it came from."""

    placement: Placement
    method: str
    options: dict[str, JsonValue]
    backbone: BackboneSpec
    rule: Rule
    value: float | None
    trials: tuple[str, ...]
    """The trials whose learned strengths were averaged."""


def derive(
    learned: list[Placement],
    rule: Rule,
    value: float | None,
    *,
    seed: int = 0,
    strengths: Placement | None = None,
) -> Placement:
    """A fixed placement from strengths learned on the same sites, averaged over trials.

    `as_is` keeps every site; `threshold` those of at least `value` (0.5 by default); `topk` the
    `value` strongest, `bottomk` as many of the weakest, and `random` as many that `seed` draws
    (half of them by default). The kept sites keep their strengths as α, or take those of
    `strengths` where what was learned only ranks the sites.

    Raises:
        UserError: the trials differ in their sites, `value` is none that the rule takes, nothing
            would be left, or a rank would part sites of the same strength.
    """
    _check_value(rule, value)
    sites = list(learned[0].root)
    if any(list(other.root) != sites for other in learned):
        raise UserError("These trials learned strengths for different sites; give them one by one.")
    mean = np.mean([list(other.root.values()) for other in learned], axis=0)
    if rule == "as_is":
        keep = np.ones(len(sites), dtype=bool)
    elif rule == "threshold":
        least = 0.5 if value is None else value
        keep = mean >= least
        if not keep.any():
            raise UserError(f"No site has {least:g} or more; the largest has {mean.max():.3g}.")
    else:
        count = len(sites) // 2 if value is None else int(value)
        if not 1 <= count <= len(sites):
            raise UserError(f"--value {count}: {rule} keeps 1 to {len(sites)} sites.")
        if rule == "random":
            order = torch.randperm(len(sites), generator=generator(seed, "random sites")).numpy()
        else:
            order = np.argsort(-mean if rule == "topk" else mean, kind="stable")
            if count < len(sites) and mean[order[count - 1]] == mean[order[count]]:
                raise UserError(
                    f"{rule} does not part the sites: {sites[order[count - 1]]} and "
                    f"{sites[order[count]]} have the same strength, {mean[order[count]]:.3g}, as "
                    "where γ took no step; give another --value, or train for longer."
                )
        keep = np.zeros(len(sites), dtype=bool)
        keep[order[:count]] = True
    given = mean if strengths is None else [strengths.root[site] for site in sites]
    chosen = zip(sites, given, keep, strict=True)
    return Placement({site: float(strength) for site, strength, kept in chosen if kept})


def _check_value(rule: Rule, value: float | None) -> None:
    if value is None:
        return
    if rule == "as_is":
        raise UserError(f"--value {value:g}: as_is keeps every site; leave it out.")
    if not math.isfinite(value):
        raise UserError(f"--value {value:g}: {rule} takes a finite number.")
    if rule != "threshold" and value != int(value):
        raise UserError(f"--value {value:g}: {rule} keeps a whole number of sites.")


def is_placement(path: Path) -> bool:
    """Whether a file is what `harness derive` wrote."""
    try:
        read_placement(path)
    except UserError:
        return False
    return True


def read_placement(path: Path) -> PlacementFile:
    """Read what `harness derive` wrote.

    Raises:
        UserError: no such file, or not a placement; names the file.
    """
    return read_as(PlacementFile, path, "make it again with `harness derive`")
