"""Classifier heads on pooled features: cosine (released code) and linear (the paper's text).

Owns: their forward pass and initial weights. Must not know: backbones, training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from harness.rng import generator
from harness.spec import Recipe


class CosineHead(nn.Module):
    """`scale * cos(feature, weight)`: `[n, d]` -> `[n, classes]`; no bias."""

    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * linear(normalize(features, dim=1), normalize(self.weight, dim=1))


class LinearHead(nn.Module):
    """Affine map `[n, d]` -> `[n, classes]`; the bias starts at zero."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight), device=weight.device))

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight, self.bias)


def make_head(recipe: Recipe, class_means: Tensor, seed: int) -> nn.Module:
    """Build the head; `class_means` `[classes, d]` are unit vectors of frozen features."""
    weight = class_means.clone()
    if recipe.head_init == "random":
        bound = class_means.shape[1] ** -0.5  # kaiming-uniform with a = sqrt(5)
        drawn = torch.empty(class_means.shape)
        weight = drawn.uniform_(-bound, bound, generator=generator(seed, "init", "head")).to(weight)
    return CosineHead(weight, recipe.head_scale) if recipe.head == "cosine" else LinearHead(weight)
