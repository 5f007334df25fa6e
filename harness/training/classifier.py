"""A backbone with its attachment and a head.

Owns: the forward pass from images to logits. Must not know: losses, optimisers, data.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.insertion.attachment import Attachment
from harness.model.backbones import features
from harness.model.blocks import Backbone


class Classifier(nn.Module):
    """A backbone with its attachment, and a head. The frozen backbone is not a submodule."""

    def __init__(self, backbone: Backbone, attachment: Attachment, head: nn.Module) -> None:
        super().__init__()
        self._backbone = [backbone]
        self.attachment = attachment
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """`[n, 3, h, w]` -> `[n, d]`."""
        return features(self._backbone[0], images)

    def forward(self, images: Tensor) -> Tensor:
        """`[n, 3, h, w]` -> logits `[n, classes]`."""
        logits: Tensor = self.head(self.features(images))
        return logits
