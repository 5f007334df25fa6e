"""The folder of a pack: what it holds, how it is found, opened and checked.

Owns: names, layout and identity of packs on disk. Must not know: how a pack is made, models, what
of a pack a trial uses.

A pack is a folder `<name>-<size>px-<hash>` with three files: `pixels.bin` (uint8, one copy of an
image after the other, each `[h, w, c]`), `index.npz` (an `Index`) and `pack.json` (a `PackInfo`).
Until format 2 its name was `<name>-<side>-<hash>`, and it held one copy of each image, of that
short side; such a pack is never read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from harness.data.decode import Scaling
from harness.errors import UserError
from harness.spec import Frozen

FORMAT: Literal[2] = 2
"""Raised when the same files would be packed to other bytes or another layout."""


class PackInfo(Frozen):
    """What is written beside the pixels."""

    format: Literal[2]
    name: str
    size: int
    """Side in pixels of the views that it is for."""
    scale: float
    """Smallest share of an image that a training crop shows (`copies.SCALES`)."""
    reduced: int
    """Training images that are not kept as they are, so that two copies are."""
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
    tail: tuple[int, ...] | None = None
    """As in the listing: training images of each class that a trial draws from those packed."""
    sha256: str
    """Of pixels, index, classes, groups and tail: all that can change a trial's numbers."""
    listed: str
    """Hash of the list of images that the pack was made from, and of how they were to be packed."""
    files: str
    """Hash of the source files' folder, names, sizes, and times of modification and of change."""
    pillow: str
    """Version of the library that decoded the images."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where each of n images lies, and what it is."""

    offsets: NDArray[np.int64]
    """First byte `[n]`."""
    sizes: NDArray[np.int64]
    """Height and width in pixels as packed `[n, 2]`: of what training crops are cut from, and of a
    test image of what is tested."""
    original: NDArray[np.int64]
    """Height and width in pixels before packing `[n, 2]`."""
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    eval_offsets: NDArray[np.int64]
    """First byte of what the test view is cut from `[n]`; `offsets` where that is the same copy."""
    eval_sizes: NDArray[np.int64]
    """Its height and width in pixels `[n, 2]`."""

    @property
    def pixel_counts(self) -> tuple[int, int]:
        """Of all copies that training crops are cut from, and of all that are only tested."""
        train = ~self.is_test
        second = train & (self.eval_offsets != self.offsets)
        tested = self.sizes[self.is_test].prod(axis=1).sum()
        tested += self.eval_sizes[second].prod(axis=1).sum()
        return int(self.sizes[train].prod(axis=1).sum()), int(tested)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An opened pack; `pixels` is mapped, not read."""

    folder: Path
    info: PackInfo
    index: Index
    pixels: NDArray[np.uint8]


def packs_of(folder: Path, name: str, size: int | None = None) -> list[Path]:
    """The finished packs of a dataset in `folder`, for views of one size or of any."""
    return _named(folder, name, r"\d+px" if size is None else f"{size}px")


def outdated_packs(folder: Path, name: str) -> list[Path]:
    """Packs of a dataset in `folder` that an earlier version made, and that nothing reads."""
    return _named(folder, name, r"\d+")


def _named(folder: Path, name: str, middle: str) -> list[Path]:
    found = folder.glob(f"{name}-*/pack.json")
    pattern = rf"{re.escape(name)}-{middle}-[0-9a-f]{{16}}"
    return sorted(path.parent for path in found if re.fullmatch(pattern, path.parent.name))


def pack_folder(folder: Path, name: str, size: int, sha256: str) -> Path:
    """Where the pack with this hash lies."""
    return folder / f"{name}-{size}px-{sha256[:16]}"


def open_pack(folder: Path) -> Pack:
    """Map a pack into memory; its length is checked, its hash is not (see `verify`).

    Raises:
        UserError: there is none, or it is damaged.
    """
    info = read_info(folder)
    broken = UserError(f"The pack {folder} is damaged: delete it and give the command again.")
    try:
        with np.load(folder / "index.npz") as arrays:
            index = Index(**{key: arrays[key] for key in arrays.files})
        # Copy on write, though nothing is written: torch warns about arrays that are read-only.
        pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="c")
    except (OSError, ValueError, TypeError) as error:
        raise broken from error
    if len(pixels) != sum(index.pixel_counts) * info.channels:
        raise broken
    return Pack(folder=folder, info=info, index=index, pixels=pixels)


def verify(folder: Path) -> bool:
    """Whether a pack's bytes are still those that were written.

    Raises:
        UserError: as `open_pack`.
    """
    opened = open_pack(folder)
    digest = hashlib.sha256()
    for start in range(0, len(opened.pixels), 2**24):
        digest.update(opened.pixels[start : start + 2**24].data)
    info = opened.info
    known = identity(digest, opened.index, info.classes, info.groups, info.tail)
    return known == info.sha256


def read_info(folder: Path) -> PackInfo:
    """What `pack.json` says.

    Raises:
        UserError: there is none, or another version wrote it.
    """
    try:
        return PackInfo.model_validate_json((folder / "pack.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"There is no pack {folder}: give the command again with --data-root."
        ) from error
    except ValidationError as error:
        raise UserError(f"{folder}/pack.json was written by another version: delete it.") from error


def identity(
    pixels: hashlib._Hash,
    index: Index,
    classes: tuple[str, ...],
    groups: dict[str, tuple[int, ...]] | None,
    tail: tuple[int, ...] | None = None,
) -> str:
    """`PackInfo.sha256`, from the digest of all pixels and the rest of the pack.

    Where every image is there once, it is what it was before there could be second copies.
    """
    whole = pixels.copy()
    arrays = dict(vars(index))
    if np.array_equal(index.offsets, index.eval_offsets):
        del arrays["eval_offsets"], arrays["eval_sizes"]
    for _, array in sorted(arrays.items()):
        whole.update(array.tobytes())
    drawn = () if tail is None else (tail,)
    whole.update(json.dumps([classes, groups, *drawn]).encode())
    return whole.hexdigest()
