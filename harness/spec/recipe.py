"""How a trial is trained: optimiser, schedule, loss, head, augmentation, precision.

Owns: `Recipe`, which of its fields go together, and recipes that have names. Must not know: how
anything is trained.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.errors import UserError
from harness.spec.base import Added, Count, Frozen

MOMENTUM = 0.9
NEEDS = {
    "tau": ("loss", "logit_adjusted"),
    "head_scale": ("head", "cosine"),
    "crop_scale_min": ("augment", "crop_flip"),
}
"""Fields of a recipe that have an effect with one value of another field alone."""


class Recipe(Frozen):
    """How a trial is trained. Defaults are those of the authors' released code."""

    epochs: Count = 10
    batch_size: Count = 128
    lr: Annotated[float, Field(gt=0)] = 0.01
    """At batch 128; the rate used is `lr * sqrt(batch_size / 128)`."""
    optimiser: Annotated[Literal["sgd", "adamw"], Added] = "sgd"
    """`adamw` has torch's betas, and decays weights apart from the gradient."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = MOMENTUM
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0), Added] = 0
    """Epochs in which the rate rises linearly to `lr`; the schedule is over the rest."""
    layer_decay: Annotated[float, Field(gt=0, le=1), Added] = 1.0
    """The rate of what is trained in a block, times this for every layer above it, the head among
    them (BEiT). The head has the whole rate."""
    clip_norm: Annotated[float | None, Field(gt=0), Added] = None
    """Largest norm of the gradient of all trained tensors together, to which it is scaled down."""
    loss: Literal["logit_adjusted", "cross_entropy"] = "logit_adjusted"
    tau: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Added] = 0.0
    """Share of a label that is spread evenly over all classes, in training."""
    head: Literal["cosine", "linear"] = "cosine"
    head_scale: Annotated[float, Field(gt=0)] = 25.0
    head_init: Literal["class_mean", "random"] = "class_mean"
    augment: Literal["crop_flip", "none"] = "crop_flip"
    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Smallest area of the random resized crop, as a share of the image. Packs keep the pixels that
    it needs (`harness.data.copies`)."""
    mixup: Annotated[float, Field(ge=0), Added] = 0.0
    """a of the Beta(a, a) by which the images of a training batch are mixed; 0: they are not."""
    cutmix: Annotated[float, Field(ge=0), Added] = 0.0
    """The same for pasting a part of one image into another. With both, a batch gets either."""
    epoch_rule: Literal["last", "best"] = "last"
    """Which epoch is tested: the last, or the best on the selection split."""
    early_stop: bool = False
    """The paper's rule: stop when selection accuracy gained < 0.3 points over 3 epochs."""
    score_epochs: Annotated[Literal["all", "last"], Added] = "all"
    """After which epochs the selection split is scored: every one, or only the last one, which is
    cheaper where nothing stops or chooses by the scores of an earlier epoch."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` becomes bf16 on CUDA and fp32 on CPU when the trial is resolved."""
    eval_precision: Annotated[Literal["auto", "fp32", "tf32", "bf16"], Added] = "auto"
    """Of the forward pass when images are scored, the head aside, which stays in fp32. `auto` is
    what training uses; `fp32` has no TF32 in it; `tf32` is of CUDA devices."""

    @model_validator(mode="after")
    def _is_scored_where_it_is_watched(self) -> Self:
        watched = (
            "early_stop" if self.early_stop else "epoch_rule" if self.epoch_rule == "best" else None
        )
        if self.score_epochs == "last" and watched:
            raise UserError(
                f"recipe.score_epochs=last: recipe.{watched} needs the scores of every epoch; "
                "leave one of the two out."
            )
        return self

    def scored(self, epochs: int) -> int:
        """How often the selection split is scored in so many epochs."""
        return epochs if self.score_epochs == "all" else min(epochs, 1)

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> Self:
        if self.optimiser == "adamw" and self.momentum != MOMENTUM:
            raise UserError(
                f"recipe.momentum={self.momentum:g} is of SGD and has no effect with "
                "recipe.optimiser=adamw: leave it out."
            )
        if self.warmup_epochs >= self.epochs:
            raise UserError(
                f"recipe.warmup_epochs={self.warmup_epochs} must be below recipe.epochs="
                f"{self.epochs}."
            )
        return self

    @property
    def idle(self) -> dict[str, str]:
        """Fields that are not as by default and change nothing, each with the field it needs.

        Trials are stored with such fields, so that only whoever sets one is told.
        """
        fields = type(self).model_fields
        return {
            name: needed
            for name, (needed, value) in NEEDS.items()
            if getattr(self, needed) != value and getattr(self, name) != fields[name].default
        }

    @property
    def mixes(self) -> bool:
        """Whether training batches are made of mixed images, which have several labels."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def first_rate(self) -> float:
        """The rate that the optimiser starts with, after the warm-up if there is one."""
        return self.lr * math.sqrt(self.batch_size / 128)

    @property
    def in_words(self) -> str:
        """Rate, with the one that the optimiser uses where that is another, batch and epochs."""
        name = "SGD" if self.optimiser == "sgd" else "AdamW"
        used = "" if self.first_rate == self.lr else f" ({name} at {self.first_rate:g})"
        by = "" if self.optimiser == "sgd" or used else f" ({name})"
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        return f"lr {self.lr:g}{used}{by}, batch {self.batch_size}, {epochs}"


RECIPES: dict[str, Recipe] = {
    "lift": Recipe(),
    "deit": Recipe(
        optimiser="adamw",
        lr=1e-3,
        weight_decay=0.05,
        warmup_epochs=1,
        loss="cross_entropy",
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        head="linear",
        head_init="random",
    ),
}
"""By the names that `recipe` takes. `lift`: LIFT's, which the released code inherits, so the
defaults. `deit`: after DeiT (its Table 9: AdamW, decay 0.05, warm-up, smoothing 0.1, mixup 0.8,
cutmix 1.0), with the rate and the few epochs of fine-tuning instead of training; without
RandAugment, erasing, repeated augmentation and stochastic depth."""
