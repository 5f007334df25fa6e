"""How many training views per second a pack gives, against a loader that decodes files each time.

Owns: the measurement. Must not know: models, trials.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from harness.data.dataset import ImageSet
from harness.data.decode import file_of
from harness.data.listing import Item
from harness.data.packed import load_packed
from harness.errors import UserError
from harness.rng import generator
from harness.spec import DataSpec, Recipe

WORKERS = 2
"""Processes of the loader, and of the pack, whose batches stay in the process that makes them, as
they do in a worker that trains."""
BATCH = 128
SECONDS = 3.0
ROUNDS = 3
"""The two are timed in turn, and the best of each counts: other programs only slow them down."""
PREPARED = 16
"""As many batches at most lie ready when a round starts, and are not timed: the pack's processes
are asked for so many at once, a loader keeps fewer."""


class Speed(NamedTuple):
    """Images per second."""

    loader: float
    packed: float


class _Files(torch.utils.data.Dataset[Tensor]):
    """Decoded by PIL, with torchvision's transforms, as is usual."""

    def __init__(self, root: Path, items: Sequence[Item], size: int, scale_min: float) -> None:
        self._root, self._items = root, items
        crop = v2.RandomResizedCrop(size, scale=(scale_min, 1))
        self._transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._root / self._items[index].path) as image:
            upright = ImageOps.exif_transpose(image)
            view: Tensor = self._transform(upright.convert("RGB"))
        return view


def measure(
    spec: DataSpec, packs: str, items: Sequence[Item], root: Path, size: int, recipe: Recipe
) -> Speed:
    """Both ways on the same images, transform and cores, one after the other.

    Raises:
        UserError: the images are not files of their own, so that the usual loader cannot read them.
    """
    if any(item.box or file_of(item.path) != item.path for item in items):
        raise UserError("The usual loader reads files, not boxes, tar members or rows of a table.")
    cores = sorted(os.sched_getaffinity(0))
    workers = ProcessPoolExecutor(
        WORKERS,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(spec, size, packs, recipe),
    )
    torch.set_num_threads(1)
    try:
        os.sched_setaffinity(0, cores[:WORKERS])
        with workers:
            loader = _loader(items, root, size, recipe.crop_scale_min)
            packed = _packed(workers)
            rounds = [(_rate(loader), _rate(packed)) for _ in range(ROUNDS)]
            return Speed(max(a for a, _ in rounds), max(b for _, b in rounds))
    finally:
        os.sched_setaffinity(0, cores)


def _loader(items: Sequence[Item], root: Path, size: int, scale_min: float) -> Iterator[int]:
    """Lengths of batches, as they come."""
    loader: Any = DataLoader(
        _Files(root, items, size, scale_min),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    while True:
        yield from (len(batch) for batch in loader)


_images: ImageSet
"""In a process of the pack's: its training images."""
_recipe: Recipe
"""How they are cropped."""


def _open(spec: DataSpec, size: int, packs: str, recipe: Recipe) -> None:
    global _images, _recipe
    torch.set_num_threads(1)
    _images, _recipe = load_packed(spec, size, packs).train, recipe


def _batch(number: int) -> int:
    rng = generator(0, "bench", number)
    index = torch.randint(len(_images), (BATCH,), generator=rng)
    return len(_images.augmented(index, _recipe, rng))


def _packed(workers: Executor) -> Iterator[int]:
    """Lengths of batches, as they come."""
    for start in itertools.count(step=PREPARED):
        yield from workers.map(_batch, range(start, start + PREPARED))


def _rate(batches: Iterator[int]) -> float:
    for _ in range(PREPARED):
        next(batches)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SECONDS:
        count += next(batches)
    return count / spent
