"""Backbones of random weights: one of each supported family."""

from __future__ import annotations

from timm.models import beit, eva, register_model, vision_transformer
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


def small(make, size=32, **sizes):
    """A family by timm's own recipe of one of its models, with few and narrow blocks."""

    def made(pretrained: bool = False, **given: object) -> nn.Module:
        return make(**{"embed_dim": 48, "num_heads": 3, "depth": 3, **sizes, **given})

    made.__name__ = f"small_{make.__name__}"
    register_model(made)
    return BackboneSpec(name=made.__name__, weights="random", img_size=size)


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
    "DINOv3": small(eva.vit_small_patch16_dinov3, init_values=0.1),
    "DINOv3, gated, biases": small(eva.vit_small_plus_patch16_dinov3_qkvb, init_values=0.1),
    "EVA-02": small(eva.eva02_base_patch14_224, 28),
    "EVA-02, fused": small(eva.eva02_tiny_patch14_224, 28),
    "RoPE-ViT, mixed": small(eva.vit_small_patch16_rope_mixed_224, init_values=0.1),
    "BEiT": small(beit.beit_base_patch16_224),
    "SigLIP": small(vision_transformer.vit_base_patch16_siglip_224),
    "DINOv2, gated": small(vision_transformer.vit_giant_patch14_dinov2, 28, init_values=0.1),
}
"""One of each supported family. Images of a few patches: the blocks are what is tested. The MLPs of
ConvNeXt-A are 1 x 1 convolutions, those of V2 linear layers with a normalisation between. At 64 px,
the last stage of Swin has more than one token, without which q and k mean nothing. LayerScale is
0.1 where timm's 1e-5 would hide what a module adds."""

SMALL_FAMILIES = {name for name, spec in BACKBONES.items() if spec.name.startswith("small_")}
"""Those of three narrow blocks."""

DINOV3 = ("DINOv3", "DINOv3, gated, biases")
ONLY_SEQUENCES = {"vpt_shallow", "vpt_deep"}
ONLY_SUB_BLOCKS = {"adapter", "adaptformer"}


def fits(name: str, backbone: str) -> bool:
    """Whether a method, or all parts of one, has its places in a backbone."""
    if name.startswith("hf:"):  # one that adds, one that changes the input, one of the norms
        if backbone in DINOV3:  # blocks of 48 features: fewer than a rank, and no whole OFT block
            return name not in ("hf:miss", "hf:oft")
        typical = {
            "DeiT-3-S": ("hf:lora", "hf:oft", "hf:ln_tuning"),
            "Swin": ("hf:lora", "hf:ln_tuning"),
        }
        return backbone == "vit_pico" or name in typical.get(backbone, ())
    parts = set(name.rpartition(":")[2].split("+"))
    if backbone == "ViT, bf16":
        return name in ("lora", "adapter", "vpt_deep", "bitfit", "metapeft")  # it is slow on a CPU
    if backbone in ("Swin", "BEiT"):
        return not parts & ONLY_SEQUENCES
    return "ConvNeXt" not in backbone or not parts & (ONLY_SEQUENCES | ONLY_SUB_BLOCKS)
