"""Which sites a training would move most, by the gradient at its start: a cheap rival of γ.

Owns: this measure. Must not know: what is made of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.baselines.metapeft.modulator import Modulated
from harness.data.dataset import Images
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.spec import Recipe, Site

if TYPE_CHECKING:
    from harness.baselines.metapeft.options import MetaPEFTOptions


class GradientNorm(TrainingHook):
    """One pass over the training images in which nothing is trained.

    A site's score is ‖∂L/∂θ‖, with θ all tensors of its Δ at their initial values (those that
    sites share, as in LoTR, left out) and L the mean training loss over the batches of the first
    epoch, in their order and augmented as in training. Its square is what one step of SGD at that
    site alone takes off the loss per unit of rate, to first order. γ itself has no gradient there,
    because Δ starts at zero. Similar to SPT (He et al. 2023), which ranks frozen weights by
    their squared gradients, and to GPS (Zhang et al. 2024), which does by their size.
    """

    resumable = False

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__()
        self._attachment = attachment
        self._sums: dict[Site, list[Tensor]] = {}
        self._seen = self._size = 0

    def freeze(self, classifier: nn.Module) -> None:
        self._attachment.raw.requires_grad_(False)
        classifier.get_submodule("head").requires_grad_(False)

    def start(self, inner: InnerProblem) -> None:
        for group in inner.optimiser.param_groups:
            group["lr"] = 0.0  # so that every batch meets the initial values
        for site, tensors in self._attachment.base.site_parameters().items():
            self._sums[site] = [torch.zeros_like(tensor) for tensor in tensors]

    def epochs(self, recipe: Recipe) -> int:
        return 1

    def before_step(self, batch: Images) -> None:
        self._size = len(batch)

    def after_step(self) -> None:
        """Add the gradient of the batch's mean loss, in proportion to its images."""
        self._seen += self._size
        for site, tensors in self._attachment.base.site_parameters().items():
            for total, tensor in zip(self._sums[site], tensors, strict=True):
                if tensor.grad is not None:
                    total.add_(tensor.grad, alpha=self._size)

    def after_epoch(self) -> None:
        norms = []
        for site in self._attachment.sites:
            squares = sum(float(total.double().square().sum()) for total in self._sums[site])
            norms.append(math.sqrt(squares) / self._seen)
        with torch.no_grad():
            self._attachment.raw.copy_(torch.tensor(norms, dtype=torch.float64))
