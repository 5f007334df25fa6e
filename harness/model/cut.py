"""The forward pass of a frozen backbone, cut between blocks.

Owns: where a pass can be cut without a change of bits, how it goes from one cut to another, and up
to which cut a model still computes what its frozen self does. Must not know: PEFT methods, what is
kept at a cut.

Cuts are numbered: `IMAGES`; then 0 to L, the tokens that enter block 0 to L - 1 and those that
leave the last of L blocks; then L + 1, the pooled features.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from harness.model.blocks import Backbone
from harness.model.precision import computing

IMAGES = -1
"""The cut before everything."""

AFTER_BLOCKS = ("norm", "fc_norm", "attn_pool", "head_drop", "head")
"""Modules of a plain ViT that come after its blocks; all others but those come before."""
KNOWN_CODE = ("torch", "timm", "harness")
"""Packages whose modules compute the same in every process of one version."""


def last_cut(model: Backbone) -> int:
    """The cut at the pooled features."""
    return len(model.blocks) + 1


def advance(model: Backbone, x: Tensor, start: int, stop: int) -> Tensor:
    """From what lies at cut `start` to what lies at cut `stop`; the model is one that has `Cuts`.

    From `IMAGES` to `last_cut` it is `harness.model.backbones.features`, to the last bit.
    """
    if start == stop:
        return x
    last = last_cut(model)
    with computing(model, x.device):
        turned = None if start == IMAGES else _rotation(model, x)
        for cut in range(start, stop):
            if cut == IMAGES:
                x, turned = _entered(model, x)
            elif cut + 1 < last:
                x = model.blocks[cut](x, **_beside(model, turned, cut))
            else:
                x = model.forward_head(model.norm(x), pre_logits=True)
                x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x


def _entered(model: Backbone, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The tokens that enter block 0, and by what the blocks of a rotary model turn them."""
    x = model.patch_embed(images)
    if isinstance(model, Eva):
        x, turned = model._pos_embed(x)
        return model.norm_pre(x), turned
    return model.norm_pre(model.patch_drop(model._pos_embed(x))), None


def _rotation(model: Backbone, x: Tensor) -> Tensor | None:
    """The same rotation where images have gone through the first blocks earlier.

    It depends on the size of images alone, and timm makes it with the position embeddings.
    """
    if not isinstance(model, Eva):
        return None
    grid = model.patch_embed.grid_size
    places = grid if model.dynamic_img_size else (grid[0] * grid[1],)
    turned: Tensor | None = model._pos_embed(x.new_zeros(1, *places, x.shape[-1]))[1]
    return turned


def _beside(model: Backbone, turned: Tensor | None, block: int) -> dict[str, Any]:
    """What a block is called with beside the tokens."""
    if not isinstance(model, Eva):
        return {}
    if turned is not None and model.rope_mixed:  # one for each block
        turned = turned[block]
    return {"rope": turned}


@dataclass(frozen=True)
class Cuts:
    """Where the pass of one loaded backbone can be cut."""

    image_bytes: tuple[int, ...]
    """What one image takes at the cuts from 0 on, in fp32."""
    _frozen: dict[int, list[Hashable]]

    @property
    def last(self) -> int:
        return len(self.image_bytes) - 1

    def unchanged(self, model: Backbone) -> int:
        """The last cut up to which the model, now adapted, computes what it did when it was frozen.

        Decided by what the model holds: hooks, parameters and modules that were not there, or are
        others, at whatever method's wish. `IMAGES`: something differs before the first block.
        """
        now = _state(model)
        changed = (cut for cut, state in self._frozen.items() if now.get(cut) != state)
        return min(changed, default=self.last)


@torch.inference_mode()
def cuts_of(model: Backbone, image: Tensor) -> Cuts | None:
    """Where a frozen backbone can be cut, tried on an image `[1, c, h, w]`; None: nowhere.

    Only timm's plain ViTs and EVA models can, whose blocks follow each other.
    """
    if not _is_plain(model):
        return None
    x, sizes = image, []
    for cut in range(last_cut(model) + 1):
        x = advance(model, x, cut - 1, cut)
        sizes.append(x.numel() * torch.float32.itemsize)
    with computing(model, image.device):
        whole = model.forward_head(model.forward_features(image), pre_logits=True)
    return Cuts(tuple(sizes), _state(model)) if torch.equal(whole.to(x.dtype), x) else None


def _is_plain(model: Backbone) -> bool:
    """Whether `advance` knows all that the model does on its way."""
    family, blocks, block = (
        (Eva, nn.ModuleList, EvaBlock)
        if isinstance(model, Eva)
        else (VisionTransformer, nn.Sequential, Block)
    )
    return (
        isinstance(model, family)
        and type(model).forward_features is family.forward_features
        and type(model.blocks) is blocks
        and all(type(each) is block for each in model.blocks)
        and not model.grad_checkpointing
        and all(type(part).__module__.split(".")[0] in KNOWN_CODE for part in model.modules())
    )


def _state(model: Backbone) -> dict[int, list[Hashable]]:
    """Modules, tensors, hooks and plain attributes, by the last cut that comes before them."""
    found: dict[int, list[Hashable]] = {}
    for name, part in model.named_modules():
        own = vars(part)
        plain = (bool, int, float, str, tuple, type(None))
        tensors = [*part._parameters.values(), *part._buffers.values()]
        entry = (
            *(name, id(part), type(part)),
            tuple((k, repr(v)) if isinstance(v, plain) else k for k, v in own.items()),
            tuple((id(each), each._version) for each in tensors if each is not None),
            (*part._forward_pre_hooks, None, *part._forward_hooks),
        )
        found.setdefault(_cut_before(model, name), []).append(entry)
    return found


def _cut_before(model: Backbone, name: str) -> int:
    words = name.split(".")
    if words[0] == "blocks" and len(words) > 1:
        return int(words[1])
    return len(model.blocks) if words[0] in AFTER_BLOCKS else IMAGES
