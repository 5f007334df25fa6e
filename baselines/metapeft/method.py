"""MetaPEFT as a method: its options, and how it wraps the method whose sites it modulates.

Owns: which modulator and which loop the options stand for. Must not know: how γ is learned.
"""

from __future__ import annotations

from pydantic import JsonValue

from harness.baselines.metapeft.loop import BilevelLoop
from harness.baselines.metapeft.modulator import Modulated
from harness.baselines.metapeft.options import MetaPEFTOptions
from harness.baselines.metapeft.released import ReleasedLoop
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import METHODS, PeftMethod, get_method
from harness.model.blocks import Backbone, Dims
from harness.spec import MAP_POSITIONS, Placement, Position, identity


@METHODS.register("metapeft")
class MetaPEFT(PeftMethod[MetaPEFTOptions]):
    """y = f + γ·Δ at every site of another method (Eq. 6), γ learned while that method trains."""

    Options = MetaPEFTOptions
    positions = MAP_POSITIONS
    default_positions = MAP_POSITIONS
    additive = True
    wraps = True
    summary = "one learned strength per site, over any additive method (option base)"

    def parse_options(self, options: dict[str, JsonValue]) -> MetaPEFTOptions:
        parsed = super().parse_options(options)
        base = get_method(parsed.base)
        if not base.additive or base.wraps:
            raise UserError(f"options.base: {parsed.base!r} has no additive modules to modulate.")
        filled = identity(base.parse_options(parsed.base_options))
        return parsed.model_copy(update={"base_options": filled})

    def label(self, name: str, options: MetaPEFTOptions) -> str:
        return f"{name} (as released)" if options.variant == "released" else name

    def unwrapped(self, options: MetaPEFTOptions) -> tuple[str, dict[str, JsonValue]]:
        return options.base, options.base_options

    def positions_with(self, options: MetaPEFTOptions) -> tuple[Position, ...]:
        if options.variant == "released":
            return ("q", "v")
        return get_method(options.base).positions

    def default_positions_with(self, options: MetaPEFTOptions) -> tuple[Position, ...]:
        """All positions of the base: finding which of them matter is what γ is for."""
        return self.positions_with(options)

    def attach(
        self, model: Backbone, placement: Placement, options: MetaPEFTOptions, *, seed: int
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

    def expected_params(self, dims: Dims, placement: Placement, options: MetaPEFTOptions) -> int:
        """Those of the base, and one γ per site (72 on ViT-B/16 with six positions).

        Raises:
            UserError: γ would have to start where softplus cannot be.
        """
        if options.nonneg == "softplus" and any(alpha <= 0 for _, alpha in placement.items()):
            raise UserError("alpha: a softplus γ cannot start at 0 or below; use a larger one.")
        base = get_method(options.base)
        parsed = base.parse_options(options.base_options)
        return base.expected_params(dims, placement, parsed) + len(placement)
