"""The dev set: training images that the long tail leaves unused, the same number of every class.

Owns: its options, which images it and the tail take, and the refusal of classes with too few. Must
not know: how long a tail is, where images lie or how they are read.

One order of each class's images is drawn from its name; the tail takes from its front and the dev
set from its end. So the dev set depends neither on the tail's length, nor on the order of classes,
nor, as images are listed by path for it, on that of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from harness.data.listing import Item
from harness.errors import UserError
from harness.rng import generator
from harness.spec import Added, Frozen

Rows = NDArray[np.int64]
"""Places of some images in a list of all."""

MOST_NAMED = 3
"""Classes that a message about too few images lists."""


def _seed(given: object) -> object:
    is_number = type(given) is int and given >= 0
    if not is_number and given != "trial":
        raise UserError(f"tail_seed: write a whole number from 0, or trial, not {given!r}.")
    return given


TailSeed = Annotated[int | Literal["trial"], BeforeValidator(_seed)]
"""What draws the tail and the dev set: a number, or the seed of each trial."""


class DevSet(Frozen):
    """An option of datasets that have more training images than a trial is trained on.

    A field `tail_seed` beside it, a `TailSeed`, draws both.
    """

    dev_per_class: Annotated[int, Field(ge=0), Added] = 0
    """Images of every class that choices are made on, of those that are not trained on; nothing is
    held out then. 0: choices are made on a part of the training images."""

    @property
    def draws_by_name(self) -> bool:
        """Whether the tail is drawn together with a dev set, or by the trial's seed.

        Else the tail is what it was before there were dev sets.
        """
        return self.dev_per_class > 0 or getattr(self, "tail_seed", 0) == "trial"

    def seed_for(self, trial: int) -> int:
        """The number that draws tail and dev set of a trial with this seed."""
        seed: int | Literal["trial"] = getattr(self, "tail_seed", 0)
        return trial if seed == "trial" else seed


OptionsT = TypeVar("OptionsT", bound=Frozen)


def for_seed(options: OptionsT, trial: int) -> OptionsT:
    """The options with `tail_seed` as a number, for data that is drawn."""
    if not isinstance(options, DevSet):
        return options
    return options.model_copy(update={"tail_seed": options.seed_for(trial)})


def in_order(train: Iterable[Item], test: Iterable[Item]) -> tuple[Item, ...]:
    """Training images by path, each once, and none that is a test image too."""
    known = {(item.path, item.box) for item in test}
    chosen = []
    for item in sorted(train, key=lambda item: (item.path, item.box or (), item.label)):
        if (item.path, item.box) not in known:
            known.add((item.path, item.box))
            chosen.append(item)
    return tuple(chosen)


def refuse_short(
    options: DevSet, classes: Sequence[str], have: Sequence[int], counts: Sequence[int]
) -> None:
    """Refuse a dev set for which some class has too few images beside the tail.

    `have` and `counts` `[classes]`: training images in all, and of the tail.

    Raises:
        UserError: names the class, what it has and what was wanted.
    """
    wanted = options.dev_per_class
    short = [
        f"{name!r} has {all_ - kept}"
        for name, all_, kept in zip(classes, have, counts, strict=True)
        if all_ - kept < wanted
    ]
    if short:
        more = f", and so on for {len(short) - MOST_NAMED} more" if len(short) > MOST_NAMED else ""
        raise UserError(
            f"dev_per_class={wanted} takes that many images of every class that the long tail "
            f"leaves unused, and class {', '.join(short[:MOST_NAMED])}{more}: make it smaller, or "
            "the tail shorter (data.options.imbalance, data.options.largest)."
        )


def tail_and_dev(
    labels: Rows, counts: Sequence[int], classes: Sequence[str], dev_per_class: int, seed: int
) -> tuple[Rows, Rows]:
    """Sorted places in `labels` `[n]` of the tail and of the dev set.

    The tail has `counts` `[classes]` images. A class must have as many images as both together
    (`refuse_short`).
    """
    tail, dev = [], []
    for label, (name, count) in enumerate(zip(classes, counts, strict=True)):
        members = np.flatnonzero(labels == label)
        order = torch.randperm(len(members), generator=generator(seed, "tail and dev set", name))
        drawn = members[order.numpy()]
        tail.append(drawn[:count])
        dev.append(drawn[len(drawn) - dev_per_class :])
    return np.sort(np.concatenate(tail)), np.sort(np.concatenate(dev))
