"""MetaPEFT as a method: its options, and how it wraps the method whose sites it modulates.

Owns: which modulator and which loop the options stand for. Must not know: how γ is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

from harness.baselines.metapeft.loop import BilevelLoop, SingleLevelLoop
from harness.baselines.metapeft.modulator import Modulated, shared_by
from harness.baselines.metapeft.options import OF_D_VAL, RANKING, MetaPEFTOptions, Variant
from harness.baselines.metapeft.released import ReleasedLoop
from harness.baselines.metapeft.saliency import Fisher, GradientNorm, Snip, with_gradients
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.hooks import TrainingHook
from harness.insertion.method import METHODS, PeftMethod, get_method
from harness.model.blocks import Backbone, Dims
from harness.spec import MAP_POSITIONS, Frozen, Placement, Position, Recipe, identity

LOOPS: dict[Variant, Callable[[Modulated, MetaPEFTOptions], TrainingHook]] = {
    "paper": BilevelLoop,
    "released": ReleasedLoop,
    "single_level": SingleLevelLoop,
    "gradient_norm": GradientNorm,
    "snip": Snip,
    "fisher": Fisher,
}
UNMODULATED: tuple[Variant, ...] = ("released", *RANKING)
"""Variants in whose training and test every Δ has its fixed α."""
LABELS: dict[Variant, str] = {
    "released": "as released",
    "single_level": "single-level",
    "gradient_norm": "gradient norm",
    "snip": "SNIP",
    "fisher": "Fisher information",
}


def _unlike_plain_sgd(recipe: Recipe) -> str | None:
    """A field by which training steps are others than those that a hypergradient goes through."""
    if recipe.optimiser != "sgd":
        return f"recipe.optimiser={recipe.optimiser}"
    if recipe.clip_norm is not None:
        return f"recipe.clip_norm={recipe.clip_norm:g}"
    return f"recipe.layer_decay={recipe.layer_decay:g}" if recipe.layer_decay < 1 else None


def _base(options: MetaPEFTOptions) -> tuple[PeftMethod[Any], Frozen]:
    """The method that is wrapped, and its own options."""
    base = get_method(options.base)
    return base, base.parse_options(options.base_options)


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
        words = [LABELS[options.variant]] if options.variant in LABELS else []
        if options.gamma_per != "site":
            words.append(f"γ per {options.gamma_per.replace('_', ' ')}")
        return f"{name} ({', '.join(words)})" if words else name

    def needs_fp32(self, options: MetaPEFTOptions) -> bool:
        base, of_base = _base(options)
        return options.variant == "snip" or base.needs_fp32(of_base)

    def check_recipe(self, recipe: Recipe, options: MetaPEFTOptions) -> None:
        base, of_base = _base(options)
        base.check_recipe(recipe, of_base)
        if recipe.precision == "fp16" and options.variant != "released":
            raise UserError("recipe.precision: γ is not learned in fp16; write bf16 or fp32.")
        if options.variant in ("paper", "released"):
            option = base.unlike_plain_sgd(of_base)
            field = f"options.base_options.{option}" if option else _unlike_plain_sgd(recipe)
            if field:
                raise UserError(
                    f"{field}: γ is learned through steps of plain SGD at one rate; leave it out, "
                    "or give options.variant=single_level."
                )
        if options.variant in RANKING and recipe.clip_norm is not None:
            raise UserError(
                f"recipe.clip_norm={recipe.clip_norm:g}: sites are ranked by their whole "
                "gradients; leave it out."
            )
        if options.variant == "fisher" and recipe.batch_size != 1:
            raise UserError(
                f"recipe.batch_size={recipe.batch_size}: Fisher information is of single images; "
                "give recipe.batch_size=1."
            )
        if options.outer_prior == "d_val" and (recipe.loss != "logit_adjusted" or not recipe.tau):
            raise UserError(
                "options.outer_prior=d_val has no effect without a logit-adjusted loss: leave it "
                "out, or give recipe.loss=logit_adjusted and a recipe.tau above 0."
            )

    def unwrapped(self, options: MetaPEFTOptions) -> tuple[str, dict[str, JsonValue]]:
        return options.base, options.base_options

    def ranks(self, options: MetaPEFTOptions) -> bool:
        return options.variant in RANKING

    def rankings(self) -> dict[str, tuple[dict[str, JsonValue], dict[str, JsonValue]]]:
        return {
            "gradnorm": ({"variant": "gradient_norm"}, {}),
            "snip": ({"variant": "snip"}, {}),
            "fisher": ({"variant": "fisher"}, {"recipe.batch_size": 1}),
        }

    def controls(self, options: MetaPEFTOptions) -> list[dict[str, JsonValue]]:
        """γ by the training loss, γ shared by sites, and the gradient at the start."""
        given = identity(options)
        base = {name: given[name] for name in ("base", "base_options")}
        found: list[dict[str, JsonValue]] = []
        if options.variant == "paper":
            kept = {name: value for name, value in given.items() if name not in OF_D_VAL}
            found += [{**kept, "variant": "single_level"}]
            if options.gamma_per == "site":
                found += [{**given, "gamma_per": per} for per in ("position", "block_group")]
        return found if self.ranks(options) else [*found, {**base, "variant": "gradient_norm"}]

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
        base, of_base = _base(options)
        inner = base.attach(model, placement, of_base, seed=seed)
        modulating = options.variant not in UNMODULATED
        attachment = Modulated(
            model,
            inner,
            placement,
            form=options.gamma_form,
            nonneg=options.nonneg if modulating else "none",
            per=options.gamma_per,
        )
        attachment.modulating = modulating
        if options.variant == "snip":
            with_gradients(attachment)
        attachment.make_hook = lambda: LOOPS[options.variant](attachment, options)
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: MetaPEFTOptions) -> int:
        """Those of the base, and one γ per site (72 on ViT-B/16 with six positions) unless shared.

        Raises:
            UserError: γ would have to start where softplus cannot be, or at several strengths.
        """
        if options.nonneg == "softplus" and any(alpha <= 0 for _, alpha in placement.items()):
            raise UserError("alpha: a softplus γ cannot start at 0 or below; use a larger one.")
        base, of_base = _base(options)
        names = shared_by(placement, options.gamma_per)
        starts = set(zip(names, placement.root.values(), strict=True))
        if options.gamma_form == "replace" and len(starts) > len(set(names)):
            raise UserError(
                f"options.gamma_per={options.gamma_per}: sites that share a γ start at one alpha; "
                "give them the same, or options.gamma_form=times_alpha."
            )
        return base.expected_params(dims, placement, of_base) + len(set(names))
