"""Shared pieces: small backbones on random weights, and everything on one thread."""

from __future__ import annotations

import pytest
import torch

from harness.spec import BackboneSpec
from harness.vit import load_backbone

torch.set_num_threads(1)

BACKBONES = {
    "vit_pico": BackboneSpec(name="vit_pico", weights="random"),
    "ViT-S/16": BackboneSpec(name="vit_small_patch16_224", weights="random", img_size=32),
    "DeiT-3-S": BackboneSpec(name="deit3_small_patch16_224", weights="random", img_size=32),
    "DINOv2-S-reg": BackboneSpec(
        name="vit_small_patch14_reg4_dinov2", weights="random", img_size=28
    ),
    "CLIP": BackboneSpec(name="vit_medium_patch16_clip_224", weights="random", img_size=32),
}
"""One of each supported family. Images of a few patches: the blocks are what is tested."""


@pytest.fixture(scope="session")
def backbones():
    """name -> (spec, frozen model); shared, because attaching must leave no trace."""
    cpu = torch.device("cpu")
    return {name: (spec, load_backbone(spec, cpu)) for name, spec in BACKBONES.items()}
