"""Decoding a whole dataset, in order and on all cores.

Owns: how many images are decoded at a time, and the scaling of bands for a whole dataset. Must not
know: what the pixels are for, file formats, labels.

Bands that are not 8 bits wide are scaled by one pair of values per band for the whole dataset: the
2nd and 98th percentile over at most 64 training images, evenly spaced in the list.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from harness.data.decode import (
    BadImage,
    Pixels,
    ReadImage,
    Scaling,
    Source,
    cut,
    decoded,
    printable,
    raw_bands,
)
from harness.data.listing import Item, Listing

T = TypeVar("T")

SAMPLE = 64
PERCENTILES = (2, 98)
FILES_AHEAD = 4
"""Files decoded ahead of what is taken, for each thread, which bounds memory."""


def source_of(listing: Listing, root: Path, read: ReadImage | None) -> Source:
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
            continue  # reported when the image itself is packed or checked
    if not values or all(part.dtype == np.uint8 for part in values):
        return source
    low, high = np.percentile(np.concatenate(values).astype(np.float64), PERCENTILES, axis=0)
    return source._replace(scaling=Scaling(low=tuple(low.tolist()), high=tuple(high.tolist())))


def each_decoded(
    source: Source, items: Iterable[Item], make: Callable[[Pixels], T]
) -> Iterator[tuple[Item, T | BadImage]]:
    """What `make` makes of every item's pixels, in order; decoded by as many threads as cores.

    Consecutive items that are boxes of one image share its decoding.
    """
    runs = (list(run) for _, run in itertools.groupby(items, key=lambda item: item.path))
    cores = len(os.sched_getaffinity(0))
    ahead: deque[Future[list[tuple[Item, T | BadImage]]]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for run in runs:
            ahead.append(threads.submit(_made, source, run, make))
            if len(ahead) == FILES_AHEAD * cores:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


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


def item_name(item: Item) -> str:
    """An item for a message: its path, and its box if it has one."""
    return printable(item.path) + (f" {item.box}" if item.box else "")
