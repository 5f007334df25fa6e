"""SSF (Lian et al., 2022, Eq. 4): y = scale * f(x) + shift, a scale and a shift for each feature.

As a Δ beside a frozen map f it reads y = f(x) + α·((scale - 1) * f(x) + shift). At α = 1 that is
the paper's; scale - 1 and shift are what is trained, so a start at zero is the frozen model.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness.insertion.attachment import Attachment, Delta, Strength
from harness.insertion.method import PeftMethod
from harness.model.blocks import Backbone, Dims, dims_of
from harness.rng import generator
from harness.spec import MAP_POSITIONS, Frozen, Placement

STD = 0.02
"""Of the authors' initial values, around 1 for scales and around 0 for shifts."""


class SSFOptions(Frozen):
    """How it starts."""

    init: Literal["identity", "released"] = "identity"
    """`identity`: as the frozen model. `released`: N(., 0.02), as in the authors' code."""


class ScaleAndShift(Delta):
    """`scale` (less 1) and `shift`, each `[d]`."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)
        self.shift = nn.Parameter(shift)

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        """`[n, t, d]`, the frozen map's result, to what is added to it."""
        return strength * (self.scale * x + self.shift)


class SSF(PeftMethod[SSFOptions]):
    """A scale and a shift after each linear map it is placed at, q, k and v apart."""

    Options = SSFOptions
    positions = MAP_POSITIONS
    default_positions = ("q", "k", "v", "out", "mlp1", "mlp2")
    additive = True
    summary = "scales and shifts the result of any linear map (SSF)"

    def attach(
        self, model: Backbone, placement: Placement, options: SSFOptions, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        dims = dims_of(model)
        for site, alpha in placement.items():
            _, width = dims.linear_io(site)
            values = torch.zeros(2, width)
            if options.init == "released":
                values.normal_(0, STD, generator=generator(seed, "init", "ssf", site))
            scale, shift = values
            # Sequential: it reads what the frozen map gives, not what the map is given.
            attachment.add_delta(site, ScaleAndShift(scale, shift), alpha, "sequential")
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: SSFOptions) -> int:
        """2d per site, where d are the map's output features."""
        return sum(2 * dims.linear_io(site)[1] for site, _ in placement.items())
