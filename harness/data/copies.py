"""Which copies of an image a pack keeps: one that training crops are cut from, one that is tested.

Owns: how far images are reduced, and with which filter. Must not know: files, packs, labels.

Views are to be those that torchvision would make of the original:

- A training crop shows a box of any size. Its copy has about as many pixels as keep the smallest
  box as large as the view: `(size / sqrt(scale))**2`, for boxes of at least a share `scale` of the
  image. It is reduced by Lanczos' filter, which keeps what the copy can hold; a crop's own
  antialiasing then makes it as sharp as one from the original. (Two bilinear reductions, one after
  the other, blur: 0.94 of the sharpness, 0.81 where the copy is hardly larger than the view.)
- The test view is one crop of one reduction, so its copy is that reduction, in torchvision's own
  arithmetic, and the view is equal.

No image is enlarged, and one that is no larger than its two copies together is kept as it is: that
serves both views.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from harness.data.decode import Pixels
from harness.spec import Recipe

SCALES = (0.08, 0.16, 0.32, 0.64)
"""Smallest shares of an image for whose crops packs are made. A recipe's own share counts as the
next lower one, so that a search over shares needs at most these packs. Below the first, crops
smaller than the view are enlarged: that caps what both copies of an image take at 16 size**2 pixels
(more only of images twelve times as long as wide, whose short side stays the view's)."""


class Copies(NamedTuple):
    """What is kept of one image, uint8 `[h, w, c]` each."""

    train: Pixels | None
    """What training crops are cut from; None of a test image."""
    eval: Pixels | None
    """What the test view is cut from; None where that is `train`."""


def pack_scale(recipe: Recipe) -> float:
    """The one of `SCALES` that a recipe's random crops need."""
    if recipe.augment == "none":
        return SCALES[-1]
    return max((scale for scale in SCALES if scale <= recipe.crop_scale_min), default=SCALES[0])


def eval_side(size: int) -> int:
    """Short side in pixels that the released test transform reduces to, before it crops `size`."""
    return size * 8 // 7


def train_side(size: int, scale: float) -> int:
    """Side in pixels of a square image's training copy."""
    return int(size / math.sqrt(scale))


def copies(pixels: Pixels, size: int, scale: float, *, is_test: bool) -> Copies:
    """What a pack keeps of an image `[h, w, c]` for views of `size` pixels."""
    if is_test:
        return Copies(train=None, eval=eval_copy(pixels, eval_side(size)))
    cropped, tested = train_copy(pixels, size, scale), eval_copy(pixels, eval_side(size))
    if pixels.size <= cropped.size + tested.size:
        return Copies(train=pixels, eval=None)
    return Copies(train=cropped, eval=tested)


def train_copy(pixels: Pixels, size: int, scale: float) -> Pixels:
    """The copy for crops of at least a share `scale`; `pixels` itself where it is small enough.

    Its area is that of a square of `train_side`, but the short side is at least `size`.
    """
    height, width = pixels.shape[:2]
    share = train_side(size, scale) / math.sqrt(height * width)
    share = max(share, size / min(height, width))
    if share >= 1:
        return pixels
    return _lanczos(pixels, max(1, round(height * share)), max(1, round(width * share)))


def eval_copy(pixels: Pixels, side: int) -> Pixels:
    """torchvision's Resize(side), of whose long side at most about twice that is kept.

    An image that is no larger is kept as it is. What is left out at both ends of a long side lies
    outside the view, and is a whole multiple of two pixels at each end, so that the centre stays
    the centre, however torchvision rounds halves.
    """
    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    if short <= side:
        return pixels
    stretched = int(side * long / short)
    shape = (side, stretched) if height <= width else (stretched, side)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    small = interpolate(image, size=shape, mode="bilinear", antialias=True)
    left_out = max(0, stretched - 2 * side) // 4 * 2
    whole: Pixels = small[0].permute(1, 2, 0).numpy()
    inner = slice(left_out, stretched - left_out)
    return np.ascontiguousarray(whole[:, inner] if height <= width else whole[inner])


def _lanczos(pixels: Pixels, height: int, width: int) -> Pixels:
    """Reduced by PIL, which knows one channel or three."""
    size, lanczos = (width, height), Image.Resampling.LANCZOS
    if pixels.shape[2] == 3:
        return np.array(Image.fromarray(pixels).resize(size, lanczos))
    bands = (Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, 2, 0))
    return np.stack([np.asarray(band.resize(size, lanczos)) for band in bands], axis=2)
