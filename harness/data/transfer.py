"""Small tensors on their way to the device of the batches.

Owns: copies that do not wait for the device. Must not know: what is in them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device of the batches, without waiting for what that computes."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()  # a copy from other memory waits for all that was asked before
    return values.to(device, non_blocking=device.type != "cpu")
