"""Long-tailed training data: how many images of each class are kept, and the groups of classes.

Owns: counts, groups and which images stay. Must not know: where images lie or how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from harness.data.listing import Listing, read_csv
from harness.errors import UserError, unknown
from harness.rng import generator
from harness.spec import Frozen

Counts = NDArray[np.int64]
"""Images of every class `[classes]`."""

HEAD_ABOVE = 100
TAIL_BELOW = 20
"""Groups by a class's training images, as in Liu et al. (2019): head > 100, tail < 20."""


class LongTail(Frozen):
    """Options that make the training data long-tailed by leaving images out.

    Test data is left alone.
    """

    imbalance: Annotated[float, Field(ge=1)] | None = None
    """Ratio of the largest to the smallest class; None: all images, unless `tail` is a file."""
    tail: str = "exp"
    """`exp`, `pareto`, or the name of a CSV in the root with the columns class and count."""
    tail_seed: Annotated[int, Field(ge=0)] = 0
    """Draws the images that are kept."""
    head_above: Annotated[int, Field(ge=0)] = HEAD_ABOVE
    tail_below: Annotated[int, Field(ge=0)] = TAIL_BELOW
    """Bounds of the groups, by the training images that are kept of a class; they count only where
    the dataset names no groups."""


def count_groups(
    counts: Iterable[int], head_above: int = HEAD_ABOVE, tail_below: int = TAIL_BELOW
) -> dict[str, tuple[int, ...]]:
    """Head, medium and tail classes by their training images; empty groups are left out."""
    groups: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
    for index, count in enumerate(counts):
        name = "head" if count > head_above else "tail" if count < tail_below else "medium"
        groups[name].append(index)
    return {name: tuple(members) for name, members in groups.items() if members}


def tail_counts(options: LongTail, available: Sequence[int]) -> Counts:
    """How many training images of each class to keep: at least one where there is any.

    `exp` is the rule of CIFAR-LT (Cao et al., 2019), n_c = int(n_max * f^(c / (C - 1))) with
    f = 1 / imbalance; `pareto` is n_c = int(n_max * (c + 1)^-b), with b such that the last class
    has n_max / imbalance. n_max is the size of the largest class, and no class exceeds its own.

    Raises:
        UserError: the options combine an imbalance with a file of counts.
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
    # Slightly larger, because rounding may put a product that should be whole just below it.
    wanted = np.floor(have.max() * scale * (1 + 1e-12)).astype(np.int64)
    counts: Counts = np.minimum(np.maximum(wanted, 1), have)
    return counts


def kept(labels: Counts, counts: Counts, seed: int) -> NDArray[np.int64]:
    """Sorted indices into `labels` `[n]` of `counts` `[classes]` images of each class.

    What a smaller count keeps is a subset of what a larger one keeps.
    """
    chosen = []
    for label, count in enumerate(counts.tolist()):
        members = np.flatnonzero(labels == label)
        order = torch.randperm(len(members), generator=generator(seed, "tail", label)).numpy()
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen))


def with_tail_file(listing: Listing, options: object, root: Path) -> Listing:
    """The listing with its training data reduced to the counts of a CSV, if the options name one.

    Raises:
        UserError: the file is absent, lacks a column or a class, or asks for more than there is.
    """
    if not isinstance(options, LongTail) or options.tail in ("exp", "pareto"):
        return listing
    if options.imbalance is not None:
        raise UserError(
            f"tail {options.tail!r}: a file of counts has its own imbalance; leave it out."
        )
    labels = np.array([item.label for item in listing.train], dtype=np.int64)
    have = np.bincount(labels, minlength=len(listing.classes))
    counts = have.copy()
    for line, row in read_csv(root / options.tail, ("class", "count")):
        name, count = row["class"], row["count"]
        if name not in listing.classes:
            raise UserError(
                f"{options.tail}, line {line}: {unknown('class', name, listing.classes)}"
            )
        index = listing.classes.index(name)
        if not count.isdigit() or not 1 <= int(count) <= have[index]:
            raise UserError(
                f"{options.tail}, line {line}: {name} has {have[index]} training images, so its "
                f"count is a number from 1 to that, not {count!r}."
            )
        counts[index] = int(count)
    rows = kept(labels, counts, options.tail_seed)
    return replace(listing, train=tuple(listing.train[row] for row in rows))
