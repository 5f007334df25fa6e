"""Datasets whose images lie on disk: what a dataset says about its files, and their long tails.

Owns: the types that a dataset on disk returns, and the counts of long-tailed training sets. Must not
know: pixels, how files are decoded, where a trial runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.errors import UserError
from harness.spec import Frozen

Counts = NDArray[np.int64]
"""Images of every class `[classes]`."""

HEAD_ABOVE = 100
TAIL_BELOW = 20
"""Groups by training images of a class (paper-facts, section 4): head > 100, tail < 20."""


class MissingData(UserError):
    """The files are not there; its sentence says what to get and where to put it."""


class Item(NamedTuple):
    """One labelled image of a dataset on disk."""

    path: str
    """Relative to the root, with `/`; `shard.tar::member` inside a tar file. May hold surrogates
    where a name is not UTF-8."""
    label: int
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels, to be cut out before anything else; clipped to the
    image."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a dataset on disk consists of, before any pixel is read."""

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    groups: dict[str, tuple[int, ...]] | None = None
    """Named groups of classes; None: by the counts of the training data that is used (head > 100,
    medium 20 to 100, tail < 20 images)."""
    bands: tuple[int, ...] | None = None
    """Of an image with many bands, those to be used, in this order; None: RGB (gray is
    repeated)."""
    notes: tuple[str, ...] = ()
    """What a user must know, for `harness data check`: duplicates removed, lines ignored, ..."""


class LongTail(Frozen):
    """Options that make the training data long-tailed by leaving images out; test is left alone."""

    imbalance: Annotated[float, Field(ge=1)] | None = None
    """Ratio of the largest to the smallest class; None: as it is, unless `tail` is a file."""
    tail: str = "exp"
    """`exp`, `pareto`, or the name of a CSV in the root with the columns class and count."""
    tail_seed: Annotated[int, Field(ge=0)] = 0
    """Which images are kept."""


class FileDataset(Protocol):
    """A dataset on disk, as `DATASETS` holds it."""

    Options: ClassVar[Any]
    summary: ClassVar[str]
    layout: ClassVar[str]
    """What to download from its official page, and where to put it."""

    @staticmethod
    def listing(options: Any, root: Path) -> Listing:
        """Read the names and labels of all images; none is opened.

        Raises:
            MissingData: the files are not there.
            UserError: a list cannot be read; names the file and the line.
        """


def count_groups(
    counts: Iterable[int], head_above: int = HEAD_ABOVE, tail_below: int = TAIL_BELOW
) -> dict[str, tuple[int, ...]]:
    """Head, medium and tail classes by their training images; a group without classes is left
    out."""
    groups: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
    for index, count in enumerate(counts):
        name = "head" if count > head_above else "tail" if count < tail_below else "medium"
        groups[name].append(index)
    return {name: tuple(members) for name, members in groups.items() if members}


def tail_counts(options: LongTail, available: Sequence[int]) -> Counts:
    """How many training images of each class to keep, at least one of each that has any.

    `exp` is the rule of CIFAR-LT (paper-facts, section 4), n_c = int(n_max * f^(c / (C - 1))) with
    f = 1 / imbalance; `pareto` is n_c = int(n_max * (c + 1)^-b), with b such that the last class
    has n_max / imbalance. n_max is the largest class, and no class gets more than it has.
    """
    have = np.array(available, dtype=np.int64)
    if options.imbalance is None or len(have) < 2:
        return have
    place = np.arange(len(have))
    share = 1 / options.imbalance
    if options.tail == "exp":
        scale = share ** (place / (len(have) - 1))
    elif options.tail == "pareto":
        scale = (place + 1.0) ** (np.log(share) / np.log(len(have)))
    else:
        raise UserError(
            f"tail {options.tail!r}: with an imbalance write exp or pareto; a file of counts "
            "stands alone."
        )
    # A hair above, because 500 * 0.1 ** 1.0 may fall below 50 in floating point.
    wanted = np.floor(have.max() * scale * (1 + 1e-12)).astype(np.int64)
    return np.minimum(np.maximum(wanted, 1), have)
