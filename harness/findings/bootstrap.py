"""A contrast's interval by a bootstrap over seeds × test images, beside its t interval.

It decides nothing: images are not replicates of the procedure (docs/protocol.md, *Analysis and
rule*). Owns: the resampling. Must not know: how an arm chooses, the rule, words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.findings.evidence import KINDS
from harness.findings.scenario import Scenario
from harness.metrics import unpack_hits

DRAWS = 2000
"""Of seeds and images together."""
Chosen = Mapping[int, Mapping[str, float]]
"""Seed -> id of each trial that an arm chose in it -> in which share of its replays."""


class Bits(NamedTuple):
    """What a scenario's trials got right on its test set, which is the same in every seed."""

    hits: Mapping[str, NDArray[np.float64]]
    """Trial's id -> `[images]`, class by class: 1 where it was right. Chance, if it diverged."""
    counts: tuple[int, ...]
    """Images of every class."""


def tested(scenario: Scenario) -> Bits:
    """A scenario's test bits, from its records.

    Raises:
        ValueError: its trials were tested on several sets.
    """
    hits: dict[str, NDArray[np.float64] | None] = {}
    sets = set()
    for kind in KINDS:
        for trial_id, record in scenario.records[kind].items():
            scores = record["test"]
            hits[trial_id] = None
            if scores is not None:
                counts = tuple(scores["class_counts"])
                hits[trial_id] = unpack_hits(scores["hits"], sum(counts)).astype(float)
                sets.add(counts)
    if len(sets) != 1:
        raise ValueError(f"{scenario.name} has {len(sets)} test sets")
    [counts] = sets
    chance = np.full(sum(counts), 1 / len(counts))
    return Bits({key: chance if own is None else own for key, own in hits.items()}, counts)


def bootstrap(found: Bits, one: Chosen, other: Chosen) -> tuple[float, float]:
    """Limits of the 95 % interval of the mean difference, in points of test class mean."""
    rows = [_right(found, one[seed]) - _right(found, other[seed]) for seed in one]
    return resampled(np.array(rows), found.counts)


def resampled(differences: NDArray[np.float64], counts: tuple[int, ...]) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the mean over seeds of the mean over classes, in points.

    `differences` is `[seeds, images]`. Seeds are drawn with replacement, and images within their
    class: the same ones for every seed, as the test set is one.
    """
    rng, seeds = np.random.default_rng(0), len(differences)
    means = np.zeros((DRAWS, seeds))
    for own in np.split(differences, np.cumsum(counts)[:-1], axis=1):
        size = own.shape[1]
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=DRAWS)
        means += drawn @ own.T / size / len(counts)
    shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    low, high = np.quantile(100 * (means * shares).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _right(found: Bits, chosen: Mapping[str, float]) -> NDArray[np.float64]:
    right = np.zeros(sum(found.counts))
    for key, share in chosen.items():
        right += share * found.hits[key]
    return right
