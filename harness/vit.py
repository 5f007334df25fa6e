"""Backbones: loading timm plain ViTs, refusing others, and their dimensions.

Owns: what a supported block looks like. Must not know: PEFT methods, data, training.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer

from harness.errors import UserError, unknown
from harness.spec import BackboneSpec, Position
from harness.weights import load_into, sha256_of

SUPPORTED = (
    "timm VisionTransformer with plain pre-norm blocks "
    "(ViT, DeiT, DeiT-3, AugReg, DINO, DINOv2, CLIP image towers)"
)


class ConvStem(PatchEmbed):
    """Patch embedding by three strided convolutions, of total stride 8.

    From few and small images, a ViT learns edges much sooner through convolutions than through one
    8 x 8 projection; the blocks, where all sites are, stay plain.
    """

    def __init__(self, *, embed_dim: int, in_chans: int, **rest: Any) -> None:
        super().__init__(embed_dim=embed_dim, in_chans=in_chans, **rest)
        widths = [in_chans, embed_dim // 4, embed_dim // 2, embed_dim]
        layers: list[torch.nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [
                torch.nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
                torch.nn.BatchNorm2d(wide),
                torch.nn.ReLU(),
            ]
        self.proj = torch.nn.Sequential(*layers, torch.nn.Conv2d(embed_dim, embed_dim, 1))


PICO: dict[str, Any] = dict(
    img_size=32,
    patch_size=8,
    embed_dim=64,
    depth=12,
    num_heads=4,
    num_classes=0,
    embed_layer=ConvStem,
)
"""The embedded backbone: the paper's 12 blocks, small enough for a sweep on two CPU cores."""

EMBEDDED = {"vit_pico": PICO}

IN21K = "the paper's IN21K ViT-B/16: ImageNet-21k, then fine-tuned on ImageNet-1k"
PRESETS = {
    "vit_base_patch16_224.augreg_in21k_ft_in1k": f"{IN21K} (timm 0.6, that of LIFT)",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": f"{IN21K} again (timm 1.0, the released code's)",
    "satmae_vit_l16": "the paper's SatMAE ViT-L/16: needs --weights, its fmow_pretrain.pth",
    "vit_tiny_local": "ViT-Ti/16 for small machines: needs --weights",
}
"""What `harness list backbones` says of some names (paper-facts, section 1)."""

FROM_FILE = {
    "satmae_vit_l16": "vit_large_patch16_224",
    "vit_tiny_local": "vit_tiny_patch16_224",
}
"""Backbones of weights that no hub of timm's has: name -> architecture in timm."""


@dataclass(frozen=True, kw_only=True)
class Dims:
    """Sizes of a plain ViT: `width` d, `hidden` of the MLP, square `patch` in pixels."""

    width: int
    hidden: int
    num_blocks: int
    patch: int
    biases_per_block: int
    """Elements of all bias parameters of one block, LayerNorms included (11d for a ViT)."""
    num_params: int

    def linear_io(self, position: Position) -> tuple[int, int]:
        """Input and output features of the linear map at a linear position."""
        if position == "mlp1":
            return self.width, self.hidden
        if position == "mlp2":
            return self.hidden, self.width
        return self.width, self.width


def checked(model: torch.nn.Module, name: str) -> VisionTransformer:
    """Return the model if every block is one that sites are defined for.

    Raises:
        UserError: names what was found and what is supported.
    """
    found = type(model).__name__
    if isinstance(model, VisionTransformer):
        for block in model.blocks:
            parts = (type(block), type(block.attn), type(block.mlp))
            if parts != (Block, Attention, Mlp):
                found = "VisionTransformer with " + "/".join(part.__name__ for part in parts)
                break
        else:
            return model
    raise UserError(f"Backbone {name!r} is a {found}; supported: {SUPPORTED}.")


def dims_of(model: VisionTransformer) -> Dims:
    """Read the sizes off a model."""
    block = model.blocks[0]
    patch = model.patch_embed.patch_size
    return Dims(
        width=model.embed_dim,
        hidden=block.mlp.fc1.out_features,
        num_blocks=len(model.blocks),
        patch=patch[0] if isinstance(patch, tuple) else patch,
        biases_per_block=sum(p.numel() for n, p in block.named_parameters() if n.endswith("bias")),
        num_params=sum(p.numel() for p in model.parameters()),
    )


@functools.lru_cache(maxsize=8)
def dims(spec: BackboneSpec) -> Dims:
    """Sizes of a backbone without allocating its weights.

    Raises:
        UserError: unknown or unsupported backbone.
    """
    with torch.device("meta"):
        return dims_of(_build(spec, pretrained=False))


def _build(spec: BackboneSpec, *, pretrained: bool) -> VisionTransformer:
    extra = {} if spec.img_size is None else {"img_size": spec.img_size}
    if spec.name in EMBEDDED:
        return VisionTransformer(**{**EMBEDDED[spec.name], **extra}, in_chans=spec.in_chans)
    name = FROM_FILE.get(spec.name, spec.name)
    if not timm.is_model(name):
        near = timm.list_models("vit_*") + timm.list_models("deit*") + [*EMBEDDED, *FROM_FILE]
        raise unknown("backbone", spec.name, near)
    try:
        model = timm.create_model(
            name, pretrained=pretrained, num_classes=0, in_chans=spec.in_chans, **extra
        )
    except TypeError as error:
        raise UserError(
            f"Backbone {spec.name!r} takes no img_size; supported: {SUPPORTED}."
        ) from error
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Weights of {spec.name!r} could not be loaded ({error}); is the model hub reachable?"
        ) from error
    return checked(model, spec.name)


def weights_file(spec: BackboneSpec, given: Path | None) -> Path | None:
    """The file that a backbone's weights are read from; None where timm has them, or none.

    `given` is what `--weights` names.

    Raises:
        UserError: the weights are to come from a file, and none is given.
    """
    if spec.weights == "file":
        if given is None:
            raise UserError(f"Backbone {spec.name!r}: name the file of its weights with --weights.")
        return given
    if spec.weights == "pretrained" and spec.name in FROM_FILE:
        raise UserError(
            f"Backbone {spec.name!r} has weights in a local file only: name it with --weights."
        )
    if spec.weights == "pretrained" and spec.name in EMBEDDED:
        return Path(str(resources.files("harness") / "assets" / f"{spec.name}.safetensors"))
    return None


def weights_sha256(spec: BackboneSpec, given: Path | None) -> str | None:
    """Hash of the file of a backbone's weights; None where there is no file to hash.

    Raises:
        UserError: as `weights_file`, or the file cannot be read.
    """
    path = weights_file(spec, given)
    return None if path is None else sha256_of(path)


def load_backbone(
    spec: BackboneSpec, device: torch.device, given: Path | None = None
) -> VisionTransformer:
    """Build a frozen backbone in evaluation mode (no dropout, as in the released code).

    `given` is the weights file of this machine, where `spec.weights` is `file`.

    Raises:
        UserError: unknown or unsupported backbone, or weights that cannot be loaded or are others
            than those that the spec was resolved with.
    """
    model, _ = _loaded(spec, given)
    return model.requires_grad_(False).eval().to(device)


def unused_tensors(spec: BackboneSpec, given: Path) -> list[str]:
    """Load a weights file as a trial would, and name its tensors that the backbone does not need.

    Raises:
        UserError: as `load_backbone`.
    """
    return _loaded(spec, given)[1]


def _loaded(spec: BackboneSpec, given: Path | None) -> tuple[VisionTransformer, list[str]]:
    path = weights_file(spec, given)
    if spec.weights == "pretrained" and spec.name in EMBEDDED:
        size = EMBEDDED[spec.name]["img_size"]
        if spec.img_size not in (None, size):
            raise UserError(
                f"The weights of {spec.name!r} do not fit img_size {spec.img_size}: leave it out."
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # `weights: random` must mean the same network everywhere
        model = _build(spec, pretrained=path is None and spec.weights == "pretrained")
    if path is None:
        return model, []
    if spec.sha256 not in (None, sha256_of(path)):
        raise UserError(
            f"Weights {path} are not those of this trial: their sha256 is "
            f"{sha256_of(path)[:12]}..., not {str(spec.sha256)[:12]}...; name the same file."
        )
    return model, load_into(model, path)


def features(model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Pooled features after the final norm: `[n, 3, h, w]` -> `[n, d]` (the CLS token in a ViT)."""
    tokens = model.forward_features(images)
    pooled: torch.Tensor = model.forward_head(tokens, pre_logits=True)
    return pooled
