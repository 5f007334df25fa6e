"""Long-tailed training data: how many images of each class are kept, and the groups of classes.

Owns: counts, groups and which images stay. Must not know: where images lie or how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.data.dev_set import DevSet, TailSeed, in_order, refuse_short, tail_and_dev
from harness.data.listing import Listing, read_csv
from harness.errors import UserError, unknown
from harness.rng import generator
from harness.spec import Added

Counts = NDArray[np.int64]
"""Images of every class `[classes]`."""

RULES = ("exp", "pareto")
"""Names of rules; any other `tail` is a file."""

HEAD_ABOVE = 100
TAIL_BELOW = 20
"""Groups by a class's training images, as in Liu et al. (2019): head > 100, tail < 20."""


class LongTail(DevSet):
    """Options that make the training data long-tailed by leaving images out.

    Test data is left alone.
    """

    imbalance: Annotated[float, Field(ge=1)] | None = None
    """Ratio of the largest to the smallest class; None: all images, unless `tail` is a file."""
    tail: str = "exp"
    """`exp`, `pareto`, or the name of a CSV in the root with the columns class and count. A class
    that it does not name keeps all its images."""
    tail_seed: TailSeed = 0
    """Draws the images that are kept, and the dev set. `trial`: each trial's own seed does."""
    head_above: Annotated[int, Field(ge=0)] = HEAD_ABOVE
    tail_below: Annotated[int, Field(ge=0)] = TAIL_BELOW
    """Bounds of the groups, by the training images that are kept of a class; they count only where
    the dataset names no groups."""
    largest: Annotated[int | None, Field(ge=1), Added] = None
    """Images of the largest class; None: as many as there are."""
    grouped_by: Annotated[Literal["bounds", "thirds"], Added] = "bounds"
    """What the groups are made by, where the dataset names none: those bounds, or thirds of the
    classes by their training images that are kept."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> LongTail:
        if self.largest is not None and self.imbalance is None:
            raise UserError(
                f"largest={self.largest} has no effect without data.options.imbalance: give both."
            )
        if self.tail == "pareto" and self.imbalance is None:
            raise UserError("tail=pareto has no effect without data.options.imbalance: give both.")
        draws = self.dev_per_class > 0 or self.imbalance is not None or self.tail not in RULES
        if self.tail_seed != 0 and not draws:
            raise UserError(
                f"tail_seed={self.tail_seed} has no effect where neither a long tail nor a dev set "
                "is drawn: give data.options.imbalance, data.options.tail or "
                "data.options.dev_per_class."
            )
        bounds = (self.head_above, self.tail_below)
        if self.grouped_by == "thirds" and bounds != (HEAD_ABOVE, TAIL_BELOW):
            raise UserError(
                "head_above and tail_below have no effect with grouped_by=thirds: leave them out."
            )
        return self

    def groups_of(self, counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Groups of classes with these numbers of training images `[classes]`."""
        if self.grouped_by == "thirds":
            return thirds(counts)
        return count_groups(counts, self.head_above, self.tail_below)


def count_groups(
    counts: Iterable[int], head_above: int = HEAD_ABOVE, tail_below: int = TAIL_BELOW
) -> dict[str, tuple[int, ...]]:
    """Head, medium and tail classes by their training images; empty groups are left out."""
    groups: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
    for index, count in enumerate(counts):
        name = "head" if count > head_above else "tail" if count < tail_below else "medium"
        groups[name].append(index)
    return {name: tuple(members) for name, members in groups.items() if members}


def grouped(
    options: object, own: dict[str, tuple[int, ...]] | None, counts: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """A dataset's own groups; else, by its training images `[classes]`, those of its options."""
    if own:
        return own
    return options.groups_of(counts) if isinstance(options, LongTail) else count_groups(counts)


def thirds(counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The classes in three groups of one size, by their training images; of equal ones the first.

    What cannot be divided by three makes the head larger, then the medium group.
    """
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    parts = np.array_split(np.array(order, dtype=np.int64), 3)
    named = zip(("head", "medium", "tail"), parts, strict=True)
    return {name: tuple(sorted(part.tolist())) for name, part in named if len(part)}


def tail_counts(options: LongTail, available: Sequence[int]) -> Counts:
    """How many training images of each class to keep: at least one where there is any.

    `exp` is the rule of CIFAR-LT (Cao et al., 2019), n_c = int(n_max * f^(c / (C - 1))) with
    f = 1 / imbalance; `pareto` is n_c = int(n_max * (c + 1)^-b), with b such that the last class
    has n_max / imbalance. n_max is the size of the largest class, or the options' `largest`, and no
    class exceeds its own.

    Raises:
        UserError: the options combine an imbalance with a file of counts, or want a larger class
            than there is.
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
    most = int(have.max())
    if options.largest is not None and options.largest > most:
        raise UserError(
            f"largest={options.largest}: the largest class has {most} training images; give that "
            "or less."
        )
    # Slightly larger, because rounding may put a product that should be whole just below it.
    wanted = np.floor((options.largest or most) * scale * (1 + 1e-12)).astype(np.int64)
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

    Where tail and dev set are drawn together, a trial needs more: then images are listed by path,
    each once, and the counts stand in the listing. A class that the file does not name keeps all
    its images, which a note says.

    Raises:
        UserError: the file is absent, lacks a column, names a class twice or one that there is not,
            or asks for more than there is; or a class has too few images for the dev set.
    """
    if isinstance(options, DevSet) and options.draws_by_name:
        return _to_draw_from(listing, options, root)
    if not isinstance(options, LongTail) or options.tail in RULES:
        return listing
    counts, notes = _file_counts(listing, options, root)
    rows = kept(_labels(listing), counts, options.seed_for(0))
    train = tuple(listing.train[row] for row in rows)
    return replace(listing, train=train, notes=(*listing.notes, *notes))


def _to_draw_from(listing: Listing, options: DevSet, root: Path) -> Listing:
    train, notes = in_order(listing.train, listing.test), listing.notes
    if len(train) < len(listing.train):
        note = (
            f"{len(listing.train) - len(train)} lines of train are left out: they name an image "
            "again, or one that is in test too."
        )
        listing = replace(listing, notes=(*notes, note))
    listing = replace(listing, train=train)
    if isinstance(options, LongTail) and options.tail not in RULES:
        counts, more = _file_counts(listing, options, root)
        listing = replace(listing, tail=tuple(counts.tolist()), notes=(*listing.notes, *more))
    have = np.bincount(_labels(listing), minlength=len(listing.classes)).tolist()
    refuse_short(options, listing.classes, have, drawn_counts(options, have, listing.tail).tolist())
    return listing


def drawn_counts(
    options: DevSet, available: Sequence[int], tail: Sequence[int] | None = None
) -> Counts:
    """How many training images of each class a trial keeps of those that are `available`.

    `tail` is what a listing or a pack says (`Listing.tail`).

    Raises:
        UserError: as `tail_counts`.
    """
    if tail is not None:
        return np.minimum(np.array(tail, dtype=np.int64), np.array(available, dtype=np.int64))
    if isinstance(options, LongTail):
        return tail_counts(options, available)
    return np.array(available, dtype=np.int64)


def drawn(
    options: object,
    labels: Counts,
    classes: Sequence[str],
    tail: Sequence[int] | None,
    trial: int,
) -> tuple[Counts, Counts | None]:
    """Places in `labels` `[n]` of the images that a trial is trained on, and of its dev set.

    `trial` is its seed. No dev set is asked for: None.

    Raises:
        UserError: as `tail_counts`; or a class has too few images for the dev set.
    """
    have = np.bincount(labels, minlength=len(classes)).tolist()
    if isinstance(options, DevSet) and options.draws_by_name:
        counts = drawn_counts(options, have, tail).tolist()
        refuse_short(options, classes, have, counts)
        wanted, seed = options.dev_per_class, options.seed_for(trial)
        train, dev = tail_and_dev(labels, counts, classes, wanted, seed)
        return train, dev if wanted else None
    if isinstance(options, LongTail) and options.imbalance is not None:
        return kept(labels, tail_counts(options, have), options.seed_for(trial)), None
    return np.arange(len(labels)), None


def _labels(listing: Listing) -> Counts:
    return np.array([item.label for item in listing.train], dtype=np.int64)


def _file_counts(listing: Listing, options: LongTail, root: Path) -> tuple[Counts, tuple[str, ...]]:
    """Images of each class that the options' CSV keeps, and what to tell the user of it."""
    if options.imbalance is not None:
        raise UserError(
            f"tail {options.tail!r}: a file of counts has its own imbalance; leave it out."
        )
    have = np.bincount(_labels(listing), minlength=len(listing.classes))
    counts: Counts = have.copy()
    left = dict.fromkeys(listing.classes)
    for line, row in read_csv(root / options.tail, ("class", "count")):
        name, count = row["class"], row["count"]
        if name not in listing.classes:
            raise UserError(
                f"{options.tail}, line {line}: {unknown('class', name, listing.classes)}"
            )
        if name not in left:
            raise UserError(f"{options.tail}, line {line}: class {name!r} is named twice.")
        index = listing.classes.index(name)
        if not count.isdecimal() or not 1 <= int(count) <= have[index]:
            raise UserError(
                f"{options.tail}, line {line}: {name} has {have[index]} training images, so its "
                f"count is a number from 1 to that, not {count!r}."
            )
        counts[index] = int(count)
        del left[name]
    if not left:
        return counts, ()
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    note = f"{options.tail} has no count of class {next(iter(left))!r}{more}: all images are kept."
    return counts, (note,)
