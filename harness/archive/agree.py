"""When two results of one trial agree: to the last bit on like machines, else within a tolerance.

A CPU of another type, or another version of torch, sums in another order, and training makes the
difference grow. So results of unlike machines agree if no overall accuracy differs by more than
`TOLERANCE`. Owns: this rule. Must not know: where the results come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.metrics import OVERALL
from harness.store.records import TrialRecord

TOLERANCE = 0.03
"""Largest difference of an overall accuracy, as a share, between machines that are not alike."""
LIKE = 1e-6
"""The same between like machines, where results are merged; `verify` asks for equal bits."""
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
    same_bits: bool
    """Of all that both have of scores, epochs, status and learned strengths."""
    same_status: bool
    largest: float
    """Largest difference of an overall accuracy, as a share; 0 without scores."""
    where: str
    """Of which, as in `test class_mean`."""

    @property
    def within(self) -> float:
        """The tolerance that results are merged by."""
        return LIKE if self.alike else TOLERANCE

    @property
    def can_be_merged(self) -> bool:
        return self.same_status and self.largest <= self.within

    @property
    def is_verified(self) -> bool:
        return self.same_bits if self.alike else self.can_be_merged


def are_alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether results with these provenances must have the same bits: of one type of CPU, and of
    the same versions. GPUs do not promise so much."""
    names = [one.get("device", "")]
    is_gpu = any(name.startswith(("NVIDIA", "Tesla", "GeForce", "AMD Instinct")) for name in names)
    return not is_gpu and all(one.get(name) == other.get(name) for name in DECIDE)


def compare(
    one: TrialRecord, other: TrialRecord, rows: Rows = (), other_rows: Rows = ()
) -> Agreement:
    """How two results of one trial differ, `rows` being their histories.

    What only one of them has, because its version kept more, is not compared.
    """
    differences = {"": 0.0}
    for part in PARTS:
        scores, others = getattr(one, part), getattr(other, part)
        if scores is not None and others is not None:
            for name in OVERALL:
                difference = abs(getattr(scores, name) - getattr(others, name))
                differences[f"{part} {name}"] = difference
    where = max(differences, key=lambda name: differences[name])
    plain = [record.model_dump(mode="json") for record in (one, other)]
    checked = [{name: tree[name] for name in (*CHECKED, *PARTS)} for tree in plain]
    by_epoch = [{row["epoch"]: row for row in of} for of in (rows, other_rows)]
    shared = by_epoch[0].keys() & by_epoch[1].keys()
    return Agreement(
        alike=are_alike(one.provenance, other.provenance),
        same_bits=_equal(*checked)
        and all(_equal(by_epoch[0][epoch], by_epoch[1][epoch]) for epoch in shared),
        same_status=one.status == other.status,
        largest=differences[where],
        where=where,
    )


def _equal(one: Any, other: Any) -> bool:
    """Whether two trees are equal in all that both have."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_equal(one[key], other[key]) for key in one.keys() & other.keys())
    return one is None or other is None or bool(one == other)
