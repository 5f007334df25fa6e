"""LoTR: low-rank updates whose outer factors are shared over the blocks (arXiv:2402.01376).

Owns: which sites share factors, and the parameter formula. Must not know: how it is trained.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.insertion.attachment import Attachment, Delta, Strength
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, dims_of
from harness.rng import generator
from harness.spec import MAP_POSITIONS, Count, Frozen, Placement, Recipe, Site


class LoTROptions(Frozen):
    """`rank` r of the core; `scale` of BGA."""

    rank: Count = 4
    scale: Literal["alpha_over_r", "alpha"] = "alpha_over_r"
    """`alpha_over_r` is the authors' code."""


class SharedFactors(nn.Module):
    """A `[r, d_in]` and B `[d_out, r]` of one position, for all its blocks of one stage."""

    def __init__(self, d_in: int, d_out: int, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, d_in))
        self.up = nn.Parameter(torch.empty(d_out, rank))
        # U(±1/sqrt(fan-in)), so that A starts as this package's LoRA does. The authors' code draws
        # both from N(0, 1), far too wide for a learning rate that other methods share.
        for factor in (self.down, self.up):
            bound = 1 / math.sqrt(factor.shape[1])
            factor.data.uniform_(-bound, bound, generator=rng)


class LoTRDelta(Delta):
    """`core` G `[r, r]` of one site between the shared factors; it starts at zero, so Δ does."""

    def __init__(self, shared: SharedFactors, factor: float) -> None:
        super().__init__()
        rank = len(shared.down)
        self.core = nn.Parameter(torch.zeros(rank, rank))
        self._shared = [shared]  # in a list, so that only the attachment holds these tensors
        self.factor = factor

    def halves(self, x: Tensor, strength: Strength) -> tuple[Tensor, Tensor]:
        (shared,) = self._shared
        narrow = nn.functional.linear(x, shared.down)
        return nn.functional.linear(narrow, self.core) * (strength * self.factor), shared.up

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        return nn.functional.linear(*self.halves(x, strength))

    def low_rank(self) -> tuple[Tensor, Tensor, float]:
        (shared,) = self._shared
        return shared.down, shared.up @ self.core, self.factor


class LoTRAttachment(Attachment):
    """Cores at the sites, and the factors that sites of the same position and stage share."""

    def __init__(self, model: Backbone) -> None:
        super().__init__(model)
        self.shared = nn.ModuleDict()


def _group(dims: Dims, site: Site) -> str:
    """Name of the sites that share factors with one: same position, and same sizes."""
    stage = dims.blocks[site.block].stage
    return f"{site.position}{stage}" if stage else site.position


@METHODS.register("lotr")
class LoTR(PeftMethod[LoTROptions]):
    """Δ = B·G·A with one A and B per position and one core G per site (Tucker-2 over the blocks).

    Bershatsky et al., LoTR: Low Tensor Rank Weight Adaptation, 2024.
    """

    Options = LoTROptions
    positions = MAP_POSITIONS
    default_positions = ("q", "v")
    additive = True
    summary = "LoRA with factors shared by all blocks and a small core per site"

    def attach(
        self, model: Backbone, placement: Placement, options: LoTROptions, *, seed: int
    ) -> Attachment:
        attachment = LoTRAttachment(model)
        device = next(model.parameters()).device
        dims = dims_of(model)
        scale = 1 / options.rank if options.scale == "alpha_over_r" else 1.0
        shared: dict[str, SharedFactors] = {}
        for site, alpha in placement.items():
            group = _group(dims, site)
            if group not in shared:
                rng = generator(seed, "init", "lotr", group)
                factors = SharedFactors(*dims.linear_io(site), options.rank, rng)
                shared[group] = factors.to(device)
                attachment.shared[group] = shared[group]
            attachment.add_delta(site, LoTRDelta(shared[group], scale), alpha, "parallel")
        return attachment

    def check_recipe(self, recipe: Recipe, options: LoTROptions) -> None:
        if recipe.layer_decay < 1:
            raise UserError(
                "recipe.layer_decay: the factors of LoTR are shared by layers, so that no layer's "
                "rate is theirs: leave it out."
            )

    def expected_params(self, dims: Dims, placement: Placement, options: LoTROptions) -> int:
        """r(d_in + d_out) per position (and stage, where there are stages), and r² per site."""
        groups = {_group(dims, site): dims.linear_io(site) for site, _ in placement.items()}
        shared = sum(options.rank * sum(sizes) for sizes in groups.values())
        return int(shared + len(placement) * options.rank**2)
