"""The blocks of each family of backbones: their order, their sizes, and where positions are.

Owns: which layer, or which part of one, a site stands for, in plain ViTs, EVA (DINOv3 among them),
BEiT, Swin and ConvNeXt; blocks of one's own are added by `harness.model.own`. Must not know: PEFT
methods, weights, data, training.

Blocks are numbered from the input on, through all stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from timm.layers import Attention, AttentionRope, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU
from timm.models import beit
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from harness.errors import UserError
from harness.spec import Position, Site

Backbone: TypeAlias = VisionTransformer | Eva | beit.Beit | SwinTransformer | ConvNeXt

SUPPORTED = (
    "timm VisionTransformer with plain pre-norm blocks (ViT, DeiT, DeiT-3, AugReg, DINO, DINOv2, "
    "CLIP, SigLIP and SigLIP 2 image towers), EVA with pre-norm blocks (DINOv3, EVA-02), BEiT "
    "(beit_*, beitv2_*), Swin (swin_*), ConvNeXt (convnext*, V2 too)"
)
POSITIONS_MEAN = (
    "q, k, v, out: the maps of attention; mlp1, mlp2: the first and the last map of the MLP; in a "
    "gated one (SwiGLU) mlp1 maps to what the gate multiplies, and the gate's own map is none of "
    "them; dw: a depthwise convolution; attn, ffn: the end of a residual branch; block: all of it"
)
"""What `harness list backbones` says of the positions in a block."""

QKV: tuple[Position, ...] = ("q", "k", "v")


@dataclass(frozen=True)
class Kind:
    """One kind of block: the classes of its parts, and which layer each position is."""

    parts: dict[str, tuple[type[nn.Module], ...]]
    """Submodules that must be of these classes, or sites would mean something else."""
    layers: dict[Position, str | tuple[str, ...]]
    """Linear maps, mlp1 and mlp2 among them; of several names, the first that the block has. q, k
    and v have a layer each, or share one, as three equal slices of its output; as a whole it is
    qkv."""
    branches: dict[Position, tuple[str, str]]
    """Residual branches: the layer that the residual stream enters, and the last one."""


MLPS: tuple[type[nn.Module], ...] = (Mlp, GluMlp, SwiGLU)

TRANSFORMER: dict[Position, str | tuple[str, ...]] = {
    "q": ("attn.qkv", "attn.q_proj"),
    "k": ("attn.qkv", "attn.k_proj"),
    "v": ("attn.qkv", "attn.v_proj"),
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "mlp1": ("mlp.fc1", "mlp.fc1_x"),
    "mlp2": "mlp.fc2",
}
"""In a gated MLP (SwiGLU), `mlp1` is the map to the values that the gate multiplies and `mlp2` the
one back; the gate's own map is no position. timm has gate and values in one layer (`GluMlp`) or in
two (`SwiGLU`); a site means the same in both."""

ENDS: dict[Position, tuple[str, str]] = {
    "attn": ("norm1", "drop_path1"),
    "ffn": ("norm2", "drop_path2"),
}

KINDS: dict[type[nn.Module], Kind] = {
    Block: Kind(
        parts={"attn": (Attention,), "mlp": MLPS},
        layers=TRANSFORMER,
        branches={"attn": ("norm1", "ls1"), "ffn": ("norm2", "ls2")},
    ),
    EvaBlock: Kind(
        parts={"attn": (EvaAttention, AttentionRope), "mlp": MLPS},
        layers=TRANSFORMER,
        branches=ENDS,
    ),
    beit.Block: Kind(
        parts={"attn": (beit.Attention,), "mlp": MLPS}, layers=TRANSFORMER, branches=ENDS
    ),
    SwinTransformerBlock: Kind(
        parts={"attn": (WindowAttention,), "mlp": (Mlp,)}, layers=TRANSFORMER, branches=ENDS
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
    else:  # one sequence of tokens runs through all of them
        groups = {"blocks": model.blocks}
    return [(f"{name}.{i}", b) for name, group in groups.items() for i, b in enumerate(group)]


def checked(model: nn.Module, name: str) -> Backbone:
    """Return the model if every block is one that sites are defined for.

    Raises:
        UserError: names what was found and what is supported.
    """
    found = type(model).__name__
    if isinstance(model, Backbone):
        odd = next((odd for _, block in blocks_of(model) if (odd := _oddity(block))), None)
        if odd is None:
            return model
        found += f" with {odd}"
    raise UserError(f"Backbone {name!r} is a {found}; supported: {SUPPORTED}.")


def _oddity(block: nn.Module) -> str | None:
    """What of a block is not as sites need it; None: nothing."""
    kind = KINDS.get(type(block))
    parts = {name: type(part) for name, part in block.named_children()}
    names = ("attn", "mlp") if kind is None else kind.parts
    if kind is None or any(parts.get(part) not in known for part, known in kind.parts.items()):
        found = (parts.get(part, type(None)) for part in names)
        return "/".join(each.__name__ for each in (type(block), *found))
    for position, path in paths_of(block).items():
        start, stop = _columns(block, position)
        layer = block.get_submodule(path)
        if position in QKV and stop - start != _sizes(layer)[0]:
            return f"a {position} of {stop - start} features per token, not {_sizes(layer)[0]}"
    return None


def paths_of(block: nn.Module) -> dict[Position, str]:
    """Name in a block of the layer that holds each linear position or `dw`."""
    found: dict[Position, str] = {}
    modules = dict(block.named_modules())
    for position, names in KINDS[type(block)].layers.items():
        several = (names,) if isinstance(names, str) else names
        if position == "qkv" and names not in modules:
            continue  # q, k and v have a layer each
        found[position] = next((name for name in several if name in modules), several[0])
    return found


def share_a_layer(paths: Mapping[Position, str]) -> bool:
    """Whether q, k and v are slices of one layer's output."""
    return len({paths.get(position) for position in QKV}) == 1


def _columns(block: nn.Module, position: Position) -> tuple[int, int]:
    """First and last column, exclusive, of a position in the output of its layer."""
    paths = paths_of(block)
    width = _sizes(block.get_submodule(paths[position]))[1]
    index, count = 0, 1
    if position in QKV and share_a_layer(paths):
        index, count = QKV.index(position), len(QKV)
    mlp = getattr(block, "mlp", None)
    if position == "mlp1" and isinstance(mlp, GluMlp):
        index, count = (0 if mlp.gate_last else 1), 2
    return index * (width // count), (index + 1) * (width // count)


def columns_at(model: Backbone, site: Site) -> tuple[int, int]:
    """First and last column, exclusive, of a linear position or `dw` in its layer's output."""
    return _columns(blocks_of(model)[site.block][1], site.position)


def layer_name(model: Backbone, site: Site) -> str:
    """Name in the model of the layer that holds a linear position or `dw`."""
    name, block = blocks_of(model)[site.block]
    return f"{name}.{paths_of(block)[site.position]}"


def layer_at(model: Backbone, site: Site) -> nn.Linear | nn.Conv2d:
    """The frozen layer that holds a linear position or `dw`.

    A convolution takes and gives maps `[n, channels, h, w]`; in some ConvNeXt, 1 x 1 convolutions
    are the linear maps of the MLP.
    """
    layer = model.get_submodule(layer_name(model, site))
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def is_passed_by(model: Backbone, site: Site) -> bool:
    """Whether the model takes the weight of a site's layer without calling the layer."""
    attn = getattr(blocks_of(model)[site.block][1], "attn", None)
    has_biases_beside = isinstance(attn, EvaAttention | beit.Attention) and attn.q_bias is not None
    return site.position in (*QKV, "qkv") and has_biases_beside


def make_called(model: Backbone, site: Site) -> Callable[[], None] | None:
    """Have the model call the layer of a site, so that hooks on it fire; returns what undoes that.

    None: it calls the layer anyway. EVA and BEiT with biases of q and v beside a fused `qkv` take
    its weight and pass the layer by. With the biases in the layer they call it, and the product is
    the same to the last bit in any precision; timm's own switch, `qkv_bias_separate`, adds them to
    what is already rounded.
    """
    if not is_passed_by(model, site):
        return None
    attn: Any = blocks_of(model)[site.block][1].attn
    q_bias = attn.q_bias
    whole = torch.cat([q_bias.detach(), attn.k_bias, attn.v_bias.detach()])
    attn.qkv.bias, attn.q_bias = nn.Parameter(whole, requires_grad=False), None
    return partial(_pass_by, attn, q_bias)


def _pass_by(attn: Any, q_bias: nn.Parameter) -> None:
    attn.qkv.bias, attn.q_bias = None, q_bias


def rotary_parts(model: Backbone, first: int) -> list[Any]:
    """The modules of block `first` and later ones that rotate all tokens but the leading ones.

    Each says in `num_prefix_tokens` how many those are.
    """
    return [block.attn for block in model.blocks[first:]] if isinstance(model, Eva) else []


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
    """One sequence of tokens runs through all blocks, as in a plain ViT, and tokens can join it.
    In BEiT none can: each pair of its tokens has a bias of its own."""
    num_params: int
    layers: Mapping[Position, str]
    """Position -> its layer in the first block, and which columns of the output where it has not
    all of them."""

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
    first = found[0][1]
    kind = KINDS[type(first)]
    stages = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in found))
    back = [_sizes(block.get_submodule(paths_of(block)["mlp2"])) for _, block in found]
    return Dims(
        blocks=tuple(
            BlockDims(
                stage=stages.index(name.rpartition(".")[0]),
                width=width,
                hidden=hidden,
                biases=sum(p.numel() for n, p in block.named_parameters() if n.endswith("bias")),
            )
            for (name, block), (hidden, width) in zip(found, back, strict=True)
        ),
        positions=(*paths_of(first), *kind.branches, "block"),
        width=model.num_features,
        is_sequence=not isinstance(model, SwinTransformer | ConvNeXt | beit.Beit),
        num_params=sum(p.numel() for p in model.parameters()),
        layers={position: _in_words(first, position) for position in paths_of(first)},
    )


def _in_words(block: nn.Module, position: Position) -> str:
    path, (start, stop) = paths_of(block)[position], _columns(block, position)
    is_whole = stop - start == _sizes(block.get_submodule(path))[1]
    return path if is_whole else f"{path}[{start}:{stop}]"


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """Features that a layer takes and gives."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels
