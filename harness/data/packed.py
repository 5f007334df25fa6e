"""Datasets on disk as the trainer sees them: packed by the driver, opened by workers.

Owns: which pack belongs to a dataset and its options, what of it a trial uses, and its pixels on a
device. Must not know: file formats, models, where trials run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.console import SILENT, Console
from harness.data.contract import DATASETS, DrawnDataset, FileDataset, OwnFormat, options_of
from harness.data.crops import Boxes, Where, by_image, by_matrix, plain_boxes, random_boxes
from harness.data.dataset import Dataset, Images
from harness.data.listing import BorderMask
from harness.data.long_tail import LongTail, count_groups, drawn, with_tail_file
from harness.data.pack import OnBad, pack
from harness.data.pack_format import Pack, PackInfo, open_pack, pack_folder, side_for
from harness.errors import UserError
from harness.spec import DataSpec, Frozen, Recipe

SHARE_OF_MEMORY = 0.5
"""Pixels are kept on a GPU if they take at most this share of its free memory."""


def is_on_disk(name: str) -> bool:
    """Whether a dataset is read from files, rather than drawn."""
    return issubclass(DATASETS.get(name), FileDataset)


def file_dataset(name: str) -> type[FileDataset]:
    """A dataset on disk.

    Raises:
        UserError: there is none of that name, or it is drawn.
    """
    dataset: type[FileDataset] | type[DrawnDataset] = DATASETS.get(name)
    if not issubclass(dataset, FileDataset):
        raise UserError(
            f"Dataset {name} is drawn, not read from files: nothing is checked or packed."
        )
    return dataset


def data_folder(name: str, data_root: str | None) -> Path:
    """Where the files of a dataset lie.

    Raises:
        UserError: no folder is given, or there is none.
    """
    if data_root is None:
        raise UserError(
            f"Dataset {name} is read from files: give their folder with --data-root "
            f"(`harness data check {name}` says what belongs there)."
        )
    root = Path(data_root)
    if not root.is_dir():
        raise UserError(f"--data-root {data_root} is not a folder.")
    return root


_KNOWN: dict[tuple[str | int | None, ...], PackInfo] = {}
"""Packs that this process has looked up or made; files are taken not to change under it."""


def pack_of(
    name: str,
    options_json: str,
    size: int,
    data_root: str | None,
    packs: str,
    on_bad: OnBad,
    console: Console = SILENT,
) -> PackInfo:
    """What the pack of a dataset holds, for views of `size` pixels; it is made if need be.

    Raises:
        UserError: no data root, files that are absent, or an image that cannot be read.
        NotSavedError: the pack cannot be written.
    """
    asked = (name, options_json, size, data_root, packs, on_bad)
    if asked not in _KNOWN:
        _KNOWN[asked] = _pack_of(*asked, console)
    return _KNOWN[asked]


def forget_packs() -> None:
    """Look at the files of every dataset again when it is asked for next."""
    _KNOWN.clear()


def _pack_of(
    name: str,
    options_json: str,
    size: int,
    data_root: str | None,
    packs: str,
    on_bad: OnBad,
    console: Console,
) -> PackInfo:
    dataset = file_dataset(name)
    root = data_folder(name, data_root)
    options = dataset.Options.model_validate_json(options_json)
    listing = with_tail_file(dataset.listing(options, root), options, root)
    made = pack(
        listing,
        name=name,
        root=root,
        folder=Path(packs),
        side=side_for(size),
        on_bad=on_bad,
        read=dataset.read if issubclass(dataset, OwnFormat) else None,
        console=console,
    )
    used = made.index.labels[~made.index.is_test]
    # Images that cannot be read may be too many for the dev set.
    drawn(options, used, made.info.classes, made.info.tail, 0)
    absent = np.setdiff1d(np.arange(len(listing.classes)), made.index.labels[made.index.is_test])
    if len(absent):
        names = ", ".join(listing.classes[index] for index in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        console.warn(
            f"Without a test image, so left out of test averages: {names}{more} of {name}."
        )
    return made.info


def load_packed(spec: DataSpec, size: int, packs: str, trial: int = 0) -> Dataset:
    """Open the pack that a resolved spec names, for views of `size` pixels.

    Training images are those that the options' long tail keeps, and a dev set is drawn from the
    others; `trial` is the seed that draws them where the options leave that to the trial. RGB is
    normalised with mean and standard deviation 0.5, as the backbones were trained; chosen bands
    with those of the training pixels.

    Raises:
        UserError: the pack is not there, or is damaged.
    """
    assert spec.sha256 is not None
    file_dataset(spec.name)
    options = options_of(spec.name, spec.options)
    opened = open_pack(pack_folder(Path(packs), spec.name, side_for(size), spec.sha256))
    info, labels = opened.info, opened.index.labels
    train, test = np.flatnonzero(~opened.index.is_test), np.flatnonzero(opened.index.is_test)
    rows, chosen_on = drawn(options, labels[train], info.classes, info.tail, trial)
    dev, train = None if chosen_on is None else train[chosen_on], train[rows]
    counts = np.bincount(labels[train], minlength=len(info.classes)).tolist()
    groups = info.groups
    if isinstance(options, LongTail):
        groups = groups or options.groups_of(counts)
    store = PixelStore.of(opened, options)
    rgb = info.bands is None
    return Dataset(
        train=PackedImages.of(store, labels, train, size),
        test=PackedImages.of(store, labels, test, size),
        dev=None if dev is None else PackedImages.of(store, labels, dev, size),
        classes=info.classes,
        groups=groups or count_groups(counts),
        mean=(0.5, 0.5, 0.5) if rgb else info.mean,
        std=(0.5, 0.5, 0.5) if rgb else info.std,
    )


@dataclass(frozen=True, kw_only=True)
class PixelStore:
    """All pixels of a pack in a flat tensor, in mapped memory or on a GPU."""

    flat: Tensor
    """uint8."""
    where: Where
    channels: int
    _on: dict[torch.device, PixelStore] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: Pack, options: Frozen) -> PixelStore:
        """That of a pack, with the border mask of the options, if there is one.

        Raises:
            UserError: the mask covers an image.
        """
        index = opened.index
        borders = np.zeros(len(index.labels), dtype=np.int64)
        if isinstance(options, BorderMask):
            reduction = index.sizes[:, 0] / index.original[:, 0]
            borders = np.rint(options.border_mask * reduction).astype(np.int64)
            if (2 * borders >= index.sizes.min(axis=1)).any():
                raise UserError(
                    f"border_mask {options.border_mask} leaves nothing of the smallest image."
                )
        where = Where(
            offsets=torch.from_numpy(index.offsets),
            sizes=torch.from_numpy(index.sizes),
            borders=torch.from_numpy(borders),
        )
        return cls(flat=torch.from_numpy(opened.pixels), where=where, channels=opened.info.channels)

    def on(self, device: torch.device) -> PixelStore:
        """The store from which to take batches for a device: on the GPU itself if there is room."""
        if device.type != "cuda":
            return self
        if device not in self._on:
            free, _ = torch.cuda.mem_get_info(device)
            fits = self.flat.numel() <= SHARE_OF_MEMORY * free
            flat = self.flat.to(device) if fits else self.flat
            self._on[device] = PixelStore(flat=flat, where=self.where, channels=self.channels)
        return self._on[device]

    def views(self, rows: Tensor, boxes: Boxes, size: int, device: torch.device) -> Tensor:
        """Views uint8 `[n, c, size, size]` of some images, on the device."""
        where = self.where[rows]
        if device.type == "cpu":
            return by_image(self.flat, self.channels, where, boxes, size)
        if self.flat.device == device:
            return by_matrix(self.flat, self.channels, where, boxes, size)
        return by_matrix(*self._sent(where, device), boxes, size)

    def _sent(self, where: Where, device: torch.device) -> tuple[Tensor, int, Where]:
        """Copy whole images to the device, so that views are those of a store that lies there."""
        lengths = where.sizes.prod(dim=1) * self.channels
        ends = lengths.cumsum(0)
        batch = torch.empty(int(ends[-1]), dtype=torch.uint8, pin_memory=True)
        for start, length, end in zip(
            where.offsets.tolist(), lengths.tolist(), ends.tolist(), strict=True
        ):
            batch[end - length : end] = self.flat[start : start + length]
        there = Where(offsets=ends - lengths, sizes=where.sizes, borders=where.borders)
        return batch.to(device, non_blocking=True), self.channels, there


@dataclass(frozen=True, kw_only=True)
class PackedImages:
    """A set of images of a pack (an `ImageSet`), whose batches are views of one size.

    Training views are torchvision's RandomResizedCrop and horizontal flip; test views, which
    `augment: none` takes too, its Resize(size * 8 // 7) and CenterCrop(size).
    """

    store: PixelStore
    rows: Tensor
    """Places in the pack's index `[n]`, on the CPU."""
    labels: Tensor
    """int64 `[n]`, on the device of the batches."""
    size: int
    """Height and width in pixels of a view."""

    @classmethod
    def of(
        cls, store: PixelStore, labels: NDArray[np.int64], rows: NDArray[np.int64], size: int
    ) -> PackedImages:
        """Some rows of a pack, whose labels are `labels` `[all rows]`."""
        return cls(
            store=store,
            rows=torch.from_numpy(rows),
            labels=torch.from_numpy(labels[rows]),
            size=size,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor | slice) -> PackedImages:
        rows = self.rows[index if isinstance(index, slice) else index.cpu()]
        if isinstance(index, Tensor) and self.labels.is_cuda and not index.is_cuda:
            # A copy from pinned memory does not wait for the GPU: the next batch is gathered
            # while the GPU still computes on the last one.
            index = index.pin_memory().to(self.labels.device, non_blocking=True)
        return PackedImages(store=self.store, rows=rows, labels=self.labels[index], size=self.size)

    def to(self, device: torch.device) -> PackedImages:
        return PackedImages(
            store=self.store.on(device),
            rows=self.rows,
            labels=self.labels.to(device),
            size=self.size,
        )

    def parts(self, count: int) -> list[PackedImages]:
        return [self.subset(slice(i, i + count)) for i in range(0, len(self), count)]

    def plain(self) -> Tensor:
        return self._views(lambda sizes: plain_boxes(sizes, self.size))

    def augmented(self, index: Tensor, recipe: Recipe, rng: torch.Generator) -> Images:
        batch = self.subset(index)
        if recipe.augment == "none":
            return Images(pixels=batch.plain(), labels=batch.labels)

        def boxes(sizes: Tensor) -> Boxes:
            return random_boxes(sizes, self.size, recipe.crop_scale_min, rng)

        return Images(pixels=batch._views(boxes), labels=batch.labels)

    def _views(self, boxes: Callable[[Tensor], Boxes]) -> Tensor:
        device = self.labels.device
        sizes = self.store.where.sizes[self.rows]
        return self.store.views(self.rows, boxes(sizes), self.size, device)
