"""The bi-level loop (Eq. 7 to 9): K inner steps on φ and the head, then one outer step on γ.

Owns: when outer steps are taken, on which data. Must not know: the network, the trainer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.baselines.metapeft.hypergradient import Bilevel, InnerStep, Params, parse_hypergradient
from harness.baselines.metapeft.modulator import Modulated
from harness.baselines.metapeft.sampling import ValSampler
from harness.data.dataset import Images
from harness.errors import UserError
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.rng import generator

if TYPE_CHECKING:
    from harness.baselines.metapeft.options import MetaPEFTOptions


class BilevelLoop(TrainingHook):
    """The inner optimiser never touches γ; the outer one never touches φ or the head."""

    resumable = False

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__()
        self._attachment = attachment
        self._options = options
        self._hypergradient = parse_hypergradient(options.hypergradient)
        self._outer = torch.optim.Adam([attachment.raw], lr=options.outer_lr)
        self._steps: deque[InnerStep[Images]] = deque(maxlen=self._hypergradient.steps)
        self._inner_steps = 0
        self._outer_steps = 0
        self._inner: InnerProblem
        self._sampler: ValSampler
        self._d_val: Tensor

    def freeze(self, classifier: nn.Module) -> None:
        self._attachment.raw.requires_grad_(False)
        if self._options.inner_trains == "peft":
            head = classifier.get_submodule("head")
            head.requires_grad_(False)

    def start(self, inner: InnerProblem) -> None:
        if inner.recipe.precision == "fp16":
            raise UserError("recipe.precision: γ is not learned in fp16; write bf16 or fp32.")
        self._inner = inner
        labels = inner.images.labels.cpu()
        self._sampler = ValSampler(
            labels,
            ratio=self._options.ratio,
            sampling=self._options.sampling,
            leave=1 if self._options.d_val == "held_out" else 0,
            seed=inner.seed,
        )
        self._d_val = self._sampler.draw(0)
        self._note(loss=float("nan"))

    def excluded(self) -> Tensor | None:
        if self._options.d_val == "overlap":
            return None
        mask = torch.zeros(len(self._inner.images), dtype=torch.bool)
        mask[self._d_val] = True
        return mask

    def before_step(self, batch: Images) -> None:
        if not self._hypergradient.steps:
            return
        group = self._inner.optimiser.param_groups[0]
        params = [p.detach().clone() for p in self._inner.parameters.values()]
        self._steps.append(InnerStep(batch, group["lr"], params, self._velocity()))

    def _velocity(self) -> Params:
        """SGD's momentum buffers; zero before its first step."""
        state = self._inner.optimiser.state
        buffers = [state[p].get("momentum_buffer") for p in self._inner.parameters.values()]
        return [
            torch.zeros_like(p) if v is None else v.clone()
            for v, p in zip(buffers, self._inner.parameters.values(), strict=True)
        ]

    def after_step(self) -> None:
        self._inner_steps += 1
        done = self._inner_steps - self._options.warmup_steps
        if done > 0 and done % self._options.inner_steps == 0:
            self._outer_step()

    def _outer_step(self) -> None:
        """Eq. 9, and a fresh D_val for the next outer loop."""
        inner, options, raw = self._inner, self._options, self._attachment.raw
        self._outer_steps += 1
        batches = self._outer_batches()
        group = inner.optimiser.param_groups[0]
        raw.requires_grad_(True)
        loss, gradient = self._hypergradient(
            Bilevel(
                gamma=raw,
                params=list(inner.parameters.values()),
                inner_loss=self._loss,
                outer_loss=self._loss,
                outer_batches=batches,
                steps=tuple(self._steps),
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
            )
        )
        penalised = raw if options.l2_target == "raw" else self._attachment.gamma()
        (decay,) = torch.autograd.grad(penalised.square().sum() / 2, raw)
        raw.requires_grad_(False)
        raw.grad = gradient + options.l2 * decay
        self._outer.step()
        count = sum(len(batch) for batch, _ in batches)
        count += self._hypergradient.passes * (len(self._steps[-1].batch) if self._steps else 0)
        self.images_forward += count
        self.images_backward += count
        self._note(loss)
        self._d_val = self._sampler.draw(self._outer_steps)

    def _loss(self, params: Params, batch: Images) -> Tensor:
        return self._inner.loss(batch, dict(zip(self._inner.parameters, params, strict=True)))

    def _outer_batches(self) -> list[tuple[Images, float]]:
        """Batches of D_val, augmented as in training, and their shares of the outer loss."""
        size = self._inner.recipe.batch_size
        parts = self._d_val.split(size)
        if self._options.outer_batches != "all":
            parts = parts[: self._options.outer_batches]
        rng = generator(self._inner.seed, "d_val augment", self._outer_steps)
        total = sum(len(part) for part in parts)
        return [(self._inner.batch(part, rng), len(part) / total) for part in parts]

    def _note(self, loss: float) -> None:
        row = self._attachment.row(
            outer_step=self._outer_steps, inner_step=self._inner_steps, outer_loss=loss
        )
        self.trajectory.append(row)
