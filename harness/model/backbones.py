"""Backbones by name: building them, their weights, and features.

Owns: which names there are and where their weights come from. Must not know: what is inside a
block, PEFT methods, data, training.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer

from harness.errors import UserError, unknown
from harness.model.blocks import SUPPORTED, Backbone, Dims, checked, dims_of
from harness.model.own import OwnBackbone
from harness.model.precision import computing, quantise_weights
from harness.model.weight_files import sha256_of
from harness.model.weights import Fitted, load_into
from harness.registry import Registry
from harness.spec import BackboneSpec


class ConvStem(PatchEmbed):
    """Patch embedding by three strided convolutions, of total stride 8.

    On few and small images, a ViT learns edges much sooner through convolutions than through one
    8 x 8 projection. The blocks, where all sites are, stay plain.
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
"""What `harness list backbones` says of some names. The paper names no checkpoint for its IN21K
ViT-B/16; these are what its released code and LIFT's (shijxcs/LIFT) load."""

FROM_FILE = {
    "satmae_vit_l16": "vit_large_patch16_224",
    "vit_tiny_local": "vit_tiny_patch16_224",
}
"""Backbones whose weights timm cannot download: name -> architecture in timm."""


def _is_built_in(name: str) -> bool:
    """Whether a name is the harness's own or timm's."""
    return name in EMBEDDED or name in FROM_FILE or timm.is_model(name)


BACKBONES: Registry[OwnBackbone] = Registry(
    "backbone",
    None,
    group="harness.backbones",
    misfit=lambda entry: None if isinstance(entry, OwnBackbone) else "not an OwnBackbone",
    reserved=_is_built_in,
)
"""Those of users; `harness.model.own` says what one must be."""


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What is known of a backbone before it is loaded."""

    name: str
    sha256: str | None
    """Of the file of its weights; None where there is no file to hash."""
    dims: Dims
    input_size: int
    """Side of its square images, in pixels."""


def backbone_info(spec: BackboneSpec, given: Path | None) -> BackboneInfo:
    """Look a backbone up without allocating its weights.

    `given` is what `--weights` names.

    Raises:
        UserError: unknown or unsupported backbone, or a weights file that is needed and not given
            or cannot be read.
    """
    path = weights_file(spec, given)
    sha256 = None if path is None else sha256_of(path)
    shape = _shape(spec)
    return BackboneInfo(name=spec.name, sha256=sha256, dims=shape.dims, input_size=shape.side)


def dims(spec: BackboneSpec) -> Dims:
    """Sizes of a backbone without allocating its weights.

    Raises:
        UserError: unknown or unsupported backbone.
    """
    return _shape(spec).dims


def input_size(spec: BackboneSpec) -> int:
    """Side in pixels of the square images that a backbone takes.

    ConvNeXt takes any size; this is the one it was pretrained with.

    Raises:
        UserError: unknown or unsupported backbone.
    """
    return _shape(spec).side


def refuse_bands(spec: BackboneSpec, name: str, bands: int) -> None:
    """Whether a backbone takes images of a drawn dataset with so many bands.

    Raises:
        UserError: it takes another number.
    """
    if bands != spec.in_chans:
        raise UserError(
            f"Images of {name} have {bands} bands, and the backbone takes {spec.in_chans}: give "
            f"--set backbone.in_chans={bands}."
        )


def refuse_images(spec: BackboneSpec, name: str, bands: int, height: int, width: int) -> None:
    """Whether a backbone takes the images of a drawn dataset, which nothing resizes.

    Raises:
        UserError: it takes other bands, or another size alone.
    """
    refuse_bands(spec, name, bands)
    shape = _shape(spec)
    if shape.is_fixed and (height, width) != (shape.side, shape.side):
        advice = f"--set backbone.img_size={height}, or " if height == width else ""
        raise UserError(
            f"Images of {name} are {height} x {width} pixels, and backbone {spec.name!r} takes "
            f"{shape.side} x {shape.side}: give {advice}data on disk, which is resized."
        )


class _Shape(NamedTuple):
    dims: Dims
    side: int
    """Of its square images, in pixels."""
    is_fixed: bool
    """Whether it refuses images of another size."""


@functools.lru_cache(maxsize=8)
def _shape(spec: BackboneSpec) -> _Shape:
    _refuse_embedded_size(spec)
    with torch.device("meta"):
        model = _build(spec, pretrained=False)
    if getattr(getattr(model, "patch_embed", None), "num_patches", 1) == 0:
        raise UserError(
            f"backbone.img_size={spec.img_size}: no patch of {spec.name!r} fits into such an image."
        )
    if not _is_built_in(spec.name):
        side = int(spec.img_size or BACKBONES.get(spec.name).input_size)
        return _Shape(dims_of(model), side, is_fixed=False)
    if isinstance(model, ConvNeXt):
        side = int(spec.img_size or model.pretrained_cfg["input_size"][-1])
        return _Shape(dims_of(model), side, is_fixed=False)
    height, width = model.patch_embed.img_size
    if height != width:
        raise UserError(
            f"Backbone {spec.name!r} is made for images of {height} x {width} pixels: give "
            "backbone.img_size, the side of square ones."
        )
    return _Shape(dims_of(model), int(height), is_fixed=model.patch_embed.strict_img_size)


def _refuse_embedded_size(spec: BackboneSpec) -> None:
    """Raises `UserError` if embedded weights are asked for at a size that they do not fit."""
    if spec.weights != "pretrained" or spec.name not in EMBEDDED:
        return
    if spec.img_size not in (None, EMBEDDED[spec.name]["img_size"]):
        raise UserError(
            f"The weights of {spec.name!r} do not fit img_size {spec.img_size}: leave it out."
        )


def _build(spec: BackboneSpec, *, pretrained: bool) -> Backbone:
    if spec.name in EMBEDDED:
        return VisionTransformer(**_embedded(spec))
    if not _is_built_in(spec.name):
        return _own(spec.name).make(spec)
    name = FROM_FILE.get(spec.name, spec.name)
    extra = _timm_size(spec)
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


def _embedded(spec: BackboneSpec) -> dict[str, Any]:
    """Arguments of a `VisionTransformer` for an embedded backbone."""
    size = {} if spec.img_size is None else {"img_size": spec.img_size}
    return {**EMBEDDED[spec.name], **size, "in_chans": spec.in_chans}


def _timm_size(spec: BackboneSpec) -> dict[str, int]:
    """timm's argument for the size of images, where one was asked for and there is one."""
    name = FROM_FILE.get(spec.name, spec.name).partition(".")[0]
    if spec.img_size is None or timm.models.is_model_in_modules(name, ["convnext"]):
        return {}  # ConvNeXt takes images of any size
    return {"img_size": spec.img_size}


def as_in_timm(spec: BackboneSpec, classes: int) -> tuple[Any, dict[str, Any]]:
    """timm's model of a backbone, with a linear head; and what makes it there: `model_name`, and
    arguments beside.

    Raises:
        UserError: timm has no such model.
    """
    if spec.name in EMBEDDED:
        arguments = _embedded(spec) | {"num_classes": classes}
        model = VisionTransformer(**arguments)
        del arguments["embed_layer"]  # a class, of which only the harness knows
        return model, {"model_name": spec.name, **arguments}
    if not _is_built_in(spec.name):
        raise UserError(f"Backbone {spec.name!r} is not timm's, so timm reads no checkpoint of it.")
    name = FROM_FILE.get(spec.name, spec.name).partition(".")[0]
    arguments = {**_timm_size(spec), "in_chans": spec.in_chans, "num_classes": classes}
    model = timm.create_model(name, pretrained=False, **arguments)
    return model, {"model_name": name, **arguments}


def _own(name: str) -> OwnBackbone:
    """A user's backbone.

    Raises:
        UserError: there is none of this name; suggests timm's too.
    """
    if name not in BACKBONES.names():
        near = timm.list_models(["vit_*", "deit*", "eva*", "beit*", "swin_*", "convnext*"])
        raise unknown("backbone", name, [*near, *EMBEDDED, *FROM_FILE, *BACKBONES.names()])
    return BACKBONES.get(name)


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
    if spec.weights == "pretrained" and not _is_built_in(spec.name):
        own = _own(spec.name).weights
        if own is None:
            raise UserError(
                f"Backbone {spec.name!r} comes without weights: name their file with --weights, or "
                "give --set backbone.weights=random."
            )
        return own
    return None


def load_backbone(spec: BackboneSpec, device: torch.device, given: Path | None = None) -> Backbone:
    """Build a frozen backbone in evaluation mode (no dropout, as in the released code).

    `given` is the weights file of this machine, where `spec.weights` is `file`.

    Raises:
        UserError: unknown or unsupported backbone, or weights that cannot be loaded or differ from
            those that the spec was resolved with.
    """
    model, _ = _loaded(spec, given)
    quantise_weights(model, spec.frozen)
    return model.requires_grad_(False).eval().to(device)


def try_weights(spec: BackboneSpec, given: Path) -> Fitted:
    """Load a weights file as a trial would; returns what of it is not used.

    Raises:
        UserError: as `load_backbone`.
    """
    return _loaded(spec, given)[1]


def _loaded(spec: BackboneSpec, given: Path | None) -> tuple[Backbone, Fitted]:
    path = weights_file(spec, given)
    _shape(spec)  # whether there is such a model, before its weights are blamed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # `weights: random` must mean the same network everywhere
        model = _build(spec, pretrained=path is None and spec.weights == "pretrained")
    if path is None:
        return model, Fitted([])
    if spec.sha256 not in (None, sha256_of(path)):
        raise UserError(
            f"Weights {path} are not those of this trial: their sha256 is "
            f"{sha256_of(path)[:12]}..., not {str(spec.sha256)[:12]}...; name the same file."
        )
    return model, load_into(model, path, spec.name)


def features(model: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Pooled features after the final norm: `[n, 3, h, w]` -> `[n, d]`.

    As timm pools the model: the CLS token in a ViT, attention over all tokens in SigLIP, the mean
    over patches in DINOv3, EVA-02 and BEiT, and over places in Swin and ConvNeXt.
    """
    with computing(model, images.device):
        tokens = model.forward_features(images)
        pooled: torch.Tensor = model.forward_head(tokens, pre_logits=True)
    return pooled.to(torch.promote_types(pooled.dtype, torch.float32))
