"""LoRA at any linear position of a backbone, and beside depthwise convolutions (Eq. 3: Δ = BAx).

Its variants rsLoRA (Kalajdzievski 2023) and LoRA+ (Hayou et al. 2024) are other defaults of its
options. Owns: its initial values, ranks and parameter formula. Must not know: how it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from harness.errors import UserError, unknown
from harness.insertion.attachment import Attachment, Delta, Strength
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, dims_of
from harness.rng import generator
from harness.spec import MAP_POSITIONS, Added, Count, Frozen, Placement, Site

Scale = Literal["alpha_over_r", "alpha", "alpha_over_sqrt_r"]


class LoRAOptions(Frozen):
    """`rank` r; `scale` of BA; how A starts; what the `out` position reads."""

    rank: Count = 4
    rank_at: Annotated[dict[str, Count], Added] = Field(default={})
    """Other ranks, at a position (`mlp1`) or a site (`11.mlp1`, which goes before its position)."""
    scale: Scale = "alpha_over_r"
    """`alpha_over_sqrt_r`: rsLoRA's α/√r, under which the size of Δ does not fall with the rank."""
    init: Literal["standard", "released"] = "standard"
    """`standard`: A ~ U(±1/√d), as in LoRA. `released`: U(±1/√r), which the released code's
    transposed layout gives, 13.9 times larger at r = 4, d = 768."""
    out_input: Literal["input", "output"] = "input"
    """`output`: at `out` only, Δ reads the projection's result (the released six-position code)."""
    rate_ratio: Annotated[float, Field(gt=0), Added] = 1.0
    """The learning rate of B over that of A, which has the recipe's (λ of LoRA+)."""
    dropout: Annotated[float, Field(ge=0, lt=1), Added] = 0.0
    """Share of the elements of x that A does not see in a training step."""

    @field_validator("rank_at")
    @classmethod
    def _at_positions_or_sites(cls, ranks: dict[str, int]) -> dict[str, int]:
        for key in ranks:
            if key not in MAP_POSITIONS and Site.parse(key).position not in MAP_POSITIONS:
                raise unknown("position in options.rank_at:", key, MAP_POSITIONS)
        return ranks

    def ranks(self, placement: Placement) -> dict[Site, int]:
        """The rank at every site of a placement.

        Raises:
            UserError: a rank is of no site of it.
        """
        sites = [site for site, _ in placement.items()]
        idle = set(self.rank_at) - {str(s) for s in sites} - {s.position for s in sites}
        if idle:
            raise UserError(
                f"options.rank_at.{min(idle)} has no effect: no site of the placement is there."
            )
        at = self.rank_at
        return {s: at.get(str(s), at.get(s.position, self.rank)) for s in sites}

    def factor(self, rank: int) -> float:
        """What `scale` multiplies BA by, beside α."""
        if self.scale == "alpha":
            return 1.0
        return 1 / rank if self.scale == "alpha_over_r" else 1 / math.sqrt(rank)


class LoRADelta(Delta):
    """`down` A `[r, d_in]`, `up` B `[d_out, r]`; B starts at zero, so Δ starts at zero."""

    def __init__(
        self, down: Tensor, d_out: int, factor: float, *, rate_ratio: float = 1, dropout: float = 0
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(d_out, len(down)))
        self.factor = factor
        self._rate_ratio, self._dropout = rate_ratio, dropout

    def halves(self, x: Tensor, strength: Strength) -> tuple[Tensor, Tensor]:
        if self._dropout:
            x = nn.functional.dropout(x, self._dropout, self.training)
        # Scaling the r-wide product costs d_out/r times less than scaling the result.
        return nn.functional.linear(x, self.down) * (strength * self.factor), self.up

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        return nn.functional.linear(*self.halves(x, strength))

    def low_rank(self) -> tuple[Tensor, Tensor, float]:
        return self.down, self.up, self.factor

    def rate_factors(self) -> Mapping[nn.Parameter, float]:
        return {self.up: self._rate_ratio}


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
        ranks = options.ranks(placement)
        for site, alpha in placement.items():
            rank = ranks[site]
            sequential = site.position == "out" and options.out_input == "output"
            d_in, d_out = dims.linear_io(site)
            bound = 1 / math.sqrt(d_in if options.init == "standard" else rank)
            down = torch.empty(rank, d_in)
            down.uniform_(-bound, bound, generator=generator(seed, "init", "lora", site))
            delta = LoRADelta(
                down,
                d_out,
                options.factor(rank),
                rate_ratio=options.rate_ratio,
                dropout=options.dropout,
            )
            attachment.add_delta(site, delta, alpha, "sequential" if sequential else "parallel")
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: LoRAOptions) -> int:
        """2dr per attention site, 5dr per MLP site when hidden = 4d."""
        ranks = options.ranks(placement)
        return sum(rank * sum(dims.linear_io(site)) for site, rank in ranks.items())

    def unlike_plain_sgd(self, options: LoRAOptions) -> str | None:
        if options.dropout:
            return "dropout"
        return "rate_ratio" if options.rate_ratio != 1 else None


class RsLoRAOptions(LoRAOptions):
    """As LoRA's."""

    scale: Scale = "alpha_over_sqrt_r"


@METHODS.register("rslora")
class RsLoRA(LoRA):
    """LoRA whose Δ is scaled by α/√r."""

    Options = RsLoRAOptions
    in_all = False
    summary = "LoRA scaled by α/√r, so that a larger rank does not weaken it"


class LoRAPlusOptions(LoRAOptions):
    """As LoRA's."""

    rate_ratio: Annotated[float, Field(gt=0), Added] = 16.0


@METHODS.register("lora_plus")
class LoRAPlus(LoRA):
    """LoRA whose B is trained at 16 times the rate of A, the ratio of its paper."""

    Options = LoRAPlusOptions
    in_all = False
    summary = "LoRA whose B has 16 times the learning rate of A"
