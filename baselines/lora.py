"""LoRA at any linear position of a backbone, and beside depthwise convolutions (Eq. 3: Δ = BAx).

Owns: its initial values and parameter formula. Must not know: how it is trained.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from harness.insertion.attachment import Attachment, Delta, Strength
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, dims_of
from harness.rng import generator
from harness.spec import MAP_POSITIONS, Count, Frozen, Placement


class LoRAOptions(Frozen):
    """`rank` r; `scale` of BA; how A starts; what the `out` position reads."""

    rank: Count = 4
    scale: Literal["alpha_over_r", "alpha"] = "alpha_over_r"
    init: Literal["standard", "released"] = "standard"
    """`standard`: A ~ U(±1/√d), as in LoRA. `released`: U(±1/√r), which the released code's
    transposed layout gives, 13.9 times larger at r = 4, d = 768."""
    out_input: Literal["input", "output"] = "input"
    """`output`: at `out` only, Δ reads the projection's result (the released six-position code)."""


class LoRADelta(Delta):
    """`down` A `[r, d_in]`, `up` B `[d_out, r]`; B starts at zero, so Δ starts at zero."""

    def __init__(self, down: Tensor, d_out: int, factor: float) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(d_out, len(down)))
        self.factor = factor

    def halves(self, x: Tensor, strength: Strength) -> tuple[Tensor, Tensor]:
        # Scaling the r-wide product costs d_out/r times less than scaling the result.
        return nn.functional.linear(x, self.down) * (strength * self.factor), self.up

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        return nn.functional.linear(*self.halves(x, strength))

    def low_rank(self) -> tuple[Tensor, Tensor, float]:
        return self.down, self.up, self.factor


@METHODS.register("lora")
class LoRA(PeftMethod[LoRAOptions]):
    """Low-rank updates of frozen linear maps; q, k and v are adapted apart inside the fused qkv.

    At `dw`, which is a map of each channel apart, BA is a 1 x 1 map over channels beside it.
    """

    Options = LoRAOptions
    positions = MAP_POSITIONS
    default_positions = ("q", "v")
    additive = True
    summary = "low-rank update of any linear map"

    def attach(
        self, model: Backbone, placement: Placement, options: LoRAOptions, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        dims = dims_of(model)
        factor = 1 / options.rank if options.scale == "alpha_over_r" else 1.0
        for site, alpha in placement.items():
            sequential = site.position == "out" and options.out_input == "output"
            d_in, d_out = dims.linear_io(site)
            bound = 1 / math.sqrt(d_in if options.init == "standard" else options.rank)
            down = torch.empty(options.rank, d_in)
            down.uniform_(-bound, bound, generator=generator(seed, "init", "lora", site))
            delta = LoRADelta(down, d_out, factor)
            attachment.add_delta(site, delta, alpha, "sequential" if sequential else "parallel")
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: LoRAOptions) -> int:
        """2dr per attention site, 5dr per MLP site when hidden = 4d."""
        return sum(options.rank * sum(dims.linear_io(site)) for site, _ in placement.items())
