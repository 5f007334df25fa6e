"""Packs: the images of a dataset, decoded once into one flat file that is mapped into memory.

Owns: the folder of a pack, its identity, and making it. Must not know: models, splits for
validation, long tails.

A pack is a folder `<name>-<side>-<hash>` with `pixels.bin` (uint8, one image after the other, each
`[h, w, c]`), `index.npz` (where each lies, sizes before and after, label, split) and `pack.json`.
Images are reduced, never enlarged, with antialiasing: the short side to `side` at most, the long
one to twice that. It is written under another name and renamed when whole.

Bands that are not 8 bits wide are scaled by one pair of values per band for the whole dataset: the
2nd and 98th percentile over at most 64 training images, evenly spaced in the list.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal, TypeVar

import click
import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch.nn.functional import interpolate

from harness.console import progress
from harness.data.decode import (
    BadImage,
    Pixels,
    Scaling,
    Source,
    cut,
    decoded,
    file_of,
    printable,
    raw_bands,
)
from harness.data.listing import Item, Listing
from harness.errors import UserError, saving
from harness.spec import Frozen

OnBad = Literal["stop", "skip"]
Read = Callable[[Path, str], Pixels]

FORMAT = 1
"""Raised when the same files would be packed to other bytes or another layout."""
SAMPLE = 64
PERCENTILES = (2, 98)
RUNS_AT_ONCE = 512
"""Files in the threads' hands at a time, which bounds memory."""


def side_for(size: int) -> int:
    """Short side of packed images for views of `size` pixels: that of the released test transform,
    so that testing needs no second resampling."""
    return size * 8 // 7


class PackInfo(Frozen):
    """What is written beside the pixels."""

    name: str
    side: int
    classes: tuple[str, ...]
    groups: dict[str, tuple[int, ...]] | None
    bands: tuple[int, ...] | None
    scaling: Scaling | None
    channels: Annotated[int, Field(ge=1)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel over all pixels of the training images, scaled to [0, 1]."""
    bad: dict[str, str]
    """Images left out: path -> reason."""
    sha256: str
    """Of pixels, index, classes and groups: what can change a trial's numbers."""
    listed: str
    """Hash of the list of images that it was made from, and of how they were to be packed."""
    files: str
    """Hash of the source files' names, lengths and times of change."""
    pillow: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """Of n images: where each starts in bytes, (height, width) packed and before, label, split."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    original: NDArray[np.int64]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An opened pack; `pixels` is mapped, not read."""

    folder: Path
    info: PackInfo
    index: Index
    pixels: NDArray[np.uint8]


def pack(
    listing: Listing,
    *,
    name: str,
    root: Path,
    folder: Path,
    side: int,
    on_bad: OnBad = "stop",
    read: Read | None = None,
) -> Pack:
    """The pack of a listing in `folder`, made if there is none of the same files yet.

    `read` is that of a dataset with a format of its own.

    Raises:
        UserError: an image cannot be read and `on_bad` is `stop`; nothing is left behind.
    """
    listed, files = _listed(listing, side), _files(listing, root)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}-{side}.lock"):
        known = {path: _info(path) for path in packs_of(folder, name, side)}
        same = {path: info for path, info in known.items() if info.listed == listed}
        for path, info in same.items():
            if info.files == files and (on_bad == "skip" or not info.bad):
                return open_pack(path)
        if any(info.files != files for info in same.values()):
            click.echo(f"The files of {name} have changed since they were packed.", err=True)
        source = source_of(listing, root, read)
        return _make(listing, name, source, folder, side, on_bad, listed, files)


def packs_of(folder: Path, name: str, side: int | None = None) -> list[Path]:
    """The finished packs of a dataset, of one side or of any."""
    sides = r"\d+" if side is None else str(side)
    found = folder.glob(f"{name}-*/pack.json")
    pattern = rf"{re.escape(name)}-{sides}-[0-9a-f]{{16}}"
    return sorted(path.parent for path in found if re.fullmatch(pattern, path.parent.name))


def pack_folder(folder: Path, name: str, side: int, sha256: str) -> Path:
    """Where a pack lies."""
    return folder / f"{name}-{side}-{sha256[:16]}"


def open_pack(folder: Path) -> Pack:
    """Map a pack into memory; its lengths are checked, its hash is not (see `verify`).

    Raises:
        UserError: there is none, or it is damaged.
    """
    info = _info(folder)
    broken = UserError(f"The pack {folder} is damaged: delete it and give the command again.")
    try:
        with np.load(folder / "index.npz") as arrays:
            index = Index(**{key: arrays[key] for key in arrays.files})
        # Copied on write, and never written: torch warns of arrays that cannot be.
        pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="c")
    except (OSError, ValueError, TypeError) as error:
        raise broken from error
    if len(pixels) != int(index.sizes.prod(axis=1).sum()) * info.channels:
        raise broken
    return Pack(folder=folder, info=info, index=index, pixels=pixels)


def verify(folder: Path) -> bool:
    """Whether a pack's bytes are those that were written."""
    opened = open_pack(folder)
    digest = hashlib.sha256()
    for start in range(0, len(opened.pixels), 2**24):
        digest.update(opened.pixels[start : start + 2**24].data)
    info = opened.info
    return _sha256(digest, opened.index, info.classes, info.groups) == info.sha256


def _info(folder: Path) -> PackInfo:
    try:
        return PackInfo.model_validate_json((folder / "pack.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"There is no pack {folder}: give the command again with --data-root."
        ) from error
    except ValidationError as error:
        raise UserError(f"{folder}/pack.json was written by another version: delete it.") from error


def _listed(listing: Listing, side: int) -> str:
    head = [FORMAT, side, listing.classes, listing.groups, listing.bands]
    digest = hashlib.sha256(json.dumps(head).encode())
    for part in (listing.train, listing.test):
        for item in part:
            digest.update(f"{json.dumps(item)}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _files(listing: Listing, root: Path) -> str:
    digest = hashlib.sha256()
    names = {file_of(item.path) for part in (listing.train, listing.test) for item in part}
    for name in sorted(names):
        try:
            stat = os.stat(root / name)
            state = [stat.st_size, stat.st_mtime_ns]
        except FileNotFoundError:
            state = []
        digest.update(json.dumps([name, *state]).encode())
    return digest.hexdigest()


def _sha256(
    pixels: hashlib._Hash,
    index: Index,
    classes: tuple[str, ...],
    groups: dict[str, tuple[int, ...]] | None,
) -> str:
    whole = pixels.copy()
    for _, array in sorted(vars(index).items()):
        whole.update(array.tobytes())
    whole.update(json.dumps([classes, groups]).encode())
    return whole.hexdigest()


def _make(
    listing: Listing,
    name: str,
    source: Source,
    folder: Path,
    side: int,
    on_bad: OnBad,
    listed: str,
    files: str,
) -> Pack:
    part = folder / f"{name}-{side}-new.part"
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed: this one has the lock
    part.mkdir()
    try:
        with saving(part):
            content = _written(listing, name, source, part / "pixels.bin", side, on_bad)
            np.savez(part / "index.npz", **vars(content.index))
            sha256 = _sha256(content.digest, content.index, listing.classes, listing.groups)
            info = PackInfo(
                name=name,
                side=side,
                classes=listing.classes,
                groups=listing.groups,
                bands=listing.bands,
                scaling=source.scaling,
                channels=content.histogram.shape[0],
                mean=content.mean,
                std=content.std,
                bad=content.bad,
                sha256=sha256,
                listed=listed,
                files=files,
                pillow=PIL.__version__,
            )
            (part / "pack.json").write_text(info.model_dump_json(indent=1))
            target = pack_folder(folder, name, side, sha256)
            shutil.rmtree(target, ignore_errors=True)  # the same bytes, of files of another date
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if content.bad:
        click.echo(
            f"{len(content.bad)} images of {name} cannot be read and are left out; "
            f"{target}/pack.json names them.",
            err=True,
        )
    return open_pack(target)


@dataclass(frozen=True)
class _Written:
    index: Index
    digest: hashlib._Hash
    histogram: NDArray[np.int64]
    """Training pixels of each channel and level `[c, 256]`."""
    bad: dict[str, str]

    @property
    def mean(self) -> tuple[float, ...]:
        level = np.arange(256) / 255
        return tuple(float(x) for x in self.histogram @ level / self.histogram.sum(axis=1))

    @property
    def std(self) -> tuple[float, ...]:
        square = (np.arange(256) / 255) ** 2
        mean_square = self.histogram @ square / self.histogram.sum(axis=1)
        return tuple(float(x) for x in np.sqrt(np.maximum(mean_square - np.square(self.mean), 0)))


def _written(
    listing: Listing, name: str, source: Source, file: Path, side: int, on_bad: OnBad
) -> _Written:
    rows: list[tuple[int, ...]] = []
    bad: dict[str, str] = {}
    digest, offset, histogram = hashlib.sha256(), 0, np.zeros((0, 256), dtype=np.int64)
    total = len(listing.train) + len(listing.test)

    def small(pixels: Pixels) -> tuple[Pixels, int, int]:
        return reduced(pixels, side), pixels.shape[0], pixels.shape[1]

    with (
        file.open("wb") as out,
        progress(f"Packing {name} to {side} px", total) as advance,
    ):
        for is_test, items in ((False, listing.train), (True, listing.test)):
            for item, outcome in each_decoded(source, items, small):
                advance()
                if isinstance(outcome, BadImage):
                    _refuse(outcome, on_bad)
                    bad[item_name(item)] = outcome.reason
                    continue
                pixels, *original = outcome
                if not len(histogram):
                    histogram = np.zeros((pixels.shape[2], 256), dtype=np.int64)
                _write(pixels, out, digest)
                if not is_test:
                    histogram += _levels(pixels)
                height, width = pixels.shape[:2]
                rows.append((offset, height, width, *original, item.label, is_test))
                offset += pixels.size
    if not any(not row[-1] for row in rows):
        raise UserError(f"{name} has no training image that can be read in {source.root}.")
    table = np.array(rows, dtype=np.int64)
    index = Index(
        offsets=table[:, 0].copy(),
        sizes=table[:, 1:3].copy(),
        original=table[:, 3:5].copy(),
        labels=table[:, 5].copy(),
        is_test=table[:, 6].astype(bool),
    )
    return _Written(index, digest, histogram, bad)


def _write(pixels: Pixels, out: IO[bytes], digest: hashlib._Hash) -> None:
    out.write(pixels.data)
    digest.update(pixels.data)


def _levels(pixels: Pixels) -> NDArray[np.int64]:
    channels = range(pixels.shape[2])
    return np.stack([np.bincount(pixels[:, :, c].ravel(), minlength=256) for c in channels])


def item_name(item: Item) -> str:
    """An item for a message: its path, and its box if it has one."""
    return printable(item.path) + (f" {item.box}" if item.box else "")


def _refuse(bad: BadImage, on_bad: OnBad) -> None:
    if on_bad == "stop":
        raise UserError(
            f"Image {bad} - mend it, take it out, or leave out all such with --on-bad-image skip."
        ) from bad


T = TypeVar("T")


def each_decoded(
    source: Source, items: Iterable[Item], make: Callable[[Pixels], T]
) -> Iterator[tuple[Item, T | BadImage]]:
    """What `make` makes of every item's pixels, in order; decoded by as many threads as cores.

    Neighbours that are boxes of one image share its decoding.
    """
    runs = (list(run) for _, run in itertools.groupby(items, key=lambda item: item.path))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        while some := list(itertools.islice(runs, RUNS_AT_ONCE)):
            for made in threads.map(lambda run: _made(source, run, make), some):
                yield from made


def _made(
    source: Source, run: list[Item], make: Callable[[Pixels], T]
) -> list[tuple[Item, T | BadImage]]:
    try:
        whole = decoded(source, run[0].path)
    except BadImage as error:
        return [(item, error) for item in run]
    outcomes: list[tuple[Item, T | BadImage]] = []
    for item in run:
        try:
            outcomes.append((item, make(cut(whole, item))))
        except BadImage as error:
            outcomes.append((item, error))
    return outcomes


def reduced(pixels: Pixels, side: int) -> Pixels:
    """Short side `side` at most and long side twice that, antialiased; never enlarged.

    Sizes are those of torchvision's Resize: the other side is cut to whole pixels.
    """
    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    if short <= side and long <= 2 * side:
        return np.ascontiguousarray(pixels)
    if side * long <= 2 * side * short:
        new_short, new_long = side, int(side * long / short)
    else:
        new_short, new_long = max(1, int(2 * side * short / long)), 2 * side
    size = (new_short, new_long) if height <= width else (new_long, new_short)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    small = interpolate(image, size=size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def source_of(listing: Listing, root: Path, read: Read | None) -> Source:
    """How to read a listing's images, with the scaling of its bands where they are not 8 bits."""
    source = Source(root, listing.bands, read=read)
    if source.bands is None:
        return source
    step = max(1, len(listing.train) // SAMPLE)
    values = []
    for item in listing.train[::step][:SAMPLE]:
        try:
            values.append(raw_bands(source, item.path).reshape(-1, len(source.bands)))
        except BadImage:
            continue  # reported when it is packed
    if not values or all(part.dtype == np.uint8 for part in values):
        return source
    low, high = np.percentile(np.concatenate(values).astype(np.float64), PERCENTILES, axis=0)
    return source._replace(scaling=Scaling(low=tuple(low.tolist()), high=tuple(high.tolist())))
