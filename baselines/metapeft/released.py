"""What the published code does under the name of MetaPEFT, as a reproduction aid.

Read from the authors' repository (doem97/metalora: `MetaTrainer` in trainer.py, and
peft_modules.py), for LoRA at q and v. γ is fitted beside the training, but neither the training of
φ nor the test ever uses it. All that "meta" does to the tested model is to take data away, to
lengthen the run and to give the head extra steps. Owns: this loop. Must not know: other variants.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.baselines.metapeft.modulator import Modulated
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.rng import generator
from harness.spec import Recipe

if TYPE_CHECKING:
    from harness.baselines.metapeft.options import MetaPEFTOptions

OUTER_LR, OUTER_MOMENTUM, OUTER_DECAY = 1e-3, 0.9, 5e-4
"""Of SGD on γ."""


class ReleasedLoop(TrainingHook):
    """Once an epoch: K look-ahead steps on one batch, one step on γ, and φ put back."""

    resumable = False

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__()
        self._attachment = attachment
        self._options = options
        self._epoch = 0
        self._inner_steps = 0
        self._inner: InnerProblem
        self._held: Tensor

    def freeze(self, classifier: torch.nn.Module) -> None:
        self._attachment.raw.requires_grad_(False)

    def epochs(self, recipe: Recipe) -> int:
        """Lengthened for the data held out, past the end of the cosine schedule."""
        return math.ceil(recipe.epochs / (1 - self._options.ratio))

    def start(self, inner: InnerProblem) -> None:
        self._inner = inner
        # γ is in the inner optimiser as well: the look-ahead steps move it, at the inner rate.
        inner.optimiser.add_param_group({"params": [self._attachment.raw]})
        self._outer = torch.optim.SGD(
            [self._attachment.raw], lr=OUTER_LR, momentum=OUTER_MOMENTUM, weight_decay=OUTER_DECAY
        )
        count = len(inner.images)
        order = torch.randperm(count, generator=generator(inner.seed, "released split"))
        # Both shares are cut off to whole images there, and what is left over is validated on.
        trained = int((1 - self._options.ratio) * count)
        self._held = order[: count - trained]
        self._half = int(self._options.ratio / 2 * count)
        self._note(float("nan"))

    def excluded(self) -> Tensor:
        """One fixed part, unstratified; it is never trained on, though it counts in the prior."""
        mask = torch.zeros(len(self._inner.images), dtype=torch.bool)
        mask[self._held] = True
        return mask

    def after_step(self) -> None:
        self._inner_steps += 1

    def after_epoch(self) -> None:
        inner, raw = self._inner, self._attachment.raw
        kept = {k: v.detach().clone() for k, v in self._attachment.base.named_parameters()}
        half = self._half
        rng = generator(inner.seed, "released", self._epoch)
        train, val = self._first(self._held[:half], rng), self._first(self._held[half:], rng)
        self._attachment.modulating = True
        raw.requires_grad_(True)
        for _ in range(self._options.inner_steps):
            # The same images at every step, because their sampler is only reseeded once an epoch.
            batch = inner.batch(train, rng)
            inner.optimiser.zero_grad(set_to_none=True)
            inner.loss(batch).backward()
            inner.optimiser.step()
        loss = inner.loss(inner.batch(val, rng))
        (raw.grad,) = torch.autograd.grad(loss, raw)
        self._outer.step()
        raw.grad = None
        raw.requires_grad_(False)
        self._attachment.modulating = False
        with torch.no_grad():
            for name, parameter in self._attachment.base.named_parameters():
                parameter.copy_(kept[name])  # the head, momentum and γ stay where they went
        count = self._options.inner_steps * len(train) + len(val)
        self.passed(count, count, self._options.inner_steps + 1)
        self._epoch += 1
        self._note(float(loss.detach()))

    def _first(self, part: Tensor, rng: torch.Generator) -> Tensor:
        """Indices of the epoch's first batch from a part."""
        order = torch.randperm(len(part), generator=rng)
        return part[order[: self._inner.recipe.batch_size]]

    def _note(self, loss: float) -> None:
        row = self._attachment.row(
            outer_step=self._epoch, inner_step=self._inner_steps, outer_loss=loss
        )
        self.trajectory.append(row)
