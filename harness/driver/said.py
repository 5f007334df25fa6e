"""What is about to be trained, in one line, so that nobody trains something else unawares.

Owns: this line. Must not know: where it is printed, searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.data.contract import is_drawn
from harness.insertion.method import get_method
from harness.spec import TrialSpec
from harness.study.axes import Axis, Range, Switches

SCALES = {
    "alpha_over_r": "each Δ times α/r",
    "alpha_over_sqrt_r": "each Δ times α/√r",
    "alpha": "each Δ times α",
    "learnable": "where the trained scale starts",
    "alpha_times_gain": "each Δ times α and a trained gain",
}
"""Value of a method's option `scale` -> what α means by it."""
MOST_POSITIONS = 6


def said(spec: TrialSpec, seeds: Sequence[int], varied: Mapping[str, str] | None = None) -> str:
    """Backbone, data, placement, α and what it means, SGD's rate, seeds; what varies is named.

    `spec` is any trial of those that will run; `varied` has the fields that differ between them,
    each with the word for it.
    """
    fields = varied or {}
    data = spec.data.name + (" (SYNTHETIC)" if is_drawn(spec.data.name) else "")
    parts = [f"{spec.backbone.name} on {data}"]
    if "method" not in fields:
        parts.append(_method(spec))
    if not fields.keys() & {"positions", "depth", "placement", "method"}:
        parts.append(_where(spec))
    if not fields.keys() & {"alpha", "placement", "method", "options"}:
        parts.append(_strength(spec))
    if not any(field.startswith(("recipe.lr", "recipe.batch_size")) for field in fields):
        parts.append(spec.recipe.in_words)
    parts.append(_seeds(seeds))
    if fields:
        parts.append(f"varied: {', '.join(dict.fromkeys(fields.values()))}")
    return f"Trains: {'; '.join(part for part in parts if part)}."


def varied_by(parts: Iterable[Axis | Range | Switches]) -> dict[str, str]:
    """Fields of a trial that parts of a space set, each with the word for it."""
    found: dict[str, str] = {}
    for part in parts:
        if isinstance(part, Axis):
            found |= dict.fromkeys(sorted(part.fields_set), part.label)
        elif isinstance(part, Range):
            found[part.field] = part.label
        else:
            found["placement"] = "sites and their α"
            if part.ranks:
                found["options.rank_at"] = "their rank"
    return found


def _method(spec: TrialSpec) -> str:
    method = get_method(spec.method)
    return method.label(spec.method, method.parse_options(spec.options))


def _where(spec: TrialSpec) -> str:
    sites = list(spec.placement.root)
    if not sites:
        return "no sites"
    positions = list(dict.fromkeys(site.partition(".")[2] for site in sites))
    blocks = len({site.partition(".")[0] for site in sites})
    if len(sites) != blocks * len(positions) or len(positions) > MOST_POSITIONS:
        return f"{len(sites)} sites"
    return f"{'+'.join(positions)} in {blocks} block{'s' if blocks > 1 else ''}"


def _strength(spec: TrialSpec) -> str:
    values = set(spec.placement.root.values())
    if len(values) != 1:
        return "strengths by site" if values else ""
    meaning = SCALES.get(str(spec.options.get("scale")))
    return f"α = {values.pop():g}" + (f" ({meaning})" if meaning else "")


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    in_a_row = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    words = f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds))
    return f"seeds {words}"
