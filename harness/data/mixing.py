"""Batches of mixed images (mixup and cutmix), by torchvision's own implementations.

Owns: which of the two a batch gets, and that it depends on a generator alone. Must not know: when
batches are mixed.

Shapes: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import torch

from harness.data.dataset import Images
from harness.spec import Recipe


def mixed(batch: Images, recipe: Recipe, classes: int, rng: torch.Generator) -> Images:
    """A batch whose images are each mixed with the one before, as the recipe says.

    Returns float32 pixels `[n, c, h, w]` and labels float32 `[n, classes]`, the share of each
    class. With both mixup and cutmix a fair coin says which, as in timm.
    """
    # Slow to import, and of few trials.
    from torchvision.transforms.v2 import CutMix, MixUp

    known = [(MixUp, recipe.mixup), (CutMix, recipe.cutmix)]
    ways = [(kind, alpha) for kind, alpha in known if alpha > 0]
    seed, coin = torch.randint(2**31, (2,), generator=rng).tolist()
    kind, alpha = ways[coin % len(ways)]
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own generator
        torch.manual_seed(seed)
        pixels, labels = kind(alpha=alpha, num_classes=classes)(batch.pixels.float(), batch.labels)
    return Images(pixels=pixels, labels=labels)
