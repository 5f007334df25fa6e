"""Gratings in noise, one class per orientation, long-tailed: a dataset that is drawn, not read."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from harness.data.contract import DrawnDataset
from harness.data.dataset import Dataset, Images
from harness.rng import generator
from harness.spec import Frozen

CLASSES = 6
SIDE = 32


class GratingOptions(Frozen):
    """What is drawn."""

    seed: Annotated[int, Field(ge=0)] = 0
    largest: Annotated[int, Field(ge=8)] = 64
    """Training images of the first class; each further class has two thirds of the one before."""
    test_per_class: Annotated[int, Field(ge=1)] = 20
    noise: Annotated[float, Field(ge=0)] = 0.4


class Gratings(DrawnDataset):
    """Orientations of gratings."""

    Options: ClassVar = GratingOptions
    summary = "DRAWN gratings of 6 orientations in noise, long-tailed, 32 px"
    bands = 3

    @staticmethod
    def load(options: GratingOptions) -> Dataset:
        counts = [max(3, round(options.largest * (2 / 3) ** c)) for c in range(CLASSES)]
        return Dataset(
            train=_drawn(counts, options, "train"),
            test=_drawn([options.test_per_class] * CLASSES, options, "test"),
            classes=tuple(f"{180 * c // CLASSES} degrees" for c in range(CLASSES)),
            groups={"head": (0, 1), "medium": (2, 3), "tail": (4, 5)},
        )


def _drawn(counts: list[int], options: GratingOptions, part: str) -> Images:
    """Images uint8 `[n, 3, h, w]`; chance comes from the options' seed and the part alone."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    rng = generator(options.seed, "gratings", part)
    phase, frequency = torch.rand(2, len(labels), 1, 1, generator=rng)
    noise = torch.randn(len(labels), SIDE, SIDE, generator=rng)
    angle = (math.pi * labels / len(counts)).view(-1, 1, 1)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    along = x * angle.cos() + y * angle.sin()
    wave = torch.sin(2 * math.pi * (along * (0.1 + 0.1 * frequency) + phase))
    pixels = (127.5 + 60 * (wave + options.noise * noise)).clamp(0, 255).to(torch.uint8)
    return Images(pixels=pixels[:, None].repeat(1, 3, 1, 1), labels=labels)
