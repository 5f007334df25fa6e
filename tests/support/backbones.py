"""Backbones of random weights: one of each supported family."""

from __future__ import annotations

from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from harness.spec import BackboneSpec


@register_model
def swin_small_blocks(img_size: int, in_chans: int, num_classes: int, **_: object) -> nn.Module:
    """Swin-T with a sixth of its width and smaller windows, for which timm has no name."""
    return SwinTransformer(
        img_size=img_size,
        in_chans=in_chans,
        num_classes=num_classes,
        embed_dim=16,
        depths=(2, 2, 6, 2),
        num_heads=(1, 2, 4, 8),
        window_size=4,
    )


BACKBONES = {
    "vit_pico": BackboneSpec(name="vit_pico", weights="random"),
    "ViT-S/16": BackboneSpec(name="vit_small_patch16_224", weights="random", img_size=32),
    "DeiT-3-S": BackboneSpec(name="deit3_small_patch16_224", weights="random", img_size=32),
    "DINOv2-S-reg": BackboneSpec(
        name="vit_small_patch14_reg4_dinov2", weights="random", img_size=28
    ),
    "CLIP": BackboneSpec(name="vit_medium_patch16_clip_224", weights="random", img_size=32),
    "ViT, bf16": BackboneSpec(name="vit_pico", weights="random", frozen="bf16"),
    "Swin": BackboneSpec(name="swin_small_blocks", weights="random", img_size=64),
    "ConvNeXt-A": BackboneSpec(name="convnext_atto", weights="random", img_size=32),
    "ConvNeXt-V2-A": BackboneSpec(name="convnextv2_atto", weights="random", img_size=32),
}
"""One of each supported family. Images of a few patches: the blocks are what is tested. The MLPs of
ConvNeXt-A are 1 x 1 convolutions, those of V2 linear layers with a normalisation between. At 64 px,
the last stage of Swin has more than one token, without which q and k mean nothing."""

ONLY_SEQUENCES = {"vpt_shallow", "vpt_deep"}
ONLY_SUB_BLOCKS = {"adapter", "adaptformer"}


def fits(name: str, backbone: str) -> bool:
    """Whether a method, or all parts of one, has its places in a backbone."""
    if name.startswith("hf:"):  # one that adds, one that changes the input, one of the norms
        is_typical = name in ("hf:lora", "hf:oft", "hf:ln_tuning")
        return backbone == "vit_pico" or (is_typical and backbone in ("DeiT-3-S", "Swin"))
    parts = set(name.rpartition(":")[2].split("+"))
    if backbone == "ViT, bf16":
        return name in ("lora", "adapter", "vpt_deep", "bitfit", "metapeft")  # it is slow on a CPU
    if backbone == "Swin":
        return not parts & ONLY_SEQUENCES
    return "ConvNeXt" not in backbone or not parts & (ONLY_SEQUENCES | ONLY_SUB_BLOCKS)
