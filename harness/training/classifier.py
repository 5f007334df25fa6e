"""A backbone with its attachment and a head.

Owns: the forward pass from images to logits. Must not know: losses, optimisers, data.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.insertion.attachment import Attachment
from harness.model.backbones import features
from harness.model.blocks import Backbone
from harness.model.cut import IMAGES, advance, last_cut


class Classifier(nn.Module):
    """A backbone with its attachment, and a head. The frozen backbone is not a submodule."""

    def __init__(self, backbone: Backbone, attachment: Attachment, head: nn.Module) -> None:
        super().__init__()
        self._backbone = [backbone]
        self.attachment = attachment
        self.head = head

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    def features(self, x: Tensor, cut: int = IMAGES) -> Tensor:
        """Images `[n, 3, h, w]`, or what lies at a later cut of the backbone, -> `[n, d]`."""
        backbone = self._backbone[0]
        if cut == IMAGES:
            return features(backbone, x)
        return advance(backbone, x, cut, last_cut(backbone))

    def advance(self, x: Tensor, start: int, stop: int) -> Tensor:
        """From one cut of the backbone to a later one (`harness.model.cut`)."""
        return advance(self._backbone[0], x, start, stop)

    def forward(self, x: Tensor, cut: int = IMAGES) -> Tensor:
        """Images `[n, 3, h, w]`, or what lies at a later cut, -> logits `[n, classes]`."""
        logits: Tensor = self.head(self.features(x, cut))
        return logits
