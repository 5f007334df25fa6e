"""Making packs: the images of a dataset, decoded once into one file that is mapped into memory.

Owns: when a pack is made anew, reducing images, and writing them. Must not know: models, splits for
validation, long tails.

Images are reduced, never enlarged, with antialiasing: the short side to `side` at most, the long
one to twice that. A pack is written under another name and renamed when complete, so that one which
is found is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from harness.console import SILENT, Console
from harness.data.decode import BadImage, Pixels, ReadImage, Source, file_of
from harness.data.decode_many import each_decoded, item_name, source_of
from harness.data.listing import Listing
from harness.data.pack_format import (
    Index,
    Pack,
    PackInfo,
    identity,
    open_pack,
    pack_folder,
    packs_of,
    read_info,
)
from harness.errors import UserError, saving

OnBad = Literal["stop", "skip"]

FORMAT = 1
"""Raised when the same files would be packed to other bytes or another layout."""


def pack(
    listing: Listing,
    *,
    name: str,
    root: Path,
    folder: Path,
    side: int,
    on_bad: OnBad = "stop",
    read: ReadImage | None = None,
    console: Console = SILENT,
) -> Pack:
    """The pack of a listing in `folder`, made if there is none of the same files yet.

    `read` decodes the images of a dataset with a format of its own (`OwnFormat.read`).

    Raises:
        UserError: an image cannot be read and `on_bad` is `stop`; nothing is left behind.
        NotSavedError: the pack cannot be written.
    """
    listed, files = _listed(listing, side), _files(listing, root)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}-{side}.lock"):
        known = {path: read_info(path) for path in packs_of(folder, name, side)}
        same = {path: info for path, info in known.items() if info.listed == listed}
        for path, info in same.items():
            if info.files == files and (on_bad == "skip" or not info.bad):
                return open_pack(path)
        if any(info.files != files for info in same.values()):
            console.warn(f"The files of {name} have changed since they were packed.")
        source = source_of(listing, root, read)
        return _make(listing, name, source, folder, side, on_bad, listed, files, console)


def _listed(listing: Listing, side: int) -> str:
    drawn = () if listing.tail is None else (listing.tail,)
    head = [FORMAT, side, listing.classes, listing.groups, listing.bands, *drawn]
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


def _make(
    listing: Listing,
    name: str,
    source: Source,
    folder: Path,
    side: int,
    on_bad: OnBad,
    listed: str,
    files: str,
    console: Console,
) -> Pack:
    part = folder / f"{name}-{side}-new.part"
    shutil.rmtree(part, ignore_errors=True)  # left by a killed process: the lock is ours
    part.mkdir()
    try:
        with saving(part):
            content = _written(listing, name, source, part / "pixels.bin", side, on_bad, console)
            np.savez(part / "index.npz", **vars(content.index))
            known = (listing.classes, listing.groups, listing.tail)
            sha256 = identity(content.digest, content.index, *known)
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
                tail=listing.tail,
                sha256=sha256,
                listed=listed,
                files=files,
                pillow=PIL.__version__,
            )
            (part / "pack.json").write_text(info.model_dump_json(indent=1))
            target = pack_folder(folder, name, side, sha256)
            shutil.rmtree(
                target, ignore_errors=True
            )  # the same bytes, from files with another date
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if content.bad:
        console.warn(
            f"{len(content.bad)} images of {name} cannot be read and are left out; "
            f"{target}/pack.json names them."
        )
    return open_pack(target)


@dataclass(frozen=True)
class _Written:
    """What is known once all pixels are written."""

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
    listing: Listing,
    name: str,
    source: Source,
    file: Path,
    side: int,
    on_bad: OnBad,
    console: Console,
) -> _Written:
    rows: list[tuple[int, ...]] = []
    bad: dict[str, str] = {}
    digest, offset, histogram = hashlib.sha256(), 0, np.zeros((0, 256), dtype=np.int64)
    total = len(listing.train) + len(listing.test)

    def small(pixels: Pixels) -> tuple[Pixels, int, int]:
        return reduced(pixels, side), pixels.shape[0], pixels.shape[1]

    with (
        file.open("wb") as out,
        console.progress(f"Packing {name} to {side} px", total, "images") as advance,
    ):
        for is_test, items in ((False, listing.train), (True, listing.test)):
            for item, outcome in each_decoded(source, items, small):
                advance("")
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


def _refuse(bad: BadImage, on_bad: OnBad) -> None:
    if on_bad == "stop":
        raise UserError(
            f"Image {bad} - repair or remove it, or leave out all such images with "
            "--on-bad-image skip."
        ) from bad


def reduced(pixels: Pixels, side: int) -> Pixels:
    """The image with a short side of at most `side` and a long side of at most twice that.

    Antialiased, and never enlarged. Sizes are those of torchvision's Resize, which rounds the long
    side down.
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
