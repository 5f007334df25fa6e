"""How far views of a pack differ from those that torchvision makes of the files.

Owns: the comparison, box by box. Must not know: speed, models, trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from harness.data.copies import eval_side
from harness.data.crops import Boxes, by_image, plain_boxes, random_boxes
from harness.data.decode import Pixels, ReadImage, cut, decoded
from harness.data.decode_many import source_of
from harness.data.listing import Listing
from harness.data.pack_format import Pack
from harness.data.packed import PixelStore
from harness.rng import generator
from harness.spec import Frozen

SAMPLE = 200
"""Training images at most, evenly spaced in the list; one crop and one test view of each."""


class Agreement(NamedTuple):
    """Views of a pack against torchvision's of the files."""

    views: int
    crop_levels: float
    """Mean absolute difference of training crops of equal boxes, in levels of 0..255."""
    sharpness: float
    """Mean difference of neighbouring pixels of those crops, over that of torchvision's."""
    eval_levels: float
    """Mean absolute difference of test views."""
    eval_most: int
    """Largest difference of a pixel of a test view."""


def agreement(
    made: Pack, listing: Listing, root: Path, read: ReadImage | None, scale_min: float
) -> Agreement:
    """Compare crops of at least a share `scale_min`, and test views, of some training images.

    Boxes are drawn on the files' own pixels, and rounded to whole pixels of a reduced copy. The
    pack leaves no image out, and nothing of an image is masked.
    """
    size, index = made.info.size, made.index
    rows = np.unique(np.linspace(0, len(listing.train) - 1, SAMPLE).astype(np.int64))
    source = source_of(listing, root, read)
    items = [listing.train[row] for row in rows]
    files = [cut(decoded(source, item.path), item) for item in items]
    store, which = PixelStore.of(made, Frozen()), torch.from_numpy(rows)
    original = torch.from_numpy(index.original[rows])
    drawn = random_boxes(original, size, scale_min, generator(0, "bench"))
    where = store.train[which]
    own = by_image(store.flat, store.channels, where, on_copies(drawn, original, where.sizes), size)
    theirs = torch.stack([_crop(*each, size) for each in zip(files, *_rows(drawn), strict=True)])
    where = store.eval[which]
    plain = by_image(store.flat, store.channels, where, plain_boxes(where.sizes, size), size)
    resize = v2.Compose([v2.Resize(eval_side(size)), v2.CenterCrop(size), v2.PILToTensor()])
    expected = torch.stack([resize(Image.fromarray(pixels)) for pixels in files])
    difference = (plain.int() - expected.int()).abs()
    return Agreement(
        views=len(rows),
        crop_levels=float((own.float() - theirs.float()).abs().mean()),
        sharpness=sharpness(own) / max(sharpness(theirs), 1e-9),
        eval_levels=float(difference.float().mean()),
        eval_most=int(difference.max()),
    )


def on_copies(boxes: Boxes, original: Tensor, sizes: Tensor) -> Boxes:
    """The same boxes on copies that were reduced from `original` `[n, 2]` to `sizes` `[n, 2]`."""
    share = sizes.double() / original
    begin = (boxes.cut[:, :2] * share).round().long()
    end = ((boxes.cut[:, :2] + boxes.cut[:, 2:]) * share).round().long()
    begin = torch.minimum(begin, sizes - 1)
    end = torch.minimum(torch.maximum(end, begin + 1), sizes)
    return Boxes(
        cut=torch.cat([begin, end - begin], dim=1),
        full=boxes.full,
        start=boxes.start,
        mirrored=boxes.mirrored,
    )


def sharpness(views: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels of `[n, c, h, w]`, in levels."""
    values = views.float()
    return float(values.diff(dim=2).abs().mean() + values.diff(dim=3).abs().mean())


def _rows(boxes: Boxes) -> tuple[Sequence[list[int]], Sequence[bool]]:
    return boxes.cut.tolist(), boxes.mirrored.tolist()


def _crop(pixels: Pixels, box: list[int], mirrored: bool, size: int) -> Tensor:
    """As a loader makes it: by torchvision, of an image of PIL's."""
    view = v2.functional.resized_crop(Image.fromarray(pixels), *box, [size, size])
    tensor: Tensor = v2.functional.pil_to_tensor(v2.functional.hflip(view) if mirrored else view)
    return tensor
