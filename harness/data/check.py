"""What is wrong with a dataset on disk: every image is read once, and nothing is changed.

Owns: counts, unreadable files, exact duplicates, leaks between the splits, damaged packs. Must not
know: how findings are printed, models, trials.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.console import SILENT, Console
from harness.data.contract import FileDataset, OwnFormat, listing_of
from harness.data.decode import BadImage, Pixels, ReadImage
from harness.data.decode_many import each_decoded, item_name, source_of
from harness.data.dev_set import DevSet
from harness.data.listing import BorderMask, Item, Listing
from harness.data.long_tail import Counts, drawn_counts, grouped, with_tail_file
from harness.data.pack_format import packs_of, verify
from harness.spec import Frozen

MOST_NAMED = 5
"""Images or classes that a message about a problem lists."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Images of every class `[classes]`, and the problems that were found."""

    listing: Listing
    train: Counts
    used: Counts
    """Training images, without those that the options' long tail leaves out."""
    dev: Counts | None
    """Images of the dev set, drawn from the training images that are left out; None: none is
    asked for."""
    test: Counts
    groups: dict[str, tuple[int, ...]]
    problems: tuple[str, ...]
    """One sentence each, without a full stop."""


def check(
    dataset: type[FileDataset],
    name: str,
    options: Frozen,
    root: Path,
    packs: Path,
    console: Console = SILENT,
) -> Checked:
    """Read everything, and compare all images with each other by their decoded pixels.

    Raises:
        MissingData: the files are not there.
        UserError: a list cannot be read.
    """
    listing = with_tail_file(listing_of(name, options, root), options, root)
    read = dataset.read if issubclass(dataset, OwnFormat) else None
    size = len(listing.classes)
    train, test = (
        np.bincount(np.array([item.label for item in part], dtype=np.int64), minlength=size)
        for part in (listing.train, listing.test)
    )
    used, dev = train, None
    if isinstance(options, DevSet):
        used = drawn_counts(options, train.tolist(), listing.tail)
        dev = np.full(size, options.dev_per_class) if options.dev_per_class else None
    mask = options.border_mask if isinstance(options, BorderMask) else 0
    alone = [listing.classes[label] for label in np.flatnonzero(used == 1)]
    if alone and dev is None:
        note = (
            f"{_few(alone, 'class', 'classes')} with one training image, which is never chosen on."
        )
        listing = replace(listing, notes=(*listing.notes, note))
    return Checked(
        listing=listing,
        train=train,
        used=used,
        dev=dev,
        test=test,
        groups=grouped(options, listing.groups, used.tolist()),
        problems=(
            *_problems(listing, root, test, read, mask, console),
            *_damaged(packs, name),
        ),
    )


def _problems(
    listing: Listing,
    root: Path,
    test: Counts,
    read: ReadImage | None,
    mask: int,
    console: Console,
) -> Iterator[str]:
    absent = [listing.classes[label] for label in np.flatnonzero(test == 0)]
    if absent:
        yield f"{_few(absent, 'class', 'classes')} without a test image"
    source = source_of(listing, root, read)
    bad: list[str] = []
    masked: list[str] = []
    same: dict[bytes, list[tuple[str, Item]]] = defaultdict(list)
    total = len(listing.train) + len(listing.test)
    with console.progress("Reading", total, "images") as advance:
        for split, items in (("train", listing.train), ("test", listing.test)):
            for item, seen in each_decoded(source, items, _seen):
                advance("")
                if isinstance(seen, BadImage):
                    bad.append(f"{item_name(item)} ({seen.reason})")
                    continue
                same[seen.digest].append((split, item))
                if mask and 2 * mask >= seen.short_side:
                    masked.append(item_name(item))
    if bad:
        yield f"{_few(bad, 'image', 'images')} that cannot be read"
    if masked:
        yield f"{_few(masked, 'image', 'images')} of which border_mask={mask} leaves nothing"
    repeated = [found for found in same.values() if len(found) > 1]
    leaks = [found for found in repeated if len({split for split, _ in found}) > 1]
    twins = [found for found in repeated if len({split for split, _ in found}) == 1]
    contradictory = [found for found in repeated if len({item.label for _, item in found}) > 1]
    for kind, sets in (
        ("in train and in test", leaks),
        ("more than once in one split", twins),
        ("under several labels", contradictory),
    ):
        if sets:
            names = [" = ".join(item_name(item) for _, item in found[:3]) for found in sets]
            yield f"{_few(names, 'image', 'images')} {kind}"


class _Seen(NamedTuple):
    """What is kept of an image that was read."""

    digest: bytes
    short_side: int
    """In pixels."""


def _seen(pixels: Pixels) -> _Seen:
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return _Seen(digest.digest(), min(pixels.shape[:2]))


def _damaged(packs: Path, name: str) -> Iterator[str]:
    for folder in packs_of(packs, name):
        if not verify(folder):
            yield f"the pack {folder} has changed since it was written: delete it"


def _few(names: list[str], one: str, many: str) -> str:
    more = ", ..." if len(names) > MOST_NAMED else ""
    return (
        f"{len(names)} {one if len(names) == 1 else many} ({', '.join(names[:MOST_NAMED])}{more})"
    )
