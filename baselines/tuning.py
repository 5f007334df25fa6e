"""Methods that train the backbone's own tensors, or none of them."""

from __future__ import annotations

from typing import Any

from harness.insertion.attachment import Attachment
from harness.insertion.method import PeftMethod
from harness.model.blocks import Backbone, Dims, blocks_of
from harness.registry import METHODS
from harness.spec import Frozen, Placement


class NoOptions(Frozen):
    """The method has no settings."""


@METHODS.register("bitfit")
class BitFit(PeftMethod):
    """Every bias parameter of the placed blocks, LayerNorms included; none outside the blocks."""

    Options = NoOptions
    positions = ("block",)
    default_positions = ("block",)
    additive = False
    summary = "all biases of the blocks"

    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        blocks = blocks_of(model)
        adapted = [blocks[site.block] for site, _ in placement.items()]
        names = [f"{path}.{n}" for path, block in adapted for n, _ in block.named_parameters()]
        attachment.replace_parameters([name for name in names if name.endswith("bias")])
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        """11d per block of a plain ViT."""
        return sum(dims.blocks[site.block].biases for site, _ in placement.items())


@METHODS.register("full")
class FullFineTuning(PeftMethod):
    """Every tensor of the backbone is trained: the upper control."""

    Options = NoOptions
    positions = ()
    default_positions = ()
    additive = False
    summary = "control: all weights"

    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        attachment = Attachment(model)
        attachment.replace_parameters([name for name, _ in model.named_parameters()])
        return attachment

    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        """All of them."""
        return dims.num_params


@METHODS.register("linear_probe")
class LinearProbe(PeftMethod):
    """The head alone: the lower control."""

    Options = NoOptions
    positions = ()
    default_positions = ()
    additive = False
    summary = "control: the head alone"

    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        return Attachment(model)

    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        """None beside the head."""
        return 0
