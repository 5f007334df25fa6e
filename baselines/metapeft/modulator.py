"""The unified modulator (Eq. 6): y = f + γ·Δ, one scalar γ per site.

Owns: γ and its forms. Must not know: how γ is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from harness.insertion.attachment import Attachment, LowRank, Strength
from harness.insertion.hooks import TrainingHook, joined
from harness.model.blocks import Backbone, blocks_of
from harness.spec import Placement, Site

GammaForm = Literal["replace", "times_alpha"]
GammaPer = Literal["site", "position", "block_group", "model"]
NonNegative = Literal["softplus", "none"]

BLOCKS_PER_GROUP = 3
"""As in the paper's Table 3."""


def shared_by(placement: Placement, per: GammaPer) -> list[str]:
    """What each site of a placement shares its γ with, as the name of that γ."""
    sites = [site for site, _ in placement.items()]
    if per == "position":
        return [site.position for site in sites]
    if per == "block_group":
        return [str(site.block // BLOCKS_PER_GROUP) for site in sites]
    return [str(site) if per == "site" else "" for site in sites]


def softplus(raw: Tensor) -> Tensor:
    """log(1 + exp(raw)), without torch's switch to the identity above 20."""
    return torch.logaddexp(raw, torch.zeros_like(raw))


def inverse_softplus(value: Tensor) -> Tensor:
    """The `raw` at which softplus gives `value` > 0."""
    return value + torch.log(-torch.expm1(-value))


class Modulated(Attachment):
    """Another method's attachment whose strengths are a function of a trainable vector.

    `raw` has an element per site, or per what the sites share their γ by. It is kept in float64, so
    that γ = α computes exactly what a fixed α does. While it requires a gradient the strengths
    carry its graph; else they are plain numbers. At the start every site has its placement's α as
    its strength (1 in the paper).
    """

    def __init__(
        self,
        model: Backbone,
        base: Attachment,
        placement: Placement,
        *,
        form: GammaForm,
        nonneg: NonNegative,
        per: GammaPer = "site",
    ) -> None:
        super().__init__(model)
        self.base = base
        self.sites = [site for site, _ in placement.items()]
        alpha = torch.tensor([alpha for _, alpha in placement.items()], dtype=torch.float64)
        self._factor = alpha if form == "times_alpha" else torch.ones_like(alpha)
        start = torch.ones_like(alpha) if form == "times_alpha" else alpha
        names = shared_by(placement, per)
        first = {name: index for index, name in reversed([*enumerate(names)])}
        order = {name: index for index, name in enumerate(dict.fromkeys(names))}
        start = start[[first[name] for name in order]]
        self._shares = None if per == "site" else torch.tensor([order[name] for name in names])
        self._softplus = nonneg == "softplus"
        self.raw = nn.Parameter(inverse_softplus(start) if self._softplus else start)
        self._alpha: list[float] = alpha.tolist()
        self.modulating = True
        """False: every Δ has its fixed α, as in the released code's training and test."""
        self.make_hook: Callable[[], TrainingHook] = TrainingHook
        """A new one for every training."""
        self.undo_by(blocks_of(model)[0][1].register_forward_pre_hook(self._before_forward))

    def of_sites(self, values: Tensor) -> Tensor:
        """An element of `raw`'s shape for every site `[sites]`."""
        return values if self._shares is None else values[self._shares]

    def gamma(self) -> Tensor:
        """γ `[sites]`, with the graph to `raw`."""
        return self.of_sites(softplus(self.raw) if self._softplus else self.raw * 1)

    def strengths_now(self) -> Tensor:
        """What multiplies each Δ `[sites]`: γ, or γ·α in the form `times_alpha`."""
        return self.gamma() * self._factor

    def _before_forward(self, module: nn.Module, args: object) -> None:
        values: Sequence[Strength]
        if not self.modulating:
            values = self._alpha
        elif self.raw.requires_grad and torch.is_grad_enabled():
            like = next(self.model.parameters())
            dtype = torch.promote_types(like.dtype, torch.float32)  # it may be stored in bf16
            values = self.strengths_now().to(like.device, dtype).unbind()
        else:
            values = self.strengths_now().tolist()
        self.base.set_strengths(dict(zip(self.sites, values, strict=True)))

    def training_hook(self) -> TrainingHook:
        return joined([self.make_hook(), self.base.training_hook()])

    def learned(self) -> Placement:
        values = self.strengths_now().tolist()
        return Placement({str(s): value for s, value in zip(self.sites, values, strict=True)})

    def row(self, **known: float) -> dict[str, float]:
        """A row of the trajectory: what is known of this moment, and every site's strength."""
        values = self.strengths_now().tolist()
        return {**known, **{str(s): value for s, value in zip(self.sites, values, strict=True)}}

    def detach(self) -> None:
        super().detach()
        self.base.detach()

    def low_ranks(self) -> dict[Site, LowRank]:
        self._settle()
        return self.base.low_ranks()

    def save_pretrained(self, folder: Path) -> list[Path] | None:
        self._settle()
        return self.base.save_pretrained(folder)

    def _settle(self) -> None:
        """Give the base the strengths that it has between passes."""
        strengths = self.strengths_now().tolist() if self.modulating else self._alpha
        self.base.set_strengths(dict(zip(self.sites, strengths, strict=True)))
