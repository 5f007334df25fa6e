"""The blocks of each family of backbones: their order, their sizes, and where positions are.

Owns: which layer a site stands for, in plain ViTs, Swin and ConvNeXt; blocks of one's own are added
by `harness.model.own`. Must not know: PEFT methods, weights, data, training.

Blocks are numbered from the input on, through all stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from timm.layers import Attention, GlobalResponseNormMlp, Mlp
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from harness.errors import UserError
from harness.spec import Position, Site

Backbone: TypeAlias = VisionTransformer | SwinTransformer | ConvNeXt

SUPPORTED = (
    "timm VisionTransformer with plain pre-norm blocks (ViT, DeiT, DeiT-3, AugReg, DINO, DINOv2, "
    "CLIP image towers), Swin (swin_*), ConvNeXt (convnext*, V2 too)"
)


@dataclass(frozen=True)
class Kind:
    """One kind of block: the classes of its parts, and which layer each position is."""

    parts: dict[str, tuple[type[nn.Module], ...]]
    """Submodules that must be of these classes, or sites would mean something else."""
    layers: dict[Position, str]
    """Linear maps, mlp1 and mlp2 among them. q, k and v share one layer, as three equal slices of
    its output; as a whole it is qkv."""
    branches: dict[Position, tuple[str, str]]
    """Residual branches: the layer that the residual stream enters, and the last one."""


ATTENTION: dict[Position, str] = {
    "q": "attn.qkv",
    "k": "attn.qkv",
    "v": "attn.qkv",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "mlp1": "mlp.fc1",
    "mlp2": "mlp.fc2",
}

KINDS: dict[type[nn.Module], Kind] = {
    Block: Kind(
        parts={"attn": (Attention,), "mlp": (Mlp,)},
        layers=ATTENTION,
        branches={"attn": ("norm1", "ls1"), "ffn": ("norm2", "ls2")},
    ),
    SwinTransformerBlock: Kind(
        parts={"attn": (WindowAttention,), "mlp": (Mlp,)},
        layers=ATTENTION,
        branches={"attn": ("norm1", "drop_path1"), "ffn": ("norm2", "drop_path2")},
    ),
    ConvNeXtBlock: Kind(
        parts={"conv_dw": (nn.Conv2d,), "mlp": (Mlp, GlobalResponseNormMlp)},
        layers={"dw": "conv_dw", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"},
        branches={},
    ),
}


def blocks_of(model: Backbone) -> list[tuple[str, nn.Module]]:
    """Name in the model and module of every block, from the input to the output."""
    if isinstance(model, SwinTransformer):
        groups = {f"layers.{i}.blocks": stage.blocks for i, stage in enumerate(model.layers)}
    elif isinstance(model, ConvNeXt):
        groups = {f"stages.{i}.blocks": stage.blocks for i, stage in enumerate(model.stages)}
    else:  # a plain ViT, of timm or of one's own
        groups = {"blocks": model.blocks}
    return [(f"{name}.{i}", b) for name, group in groups.items() for i, b in enumerate(group)]


def checked(model: nn.Module, name: str) -> Backbone:
    """Return the model if every block is one that sites are defined for.

    Raises:
        UserError: names what was found and what is supported.
    """
    found = type(model).__name__
    if isinstance(model, Backbone):
        for _, block in blocks_of(model):
            kind = KINDS.get(type(block))
            names = ("attn", "mlp") if kind is None else kind.parts
            children = dict(block.named_children())
            parts = [children.get(part) for part in names]
            if kind is None or any(
                type(part) not in known
                for part, known in zip(parts, kind.parts.values(), strict=True)
            ):
                found += " with " + "/".join(type(part).__name__ for part in (block, *parts))
                break
        else:
            return model
    raise UserError(f"Backbone {name!r} is a {found}; supported: {SUPPORTED}.")


def layer_name(model: Backbone, site: Site) -> str:
    """Name in the model of the layer that holds a linear position or `dw`."""
    name, block = blocks_of(model)[site.block]
    return f"{name}.{KINDS[type(block)].layers[site.position]}"


def layer_at(model: Backbone, site: Site) -> nn.Linear | nn.Conv2d:
    """The frozen layer that holds a linear position or `dw`.

    A convolution takes and gives maps `[n, channels, h, w]`; in some ConvNeXt, 1 x 1 convolutions
    are the linear maps of the MLP.
    """
    layer = model.get_submodule(layer_name(model, site))
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def branch_at(model: Backbone, site: Site) -> tuple[nn.Module, nn.Module]:
    """The layer that the residual stream enters at a sub-block, and the branch's last one."""
    _, block = blocks_of(model)[site.block]
    first, last = KINDS[type(block)].branches[site.position]
    return block.get_submodule(first), block.get_submodule(last)


@dataclass(frozen=True, kw_only=True)
class BlockDims:
    """Sizes of one block: `width` d of its tokens or channels, `hidden` of its MLP."""

    stage: int
    """Blocks of one stage have the same sizes; a plain ViT is all one stage."""
    width: int
    hidden: int
    biases: int
    """Elements of all its bias parameters, norms included (11d for a ViT)."""


@dataclass(frozen=True, kw_only=True)
class Dims:
    """Sizes of a backbone, block by block, and the positions that its blocks have."""

    blocks: tuple[BlockDims, ...]
    positions: tuple[Position, ...]
    width: int
    """Of the pooled features; in a plain ViT, of every token."""
    is_sequence: bool
    """One sequence of tokens runs through all blocks, as in a plain ViT, so tokens can join it."""
    num_params: int

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def linear_io(self, site: Site) -> tuple[int, int]:
        """Input and output features of the map at a site."""
        block = self.blocks[site.block]
        if site.position == "mlp1":
            return block.width, block.hidden
        if site.position == "mlp2":
            return block.hidden, block.width
        if site.position == "qkv":
            return block.width, 3 * block.width
        return block.width, block.width


def dims_of(model: Backbone) -> Dims:
    """Read the sizes off a model."""
    found = blocks_of(model)
    kind = KINDS[type(found[0][1])]
    stages = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in found))
    return Dims(
        blocks=tuple(
            BlockDims(
                stage=stages.index(name.rpartition(".")[0]),
                width=_features(block.get_submodule(KINDS[type(block)].layers["mlp2"])),
                hidden=_features(block.get_submodule(KINDS[type(block)].layers["mlp1"])),
                biases=sum(p.numel() for n, p in block.named_parameters() if n.endswith("bias")),
            )
            for name, block in found
        ),
        positions=(*kind.layers, *kind.branches, "block"),
        width=model.num_features,
        is_sequence=not isinstance(model, SwinTransformer | ConvNeXt),
        num_params=sum(p.numel() for p in model.parameters()),
    )


def _features(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
