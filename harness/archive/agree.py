"""When two results of one trial agree: to the last bit on like machines, else within a tolerance.

A CPU of another type, or another version of torch, sums in another order, and training can make the
difference grow. So results of unlike machines agree if neither the share of right images nor the
mean over classes differs by more than `TOLERANCE`, to the latter of which one image of the smallest
class may be added, because in a long tail it weighs more than that. (Six trials of LoRA on the
embedded benchmark, with and without AVX: no image differs, losses do from the sixth digit on.)
Where a training collapsed, rounding decides what is left of it: one on AID, of LoRA at α = 4 and a
rate of 0.2, has 3.3 to 8.5 % right by four instruction sets. So scores of unlike machines are not
compared where it collapsed on both.
Owns: this rule. Must not know: where the results come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.metrics import SplitMetrics
from harness.store.records import TrialRecord

TOLERANCE = 0.02
"""Largest difference of accuracies, as shares, between machines that are not alike."""
COLLAPSED = 3.0
"""Times chance: more than that, and a training has kept something that can be compared."""
LIKE = 1e-6
"""Largest difference of any score where results of like machines are merged; `verify` asks for
equal bits."""
ROUNDING = 1e-12
"""Largest difference of feature distances that counts as none. numpy's BLAS computes them, in
float64, and sums in an order of its threads and of the CPU's generation, which no record names."""
DECIDE = ("device", "torch", "timm", "numpy", "semantics")
"""Provenance that decides about bits; a commit does not, because of `SEMANTICS`."""
CHECKED = ("status", "epochs_run", "tested_epoch", "learned")
"""Fields that are equal where bits are, beside the scores."""
PARTS = ("select", "test")

Rows = Sequence[Mapping[str, Any]]


class Agreement(NamedTuple):
    """How alike two results of one trial are."""

    alike: bool
    """Whether they come from the same type of CPU and the same versions, so that bits must do."""
    collapsed: bool
    """Whether the training collapsed in both, of unlike machines (`has_collapsed`)."""
    same_bits: bool
    """Of all that both have of scores, epochs, status and learned strengths; of feature distances
    to `ROUNDING`."""
    same_status: bool
    excess: float
    """By how much the difference is larger than the tolerance, of the score where it is most."""
    difference: float
    """Of that score."""
    where: str
    """Which score that is, as in `test class_mean`; empty without scores."""
    largest: float
    """Largest difference of all scores that are compared."""

    @property
    def can_be_merged(self) -> bool:
        return self.same_status and (self.collapsed or self.excess <= 0)

    @property
    def is_verified(self) -> bool:
        return self.same_bits if self.alike else self.can_be_merged


def are_alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether results with these provenances must have the same bits: of one type of CPU, and of
    the same versions. GPUs do not promise so much."""
    is_gpu = one.get("device", "").startswith(("NVIDIA", "Tesla", "GeForce", "AMD Instinct"))
    return not is_gpu and all(one.get(name) == other.get(name) for name in DECIDE)


def has_collapsed(record: TrialRecord, rows: Rows) -> bool:
    """Whether a training lost what it learned: its loss ended above that of its first epoch, and
    its mean over classes is at most `COLLAPSED` times chance.

    `rows` is its history; without one, nothing is known, and it has not.
    """
    losses = [row["train_loss"] for row in rows if isinstance(row.get("train_loss"), float)]
    scores = record.test or record.select
    if len(losses) < 2 or losses[-1] <= losses[0] or scores is None:
        return False
    return scores.class_mean <= COLLAPSED / record.num_classes


def compare(
    one: TrialRecord, other: TrialRecord, rows: Rows = (), other_rows: Rows = ()
) -> Agreement:
    """How two results of one trial differ, `rows` being their histories.

    What only one of them has, because its version kept more, is not compared.
    """
    alike = are_alike(one.provenance, other.provenance)
    worst, largest = (-TOLERANCE, 0.0, ""), 0.0
    for part in PARTS:
        scores, others = getattr(one, part), getattr(other, part)
        if scores is not None and others is not None:
            known = dict(_scores(others, alike))
            for name, (value, allowed) in _scores(scores, alike):
                difference = abs(value - known[name][0]) if name in known else 0.0
                worst = max(worst, (difference - allowed, difference, f"{part} {name}"))
                largest = max(largest, difference)
    plain = [record.model_dump(mode="json") for record in (one, other)]
    checked = [{name: tree[name] for name in (*CHECKED, *PARTS)} for tree in plain]
    by_epoch = [{row["epoch"]: row for row in of} for of in (rows, other_rows)]
    shared = by_epoch[0].keys() & by_epoch[1].keys()
    return Agreement(
        alike=alike,
        collapsed=not alike and has_collapsed(one, rows) and has_collapsed(other, other_rows),
        same_bits=_equal(checked[0], checked[1])
        and all(_equal(by_epoch[0][epoch], by_epoch[1][epoch]) for epoch in shared),
        same_status=one.status == other.status,
        excess=worst[0],
        difference=worst[1],
        where=worst[2],
        largest=largest,
    )


def _scores(scores: SplitMetrics, alike: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """Scores of a split that are compared, by name; each with the difference that is allowed."""
    if not alike:
        counts = [count for count in scores.class_counts if count]
        of_an_image = 1 / (len(counts) * min(counts)) if counts else 0.0
        yield "micro", (scores.micro, TOLERANCE)
        yield "class_mean", (scores.class_mean, TOLERANCE + of_an_image)
        return
    for name, value in scores:
        if isinstance(value, float):
            yield name, (value, LIKE)
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", (each, LIKE)) for key, each in value.items())
        elif isinstance(value, tuple):
            named = ((f"{name}.{index}", each) for index, each in enumerate(value))
            yield from ((key, (each, LIKE)) for key, each in named if each is not None)


def _equal(one: Any, other: Any, allowed: float = 0.0) -> bool:
    """Whether two trees are equal in all that both have, distances within `ROUNDING`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        shared = one.keys() & other.keys()
        return all(
            _equal(one[key], other[key], ROUNDING if "distance" in str(key) else allowed)
            for key in shared
        )
    if allowed and isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= allowed
    return one is None or other is None or bool(one == other)
