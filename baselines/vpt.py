"""Visual prompt tuning: trainable tokens beside those of the patches.

Owns: the prompts' sizes and initial values. Must not know: how they are trained.
"""

from __future__ import annotations

import math

import torch

from harness.insertion.attachment import Attachment
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims
from harness.rng import generator
from harness.spec import Count, Frozen, Placement


class VPTOptions(Frozen):
    """`length` p: number of prompt tokens."""

    length: Count = 10


def _prompts(model: Backbone, blocks: list[int], length: int, seed: int) -> Attachment:
    width, patch = model.num_features, model.patch_embed.patch_size[0]
    # Xavier bound of a patch embedding, from the original VPT.
    bound = math.sqrt(6 / (3 * patch**2 + width))
    values = {}
    for block in blocks:
        value = torch.empty(length, width)
        values[block] = value.uniform_(
            -bound, bound, generator=generator(seed, "init", "vpt", block)
        )
    attachment = Attachment(model)
    attachment.add_prompts(values)
    return attachment


@METHODS.register("vpt_shallow")
class VPTShallow(PeftMethod[VPTOptions]):
    """Prompts enter before the first block and flow through all blocks."""

    Options = VPTOptions
    positions = ()
    default_positions = ()
    additive = False
    adds_tokens = True
    summary = "prompt tokens before the first block"

    def attach(
        self, model: Backbone, placement: Placement, options: VPTOptions, *, seed: int
    ) -> Attachment:
        return _prompts(model, [0], options.length, seed)

    def expected_params(self, dims: Dims, placement: Placement, options: VPTOptions) -> int:
        """p·d."""
        return int(options.length * dims.width)


@METHODS.register("vpt_deep")
class VPTDeep(PeftMethod[VPTOptions]):
    """Fresh prompts at every block of the placement replace those of the block before."""

    Options = VPTOptions
    positions = ("block",)
    default_positions = ("block",)
    additive = False
    adds_tokens = True
    summary = "fresh prompt tokens at every block"

    def attach(
        self, model: Backbone, placement: Placement, options: VPTOptions, *, seed: int
    ) -> Attachment:
        return _prompts(model, [site.block for site, _ in placement.items()], options.length, seed)

    def expected_params(self, dims: Dims, placement: Placement, options: VPTOptions) -> int:
        """p·d per block."""
        return int(len(placement) * options.length * dims.width)
