"""From an image file, a member of a tar file or a row of a table to pixels of 8 bits.

Owns: file formats, and how each becomes 8 bits per channel. Must not know: datasets, labels, packs.

Arrays are `[h, w, c]`, h and w in pixels. Without chosen bands they are RGB: gray is repeated, a
palette is looked up, CMYK is converted, alpha is dropped (beneath it lie a photo's own pixels,
which compositing would blacken), EXIF orientation is applied, and 16 bits are divided by 257. With
chosen bands they are those bands, and what is not 8 bits wide is scaled by a `Scaling`.
"""

from __future__ import annotations

import functools
import io
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.data.listing import Item
from harness.errors import UserError
from harness.spec import Frozen

Pixels = NDArray[np.uint8]
"""`[h, w, c]`"""
Bands = NDArray[Any]
"""`[h, w, c]`, in the type that the file stores."""
ReadImage = Callable[[Path, str], Pixels]
"""From a root and a listed path to an RGB image, for a format of a dataset's own."""

MOST_PIXELS = 2**30
"""Limit of PIL's guard against decompression bombs, raised so that aerial scenes pass."""
NO_BANDS = (
    "its pixels are places in a palette, which has no bands; leave data.options.bands out, or "
    "convert it to RGB"
)


class BadImage(Exception):
    """A file that cannot be read as an image: its listed path, and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = path
        self.reason = reason


class Scaling(Frozen):
    """The values of every band that become 0 and 255; linear in between, clipped beyond."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, raw: Bands) -> Pixels:
        low, high = np.array(self.low), np.array(self.high)
        share = (raw.astype(np.float64) - low) / np.maximum(high - low, 1e-12)
        pixels: Pixels = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
        return pixels


class Source(NamedTuple):
    """How images of a dataset are read."""

    root: Path
    bands: tuple[int, ...] | None = None
    scaling: Scaling | None = None
    read: ReadImage | None = None
    """Of a dataset with a format of its own (`OwnFormat.read`)."""


def printable(path: str) -> str:
    """A path for a message: bytes that are not UTF-8 are shown as `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_of(path: str) -> str:
    """The file of a listed path: the path itself, or FILE of `FILE::MEMBER`."""
    return path.partition("::")[0]


def decoded(source: Source, path: str) -> Pixels:
    """The whole image at a listed path.

    Raises:
        BadImage: it does not exist, is no image, ends early, or lacks a band.
        UserError: its format needs a library that is not installed.
    """
    return _read(source, path, raw=False)


def raw_bands(source: Source, path: str) -> Bands:
    """The chosen bands of an image as they are stored, before any scaling."""
    return _read(source, path, raw=True)


def cut(pixels: Pixels, item: Item) -> Pixels:
    """An item's box of an image, clipped to it; the whole image where there is no box.

    Raises:
        BadImage: nothing of the box lies inside the image.
    """
    if item.box is None:
        return pixels
    height, width = pixels.shape[:2]
    left, top, right, bottom = item.box
    part = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if part.size == 0 or right <= 0 or bottom <= 0:
        raise BadImage(item.path, f"the box {item.box} lies outside its {width} x {height} pixels")
    return part


def _read(source: Source, path: str, *, raw: bool) -> Bands:
    try:
        if source.read is not None:
            return source.read(source.root, path)
        content = _content(source.root, path)
        if not content:
            raise BadImage(path, "the file is empty")
        if source.bands is None:
            return _rgb(content)
        found = _all_bands(content)
        if max(source.bands) >= found.shape[2]:
            raise BadImage(
                path, f"band {max(source.bands)} was chosen of {found.shape[2]}, counted from 0"
            )
        bands = found[:, :, list(source.bands)]
        if raw or bands.dtype == np.uint8:
            return bands
        if source.scaling is None:
            raise BadImage(path, f"{bands.dtype} pixels among images of 8 bits")
        return source.scaling(bands)
    except (UserError, BadImage) as error:
        if isinstance(error, BadImage):
            raise BadImage(path, error.reason) from error
        raise
    except FileNotFoundError as error:
        raise BadImage(path, "there is no such file") from error
    except Exception as error:  # of broken files, decoders raise whatever they stumble over
        reason = str(error).split("\n")[0] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image that PIL can read"
        raise BadImage(path, reason) from error


def _rgb(content: bytes) -> Pixels:
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            gray = np.asarray(upright).astype(np.float64)
            return _repeated(np.rint(gray / 257).astype(np.uint8))
        if upright.mode in ("I", "F"):
            return _repeated(_of_32_bits(upright))
        if upright.mode in ("LA", "La", "1"):
            upright = upright.convert("L")
        return np.array(upright.convert("RGB"))  # a copy, which may be written to


def _of_32_bits(image: Image.Image) -> Pixels:
    """PIL opens some 16-bit files in this mode; wider pixels have no known white level."""
    gray = np.asarray(image)
    if image.mode == "F" or gray.min() < 0 or gray.max() > 65535:
        raise BadImage("", "its pixels have 32 bits; choose bands, as in --set data.options.bands")
    return np.rint(gray / 257).astype(np.uint8)


def _repeated(gray: Pixels) -> Pixels:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _all_bands(content: bytes) -> Bands:
    """`[h, w, bands]`, as stored."""
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        found = _tiff(content)
        if found is not None:
            return found
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in ("P", "PA"):
                raise BadImage("", NO_BANDS)
            array = np.asarray(image)
    except UnidentifiedImageError as error:
        if content[:2] not in (b"II", b"MM"):
            raise
        raise UserError(
            "Images with many bands are read by tifffile, which is not installed: "
            "`pip install tifffile` (with imagecodecs where they are compressed)."
        ) from error
    return array if array.ndim == 3 else array[:, :, None]


def _tiff(content: bytes) -> Bands | None:
    """None where tifffile is not installed."""
    try:
        import tifffile
    except ImportError:
        return None
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        series = file.series[0]
        if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise BadImage("", NO_BANDS)
        array: Bands = series.asarray()
        axes: str = series.axes
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        raise BadImage("", f"a TIFF of {array.ndim} dimensions, {axes}")
    return array.transpose(1, 2, 0) if axes.endswith("YX") else array


def _content(root: Path, path: str) -> bytes:
    name = file_of(path)
    if name == path:
        return (root / path).read_bytes()
    member = path.removeprefix(f"{name}::")
    if name.endswith(".tar"):
        offset, size = tar_members(root / name)[member]
        with (root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    return _row(root / name, int(member))


@functools.lru_cache(maxsize=64)
def tar_members(file: Path) -> dict[str, tuple[int, int]]:
    """Name -> position and length in bytes of the files in an uncompressed tar file.

    Raises:
        UserError: it is not a tar file, ends early, or has two files of one name.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.name in found:
                    raise UserError(f"{file} holds two files called {member.name}: leave one.")
                found[member.name] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UserError(f"{file} cannot be read as an uncompressed tar file: {error}.") from error
    return found


def member_bytes(file: Path, names: Sequence[str]) -> list[bytes]:
    """Contents of some files in a tar file."""
    members, found = tar_members(file), []
    with file.open("rb") as stream:
        for name in names:
            offset, size = members[name]
            stream.seek(offset)
            found.append(stream.read(size))
    return found


def _row(file: Path, row: int) -> bytes:
    """The encoded image in a row of a Hugging Face file, Parquet or Arrow."""
    if file.suffix == ".arrow":
        return _bytes_in(_mapped(file).column(image_column(file))[row].as_py())
    with _ROWS:
        starts = _row_groups(file)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        return _bytes_in(_images(file, group)[row - starts[group]])


def _bytes_in(cell: dict[str, Any] | None) -> bytes:
    if cell is None or cell["bytes"] is None:
        raise BadImage("", "the row holds no image")
    return bytes(cell["bytes"])


_ROWS = threading.Lock()
"""One thread at a time decodes a row group, which the others then share."""


@functools.lru_cache(maxsize=64)
def _row_groups(file: Path) -> NDArray[np.int64]:
    info = pq.read_metadata(file)
    sizes = [info.row_group(i).num_rows for i in range(info.num_row_groups)]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@functools.lru_cache(maxsize=2)
def _images(file: Path, group: int) -> list[dict[str, Any] | None]:
    column = image_column(file)
    rows = pq.ParquetFile(file).read_row_group(group, columns=[column])
    cells: list[dict[str, Any] | None] = rows.column(column).to_pylist()
    return cells


@functools.lru_cache(maxsize=64)
def _mapped(file: Path) -> pa.Table:
    """The rows of an Arrow file, read only when they are used."""
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def schema_of(file: Path) -> pa.Schema:
    """Columns of a Hugging Face file.

    Raises:
        UserError: it is neither Parquet nor Arrow, or ends early.
    """
    try:
        return _mapped(file).schema if file.suffix == ".arrow" else pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read as a table: {error}.") from error


def column_of(file: Path, name: str) -> list[Any]:
    """All values of a column of a Hugging Face file."""
    table = _mapped(file) if file.suffix == ".arrow" else pq.read_table(file, columns=[name])
    values: list[Any] = table.column(name).to_pylist()
    return values


@functools.lru_cache(maxsize=64)
def image_column(file: Path) -> str:
    """Name of the column of {bytes, path} in a Hugging Face file.

    Raises:
        UserError: it has none, several may be meant, or it cannot be read.
    """
    found = []
    for field in schema_of(file):
        parts = [field.type.field(i).name for i in range(field.type.num_fields)]
        if "bytes" in parts:
            found.append(str(field.name))
    if chosen := one_column(file, found, "image"):
        return chosen
    raise UserError(f"{file} has no image column, which holds bytes and a path in every row.")


def one_column(file: Path, names: Sequence[str], kind: str) -> str | None:
    """The only one of some columns, or of several the one called `kind`; None of none.

    Raises:
        UserError: there are several, and none is called that.
    """
    if len(names) < 2 or kind in names:
        return kind if kind in names else next(iter(names), None)
    raise UserError(
        f"{file} has several {kind} columns, {', '.join(names)}: leave one, or call the one to "
        f"use {kind!r}."
    )
