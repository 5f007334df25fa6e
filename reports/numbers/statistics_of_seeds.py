"""Means over seeds and their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats


def mean_and_half_width(values: pd.Series[float]) -> tuple[float, float]:
    """Mean and 95 % Student-t half-width; NaN where they do not exist."""
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0:
        return float("nan"), float("nan")
    if len(known) == 1:
        return float(known[0]), float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean()), float(stats.t.ppf(0.975, len(known) - 1) * error)
