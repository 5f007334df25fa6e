"""A dataset on disk that is not packed yet, for plans alone: what is listed, and made-up pixels.

A pack's hash is known once every image was read, which takes minutes. A plan needs the counts, and
for an estimate of seconds some pixels, whatever they show. Owns: this stand-in, and how it is told
from a pack. Must not know: how images are packed, trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.console import Console
from harness.data.contract import OwnFormat, file_dataset, listing_of, options_of
from harness.data.dataset import Dataset, Images
from harness.data.listing import Item, Listing
from harness.data.long_tail import drawn, grouped, with_tail_file
from harness.data.pack import found_pack
from harness.data.pack_format import PackInfo, packs_of
from harness.data.packed import (
    PackRequest,
    data_folder,
    forget_packs,
    refuse_untested,
)
from harness.spec import DataSpec

SHA256 = "0" * 64
"""In the place of a pack's hash."""

_LISTED: dict[tuple[str, str], tuple[Path | None, Listing]] = {}
"""By name and options: where this command has looked last (None: only one before did), and what is
there."""


class Unpacked(NamedTuple):
    """What a plan needs of a dataset's pack."""

    channels: int
    sha256: str


_KNOWN: dict[tuple[PackRequest, int], Unpacked | PackInfo] = {}
"""What this command has looked up, and how many packs there were; files are taken not to change
under it."""


def forget() -> bool:
    """Look at the files of every dataset again, packed or not, when it is asked for next.

    Whether any was not packed. Their listings stay for the stand-ins of an earlier plan.
    """
    forget_packs()
    _KNOWN.clear()
    _LISTED.update({key: (None, listing) for key, (_, listing) in _LISTED.items()})
    return bool(_LISTED)


def look(asked: PackRequest, console: Console) -> Unpacked | PackInfo:
    """A dataset's pack, or where there is none yet, its listing; nothing is written.

    Raises:
        UserError: as `packed.pack_of`, but no image is opened.
    """
    # One may have been made meanwhile.
    key = (asked, len(packs_of(Path(asked.packs), asked.name, asked.size)))
    if key not in _KNOWN:
        _KNOWN[key] = _look(asked, console)
    return _KNOWN[key]


def _look(asked: PackRequest, console: Console) -> Unpacked | PackInfo:
    name = asked.name
    dataset, root = file_dataset(name), data_folder(name, asked.data_root)
    key = (name, asked.options_json)
    options = dataset.Options.model_validate_json(asked.options_json)
    is_new = key not in _LISTED or _LISTED[key][0] != root
    if is_new:
        _LISTED[key] = (root, with_tail_file(listing_of(name, options, root), options, root))
    _, listing = _LISTED[key]
    refuse_untested(name, listing)
    known = found_pack(
        listing,
        name=name,
        root=root,
        folder=Path(asked.packs),
        size=asked.size,
        scale=asked.scale,
        on_bad=asked.on_bad,
    )
    if is_new:
        for note in listing.notes:
            console.warn(f"{name}: {note}")
        drawn(options, _labels(listing.train), listing.classes, listing.tail, 0)
    if known is not None:
        return known.info
    if is_new:
        console.warn(
            f"The {len(listing.train) + len(listing.test):,} images of {name} are not packed yet; "
            "the run begins with that, and trials that are done are known then."
        )
    return Unpacked(channels=_channels(name, listing), sha256=SHA256)


def stand_in(spec: DataSpec, size: int, trial: int) -> Dataset:
    """As `packed.load_packed`, after `look`, with one made-up image in the place of all."""
    options = options_of(spec.name, spec.options)
    _, listing = _LISTED[spec.name, options.model_dump_json()]
    labels, classes = _labels(listing.train), listing.classes
    rows, chosen_on = drawn(options, labels, classes, listing.tail, trial)
    counts = np.bincount(labels[rows], minlength=len(classes)).tolist()
    channels = _channels(spec.name, listing)
    image = torch.arange(channels * size * size, dtype=torch.int64) % 251
    pixels = image.to(torch.uint8).view(1, channels, size, size)

    def images(of: NDArray[np.int64]) -> Images:
        # All are views of one image, which takes no memory.
        return Images(pixels=pixels.expand(len(of), -1, -1, -1), labels=torch.from_numpy(of))

    return Dataset(
        train=images(labels[rows]),
        test=images(_labels(listing.test)),
        dev=None if chosen_on is None else images(labels[chosen_on]),
        classes=classes,
        groups=grouped(options, listing.groups, counts),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )


def _channels(name: str, listing: Listing) -> int:
    is_rgb = issubclass(file_dataset(name), OwnFormat) or listing.bands is None
    return 3 if is_rgb else len(listing.bands or ())


def _labels(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([item.label for item in items], dtype=np.int64)
