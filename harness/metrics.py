"""Scores of one trial on one split, what choices are made by, and which images were right.

All accuracies are shares in [0, 1]; reports print them in percent. Owns: these scores; an
objective's value of them, better when higher, and its words; which objectives go together. Must not
know: models, stores.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown
from harness.spec import Frozen

Metric = Literal["class_mean", "group_mean", "flat_mean", "micro"]
OVERALL: tuple[str, ...] = get_args(Metric)
Objective = Literal[Metric, "tail", "val_loss"]
"""What choices are made by, on the split that they are made on; `tail` is the mean over the classes
of the group of that name, `val_loss` the split's mean loss."""
Goal = Literal[Objective, "trainable_params", "inference_flops"]
"""What a search with several objectives may be told: an `Objective`, or what the configuration
costs, the less the better: trainable parameters beside the head's, or FLOPs of one image."""
COSTS: tuple[Goal, ...] = ("trainable_params", "inference_flops")
MOST_GOALS = 3
"""Of one search: with more, most trials are better than the others in something."""
LOSS: Objective = "val_loss"
TAIL: Objective = "tail"
SHOWN: Metric = "class_mean"
"""What is shown of the test split, whatever choices are made by."""

Array = NDArray[np.float64]

PER_IMAGE = frozenset({"per_class", "class_counts", "hits"})
"""Scores that a record keeps and a line of the history does not."""


class SplitMetrics(Frozen):
    """Scores on one split. A class or group without images has no score and is left out of means.

    The paper's tables average by three rules, all kept under their names: `class_mean` over
    classes (Tables 2, 3), `group_mean` over head/medium/tail (Tables 6, S1), `flat_mean` over all
    printed cells (Tables 1, 4). Within one dataset the printed cells are its groups, so in a record
    the last two are always equal; they differ where a table pools several datasets.
    """

    class_mean: float
    group_mean: float
    flat_mean: float
    micro: float
    groups: dict[str, float]
    groups_se: dict[str, float]
    """Binomial standard error of each group's accuracy: sqrt(sum of p(1-p)/n over classes) / k."""
    per_class: tuple[float | None, ...]
    class_counts: tuple[int, ...]
    distance: dict[str, float]
    """Inter-class cosine distance of the features by group (Table 5)."""
    loss: float
    hits: str | None = None
    """Which images were classified rightly, a bit each (`pack_hits`): class by class, and within a
    class in the split's order, so that `class_counts` says of which class a bit is. None in records
    from before they were kept."""

    @property
    def shares(self) -> dict[str, float]:
        """The accuracies over all classes, and of each group."""
        return {**{name: getattr(self, name) for name in OVERALL}, **self.groups}


def pack_hits(hits: NDArray[np.bool_]) -> str:
    """Booleans `[n]` as text: 8 a byte, the first in the highest bit, zeros at the end, base64."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode("ascii")


def unpack_hits(text: str, count: int) -> NDArray[np.bool_]:
    """The first `count` booleans of what `pack_hits` made.

    Raises:
        ValueError: the text is not of so many.
    """
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes are not the hits of {count} images")
    return np.unpackbits(packed, count=count).astype(bool)


def worth(objective: Objective, scores: Mapping[str, Any]) -> float:
    """What an objective makes of a split's scores, better when higher: a share, or minus the loss.

    A loss that is not finite is worth less than any other.

    Raises:
        UserError: the scores have no loss, or no classes called tail, and the objective is that.
    """
    if objective == TAIL:
        return _of_tail(scores.get("groups") or {})
    if objective != LOSS:
        return float(scores[objective])
    if scores.get("loss") is None:
        raise UserError(
            f"--objective {LOSS}: the recorded scores of an epoch have no loss; choose by another."
        )
    loss = float(scores["loss"])
    return -loss if math.isfinite(loss) else -math.inf


def _of_tail(groups: Mapping[str, float]) -> float:
    if TAIL not in groups:
        raise no_tail(groups)
    return float(groups[TAIL])


def no_tail(groups: Iterable[str]) -> UserError:
    """Why nothing can be chosen by the tail of a split whose classes are grouped otherwise."""
    named = ", ".join(groups) or "none"
    return UserError(
        f"--objective {TAIL}: the split that choices are made on has no group of this name "
        f"(its groups: {named}); choose by another."
    )


def goals_of(text: str) -> tuple[Objective, tuple[Goal, ...]]:
    """Objectives by their names with commas between them: the first, which is a score, and the
    others, in one order however they are given.

    Raises:
        UserError: an unknown name, one that is given twice, too many, or none that is a score.
    """
    every: tuple[Goal, ...] = get_args(Goal)
    named = [name.strip() for name in text.split(",")]
    for name in named:
        if name not in every:
            raise unknown("value of --objective:", name, every)
        if named.count(name) > 1:
            raise UserError(f"--objective {text}: {name} is given twice.")
    if len(named) > MOST_GOALS:
        raise UserError(f"--objective {text}: it takes {MOST_GOALS} at most.")
    first, *others = (goal for goal in every if goal in named)
    if first in COSTS:
        raise UserError(
            f"--objective {text}: costs alone are least where nothing is trained; give a score "
            f"as well, as in class_mean,{first}."
        )
    return first, tuple(others)  # type: ignore[return-value]


def worth_of_chance(objective: Objective, num_classes: int) -> float:
    """What guessing is worth, and so a trial that diverged."""
    return -math.log(num_classes) if objective == LOSS else 1 / num_classes


class Scale(NamedTuple):
    """How a goal's values stand in tables of numbers, and how they are read."""

    column: str
    """Of the selection score, or the cost, in a report's tables of numbers."""
    factor: float
    """A value in those tables over one of `worth`: shares stand there in percent."""
    words: str
    unit: str
    """Behind a number."""
    difference: str
    """What a difference is counted in."""
    digits: int
    sign: int
    """-1: a value is shown with its sign turned, as it was before higher meant better."""

    def text(self, value: float) -> str:
        """A value of `worth` as it is read: `61.3 %` or `1.234`."""
        return f"{self.sign * self.factor * value:.{self.digits}f}{self.unit}"


def scale_of(goal: Goal) -> Scale:
    """The one place where an objective is put into words."""
    if goal == "trainable_params":  # whole factors, so that counts stay whole numbers
        return Scale(goal, 1, "trainable parameters", "", "parameters", 0, -1)
    if goal == "inference_flops":
        return Scale(goal, 1, "inference FLOPs per image", "", "FLOPs", 0, -1)
    if goal == LOSS:
        return Scale("select_negated_loss", 1.0, "loss", "", "of the loss", 3, -1)
    words = "tail mean" if goal == TAIL else goal.replace("_", " ")
    return Scale(f"select_{goal}", 100.0, words, " %", "points", 1, 1)


def split_metrics(
    *,
    predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    features: Array,
    loss: float,
    groups: Mapping[str, tuple[int, ...]],
    num_classes: int,
) -> SplitMetrics:
    """Score predictions `[n]` against labels `[n]`, with features `[n, d]`."""
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[predictions == labels], minlength=num_classes)
    present = counts > 0
    accuracy = np.where(present, hits / np.maximum(counts, 1), np.nan)
    by_group = {
        name: float(np.mean(accuracy[members][present[members]]))
        for name, members in ((n, np.array(m)) for n, m in groups.items())
        if present[members].any()
    }
    variance = np.where(present, accuracy * (1 - accuracy) / np.maximum(counts, 1), np.nan)
    error_of_group = {
        name: float(np.sqrt(np.nansum(variance[list(groups[name])])))
        / int(present[list(groups[name])].sum())
        for name in by_group
    }
    mean_of_groups = float(np.mean(list(by_group.values())))
    by_label = np.argsort(labels, kind="stable")
    return SplitMetrics(
        class_mean=float(np.mean(accuracy[present])),
        group_mean=mean_of_groups,
        flat_mean=mean_of_groups,
        micro=float(hits.sum() / counts.sum()),
        groups=by_group,
        groups_se=error_of_group,
        per_class=tuple(float(a) if p else None for a, p in zip(accuracy, present, strict=True)),
        class_counts=tuple(int(c) for c in counts),
        distance=class_distances(features, labels, groups),
        loss=loss,
        hits=pack_hits((predictions == labels)[by_label]),
    )


def class_distances(
    features: Array, labels: NDArray[np.int64], groups: Mapping[str, tuple[int, ...]]
) -> dict[str, float]:
    """Mean cosine distance of each class centroid to all others, averaged over a group's classes.

    The paper does not define its Table 5; this is the reading in which head and tail are
    comparable, since both are measured against the same set of other classes.
    """
    present = np.unique(labels)
    centroids = np.stack([features[labels == c].mean(axis=0) for c in present])
    norms = np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    distance = 1 - (centroids / norms) @ (centroids / norms).T
    if len(present) < 2:
        return {}
    to_others = (distance.sum(axis=1) - np.diag(distance)) / (len(present) - 1)
    of_class = dict(zip(present.tolist(), to_others.tolist(), strict=True))
    return {
        name: float(np.mean([of_class[c] for c in members if c in of_class]))
        for name, members in groups.items()
        if any(c in of_class for c in members)
    }
