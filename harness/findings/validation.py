"""How much validation does choosing a placement need? Dev sets made smaller, and long-tailed.

A record keeps a bit per dev image, so what would have been chosen on fewer images can be computed
without training. Owns: the subsampling and its table. Must not know: figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.findings.scenario import Scenario
from harness.metrics import unpack_hits
from harness.reports.numbers.statistics import mean_and_half_width

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the dev set's images of a class; at least one is kept."""
IMBALANCE = 10.0
"""Of the largest class to the smallest of a long-tailed dev set, with an exponential profile."""
DRAWS = 100
"""Subsets per seed and size, averaged within the seed."""

Shape = Literal["balanced", "long-tailed"]
By = Literal["class mean", "micro", "either"]
WAYS: tuple[tuple[Shape, By], ...] = (
    ("balanced", "either"),
    ("long-tailed", "class mean"),
    ("long-tailed", "micro"),
)
"""Shapes of a dev set, and what chooses on it; on a balanced set the two scores are one."""


class Cells(NamedTuple):
    """LoRA's cells of a seed."""

    hits: NDArray[np.bool_]
    """`[cells, images]`: whether a dev image was classified rightly."""
    labels: NDArray[np.int64]
    """`[images]`: its class."""
    test: NDArray[np.float64]
    """`[cells]`: test class mean in percent."""


def validation_table(scenario: Scenario) -> pd.DataFrame:
    """A row per shape of the dev set, its size and the score that chooses.

    `images` is the mean size of a set, `test` the test class mean of what is chosen in LoRA's whole
    space, `ci` its 95 % half-width over so many `seeds`.
    """
    by_seed = dict(_cells(scenario))
    rows = []
    for shape, by in WAYS:
        for share in SHARES:
            found = [_mean_choice(each, shape, share, by, s) for s, each in by_seed.items()]
            images, tests = zip(*found, strict=True)
            mean, interval = mean_and_half_width(pd.Series(tests))
            at = {"scenario": scenario.name, "shape": shape, "by": by}
            reached = {"images": float(np.mean(images)), "test": mean, "ci": interval}
            rows.append({**at, **reached, "seeds": len(by_seed)})
    return pd.DataFrame(rows).round({"images": 1, "test": 4, "ci": 4})


def _cells(scenario: Scenario) -> Iterator[tuple[int, Cells]]:
    records = scenario.records["lora"]
    for seed in scenario.seeds:
        own = scenario.of_seed("lora", seed)
        scored = [records[trial_id]["select"] for trial_id in own["trial_id"]]
        counts = next(each["class_counts"] for each in scored if each is not None)
        nothing = np.zeros(sum(counts), dtype=bool)  # a diverged trial
        hits = [nothing if s is None else unpack_hits(s["hits"], sum(counts)) for s in scored]
        labels = np.repeat(np.arange(len(counts)), counts)
        yield seed, Cells(np.array(hits), labels, own["test"].to_numpy(float))


def _mean_choice(
    cells: Cells, shape: Shape, share: float, by: By, seed: int
) -> tuple[float, float]:
    """Mean size of a subset, and mean test score of what is chosen on it."""
    rng = np.random.default_rng((seed, round(1000 * share), shape == "balanced"))
    drawn = [chosen_on(cells, subset(cells.labels, shape, share, rng), by) for _ in range(DRAWS)]
    images, tests = zip(*drawn, strict=True)
    return float(np.mean(images)), float(np.mean(tests))


def subset(
    labels: NDArray[np.int64], shape: Shape, share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of a part of the dev set, without replacement, at least one image of every class.

    Long-tailed: the largest class keeps `share`, and which class that is, is drawn.
    """
    classes = np.unique(labels)
    falls = IMBALANCE ** -np.linspace(0, 1, len(classes)) if shape == "long-tailed" else None
    kept = np.full(len(classes), share) if falls is None else share * rng.permutation(falls)
    chosen = []
    for which, part in zip(classes, kept, strict=True):
        own = np.flatnonzero(labels == which)
        chosen.append(rng.choice(own, max(1, round(part * len(own))), replace=False))
    return np.concatenate(chosen)


def chosen_on(cells: Cells, images: NDArray[np.int64], by: By) -> tuple[int, float]:
    """The number of images, and the test score of the cell that scores best on them.

    Of equal cells each may be chosen, so their test scores are averaged.
    """
    hits, labels = cells.hits[:, images], cells.labels[images]
    if by == "micro":
        scores = hits.mean(axis=1)
    else:
        counts = np.bincount(labels)
        weights = 1 / counts[labels] / np.count_nonzero(counts)
        scores = hits @ weights
    best = scores >= scores.max() - 1e-12
    return len(images), float(cells.test[best].mean())
