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
    "Swin-T": BackboneSpec(name="swin_tiny_patch4_window7_224", weights="random", img_size=64),
    "ConvNeXt-A": BackboneSpec(name="convnext_atto", weights="random", img_size=32),
    "ConvNeXt-V2-A": BackboneSpec(name="convnextv2_atto", weights="random", img_size=32),
}
"""One of each supported family. Images of a few patches: the blocks are what is tested. The MLPs of
ConvNeXt-A are 1 x 1 convolutions, those of V2 linear layers with a normalisation between. At 64 px, the last stage
of Swin has more than one token, without which q and k mean nothing."""

ONLY_SEQUENCES = {"vpt_shallow", "vpt_deep"}
ONLY_SUB_BLOCKS = {"adapter", "adaptformer"}


def fits(name: str, backbone: str) -> bool:
    """Whether a method, or all parts of one, has its places in a backbone."""
    parts = set(name.rpartition(":")[2].split("+"))
    if backbone == "Swin-T":
        return not parts & ONLY_SEQUENCES
    return "ConvNeXt" not in backbone or not parts & (ONLY_SEQUENCES | ONLY_SUB_BLOCKS)


@pytest.fixture(scope="session")
def backbones():
    """name -> (spec, frozen model); shared, because attaching must leave no trace."""
    cpu = torch.device("cpu")
    return {name: (spec, load_backbone(spec, cpu)) for name, spec in BACKBONES.items()}
