"""Bottleneck modules (Eq. 4: Δ = W_up σ(W_down x)): Adapter, AdaptFormer, and at linear maps.

Owns: these modules and their parameter formula. Must not know: how they are trained.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from harness.insertion.attachment import Attachment, Delta, Form, Strength
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, dims_of
from harness.rng import generator
from harness.spec import MAP_POSITIONS, SUB_BLOCK_POSITIONS, Count, Frozen, Placement


class AdapterOptions(Frozen):
    """`rank` r of the bottleneck; how α scales it; whether it has its own LayerNorm."""

    rank: Count = 4
    scale: Literal["alpha", "alpha_over_r"] = "alpha"
    """`alpha` is Eq. 2 (and LIFT); `alpha_over_r` is the released code."""
    layer_norm: bool = True


class AdaptFormerOptions(Frozen):
    """As `AdapterOptions`, and two scales that are trained."""

    rank: Count = 4
    scale: Literal["learnable", "alpha_times_gain", "alpha", "alpha_over_r"] = "learnable"
    """`learnable` is the released code: a trained scalar that starts at α. `alpha_times_gain` is α
    times a trained scalar that starts at 1: of the same value at first, but it moves α² times as
    fast under SGD. `alpha` with α = 0.1 and no LayerNorm is the original AdaptFormer."""
    layer_norm: bool = True


BottleneckOptions: TypeAlias = AdapterOptions | AdaptFormerOptions


TRAINED = ("learnable", "alpha_times_gain")
"""Scales with a trained scalar."""


class Bottleneck(Delta):
    """LayerNorm, d_in -> r, ReLU, r -> d_out. The up-projection starts at zero.

    `alpha` is the strength at the start. A trained scalar that starts there is multiplied by what
    the strength has become of it, which is 1 unless something sets another strength.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        options: BottleneckOptions,
        rng: torch.Generator,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_in) if options.layer_norm else nn.Identity()
        self.down = nn.Linear(d_in, options.rank)
        self.up = nn.Linear(options.rank, d_out)
        # Kaiming-normal with a = sqrt(5), fan-in d_in, as in the released code.
        nn.init.normal_(self.down.weight, std=math.sqrt(1 / (3 * d_in)), generator=rng)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.factor = 1 / options.rank if options.scale == "alpha_over_r" else 1.0
        # At α = 0 nothing would ever move, in either form; one that starts at 1 can be switched on.
        self.start = alpha if options.scale == "learnable" and alpha else 1.0
        is_trained = options.scale in TRAINED
        self.gain = nn.Parameter(torch.tensor(self.start)) if is_trained else None

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        y: Tensor = self.up(torch.relu(self.down(self.norm(x))))
        scale = strength * self.factor / self.start
        return y * (scale if self.gain is None else scale * self.gain)


class _Bottlenecks(PeftMethod[BottleneckOptions]):
    """What the three have in common: one bottleneck per site."""

    name: ClassVar[str]
    form: ClassVar[Form]
    additive = True

    def attach(
        self, model: Backbone, placement: Placement, options: BottleneckOptions, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        dims = dims_of(model)
        for site, alpha in placement.items():
            d_in, d_out = dims.linear_io(site)
            rng = generator(seed, "init", self.name, site)
            delta = Bottleneck(d_in, d_out, options, rng, alpha)
            attachment.add_delta(site, delta, alpha, self.form)
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: BottleneckOptions) -> int:
        """d(3 + 2r) + r per sub-block site, one more for a trained scale."""
        total = 0
        for site, _ in placement.items():
            d_in, d_out = dims.linear_io(site)
            norm = 2 * d_in if options.layer_norm else 0
            total += norm + (d_in + d_out) * options.rank + options.rank + d_out
            total += options.scale in TRAINED
        return total


@METHODS.register("adapter")
class Adapter(_Bottlenecks):
    """y = f + α·Δ(f), before the residual addition (the released code's place, Pfeiffer-like)."""

    name = "adapter"
    form = "sequential"
    Options = AdapterOptions
    positions = SUB_BLOCK_POSITIONS
    default_positions = ("ffn",)
    summary = "bottleneck after a sub-block, before its residual addition"


@METHODS.register("adaptformer")
class AdaptFormer(_Bottlenecks):
    """y = f + s·Δ(x), x the residual stream that enters the sub-block, s trained from α on."""

    name = "adaptformer"
    form = "parallel"
    Options = AdaptFormerOptions
    positions = SUB_BLOCK_POSITIONS
    default_positions = ("ffn",)
    summary = "bottleneck parallel to a sub-block, with a learnable or fixed scale"


@METHODS.register("bottleneck")
class LinearBottleneck(_Bottlenecks):
    """y = Wx + α·Δ(x) at a linear map: Eq. 4's Δ where LoRA's would be."""

    name = "bottleneck"
    form = "parallel"
    Options = AdapterOptions
    positions = MAP_POSITIONS
    default_positions = ("mlp1",)
    summary = "bottleneck parallel to any linear map"
