"""The outer problem's data D_val: a fresh part of the training images for every outer loop.

Owns: how many images of each class, and which. Must not know: training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.rng import generator

Sampling = Literal["random", "class_balanced", "tail_heavy"]

EXPONENT: dict[Sampling, int] = {"random": 1, "class_balanced": 0, "tail_heavy": -1}
"""A class's share of D_val goes as its number of images to this power (the paper's Table S1 names
the strategies without a formula): the shares of the training data, equal shares, inverse shares."""


def quotas(counts: Tensor, ratio: float, sampling: Sampling, *, leave: int) -> Tensor:
    """Images of each class `[classes]` in a D_val of about `ratio` of all.

    Every class with more than `leave` images gives at least one, and at most all but `leave`.
    """
    most = (counts - leave).clamp(min=0).double()
    weight = counts.clamp(min=1).double() ** EXPONENT[sampling]
    wanted = torch.minimum(ratio * counts.sum(), most.sum())
    # Shares beyond a class's images go to the others: find the scale at which the sum is right.
    low, high = 0.0, float((most / weight).max())
    for _ in range(60):
        middle = (low + high) / 2
        if torch.minimum(middle * weight, most).sum() < wanted:
            low = middle
        else:
            high = middle
    share = torch.minimum(high * weight, most).round().clamp(min=1)
    return torch.minimum(share, most).long()


class ValSampler:
    """Draws D_val for each outer loop, stratified: the quotas are fixed, the images are not."""

    def __init__(
        self,
        labels: Tensor,
        *,
        classes: int,
        ratio: float,
        sampling: Sampling,
        leave: int,
        seed: int,
    ) -> None:
        self._labels = labels
        self._seed = seed
        counts = torch.bincount(labels, minlength=classes)
        self.quotas = quotas(counts, ratio, sampling, leave=leave)
        """Images of each class `[classes]` in every D_val."""
        self._starts = counts.cumsum(0) - counts

    def draw(self, loop: int) -> Tensor:
        """Indices of D_val in outer loop number `loop`, in random order."""
        rng = generator(self._seed, "d_val", loop)
        order = torch.randperm(len(self._labels), generator=rng)
        by_class = order[torch.sort(self._labels[order], stable=True).indices]
        rank = torch.arange(len(by_class)) - self._starts[self._labels[by_class]]
        chosen = by_class[rank < self.quotas[self._labels[by_class]]]
        return chosen[torch.randperm(len(chosen), generator=rng)]
