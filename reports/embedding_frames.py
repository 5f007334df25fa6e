"""Test images in the plane by t-SNE of their features, and how far apart the classes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples

PERPLEXITY = 30.0


def embedding(trial: Path) -> pd.DataFrame | None:
    """A row per test image: `x`, `y`, `class`, `group` and `silhouette`; None without features.

    The silhouette, by cosine distance in the space of the features, is what can be compared
    between trials; the plane is for looking at alone, since t-SNE keeps neighbours, not distances.
    """
    path = trial / "features.npz"
    if not path.is_file():
        return None
    kept = np.load(path)
    features, labels = kept["features"].astype(np.float64), kept["labels"]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    plane = TSNE(
        perplexity=min(PERPLEXITY, (len(labels) - 1) / 3),
        metric="cosine",
        init="pca",
        random_state=0,
        n_jobs=1,
    ).fit_transform(features)
    return pd.DataFrame(
        {
            "x": plane[:, 0],
            "y": plane[:, 1],
            "class": labels,
            "group": kept["groups"],
            "silhouette": silhouette_samples(features, labels, metric="cosine"),
        }
    )
