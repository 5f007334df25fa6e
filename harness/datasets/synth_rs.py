"""`synth-rs`: the embedded SYNTHETIC benchmark, a SAR-looking long-tailed target domain.

Drawn from an integer seed by `synth_rs_render`; `harness pretrain` trains `vit_pico` on its
optical-looking source domain. It imitates the shape of the paper's DOTA task (15 classes, imbalance
86, groups of 3, 6 and 6), not its content. Owns: class counts, groups and seeds. Must not know:
how images are drawn, models.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from harness.data.contract import DATASETS, DrawnDataset
from harness.data.dataset import Dataset, Images
from harness.data.dev_set import DevSet, TailSeed
from harness.datasets.dota import CLASSES as TARGET_CLASSES
from harness.datasets.dota import GROUPS as TARGET_GROUPS
from harness.datasets.synth_rs_render import SOURCE_CLASSES, render_source, render_target
from harness.rng import generator
from harness.spec import Added, Seed

TRAIN_COUNTS = {
    "ship": 258,
    "small-vehicle": 240,
    "large-vehicle": 156,
    "plane": 74,
    "harbor": 55,
    "storage-tank": 46,
    "tennis-court": 22,
    "bridge": 19,
    "swimming-pool": 16,
    "helicopter": 6,
    "basketball-court": 5,
    "baseball-diamond": 4,
    "roundabout": 4,
    "soccer-ball-field": 3,
    "ground-track-field": 3,
}
"""DOTA-v1.0's training counts divided by 109: 911 images, imbalance 86."""


class SynthRSOptions(DevSet):
    """What is drawn. The dev set is drawn anew, as nothing is left unused."""

    seed: Seed = 0
    """Draws all images, independently of the trial's seed."""
    test_per_class: Annotated[int, Field(ge=1, le=10_000)] = 80
    """Images of each class in the balanced test set."""
    tail_seed: Annotated[TailSeed, Added] = 0
    """Draws other training images, and another dev set, for every number from 1; the test set
    stays. `trial`: each trial's own seed does."""


@DATASETS.register("synth-rs")
class SynthRS(DrawnDataset):
    """The target domain."""

    Options: ClassVar = SynthRSOptions
    summary = "SYNTHETIC SAR-looking crops, 15 classes, imbalance 86, 32 px (embedded)"
    bands = 3

    @staticmethod
    def load(options: SynthRSOptions) -> Dataset:
        names = list(TRAIN_COUNTS)
        index = {name: TARGET_CLASSES.index(name) for name in names}
        train = [index[name] for name in names for _ in range(TRAIN_COUNTS[name])]
        test = [c for c in range(len(TARGET_CLASSES)) for _ in range(options.test_per_class)]
        dev = [c for c in range(len(TARGET_CLASSES)) for _ in range(options.dev_per_class)]
        groups = {
            group: tuple(index[name] for name in members)
            for group, members in TARGET_GROUPS.items()
        }
        return Dataset(
            train=_images(train, _train_seed(options)),
            test=_images(test, 2 * options.seed + 1),
            dev=_images(dev, _drawn_seed(options, "dev set")) if dev else None,
            classes=TARGET_CLASSES,
            groups=groups,
        )


def _train_seed(options: SynthRSOptions) -> int:
    return _drawn_seed(options, "tail") if options.tail_seed else 2 * options.seed


def _drawn_seed(options: SynthRSOptions, purpose: str) -> int:
    """A seed of its own for what `tail_seed` draws; those of train and test are small numbers."""
    rng = generator(options.seed_for(0), "synth-rs", purpose, options.seed)
    return 2**32 + int(torch.randint(2**62, (1,), generator=rng))


def _images(labels: list[int], seed: int) -> Images:
    array = np.array(labels, dtype=np.int64)
    return _as_images(render_target(array, seed), array)


def source_domain(per_class: int, seed: int) -> Images:
    """Balanced images of the optical-looking source domain."""
    labels = np.tile(np.arange(len(SOURCE_CLASSES), dtype=np.int64), per_class)
    return _as_images(render_source(labels, seed), labels)


def _as_images(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Images:
    return Images(pixels=torch.from_numpy(pixels), labels=torch.from_numpy(labels))
