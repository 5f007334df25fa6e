"""Datasets on disk as the trainer sees them: packed by the driver, opened by workers.

Owns: which pack belongs to a dataset and its options, what of it a trial uses, and its pixels on a
device. Must not know: file formats, models, where trials run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.console import SILENT, Console
from harness.data.contract import OwnFormat, file_dataset, listing_of, options_of
from harness.data.copies import SCALES
from harness.data.crops import Boxes, Where, by_image, by_matrix, plain_boxes, random_boxes
from harness.data.dataset import Dataset, Images
from harness.data.listing import BorderMask, Listing, OnBad
from harness.data.long_tail import drawn, grouped, with_tail_file
from harness.data.pack import pack
from harness.data.pack_format import Pack, PackInfo, open_pack, pack_folder
from harness.data.transfer import sent
from harness.errors import UserError
from harness.spec import DataSpec, Frozen, Recipe

SHARE_OF_MEMORY = 0.5
"""Pixels are kept on a GPU if they take at most this share of its free memory."""


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


def refuse_untested(name: str, listing: Listing) -> None:
    """Whether there is a test image at all; a class may lack one.

    Raises:
        UserError: there is none.
    """
    if not listing.test:
        raise UserError(
            f"Dataset {name} has no test image, so no trial on it could be scored: give a class "
            "more images, or a test folder."
        )


class PackRequest(NamedTuple):
    """What a pack is made of: a dataset by name with its options, for views of `size` pixels."""

    name: str
    options_json: str
    size: int
    data_root: str | None
    packs: str
    on_bad: OnBad = "stop"
    scale: float = SCALES[0]
    """Training crops show at least this share of an image (`copies.pack_scale`)."""


_KNOWN: dict[PackRequest, PackInfo] = {}
"""Packs that this command has looked up or made; files are taken not to change under it."""


def pack_of(asked: PackRequest, console: Console = SILENT) -> PackInfo:
    """What the pack of a dataset holds; it is made if need be.

    Raises:
        UserError: no data root, files that are absent, or an image that cannot be read.
        NotSavedError: the pack cannot be written.
    """
    if asked not in _KNOWN:
        _KNOWN[asked] = _pack_of(asked, console)
    return _KNOWN[asked]


def forget_packs() -> None:
    """Look at the files of every dataset again when it is asked for next."""
    _KNOWN.clear()


def _pack_of(asked: PackRequest, console: Console) -> PackInfo:
    name = asked.name
    dataset = file_dataset(name)
    root = data_folder(name, asked.data_root)
    options = dataset.Options.model_validate_json(asked.options_json)
    listing = with_tail_file(listing_of(name, options, root), options, root)
    refuse_untested(name, listing)
    for note in listing.notes:
        console.warn(f"{name}: {note}")
    made = pack(
        listing,
        name=name,
        root=root,
        folder=Path(asked.packs),
        size=asked.size,
        scale=asked.scale,
        on_bad=asked.on_bad,
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
    opened = open_pack(pack_folder(Path(packs), spec.name, size, spec.sha256))
    info, labels = opened.info, opened.index.labels
    train, test = np.flatnonzero(~opened.index.is_test), np.flatnonzero(opened.index.is_test)
    rows, chosen_on = drawn(options, labels[train], info.classes, info.tail, trial)
    dev, train = None if chosen_on is None else train[chosen_on], train[rows]
    counts = np.bincount(labels[train], minlength=len(info.classes)).tolist()
    store = PixelStore.of(opened, options)
    rgb = info.bands is None
    return Dataset(
        train=PackedImages.of(store, labels, train, size),
        test=PackedImages.of(store, labels, test, size),
        dev=None if dev is None else PackedImages.of(store, labels, dev, size),
        classes=info.classes,
        groups=grouped(options, info.groups, counts),
        mean=(0.5, 0.5, 0.5) if rgb else info.mean,
        std=(0.5, 0.5, 0.5) if rgb else info.std,
    )


@dataclass(frozen=True, kw_only=True)
class PixelStore:
    """All pixels of a pack in a flat tensor, in mapped memory or on a GPU."""

    flat: Tensor
    """uint8."""
    train: Where
    """What training crops are cut from."""
    eval: Where
    """What test views are cut from."""
    channels: int
    _on: dict[torch.device, PixelStore] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: Pack, options: Frozen) -> PixelStore:
        """That of a pack, with the border mask of the options, if there is one.

        Raises:
            UserError: the mask covers an image.
        """
        index = opened.index
        mask = options.border_mask if isinstance(options, BorderMask) else 0
        return cls(
            flat=torch.from_numpy(opened.pixels),
            train=where_of(index.offsets, index.sizes, index.original, mask, is_cut=False),
            eval=where_of(index.eval_offsets, index.eval_sizes, index.original, mask, is_cut=True),
            channels=opened.info.channels,
        )

    def on(self, device: torch.device) -> PixelStore:
        """The store from which to take batches for a device: on the GPU itself if there is room."""
        if device.type != "cuda":
            return self
        if device not in self._on:
            free, _ = torch.cuda.mem_get_info(device)
            fits = self.flat.numel() <= SHARE_OF_MEMORY * free
            flat = self.flat.to(device) if fits else self.flat
            self._on[device] = PixelStore(
                flat=flat, train=self.train, eval=self.eval, channels=self.channels
            )
        return self._on[device]

    def views(self, where: Where, boxes: Boxes, size: int, device: torch.device) -> Tensor:
        """Views uint8 `[n, c, size, size]` of the copies that lie there, on the device."""
        if device.type == "cpu":
            return by_image(self.flat, self.channels, where, boxes, size)
        if self.flat.device == device:
            return by_matrix(self.flat, self.channels, where, boxes, size)
        return by_matrix(*self._sent(where, boxes, device), boxes, size)

    def _sent(self, where: Where, boxes: Boxes, device: torch.device) -> tuple[Tensor, int, Where]:
        """Copy the rows of pixels that the boxes cut to the device, for views as of whole images.

        The offsets are those at which the images would begin, were they there as a whole.
        """
        lines = where.sizes[:, 1] * self.channels
        above, lengths = boxes.cut[:, 0] * lines, boxes.cut[:, 2] * lines
        ends = lengths.cumsum(0)
        batch = torch.empty(int(ends[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
        for start, length, end in zip(
            (where.offsets + above).tolist(), lengths.tolist(), ends.tolist(), strict=True
        ):
            batch[end - length : end] = self.flat[start : start + length]
        there = Where(offsets=ends - lengths - above, sizes=where.sizes, borders=where.borders)
        return batch.to(device, non_blocking=True), self.channels, there


def where_of(
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    original: NDArray[np.int64],
    mask: int,
    *,
    is_cut: bool,
) -> Where:
    """Copies of images, with a mask of so many of the files' own pixels at every edge.

    Of the long side of copies that are cut, what lies outside the test view may not be there.

    Raises:
        UserError: the mask covers an image.
    """
    borders = np.zeros_like(sizes)
    if mask:
        short, whole = sizes.min(axis=1, keepdims=True), original.min(axis=1, keepdims=True)
        borders = borders + np.rint(mask * short / whole).astype(np.int64)
        if is_cut:
            borders = (borders - (short * original // whole - sizes) // 2).clip(min=0)
        if (2 * borders >= sizes).any():
            raise UserError(f"border_mask {mask} leaves nothing of the smallest image.")
    return Where(
        offsets=torch.from_numpy(offsets),
        sizes=torch.from_numpy(sizes),
        borders=torch.from_numpy(borders),
    )


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
        if isinstance(index, Tensor) and index.device != self.labels.device:
            # The next batch is gathered while the GPU still computes on the last one.
            index = sent(index, self.labels.device)
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
        where = self.store.eval[self.rows]
        return self._views(where, plain_boxes(where.sizes, self.size))

    def augmented(self, index: Tensor, recipe: Recipe, rng: torch.Generator) -> Images:
        batch = self.subset(index)
        if recipe.augment == "none":
            return Images(pixels=batch.plain(), labels=batch.labels)

        where = self.store.train[batch.rows]
        boxes = random_boxes(where.sizes, self.size, recipe.crop_scale_min, rng)
        return Images(pixels=batch._views(where, boxes), labels=batch.labels)

    def _views(self, where: Where, boxes: Boxes) -> Tensor:
        return self.store.views(where, boxes, self.size, self.labels.device)
