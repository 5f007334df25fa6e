"""Batches that begin further in: what a training asks of whoever keeps frozen activations.

The blocks below the lowest adapted one compute the same in every trial that sees the same images,
so what leaves them can be kept. Owns: the protocol, and batches of which the first part of the
forward pass is done. Must not know: where activations are kept, under which key, for how long.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from harness.data.dataset import Dataset, ImageSet, epoch_batches, epoch_order, normalised
from harness.model.cut import IMAGES
from harness.spec import Recipe
from harness.training.clock import Seconds


class Begun(NamedTuple):
    """A batch on its way through the model."""

    x: Tensor
    """What lies at the cut: images `[n, c, h, w]`, tokens `[n, t, d]` or features `[n, d]`."""
    cut: int
    """As `harness.model.cut` numbers them."""


Advance = Callable[[Tensor, int, int], Tensor]
"""Takes a batch from one cut to another, in the number format of the pass."""

ImagesFrom = Callable[[int], Iterator[Tensor]]
"""The normalised images of a pass, batch by batch, from the batch of this number on."""


class Prefixes(Protocol):
    """Keeps what leaves the frozen blocks of one trial."""

    saved: Seconds
    """What the trial would have cost more on its own, so far; below 0 where keeping took longer."""

    def look_again(self) -> None:
        """The model may have been changed since the last pass."""

    def begun(self, part: str, count: int, images: ImagesFrom, advance: Advance) -> Iterator[Begun]:
        """The `count` batches of a pass, each as far on its way as it is known.

        `part` names the pass; its images are the same whenever it is asked for. They are asked for
        only where they are needed.
        """


def begun(
    prefixes: Prefixes | None, part: str, count: int, images: ImagesFrom, advance: Advance
) -> Iterator[Begun]:
    """As `Prefixes.begun`; without prefixes, all batches at their beginning."""
    if prefixes is None:
        return (Begun(x, IMAGES) for x in images(0))
    return prefixes.begun(part, count, images, advance)


@dataclass(frozen=True, kw_only=True)
class BegunBatch:
    """A training batch, with its labels int64 `[n]`."""

    begun: Begun
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def begun_epoch(
    prefixes: Prefixes,
    dataset: Dataset,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    epoch: int,
    advance: Advance,
) -> Iterator[BegunBatch]:
    """The batches of `epoch_batches`, without excluded images, in its order."""

    def pixels(first: int) -> Iterator[Tensor]:
        batches = epoch_batches(images, recipe, seed, epoch)
        return (normalised(b.pixels, dataset) for b in itertools.islice(batches, first, None))

    order = epoch_order(images, seed, epoch).split(recipe.batch_size)
    passing = prefixes.begun(f"epoch-{epoch}", len(order), pixels, advance)
    for index, each in zip(order, passing, strict=True):
        yield BegunBatch(begun=each, labels=images.labels[index.to(images.labels.device)])
