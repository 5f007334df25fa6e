"""What a trial is known by in other tools: its scalars by epoch and at its end, its settings.

The live loggers and the exports of a finished run share them, so that a number has one name and one
unit everywhere: accuracies in percent, `device_s` and `wall_s` in seconds, `flops` in operations.

Owns: these names and units. Must not know: any of the tools.
"""

from __future__ import annotations

from typing import Any

from harness.metrics import OVERALL, SplitMetrics
from harness.spec import TrialSpec
from harness.store.records import TrialRecord


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """Of a row of `history.jsonl`: `train_loss`, `lr`, and `select/NAME` where it was scored."""
    select = row.get("select", {})
    shares = {name: select[name] for name in OVERALL if name in select}
    shares |= select.get("groups", {})
    scores = {f"select/{name}": 100 * share for name, share in shares.items()}
    if "loss" in select:
        scores["select/loss"] = select["loss"]
    plain = {k: row[k] for k in ("train_loss", "lr") if isinstance(row.get(k), float)}
    return {**plain, **scores}


def finals(record: TrialRecord) -> dict[str, float]:
    """Of a trial that has ended: `test/NAME` where it was tested, its parameters and its cost."""
    found: dict[str, float] = {
        "trainable_params": record.trainable_params,
        "head_params": record.head_params,
        "epochs_run": record.epochs_run,
        "device_s": record.cost.device_s,
        "wall_s": record.cost.wall_s,
        "flops": record.cost.flops,
    }
    if record.test is not None and record.status != "PRUNED":
        found |= _of_test(record.test)
    return found


def _of_test(test: SplitMetrics) -> dict[str, float]:
    return {
        **{f"test/{name}": 100 * share for name, share in test.shares.items()},
        "test/loss": test.loss,
    }


def settings(spec: TrialSpec) -> dict[str, str]:
    """What a trial was to be, in words; sites by their positions, and how many there are."""
    recipe = spec.recipe.model_dump(mode="json")
    sites = [site for site, _ in spec.placement.items()]
    found: dict[str, Any] = {
        "trial_id": spec.trial_id,
        "method": spec.method,
        "seed": spec.seed,
        "data": spec.data.name,
        "backbone": spec.backbone.name,
        "positions": ",".join(dict.fromkeys(site.position for site in sites)) or "none",
        "sites": len(sites),
        **{f"recipe.{field}": value for field, value in recipe.items()},
        **{f"options.{field}": value for field, value in dict(spec.options).items()},
    }
    return {field: str(value) for field, value in found.items()}
