"""How γ is learned beside φ and the head: bi-level (Eq. 7 to 9), or on the training loss itself.

Owns: when γ is stepped, on which data and by which gradient. Must not know: the network, the
trainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.baselines.metapeft.hypergradient import Bilevel, InnerStep, Params, parse_hypergradient
from harness.baselines.metapeft.modulator import Modulated
from harness.baselines.metapeft.sampling import ValSampler
from harness.data.dataset import Images
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.rng import generator

if TYPE_CHECKING:
    from harness.baselines.metapeft.options import MetaPEFTOptions


class GammaLoop(TrainingHook, ABC):
    """K inner steps on φ and the head, then one step of Adam on γ, over and over.

    The inner optimiser never touches γ; the outer one never touches φ or the head.
    """

    resumable = False

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__()
        self._attachment = attachment
        self._options = options
        self._outer = torch.optim.Adam([attachment.raw], lr=options.outer_lr)
        self._inner_steps = 0
        self._outer_steps = 0
        self._inner: InnerProblem

    def freeze(self, classifier: nn.Module) -> None:
        self._attachment.raw.requires_grad_(False)
        if self._options.inner_trains == "peft":
            head = classifier.get_submodule("head")
            head.requires_grad_(False)

    def start(self, inner: InnerProblem) -> None:
        self._inner = inner
        self._note(loss=float("nan"))

    def after_step(self) -> None:
        self._inner_steps += 1
        done = self._inner_steps - self._options.warmup_steps
        if done > 0 and done % self._options.inner_steps == 0:
            self._outer_steps += 1
            self._outer_step()

    @abstractmethod
    def _outer_step(self) -> None:
        """One step on γ, by `_descend`."""

    def _penalty(self) -> Tensor:
        """Gradient of ½·‖·‖² over the sites' γ with respect to `raw`, which requires a gradient."""
        attachment = self._attachment
        is_raw = self._options.l2_target == "raw"
        penalised = attachment.of_sites(attachment.raw) if is_raw else attachment.gamma()
        (decay,) = torch.autograd.grad(penalised.square().sum() / 2, attachment.raw)
        return decay

    def _descend(self, gradient: Tensor, decay: Tensor, loss: float) -> None:
        """Step γ by the gradient of its loss and by its penalty, and note where it went."""
        self._attachment.raw.grad = gradient + self._options.l2 * decay
        self._outer.step()
        self._note(loss)

    def _note(self, loss: float) -> None:
        row = self._attachment.row(
            outer_step=self._outer_steps, inner_step=self._inner_steps, outer_loss=loss
        )
        self.trajectory.append(row)


class BilevelLoop(GammaLoop):
    """The paper's loop: γ descends the loss on D_val, a fresh part of the training images."""

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__(attachment, options)
        self._hypergradient = parse_hypergradient(options.hypergradient)
        self._steps: deque[InnerStep[Images]] = deque(maxlen=self._hypergradient.steps)
        self._sampler: ValSampler
        self._d_val: Tensor

    def start(self, inner: InnerProblem) -> None:
        labels = inner.images.labels.cpu()
        self._sampler = ValSampler(
            labels,
            classes=inner.classes,
            ratio=self._options.ratio,
            sampling=self._options.sampling,
            leave=1 if self._options.d_val == "held_out" else 0,
            seed=inner.seed,
        )
        self._d_val = self._sampler.draw(0)
        super().start(inner)

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

    def _outer_step(self) -> None:
        """Eq. 9, and a fresh D_val for the next outer loop."""
        inner, raw = self._inner, self._attachment.raw
        batches = self._outer_batches()
        group = inner.optimiser.param_groups[0]
        raw.requires_grad_(True)
        loss, gradient = self._hypergradient(
            Bilevel(
                gamma=raw,
                params=list(inner.parameters.values()),
                inner_loss=self._inner_loss,
                outer_loss=self._outer_loss,
                outer_batches=batches,
                steps=tuple(self._steps),
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
            )
        )
        decay = self._penalty()
        raw.requires_grad_(False)
        self._descend(gradient, decay, loss)
        count = sum(len(batch) for batch, _ in batches)
        again = self._hypergradient.passes if self._steps else 0
        count += again * len(self._steps[-1].batch) if again else 0
        self.passed(count, count, len(batches) + again)
        self._d_val = self._sampler.draw(self._outer_steps)

    def _inner_loss(self, params: Params, batch: Images) -> Tensor:
        return self._inner.loss(batch, self._named(params))

    def _outer_loss(self, params: Params, batch: Images) -> Tensor:
        """The training loss of a batch of D_val, with the prior that the options name."""
        counts = self._sampler.quotas if self._options.outer_prior == "d_val" else None
        return self._inner.loss(batch, self._named(params), counts=counts)

    def _named(self, params: Params) -> dict[str, Tensor]:
        return dict(zip(self._inner.parameters, params, strict=True))

    def _outer_batches(self) -> list[tuple[Images, float]]:
        """Batches of D_val, augmented as in training, and their shares of the outer loss."""
        size = self._inner.recipe.batch_size
        parts = self._d_val.split(size)
        if self._options.outer_batches != "all":
            parts = parts[: self._options.outer_batches]
        rng = generator(self._inner.seed, "d_val augment", self._outer_steps)
        total = sum(len(part) for part in parts)
        return [(self._inner.batch(part, rng), len(part) / total) for part in parts]


class SingleLevelLoop(GammaLoop):
    """The control of the bi-level loop: γ descends the training loss, as φ does.

    Of every K-th inner step, γ takes the gradient of that step's own batch at the φ that the step
    starts from, so both move together. γ has as many steps as in the bi-level loop, by the same
    Adam and with the same penalty, each on a batch of the same size. Its gradient is one more
    result of a backward pass that is taken anyway, so it costs what its base does. There is no
    outer loss to note.
    """

    def start(self, inner: InnerProblem) -> None:
        super().start(inner)
        # Before the trainer wraps the model for several processes: where γ lies beside the model,
        # they then average its gradient, of which the mean is taken again without effect.
        self._attachment.raw.requires_grad_(True)

    def before_step(self, batch: Images) -> None:
        self._attachment.raw.grad = None  # the trainer's own optimiser does not know γ

    def _outer_step(self) -> None:
        gradient = self._attachment.raw.grad
        assert gradient is not None
        self._descend(self._inner.mean(gradient), self._penalty(), loss=float("nan"))
