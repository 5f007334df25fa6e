"""Which sites a training would move most, seen at its start: cheap rivals of γ, and searches.

Nothing is trained. All take one pass over the training images, those of the first epoch in their
order and augmented as in training, with the recipe's loss; no other image is looked at. θ are the
tensors of a site's Δ at their initial values (those that sites share, as in LoTR, left out), W the
frozen weights of the linear map that a site adapts, N the training images, L their mean loss and
Lᵢ that of image i. A site's score is

- gradient norm: ‖∂L/∂θ‖. Its square is what one step of SGD at that site alone takes off the loss
  per unit of rate, to first order. Similar to SPT (He et al. 2023, arXiv:2303.08566), which ranks
  frozen weights by their squared gradients, and to GPS (Zhang et al. 2024, arXiv:2312.10136), which
  does by their size.
- SNIP: Σⱼ |Wⱼ ∂L/∂Wⱼ|, connection sensitivity (Lee et al. 2019, arXiv:1810.02340) summed over the
  map. Of W and not of θ, whose product with its gradient is 0 where Δ starts at zero. The paper
  takes the gradient of one batch; here it is that of all images.
- Fisher information: 1/N Σᵢ Σⱼ (∂Lᵢ/∂θⱼ)², the trace of the empirical Fisher matrix of θ, by the
  true labels (as the mask of Sung et al. 2021, arXiv:2111.09839). Of single images, so batches are
  of one.

γ itself has no gradient there, because Δ starts at zero. A record's cost is that of the pass, with
the gradients that it needs, and of scoring the splits once. Owns: these measures. Must not know:
what is made of them (`harness.search.ranking` trains the better half of the sites).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.baselines.metapeft.modulator import Modulated
from harness.data.dataset import Images
from harness.errors import UserError
from harness.insertion.hooks import InnerProblem, TrainingHook
from harness.model.blocks import columns_at, layer_at
from harness.model.precision import is_full
from harness.spec import LINEAR_POSITIONS, Recipe, Site

if TYPE_CHECKING:
    from harness.baselines.metapeft.options import MetaPEFTOptions


class Saliency(TrainingHook):
    """One pass over the training images in which nothing is trained, and sums of its gradients."""

    resumable = False

    def __init__(self, attachment: Modulated, options: MetaPEFTOptions) -> None:
        super().__init__()
        self._attachment = attachment
        self._inner: InnerProblem
        self._sums: dict[Site, list[Tensor]] = {}
        self._seen = self._size = 0

    def freeze(self, classifier: nn.Module) -> None:
        self._attachment.raw.requires_grad_(False)
        classifier.get_submodule("head").requires_grad_(False)

    def start(self, inner: InnerProblem) -> None:
        self._inner = inner
        for group in inner.optimiser.param_groups:
            group["lr"] = 0.0  # so that every batch meets the initial values
        for site, tensors in self.tensors().items():
            self._sums[site] = [torch.zeros_like(tensor) for tensor in tensors]

    def epochs(self, recipe: Recipe) -> int:
        return 1

    def tensors(self) -> dict[Site, Sequence[Tensor]]:
        """What each site is judged by."""
        return dict(self._attachment.base.site_parameters())

    def gradients(self) -> dict[Site, Sequence[Tensor | None]]:
        """Of the batch's mean loss, with respect to `tensors`."""
        return {site: [each.grad for each in own] for site, own in self.tensors().items()}

    def before_step(self, batch: Images) -> None:
        self._size = len(batch)

    def after_step(self) -> None:
        """Add what the batch's gradient says, in proportion to its images."""
        self._seen += self._size
        for site, gradients in self.gradients().items():
            for total, gradient in zip(self._sums[site], gradients, strict=True):
                if gradient is not None:
                    self._add(total, gradient)

    def after_epoch(self) -> None:
        scores = [self._score(site) for site in self._attachment.sites]
        with torch.no_grad():
            self._attachment.raw.copy_(torch.tensor(scores, dtype=torch.float64))

    def _add(self, total: Tensor, gradient: Tensor) -> None:
        total.add_(gradient, alpha=self._size)

    def _score(self, site: Site) -> float:
        raise NotImplementedError


class GradientNorm(Saliency):
    """‖∂L/∂θ‖."""

    def _score(self, site: Site) -> float:
        squares = sum(float(total.double().square().sum()) for total in self._sums[site])
        return math.sqrt(squares) / self._seen


class Fisher(Saliency):
    """1/N Σᵢ Σⱼ (∂Lᵢ/∂θⱼ)²; every batch is one image."""

    def _add(self, total: Tensor, gradient: Tensor) -> None:
        total.addcmul_(gradient, gradient)

    def _score(self, site: Site) -> float:
        return sum(float(total.double().sum()) for total in self._sums[site]) / self._seen


class Snip(Saliency):
    """Σⱼ |Wⱼ ∂L/∂Wⱼ|; `with_gradients` has the frozen maps take part in the backward pass."""

    def start(self, inner: InnerProblem) -> None:
        super().start(inner)
        self._forget()  # what counting FLOPs has left

    def tensors(self) -> dict[Site, Sequence[Tensor]]:
        return {site: [self._part(site, self._weight(site))] for site in self._attachment.sites}

    def gradients(self) -> dict[Site, Sequence[Tensor | None]]:
        found: dict[Site, Sequence[Tensor | None]] = {}
        for site in self._attachment.sites:
            gradient = self._weight(site).grad  # of this process's images: nobody trains it
            mean = None if gradient is None else self._inner.mean(self._part(site, gradient))
            found[site] = [mean]
        return found

    def after_step(self) -> None:
        super().after_step()
        self._forget()

    def _forget(self) -> None:
        for site in self._attachment.sites:
            self._weight(site).grad = None  # no optimiser does, as none has them

    def _weight(self, site: Site) -> Tensor:
        return layer_at(self._attachment.model, site).weight

    def _part(self, site: Site, of_layer: Tensor) -> Tensor:
        first, last = columns_at(self._attachment.model, site)
        return of_layer.detach()[first:last]

    def _score(self, site: Site) -> float:
        (total,), (weight,) = self._sums[site], self.tensors()[site]
        return float((weight.double() * total.double()).abs().sum()) / self._seen


def with_gradients(attachment: Modulated) -> None:
    """Have the frozen maps of all sites take a gradient, until the attachment is taken out.

    Done where it is attached, so that FLOPs are counted with these gradients.

    Raises:
        UserError: a site is at no linear map, or the maps are stored in fewer bits.
    """
    for site in attachment.sites:
        if site.position not in LINEAR_POSITIONS:
            raise UserError(
                f"options.variant=snip is of the weights of linear maps, and {site} is none; name "
                f"some of {', '.join(LINEAR_POSITIONS)}."
            )
        weight = layer_at(attachment.model, site).weight
        if not is_full(weight):
            raise UserError("options.variant=snip needs whole weights: set backbone.frozen=fp32.")
        if not weight.requires_grad:
            weight.requires_grad_(True)
            attachment.undo_with(functools.partial(_frozen_again, weight))


def _frozen_again(weight: Tensor) -> None:
    weight.requires_grad_(False)
    weight.grad = None
