"""What the number of test images leaves open of one model's score.

Owns: this interval. Must not know: seeds, choices, words.
"""

from __future__ import annotations

import numpy as np

from harness.metrics import SplitMetrics
from harness.reports.numbers.statistics import BOOTSTRAP


def over_images(scores: SplitMetrics) -> tuple[float, float]:
    """95 % interval of the class mean, in percent, over test images like these.

    Percentiles of a bootstrap within classes: of a class with n images, of which a share p was
    right, n new ones are drawn, each right with probability p. The model stays the same one, so
    that neither the chance of its training nor its having been chosen is in it; a class that was
    all right, or all wrong, adds no width.
    """
    pairs = zip(scores.per_class, scores.class_counts, strict=True)
    known = [(share, count) for share, count in pairs if share is not None and count]
    shares, counts = (np.array(each) for each in zip(*known, strict=True))
    rng = np.random.default_rng(0)
    drawn = rng.binomial(counts, shares, size=(BOOTSTRAP, len(counts))) / counts
    low, high = np.percentile(100 * drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
