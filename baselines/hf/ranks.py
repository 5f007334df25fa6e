"""AdaLoRA's own step: which ranks stay where.

Owns: when peft's allocation is called. Must not know: how it decides, the trainer.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from harness.baselines.hf.attachment import ADAPTER
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.spec import Frozen


class RankAllocation(TrainingHook):
    """Calls `update_and_allocate` after every step, while the step's gradients are there.

    The penalty that keeps A and B orthogonal is not part of it: peft adds it to the loss of models
    that return one, and timm's do not.
    """

    resumable = False

    def __init__(self, tuner: Any, options: Frozen) -> None:
        super().__init__()
        self._tuner, self._options = tuner, options
        self._step = self._steps = 0

    def start(self, inner: InnerProblem) -> None:
        """Turn shares of the training into steps."""
        per_epoch = math.ceil(len(inner.images) / inner.recipe.batch_size)
        steps = per_epoch * inner.recipe.epochs
        config = self._tuner.peft_config[ADAPTER]
        config.total_step = self._steps = steps
        for name in ("tinit", "tfinal"):
            setattr(config, name, int(getattr(self._options, name) * steps))

    def after_step(self) -> None:
        self._step += 1
        if self._steps < 2:
            return  # the last step allocates by what those before it have shown
        is_strict = torch.are_deterministic_algorithms_enabled()
        # `kthvalue` may find any of several equal values, so its index is not deterministic on a
        # GPU; peft reads the value alone.
        torch.use_deterministic_algorithms(False)
        try:
            self._tuner.update_and_allocate(self._step)
        finally:
            torch.use_deterministic_algorithms(is_strict)
