"""What the trainer sees of a dataset: sets of images, the stratified split, augmented batches.

Owns: the interface of a set of images, and sets held in memory with all images of one size. Must
not know: where a dataset's files lie, models, methods.

Shapes: n images, c channels (3 for RGB), h and w pixels. Pixels stay uint8 until a batch is made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from harness.data.transfer import sent
from harness.errors import UserError
from harness.rng import generator
from harness.spec import DataSpec, Recipe


class ImageSet(Protocol):
    """Labelled images, wherever their pixels lie."""

    @property
    def labels(self) -> Tensor:
        """int64 `[n]`, on the device."""

    def __len__(self) -> int: ...

    def subset(self, index: Tensor) -> Self:
        """The images at these indices, which may lie on the CPU or on the device of the labels."""

    def to(self, device: torch.device) -> Self:
        """The same images, with batches made on `device`."""

    def parts(self, count: int) -> Sequence[Self]:
        """Consecutive images, `count` at a time; nothing is read yet."""

    def plain(self) -> Tensor:
        """All images as they are tested, uint8 `[n, c, h, w]`."""

    def augmented(self, index: Tensor, recipe: Recipe, rng: torch.Generator) -> Images:
        """A batch of the images at these indices, augmented as the recipe says."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images in memory: `pixels` uint8 `[n, c, h, w]` and `labels` int64 `[n]`.

    Those that `crop_flip` has augmented are float32, in 0..255. Those that are mixed
    (`harness.data.mixing`) have shares of classes for labels, float32 `[n, classes]`.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> Images:
        return Images(pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device) -> Images:
        return Images(pixels=self.pixels.to(device), labels=self.labels.to(device))

    def parts(self, count: int) -> list[Images]:
        pairs = zip(self.pixels.split(count), self.labels.split(count), strict=True)
        return [Images(pixels=pixels, labels=labels) for pixels, labels in pairs]

    def plain(self) -> Tensor:
        return self.pixels

    def augmented(self, index: Tensor, recipe: Recipe, rng: torch.Generator) -> Images:
        batch = self.subset(sent(index, self.labels.device))
        if recipe.augment == "none":
            return batch
        pixels = crop_flip(batch.pixels, recipe.crop_scale_min, rng)
        return Images(pixels=pixels, labels=batch.labels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A labelled dataset with its official test set and its head/medium/tail groups.

    `groups` maps a group's name to class indices; the dataset says which classes are tail.
    `mean` and `std` are per channel, of pixels scaled to [0, 1]. `dev` is what choices are made on
    where the options ask for a dev set.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    dev: ImageSet | None = None


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a trial trains on, selects on and is tested on, and the class counts of `train`."""

    train: ImageSet
    select: ImageSet
    test: ImageSet
    train_counts: Tensor

    def to(self, device: torch.device) -> Split:
        return Split(
            train=self.train.to(device),
            select=self.select.to(device),
            test=self.test.to(device),
            train_counts=self.train_counts.to(device),
        )


def stratified(labels: Tensor, fraction: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a sample of `fraction` of every class; returns indices of the rest and of the sample.

    A class of two or more images has at least one on each side; a class of one is not sampled.
    """
    rest, sample = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=rng)]
        count = (
            0 if len(members) < 2 else min(max(1, round(fraction * len(members))), len(members) - 1)
        )
        sample.append(members[:count])
        rest.append(members[count:])
    return torch.cat(rest).sort().values, torch.cat(sample).sort().values


def share_of(labels: Tensor, share: float, seed: int) -> Tensor:
    """Sorted indices of a share of every class, at least one image of each.

    Each class has one order for all shares of a seed, of which a share is the front: smaller ones
    are parts of larger ones.
    """
    kept = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        rng = generator(seed, "train share", label)
        members = members[torch.randperm(len(members), generator=rng)]
        kept.append(members[: max(1, round(share * len(members)))])
    return torch.cat(kept).sort().values


def split(dataset: Dataset, spec: DataSpec, seed: int) -> Split:
    """Hold out the selection set from the training data; the test set is left alone.

    With a dev set nothing is held out, and selection is on the dev set. With `select_on="test"`
    (the paper's protocol) nothing is held out either, and selection is on the test set. Of what is
    left, `train_share` is trained on.

    Raises:
        UserError: a class has no training image, no class has one to hold out, or a dev set is
            asked for and there is none.
    """
    train, select = dataset.train, dataset.test
    if spec.dev_per_class and dataset.dev is None:
        raise UserError(f"Data {spec.name} makes no dev set: leave out data.options.dev_per_class.")
    if dataset.dev is not None:
        select = dataset.dev
    elif spec.select_on == "val":
        rng = generator(seed, "split")
        rest, sample = stratified(dataset.train.labels, spec.val_fraction, rng)
        if not len(sample):  # refused here, because scores of no image fail far from the cause
            raise UserError(
                f"No class of {spec.name} has two training images, so none can be held out to "
                "select on: give more, or data.select_on=test."
            )
        train, select = dataset.train.subset(rest), dataset.train.subset(sample)
    if spec.train_share < 1:
        train = train.subset(share_of(train.labels, spec.train_share, seed))
    counts = torch.bincount(train.labels, minlength=len(dataset.classes))
    if (counts == 0).any():
        empty = dataset.classes[int((counts == 0).nonzero()[0])]
        raise UserError(f"Class {empty!r} of {spec.name} has no training image.")
    return Split(train=train, select=select, test=dataset.test, train_counts=counts)


class Channels(Protocol):
    """Mean and standard deviation of each channel, of pixels scaled to [0, 1]."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def normalised(pixels: Tensor, known: Channels) -> Tensor:
    """uint8 `[n, c, h, w]` -> float32, centred and scaled."""
    mean = _per_channel(known.mean, pixels.device)
    return (pixels.float() - mean) / _per_channel(known.std, pixels.device)


@functools.lru_cache(maxsize=32)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values of pixels in [0, 1] as `[1, c, 1, 1]` for pixels in 0..255, sent to a device once."""
    with torch.inference_mode(mode=False):  # what is kept must serve training too
        return torch.tensor(values, device=device).view(1, -1, 1, 1) * 255


def one_of(images: ImageSet) -> Tensor:
    """The first image as it is tested `[1, c, h, w]`, to measure the cost of one image."""
    return images.subset(torch.zeros(1, dtype=torch.long, device=images.labels.device)).plain()


def no_exclusion() -> Tensor | None:
    """For `epoch_batches`: no image is deferred."""
    return None


def epoch_order(images: ImageSet, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch takes its images `[n]`, on the CPU."""
    return torch.randperm(len(images), generator=generator(seed, "order", epoch))


def epoch_batches(
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    epoch: int,
    excluded: Callable[[], Tensor | None] = no_exclusion,
) -> Iterator[Images]:
    """Shuffled, augmented batches of one epoch; the last, smaller one is kept.

    Order and augmentation depend on (seed, epoch) alone, never on the configuration. `excluded` is
    called before every batch and returns a mask `[n]` of images to defer to a later batch. Where
    too few others are left for a whole batch, they are the epoch's last one, as without a mask; the
    epoch does not wait for those deferred, because full steps on ever fewer images would memorise
    them (`tests/test_metapeft.py` shows it on shuffled labels).
    """
    order = epoch_order(images, seed, epoch)
    rng = generator(seed, "augment", epoch)
    while len(order):
        mask = excluded()
        if mask is None:  # in a time that the size of the data does not change
            batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        else:
            place = (~mask[order]).nonzero().flatten()[: recipe.batch_size]
            left = torch.ones(len(order), dtype=torch.bool)
            left[place] = False
            batch, order = order[place], order[left]
        if len(batch):
            yield images.augmented(batch, recipe, rng)
        if len(batch) < recipe.batch_size:
            return


def crop_flip(pixels: Tensor, scale_min: float, rng: torch.Generator) -> Tensor:
    """Random resized crop and horizontal flip of images `[n, c, h, w]`, by one bilinear resampling.

    Boxes are drawn as by torchvision's RandomResizedCrop: area share uniform in [scale_min, 1],
    aspect ratio log-uniform in [3/4, 4/3]. But a side longer than the image is cut to the image,
    where torchvision draws again; and boxes are not rounded to whole pixels, and resampling is not
    antialiased. Returns float32 `[n, c, h, w]` in 0..255.
    """
    n = len(pixels)
    area = torch.empty(n).uniform_(scale_min, 1, generator=rng)
    log_ratio = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3), generator=rng)
    place = torch.rand(n, 2, generator=rng) * 2 - 1
    flip = (torch.rand(n, generator=rng) < 0.5).float() * -2 + 1
    width = (area.sqrt() * (log_ratio / 2).exp()).clamp(max=1)
    height = (area.sqrt() / (log_ratio / 2).exp()).clamp(max=1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * flip
    theta[:, 1, 1] = height
    theta[:, 0, 2] = place[:, 0] * (1 - width)
    theta[:, 1, 2] = place[:, 1] * (1 - height)
    grid = torch.nn.functional.affine_grid(
        sent(theta, pixels.device), list(pixels.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
