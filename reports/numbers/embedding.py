"""Test images in the plane by t-SNE of their features, and how far apart the classes are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples

from harness.reports.numbers.run import Run
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.numbers.sweep import at_preferred

PERPLEXITY = 30.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The values of an axis in feature space."""

    planes: dict[Any, pd.DataFrame | None]
    """Value -> the images of its first seed; None where no features were kept."""
    silhouettes: pd.DataFrame
    """A row per value: mean and half-width `_ci` over the `seeds` whose features were kept, for
    `all` images and each group."""


def load_embedded(run: Run, rows: str) -> Embedded:
    """Read the features that a run's trials have kept."""
    planes: dict[Any, pd.DataFrame | None] = {}
    table: dict[Any, dict[str, float]] = {}
    shown = at_preferred(run)
    for value in run.order(rows):
        own = shown[shown[rows] == value]
        trials = [run.store / "trials" / trial_id for trial_id in own["trial_id"]]
        planes[value] = plane(trials[0]) if trials else None
        found = [each for trial in trials if (each := silhouettes(trial)) is not None]
        row: dict[str, float] = {"seeds": len(found)}
        for group in ("all", *run.groups):
            means = [each.loc[each.index.isin([group]) | (group == "all")].mean() for each in found]
            row[group], row[f"{group}_ci"] = mean_and_half_width(pd.Series(means, dtype=float))
        table[value] = row
    return Embedded(planes=planes, silhouettes=pd.DataFrame(table).T)


class Kept(NamedTuple):
    """Unit-length features `[n, d]` of test images, their classes and groups `[n]`."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]


def _kept(trial: Path) -> Kept | None:
    path = trial / "features.npz"
    if not path.is_file():
        return None
    kept = np.load(path)
    features = kept["features"].astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Kept(features, kept["labels"], kept["groups"])


@functools.cache
def plane(trial: Path) -> pd.DataFrame | None:
    """A row per test image: `x`, `y`, `class` and `group`; None without features.

    For looking at alone, since t-SNE keeps neighbours, not distances.
    """
    kept = _kept(trial)
    if kept is None:
        return None
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(kept.labels) - 1) / 3),
        metric="cosine",
        init="pca",
        random_state=0,
        n_jobs=1,
    )
    x, y = tsne.fit_transform(kept.features).T
    return pd.DataFrame({"x": x, "y": y, "class": kept.labels, "group": kept.groups})


@functools.cache
def silhouettes(trial: Path) -> pd.Series[float] | None:
    """Silhouette of every test image, by cosine distance of features, under its group's name.

    From -1 (among another class) to 1 (far from all others); None without features, with a single
    class, and where no class has two images.
    """
    kept = _kept(trial)
    if kept is None or not 1 < len(set(kept.labels.tolist())) < len(kept.labels):
        return None
    values = silhouette_samples(kept.features, kept.labels, metric="cosine")
    return pd.Series(values, index=kept.groups)
