"""Making packs: the images of a dataset, decoded once into one file that is mapped into memory.

Owns: when a pack is made anew, writing it, and saying what it costs. Must not know: how far images
are reduced, models, splits for validation, long tails.

A pack is written under another name and renamed when complete, so that one which is found is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from harness.console import SILENT, Console
from harness.data.copies import SCALES, copies
from harness.data.decode import BadImage, Pixels, ReadImage, Source, file_of
from harness.data.decode_many import each_decoded, item_name, source_of
from harness.data.listing import Listing, OnBad
from harness.data.pack_format import (
    FORMAT,
    Index,
    Pack,
    PackInfo,
    identity,
    open_pack,
    outdated_packs,
    pack_folder,
    packs_of,
    read_info,
)
from harness.errors import UserError, saving


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a pack is made of, and for which views."""

    listing: Listing
    name: str
    folder: Path
    size: int
    scale: float
    on_bad: OnBad
    console: Console


def pack(
    listing: Listing,
    *,
    name: str,
    root: Path,
    folder: Path,
    size: int,
    scale: float = SCALES[0],
    on_bad: OnBad = "stop",
    read: ReadImage | None = None,
    console: Console = SILENT,
) -> Pack:
    """The pack of a listing in `folder`, made if there is none of the same files yet.

    It is for views of `size` pixels, and training crops of at least a share `scale` of an image.
    `read` decodes the images of a dataset with a format of its own (`OwnFormat.read`).

    Raises:
        UserError: an image cannot be read and `on_bad` is `stop`; nothing is left behind.
        NotSavedError: the pack cannot be written.
    """
    listed, files = listed_hash(listing, size), _files(listing, root)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}-{size}px.lock"):
        same = _same(folder, name, size, listed)
        for path, info in same.items():
            if _serves(info, files, scale, on_bad):
                return open_pack(path)
        if any(info.files != files for info in same.values()):
            console.warn(
                f"The files of {name} have changed since they were packed, or lie elsewhere: they "
                "are read again."
            )
        source = source_of(listing, root, read)
        job = _Job(
            listing=listing,
            name=name,
            folder=folder,
            size=size,
            scale=scale,
            on_bad=on_bad,
            console=console,
        )
        return _make(job, source, listed, files)


def found_pack(
    listing: Listing,
    *,
    name: str,
    root: Path,
    folder: Path,
    size: int,
    scale: float = SCALES[0],
    on_bad: OnBad = "stop",
) -> Pack | None:
    """As `pack`, but None where it would be made; nothing is written.

    Raises:
        UserError: a pack is damaged.
    """
    listed, files = listed_hash(listing, size), _files(listing, root)
    for path, info in _same(folder, name, size, listed).items():
        if _serves(info, files, scale, on_bad):
            return open_pack(path)
    return None


def _same(folder: Path, name: str, size: int, listed: str) -> dict[Path, PackInfo]:
    """Packs of a listing, of whichever files and for whichever crops."""
    known = {path: read_info(path) for path in packs_of(folder, name, size)}
    return {path: info for path, info in known.items() if info.listed == listed}


def _serves(info: PackInfo, files: str, scale: float, on_bad: OnBad) -> bool:
    fits = info.scale == scale or (not info.reduced and scale <= info.scale)
    return fits and info.files == files and (on_bad == "skip" or not info.bad)


def cost(made: Pack) -> str:
    """How many images a pack holds, in which form, and what they cost in bytes."""
    info, index = made.info, made.index
    trained, tested = (count * info.channels for count in index.pixel_counts)
    train = int((~index.is_test).sum())
    kept = f"{train - info.reduced:,} of {train:,} training images at their own size"
    return (
        f"{len(index.labels):,} images, {in_bytes(trained + tested)} "
        f"({in_bytes(trained)} for training crops, {kept}; {in_bytes(tested)} for test views)"
    )


def in_bytes(count: int) -> str:
    """A number of bytes, for a person."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def listed_hash(listing: Listing, size: int) -> str:
    """Of which images are meant, as what and in which split; `PackInfo.listed` of their pack.

    `size` is the side in pixels of the views.
    """
    drawn = () if listing.tail is None else (listing.tail,)
    head = [FORMAT, size, listing.classes, listing.groups, listing.bands, *drawn]
    digest = hashlib.sha256(json.dumps(head).encode())
    for part in (listing.train, listing.test):
        for item in part:
            digest.update(f"{json.dumps(item)}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _files(listing: Listing, root: Path) -> str:
    """By what files are known again without reading them.

    Two versions of a dataset may agree in names, sizes and modification times, which archives set.
    Where a folder lies, and when its files were last put there, they do not share by accident; a
    mere difference of these costs a reading, after which equal images are the same pack.
    """
    digest = hashlib.sha256(f"{json.dumps(str(root.resolve()))}\n".encode())
    names = {file_of(item.path) for part in (listing.train, listing.test) for item in part}
    for name in sorted(names):
        try:
            stat = os.stat(root / name)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        except FileNotFoundError:
            state = []
        digest.update(json.dumps([name, *state]).encode())
    return digest.hexdigest()


def _make(job: _Job, source: Source, listed: str, files: str) -> Pack:
    name, listing = job.name, job.listing
    part = job.folder / f"{name}-{job.size}px-new.part"
    shutil.rmtree(part, ignore_errors=True)  # left by a killed process: the lock is ours
    part.mkdir()
    try:
        with saving(part):
            content = _written(job, source, part / "pixels.bin")
            np.savez(part / "index.npz", **vars(content.index))
            known = (listing.classes, listing.groups, listing.tail)
            sha256 = identity(content.digest, content.index, *known)
            info = PackInfo(
                format=FORMAT,
                name=name,
                size=job.size,
                scale=job.scale,
                reduced=content.reduced,
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
            target = pack_folder(job.folder, name, job.size, sha256)
            if target.is_dir():  # the same bytes from other files; somebody may be opening it
                for file in ("pixels.bin", "index.npz", "pack.json"):
                    (part / file).replace(target / file)
            else:
                part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    made = open_pack(target)
    _say(job, made)
    return made


def _say(job: _Job, made: Pack) -> None:
    """What was packed and what it costs, what was left out, and what is left of older versions."""
    name, bad = job.name, made.info.bad
    job.console.warn(f"Packed {name} for views of {job.size} px: {cost(made)}.")
    if bad:
        job.console.warn(
            f"{len(bad)} images of {name} cannot be read and are left out; "
            f"{made.folder}/pack.json names them."
        )
    if old := outdated_packs(job.folder, name):
        named = ", ".join(path.name for path in old)
        job.console.warn(
            f"Packs of an earlier version are not read any more and may be deleted from "
            f"{job.folder}: {named}."
        )


@dataclass(frozen=True)
class _Written:
    """What is known once all pixels are written."""

    index: Index
    digest: hashlib._Hash
    histogram: NDArray[np.int64]
    """Training pixels of each channel and level `[c, 256]`."""
    bad: dict[str, str]
    reduced: int
    """Training images of which there are two copies."""

    @property
    def mean(self) -> tuple[float, ...]:
        level = np.arange(256) / 255
        return tuple(float(x) for x in self.histogram @ level / self.histogram.sum(axis=1))

    @property
    def std(self) -> tuple[float, ...]:
        square = (np.arange(256) / 255) ** 2
        mean_square = self.histogram @ square / self.histogram.sum(axis=1)
        return tuple(float(x) for x in np.sqrt(np.maximum(mean_square - np.square(self.mean), 0)))


def _written(job: _Job, source: Source, file: Path) -> _Written:
    rows: list[tuple[int, ...]] = []
    bad: dict[str, str] = {}
    digest, offset, histogram = hashlib.sha256(), 0, np.zeros((0, 256), dtype=np.int64)
    train, test = job.listing.train, job.listing.test
    title = f"Packing {job.name} for views of {job.size} px"
    with (
        file.open("wb") as out,
        job.console.progress(title, len(train) + len(test), "images") as advance,
    ):
        for is_test, items in ((False, train), (True, test)):
            for item, outcome in each_decoded(source, items, _kept(job, is_test)):
                advance("")
                if isinstance(outcome, BadImage):
                    refuse_bad(outcome, job.on_bad)
                    bad[item_name(item)] = outcome.reason
                    continue
                parts, original = outcome
                if not len(histogram):
                    histogram = np.zeros((parts[0].shape[2], 256), dtype=np.int64)
                if not is_test:
                    histogram += _levels(parts[0])
                places = []
                for pixels in parts:
                    _write(pixels, out, digest)
                    places.append((offset, *pixels.shape[:2]))
                    offset += pixels.size
                rows.append((*places[0], *original, item.label, is_test, *places[-1]))
    if not any(not row[6] for row in rows):
        raise UserError(f"{job.name} has no training image that can be read in {source.root}.")
    table = np.array(rows, dtype=np.int64)
    index = Index(
        offsets=table[:, 0].copy(),
        sizes=table[:, 1:3].copy(),
        original=table[:, 3:5].copy(),
        labels=table[:, 5].copy(),
        is_test=table[:, 6].astype(bool),
        eval_offsets=table[:, 7].copy(),
        eval_sizes=table[:, 8:10].copy(),
    )
    reduced = int((index.offsets != index.eval_offsets).sum())
    return _Written(index, digest, histogram, bad, reduced)


def _kept(job: _Job, is_test: bool) -> Callable[[Pixels], tuple[list[Pixels], tuple[int, int]]]:
    """From an image to its one or two copies, and its own height and width in pixels."""

    def kept(pixels: Pixels) -> tuple[list[Pixels], tuple[int, int]]:
        made = copies(pixels, job.size, job.scale, is_test=is_test)
        height, width = pixels.shape[:2]
        return [np.ascontiguousarray(part) for part in made if part is not None], (height, width)

    return kept


def _write(pixels: Pixels, out: IO[bytes], digest: hashlib._Hash) -> None:
    out.write(pixels.data)
    digest.update(pixels.data)


def _levels(pixels: Pixels) -> NDArray[np.int64]:
    channels = range(pixels.shape[2])
    return np.stack([np.bincount(pixels[:, :, c].ravel(), minlength=256) for c in channels])


def refuse_bad(bad: BadImage, on_bad: OnBad) -> None:
    """Raises `UserError` for an image that cannot be read, unless such images are left out."""
    if on_bad == "stop":
        raise UserError(
            f"Image {bad} - repair or remove it, or leave out all such images with "
            "--on-bad-image skip."
        ) from bad
