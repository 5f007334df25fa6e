"""What every comparison of methods or searches must beat: LoRA at every linear map.

Owns: which trial that is. Must not know: what it is compared with, how trials are run.
"""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from harness.model.backbones import dims
from harness.spec import LINEAR_POSITIONS, TrialRequest

METHOD = "lora"
ALPHA = 4.0
"""The strength of the studies' own LoRA and of docs/protocol.md's pilot. Which α is best depends on
the rate, so the baseline stands in two arms: as it is in one run, and with its rate tuned."""
LABEL = f"{METHOD}, α = {ALPHA:g}, all linear maps"


def baseline_fields(request: TrialRequest, options: dict[str, JsonValue]) -> dict[str, Any]:
    """The fields that make the baseline of a request; `options` are LoRA's."""
    on_backbone = dims(request.backbone).positions
    return {
        "method": METHOD,
        "options": options,
        "positions": tuple(p for p in LINEAR_POSITIONS if p in on_backbone),
        "depth": "all",
        "alpha": ALPHA,
        "placement": None,
    }


def baseline(request: TrialRequest, options: dict[str, JsonValue]) -> TrialRequest:
    """LoRA at every linear map of all blocks, on a request's data, backbone, recipe and seed."""
    return request.model_copy(update={**baseline_fields(request, options), "changes": ()})
