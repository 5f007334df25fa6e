"""MetaPEFT as a method: its options, and how it wraps the method whose sites it modulates."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, JsonValue

from harness.baselines.metapeft.loop import BilevelLoop
from harness.baselines.metapeft.modulator import Modulated
from harness.baselines.metapeft.options import MetaPEFTOptions
from harness.baselines.metapeft.released import ReleasedLoop
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import PeftMethod, get_method
from harness.model.blocks import Backbone, Dims
from harness.registry import METHODS
from harness.spec import MAP_POSITIONS, Placement, Position


@METHODS.register("metapeft")
class MetaPEFT(PeftMethod):
    """y = f + γ·Δ at every site of another method (Eq. 6), γ learned while that method trains."""

    Options = MetaPEFTOptions
    positions = MAP_POSITIONS
    default_positions = MAP_POSITIONS
    additive = True
    wraps = True
    summary = "one learned strength per site, over any additive method (option base)"

    def parse_options(self, options: dict[str, JsonValue]) -> BaseModel:
        parsed = super().parse_options(options)
        assert isinstance(parsed, MetaPEFTOptions)
        base = get_method(parsed.base)
        if not base.additive or base.wraps:
            raise UserError(f"options.base: {parsed.base!r} has no additive modules to modulate.")
        filled = base.parse_options(parsed.base_options).model_dump(mode="json")
        return parsed.model_copy(update={"base_options": filled})

    def label(self, name: str, options: Any) -> str:
        return f"{name} (as released)" if options.variant == "released" else name

    def unwrapped(self, options: Any) -> tuple[str, dict[str, JsonValue]]:
        return options.base, options.base_options

    def positions_with(self, options: Any) -> tuple[Position, ...]:
        if options.variant == "released":
            return ("q", "v")
        return get_method(options.base).positions

    def default_positions_with(self, options: Any) -> tuple[Position, ...]:
        """All that the base can have: which of them to use is what γ is to find."""
        return self.positions_with(options)

    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        base = get_method(options.base)
        inner = base.attach(model, placement, base.parse_options(options.base_options), seed=seed)
        released = options.variant == "released"
        attachment = Modulated(
            model,
            inner,
            placement,
            form=options.gamma_form,
            nonneg="none" if released else options.nonneg,
        )
        attachment.modulating = not released
        loop = ReleasedLoop if released else BilevelLoop
        attachment.make_hook = lambda: loop(attachment, options)
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        """Those of the base, and one γ per site (72 on ViT-B/16 with six positions).

        Raises:
            UserError: γ would have to start where softplus cannot be.
        """
        if options.nonneg == "softplus" and any(alpha <= 0 for _, alpha in placement.items()):
            raise UserError("alpha: a softplus γ cannot start at 0 or below; use a larger one.")
        base = get_method(options.base)
        parsed = base.parse_options(options.base_options)
        return base.expected_params(dims, placement, parsed) + len(placement)
