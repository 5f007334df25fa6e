"""Methods that train the backbone's own tensors, or none of them.

Owns: which tensors those are. Must not know: how they are trained.
"""

from __future__ import annotations

from harness.insertion.attachment import Attachment
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, blocks_of
from harness.spec import Frozen, Placement


class NoOptions(Frozen):
    """The method has no settings."""


@METHODS.register("bitfit")
class BitFit(PeftMethod[NoOptions]):
    """Every bias parameter of the placed blocks, LayerNorms included; none outside the blocks."""

    Options = NoOptions
    positions = ("block",)
    default_positions = ("block",)
    additive = False
    summary = "all biases of the blocks"

    def attach(
        self, model: Backbone, placement: Placement, options: NoOptions, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        blocks = blocks_of(model)
        adapted = [blocks[site.block] for site, _ in placement.items()]
        names = [f"{path}.{n}" for path, block in adapted for n, _ in block.named_parameters()]
        attachment.replace_parameters([name for name in names if name.endswith("bias")])
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: NoOptions) -> int:
        """11d per block of a plain ViT."""
        return sum(dims.blocks[site.block].biases for site, _ in placement.items())


@METHODS.register("full")
class FullFineTuning(PeftMethod[NoOptions]):
    """Every tensor of the backbone is trained: the upper control."""

    Options = NoOptions
    positions = ()
    default_positions = ()
    additive = False
    summary = "control: all weights"

    def attach(
        self, model: Backbone, placement: Placement, options: NoOptions, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        attachment.replace_parameters([name for name, _ in model.named_parameters()])
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: NoOptions) -> int:
        """All of them."""
        return dims.num_params

    def needs_fp32(self, options: NoOptions) -> bool:
        return True


@METHODS.register("linear_probe")
class LinearProbe(PeftMethod[NoOptions]):
    """The head alone: the lower control."""

    Options = NoOptions
    positions = ()
    default_positions = ()
    additive = False
    summary = "control: the head alone"

    def attach(
        self, model: Backbone, placement: Placement, options: NoOptions, *, seed: int
    ) -> Attachment:
        return Attachment(model)

    def expected_params(self, dims: Dims, placement: Placement, options: NoOptions) -> int:
        """None beside the head."""
        return 0
