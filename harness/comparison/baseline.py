"""What every comparison of methods or searches must beat: LoRA at every linear map.

Owns: which trials that are, and their names. Must not know: what they are compared with, how trials
are run. A replay imports it, so torch is imported where trials are made only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import JsonValue

from harness.search.base import Make
from harness.spec import LINEAR_POSITIONS, TrialRequest, TrialSpec, validated
from harness.store.table import Table
from harness.study.space import Values
from harness.study.study import Study

if TYPE_CHECKING:
    from harness.runner.runtime import Runtime

METHOD = "lora"
ALPHA = 4.0
"""The strength of the studies' own LoRA and of docs/protocol.md's pilot. Which α is best depends on
the rate, so the baseline stands in two arms: as it is in one run, and with its rate tuned."""
LABEL = f"{METHOD}, α = {ALPHA:g}, all linear maps"
STANDING = (f"{METHOD}_all_linear", f"{METHOD}_all_linear+rates")
"""Names of the two among searches, where they stand beside whichever are asked for."""
RATES = (1.0, 2.0, 0.5, 4.0, 8.0)
"""Learning rates tried there, in this order, as multiples of the recipe's."""


def baseline(request: TrialRequest, options: dict[str, JsonValue]) -> TrialRequest:
    """LoRA at every linear map of all blocks, on a request's data, backbone, recipe and seed.

    `options` are LoRA's.
    """
    from harness.model.backbones import dims

    on_backbone = dims(request.backbone).positions
    return TrialRequest(
        method=METHOD,
        options=options,
        positions=tuple(p for p in LINEAR_POSITIONS if p in on_backbone),
        alpha=ALPHA,
        data=request.data,
        backbone=request.backbone,
        recipe=request.recipe,
        seed=request.seed,
    )


def baseline_cells(study: Study) -> dict[str, list[Values]]:
    """Its configurations on a study's data, by its names among searches."""
    base = study.base
    made = baseline(base, base.options if base.method == METHOD else {})
    fields = ("method", "options", "positions", "depth", "alpha")
    same = made.model_dump(mode="json", include=set(fields))
    return _named([{**same, "recipe.lr": rate * base.recipe.lr} for rate in RATES])


def with_baseline(make: Make, study: Study, runtime: Runtime) -> Make:
    """`make`, which makes trials of `baseline_cells`, too."""
    from harness.runner.resolve import resolve

    cells = baseline_cells(study)[STANDING[-1]]
    bare = study.base.model_copy(update={"placement": None, "changes": ()})

    def made(values: Values, seed: int) -> TrialSpec:
        if values not in cells:
            return make(values, seed)
        return resolve(bare.with_values({**values, "seed": seed}, source=METHOD), runtime)

    return made


def recorded_baseline(table: Table) -> dict[str, list[Values]]:
    """Its configurations in a table, all rates that there are; empty if it has none.

    The one run is that at the rate of the study's recipe or, without such a one, the first.
    """
    cells = table.trials.drop_duplicates("cell")
    specs = [
        validated(TrialSpec, json.loads(text), source="a trial's spec in the table")
        for text in cells["spec"]
    ]
    sites = [site for spec in specs for site, _ in spec.placement.items()]
    everywhere = len(LINEAR_POSITIONS) * (1 + max((site.block for site in sites), default=0))
    alike: dict[str, list[tuple[float, Values]]] = {}
    for text, spec in zip(cells["cell"], specs, strict=True):
        strengths = spec.placement.root
        is_strong = set(strengths.values()) == {ALPHA}
        if spec.method == METHOD and is_strong and len(strengths) == everywhere:
            rest = spec.model_dump_json(exclude={"seed": True, "recipe": {"lr"}})
            alike.setdefault(rest, []).append((spec.recipe.lr, json.loads(text)))
    if not alike:
        return {}
    found = next(iter(alike.values()))
    found.sort(key=lambda pair: pair[0] != table.info.study.base.recipe.lr)
    return _named([cell for _, cell in found])


def _named(cells: list[Values]) -> dict[str, list[Values]]:
    """By the names among searches; the first is that of one run."""
    one_run, tuned = STANDING
    return {one_run: cells[:1], tuned: cells}
