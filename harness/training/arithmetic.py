"""In which precision a recipe trains and evaluates.

Owns: the contexts of both passes, and TF32. Must not know: classifiers, data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from harness.spec import Recipe

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def evaluated_in(recipe: Recipe) -> Precision:
    """The precision of evaluation, where the recipe leaves it to that of training too.

    `recipe` is that of a resolved trial.
    """
    if recipe.eval_precision != "auto":
        return recipe.eval_precision
    return "fp32" if recipe.precision == "auto" else recipe.precision


def set_tf32(matmul: bool, convolution: bool) -> tuple[bool, bool]:
    """Whether a GPU may round fp32 inputs of either to 10 bits; returns what was before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolution
    return before


@contextmanager
def autocast(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Mixed precision of the training forward pass."""
    with torch.autocast(
        device.type, dtype=AUTOCAST.get(recipe.precision), enabled=recipe.precision in AUTOCAST
    ):
        yield


@contextmanager
def evaluating(precision: Precision, device: torch.device) -> Iterator[None]:
    """The forward pass of an evaluation. Features come out in fp32, and the head stays in it."""
    with torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        is_rounded = precision == "tf32"
        before = set_tf32(is_rounded, is_rounded)
        try:
            yield
        finally:
            set_tf32(*before)
