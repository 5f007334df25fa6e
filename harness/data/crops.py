"""Views of images of many sizes: which box is cut out, and how it becomes `size` x `size` pixels.

Owns: the distribution of the random resized crop, the test crop, and antialiased resampling in two
forms that agree within one gray level. Must not know: where pixels come from, labels, models.

Images lie one after the other in a flat uint8 tensor, each `[h, w, c]`. A view's box is cut out
first and then resampled on its own, as torchvision does, so no pixel beyond its edge has a share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.data.copies import eval_side
from harness.data.transfer import sent

TRIES = 10
RATIO = (3 / 4, 4 / 3)
"""Aspect ratios (width / height) and draws of torchvision's RandomResizedCrop."""
PIXELS_AT_ONCE = 2**24
"""Padded pixels in one batch of matrix products, which bounds memory."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where n images lie; int64 on the CPU."""

    offsets: Tensor
    """First byte `[n]`."""
    sizes: Tensor
    """Height and width in pixels `[n, 2]`."""
    borders: Tensor
    """Pixels to blacken at top and bottom, and at left and right `[n, 2]`."""

    def __getitem__(self, index: Tensor | slice) -> Where:
        return Where(
            offsets=self.offsets[index], sizes=self.sizes[index], borders=self.borders[index]
        )


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """What n views show of their images; int64 on the CPU."""

    cut: Tensor
    """Top, left, height and width in pixels of what is cut out `[n, 4]`."""
    full: Tensor
    """Height and width in pixels that it is resampled to `[n, 2]`."""
    start: Tensor
    """Top and left of the view in the resampled pixels `[n, 2]`."""
    mirrored: Tensor
    """bool `[n]`."""

    def __getitem__(self, index: Tensor | slice) -> Boxes:
        return Boxes(
            cut=self.cut[index],
            full=self.full[index],
            start=self.start[index],
            mirrored=self.mirrored[index],
        )


def random_boxes(sizes: Tensor, size: int, scale_min: float, rng: torch.Generator) -> Boxes:
    """Random resized crops and flips of images of these sizes `[n, 2]`, drawn as by torchvision.

    Area share uniform in [scale_min, 1], aspect ratio log-uniform in [3/4, 4/3]. A box larger than
    the image is drawn again, ten times in all, and then replaced by the largest central box whose
    ratio is in that range.
    """
    n = len(sizes)
    height, width = sizes.double().T
    area = torch.empty(n, TRIES, dtype=torch.float64).uniform_(scale_min, 1, generator=rng)
    log_ratio = torch.empty(n, TRIES, dtype=torch.float64)
    log_ratio.uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=rng)
    place = torch.rand(n, 2, dtype=torch.float64, generator=rng)
    mirrored = torch.rand(n, generator=rng) < 0.5
    area = area * (height * width)[:, None]
    w = (area * log_ratio.exp()).sqrt().round()
    h = (area / log_ratio.exp()).sqrt().round()
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.long().argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    top = (place[:, 0] * (height - h + 1)).floor()
    left = (place[:, 1] * (width - w + 1)).floor()
    drawn = torch.stack([top, left, h, w], dim=1)
    w = torch.minimum(width, (height * RATIO[1]).round())
    h = torch.minimum(height, (width / RATIO[0]).round())
    central = torch.stack([((height - h) / 2).floor(), ((width - w) / 2).floor(), h, w], dim=1)
    cut = torch.where(fits.any(dim=1, keepdim=True), drawn, central).long()
    full = torch.full((n, 2), size)
    return Boxes(cut=cut, full=full, start=torch.zeros(n, 2).long(), mirrored=mirrored)


def plain_boxes(sizes: Tensor, size: int, short_side: int | None = None) -> Boxes:
    """The released test transform: Resize(eval_side(size)), then CenterCrop(size).

    `short_side`: what is resized to instead.
    """
    n, short_side = len(sizes), eval_side(size) if short_side is None else short_side
    short, long = sizes.amin(dim=1), sizes.amax(dim=1)
    stretched = (short_side * long.double() / short).floor().long()
    is_short = sizes == short[:, None]
    full = torch.where(is_short, short_side, stretched[:, None])
    start = ((full - size).double() / 2).round().long()
    whole = torch.cat([torch.zeros(n, 2).long(), sizes], dim=1)
    return Boxes(cut=whole, full=full, start=start, mirrored=torch.zeros(n, dtype=torch.bool))


def by_image(flat: Tensor, channels: int, where: Where, boxes: Boxes, size: int) -> Tensor:
    """Views uint8 `[n, c, size, size]`, one image after the other: the fast form on a CPU.

    Memory is channels last throughout, for which torch resamples bytes several times faster.
    """
    out = torch.empty(len(boxes.cut), size, size, channels, dtype=torch.uint8)
    rows = zip(
        *(where.offsets.tolist(), where.sizes.tolist(), where.borders.tolist()),
        *(boxes.cut.tolist(), boxes.full.tolist(), boxes.start.tolist(), boxes.mirrored.tolist()),
        strict=True,
    )
    for view, row in zip(out, rows, strict=True):
        offset, (height, width), border, (top, left, h, w), full, (y, x), is_mirrored = row
        image = flat[offset : offset + height * width * channels].view(height, width, channels)
        if any(border):
            image = blackened(image, *border)
        part = image[top : top + h, left : left + w]
        if full != [h, w]:
            dense = part.contiguous()[None].permute(0, 3, 1, 2)
            small = interpolate(dense, size=full, mode="bilinear", antialias=True)
            part = small.permute(0, 2, 3, 1)[0]
        part = part[y : y + size, x : x + size]
        view.copy_(part.flip(1) if is_mirrored else part)
    return out.permute(0, 3, 1, 2)


def blackened(image: Tensor, rows: int, columns: int) -> Tensor:
    """A copy `[h, w, c]` with so many rows and columns at every edge set to 0."""
    copy = torch.zeros_like(image)
    inner = (slice(rows, image.shape[0] - rows), slice(columns, image.shape[1] - columns))
    copy[inner] = image[inner]
    return copy


def by_matrix(flat: Tensor, channels: int, where: Where, boxes: Boxes, size: int) -> Tensor:
    """The same views on the device of `flat`, by two matrix products for many images at once.

    Values are rounded to whole levels after each product, as `by_image` does.
    """
    area = int(boxes.cut[:, 2].max()) * int(boxes.cut[:, 3].max())
    count = max(1, PIXELS_AT_ONCE // area)
    parts = [
        _by_matrix(flat, channels, where[start : start + count], boxes[start : start + count], size)
        for start in range(0, len(boxes.cut), count)
    ]
    return torch.cat(parts)


def _by_matrix(flat: Tensor, channels: int, where: Where, boxes: Boxes, size: int) -> Tensor:
    device, n = flat.device, len(boxes.cut)
    high, wide = int(boxes.cut[:, 2].max()), int(boxes.cut[:, 3].max())
    numbers = torch.cat(
        [
            *(boxes.cut, where.sizes, where.borders, boxes.full, boxes.start),
            *(part[:, None] for part in (where.offsets, boxes.mirrored.long())),
        ],
        dim=1,
    )
    numbers = sent(numbers, device)
    columns = (column[:, None] for column in numbers.T)
    top, left, h, w, height, width, rows_off, columns_off, *others = columns
    full_h, full_w, start_y, start_x, offset, mirrored = others
    row = top + torch.minimum(torch.arange(high, device=device), h - 1)
    column = left + torch.minimum(torch.arange(wide, device=device), w - 1)
    place = (offset // channels)[:, :, None] + row[:, :, None] * width[:, :, None] + column[:, None]
    pixels = flat.view(-1, channels)[place.flatten()].view(n, high, wide, channels).float()
    pixels *= ((row >= rows_off) & (row < height - rows_off))[:, :, None, None]
    pixels *= ((column >= columns_off) & (column < width - columns_off))[:, None, :, None]
    across = _weights(w, full_w, start_x, wide, size)  # [n, size, wide]
    down = _weights(h, full_h, start_y, high, size)
    lines = pixels.transpose(2, 3).reshape(n, high * channels, wide)
    narrow = _levels(torch.bmm(lines, across.transpose(1, 2)))
    views = _levels(torch.bmm(down, narrow.view(n, high, channels * size)))
    images = views.view(n, size, channels, size).transpose(1, 2)
    images = torch.where(mirrored.bool()[:, :, None, None], images.flip(3), images)
    return images.to(torch.uint8)


def _levels(values: Tensor) -> Tensor:
    return (values + 0.5).floor_().clamp_(0, 255)


def _weights(length: Tensor, full: Tensor, start: Tensor, longest: int, size: int) -> Tensor:
    """Antialiased bilinear weights `[n, size, longest]`: triangles that reach one step, at least
    one pixel, to either side."""
    step = length.double() / full
    out = start + torch.arange(size, device=length.device)
    centre = (out + 0.5) * step
    # Whole pixels apart, what is left needs few digits: only this is of every pixel, and GPUs are
    # many times faster in fp32.
    nearest = centre.floor()
    rest = (centre - nearest - 0.5).float()[:, :, None]
    pixel = torch.arange(longest, device=length.device)
    reach = step.clamp(min=1).float()[:, :, None]
    weight = (1 - ((pixel - nearest.long()[:, :, None]) - rest).abs() / reach).clamp(min=0)
    weight *= pixel < length[:, :, None]
    weight /= weight.sum(dim=2, keepdim=True)
    # Rounded to as many bits as torch's kernel for bytes uses: the most for which weights fit 16.
    bits = ((2**15 - 0.5) / weight.amax(dim=(1, 2), keepdim=True)).log2().ceil() - 1
    unit = 2 ** bits.clamp(max=22)
    return (weight * unit + 0.5).floor() / unit
