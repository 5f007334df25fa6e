"""The options of MetaPEFT.

Owns: their meaning and defaults. Must not know: how they are carried out.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from harness.baselines.metapeft.hypergradient import parse_hypergradient
from harness.baselines.metapeft.modulator import GammaForm, GammaPer, NonNegative
from harness.baselines.metapeft.sampling import Sampling
from harness.errors import UserError
from harness.spec import Added, Count, Frozen

Variant = Literal["paper", "released", "single_level", "gradient_norm", "snip", "fisher"]
RANKING: tuple[Variant, ...] = ("gradient_norm", "snip", "fisher")
"""Variants that train nothing and rank the sites by what is seen at the start."""

OF_D_VAL = {"ratio", "sampling", "d_val", "outer_batches", "outer_prior", "hypergradient"}
"""Options of the outer problem."""
HEEDED: dict[Variant, set[str]] = {
    "released": {"base", "base_options", "inner_steps", "ratio"},
    **{variant: {"base", "base_options"} for variant in RANKING},
}
"""Of a variant that is nearly fixed: its only options."""


class MetaPEFTOptions(Frozen):
    """Defaults are the paper's method; where it gives no value, the reason is given instead."""

    base: str = "lora"
    """The additive method, or `a+b`, whose sites get a γ."""
    base_options: dict[str, JsonValue] = Field(default={})
    variant: Variant = "paper"
    """`released`: what the published code does instead (`released.py`); LoRA at q and v only.
    `single_level`: γ descends the training loss (`SingleLevelLoop`), the control of the bi-level
    problem. `gradient_norm`, `snip`, `fisher`: nothing is trained, and what is seen at the start
    ranks the sites (`saliency.py`)."""
    gamma_per: Annotated[GammaPer, Added] = "site"
    """What has a γ of its own: every site (Eq. 6), every position in all blocks, every group of
    three blocks at all positions, or the model as a whole."""
    gamma_form: GammaForm = "replace"
    """`replace`: γ stands for 1_p·α (Eq. 6), starting at the placement's α. `times_alpha`: γ·α, γ
    starting at 1 (the paper's Fig. 2)."""
    nonneg: NonNegative = "softplus"
    """`none` lets γ become negative."""
    inner_steps: Count = 3
    """K, inner steps to one outer step. Not in our copy of the paper; 2 or 3 in the released
    configs."""
    outer_lr: Annotated[float, Field(ge=0)] = 0.01
    """Of Adam on γ, constant. The paper only says that it varies by dataset and backbone."""
    l2: Annotated[float, Field(ge=0)] = 5e-4
    """Weight of ½·‖·‖² in the outer loss; the released code's decay; our copy of the paper has
    no value."""
    l2_target: Literal["gamma", "raw"] = "gamma"
    """What the penalty is on: γ, so that it switches sites off; or the variable before softplus,
    whose zero is γ = 0.69."""
    ratio: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2
    """Share of the training images in each D_val (the paper's default)."""
    sampling: Sampling = "random"
    """Shares of the classes in D_val (Table S1): those of the data, equal, or inverse."""
    d_val: Literal["overlap", "held_out"] = "overlap"
    """Whether the inner loop may train on D_val's images too. The paper draws D_val from
    the training data (section 3.3), calls it held out (4.2), and does not say whether the inner
    loop leaves it out. `held_out` defers its images to later batches."""
    outer_batches: Count | Literal["all"] = 1
    """Batches of D_val in one outer step. One keeps its cost that of an inner step; the paper's
    Eq. 9 has all of D_val."""
    outer_prior: Annotated[Literal["train", "d_val"], Added] = "train"
    """Whose class counts a logit-adjusted outer loss takes its prior from. With classes sampled in
    other shares than those of the training images, theirs is not D_val's own."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Inner steps before the first outer loop; in that loop γ is at its start in any case."""
    inner_trains: Literal["peft_and_head", "peft"] = "peft_and_head"
    """What the inner steps train; the paper's φ leaves the head open, the released code has it."""
    hypergradient: str = "first_order"
    """`first_order` (Eq. 9), `darts_fd`, `unrolled:T` or `neumann:T`."""

    @field_validator("hypergradient")
    @classmethod
    def _known(cls, value: str) -> str:
        parse_hypergradient(value)
        return value

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        fields = type(self).model_fields
        heeded = HEEDED.get(self.variant, set(fields) - OF_D_VAL)
        idle = [] if self.variant == "paper" else sorted(set(fields) - heeded - {"variant"})
        for name in idle:
            if getattr(self, name) != fields[name].default:
                raise UserError(f"options.{name} has no effect in the {self.variant} variant.")
        if self.variant == "released" and self.base != "lora":
            raise UserError("options.base: the released variant is written for lora only.")
        return self
