"""A small vision transformer in plain torch, whose layers have names of their own.

The harness reaches its sites because `ROOMS` says which layer each position is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from harness.model.blocks import Kind
from harness.model.own import OwnBackbone
from harness.spec import BackboneSpec

WIDTH, DEPTH, HEADS, PATCH, SIDE = 48, 4, 4, 8, 32


class Patches(nn.Module):
    """Images `[n, c, h, w]` to tokens `[n, t, d]`."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.patch_size = (PATCH, PATCH)
        self.convolution = nn.Conv2d(bands, WIDTH, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).flatten(2).transpose(1, 2)


class Room(nn.Module):
    """A pre-norm block. Each branch ends in a module of its own, after which a method can join."""

    def __init__(self) -> None:
        super().__init__()
        self.before_mixing = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.mixed = nn.Linear(WIDTH, WIDTH)
        self.mixing_ends = nn.Identity()
        self.before_widening = nn.LayerNorm(WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.widening_ends = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.mix(self.before_mixing(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.mixing_ends(self.mixed(mixed))
        wide = nn.functional.gelu(self.widen(self.before_widening(x)))
        return x + self.widening_ends(self.narrow(wide))


class LabViT(nn.Module):
    """Without a class token: features are the mean over tokens."""

    num_features = WIDTH

    def __init__(self, bands: int, side: int) -> None:
        super().__init__()
        self.patch_embed = Patches(bands)
        self.places = nn.Parameter(0.02 * torch.randn(1, (side // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Room() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.blocks(self.patch_embed(images) + self.places))

    def forward_head(self, tokens: Tensor, pre_logits: bool = True) -> Tensor:
        return tokens.mean(dim=1)


def build(spec: BackboneSpec) -> nn.Module:
    return LabViT(spec.in_chans, spec.img_size or SIDE)


ROOMS = Kind(
    parts={},
    layers={
        "q": "mix",
        "k": "mix",
        "v": "mix",
        "out": "mixed",
        "mlp1": "widen",
        "mlp2": "narrow",
    },
    branches={
        "attn": ("before_mixing", "mixing_ends"),
        "ffn": ("before_widening", "widening_ends"),
    },
)

LAB_VIT = OwnBackbone(
    build=build,
    summary="a ViT of 4 blocks, width 48, 32 px, in plain torch (random weights, or --weights)",
    input_size=SIDE,
    kinds={Room: ROOMS},
)
