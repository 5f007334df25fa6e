"""A recommendation in words: what to train, what to expect of it, why, and what was not tried.

Owns: these words. Must not know: how they are laid out, files, how anything was computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.console import duration
from harness.metrics import SHOWN, scale_of
from harness.reports.numbers.images import over_images
from harness.reports.text.names import SHOWN_WORDS, data_words
from harness.search.recommended import Recommended, Trained

UNTRIED = (
    "more than one seed; rank, and α apart from the rate (α² × rate governs the first steps); "
    "strengths by site (`harness train --method metapeft`), LoRA's variants, other methods "
    "(`harness compare --methods all`); epochs, batch, augmentation"
)
"""By any plan."""


def recommended_words(found: Recommended) -> dict[str, str]:
    """Label -> words, in the order of reading."""
    said = {
        "Choice": _choice(found),
        "Expected": _expected(found.best),
        "Cost": _cost(found),
        "Why": "; ".join(_why(found)),
        "Caveat": "; ".join(_caveats(found)),
        "Not tried": "; ".join([*_left_out(found), UNTRIED]),
    }
    return {label: words for label, words in said.items() if words}


def _choice(found: Recommended) -> str:
    spec = found.best.record.spec
    alpha = next(iter(spec.placement.root.values()))
    return (
        f"LoRA of rank {spec.options['rank']} at {found.names[found.best.key.place]} "
        f"({len(spec.placement)} sites), α = {alpha:g}, {spec.recipe.in_words}"
    )


def _expected(best: Trained) -> str:
    scores = best.record.test
    assert scores is not None  # it has ended with a score
    low, high = over_images(scores)
    return (
        f"{100 * getattr(scores, SHOWN):.1f} % {SHOWN_WORDS} on the test split of "
        f"{data_words(best.record.spec.data)}, {low:.1f} to {high:.1f} (95 %, over its "
        f"{sum(scores.class_counts):,} images: of this one model; what another seed or another "
        "choice would change is not in it)"
    )


def _cost(found: Recommended) -> str:
    seconds = sum(each.record.cost.device_s for each in found.trained)
    count = len(found.trained)
    return (
        f"{count} training{'s' if count > 1 else ''}, {found.runs:.2f} of "
        f"{found.budget.amount:g} {found.budget.unit} (a run: one training of LoRA at "
        f"{found.names[0]}), {duration(seconds)} of device time"
        if found.budget.unit == "runs"
        else f"{count} of {found.budget.amount:g} trainings, {duration(seconds)} of device time"
    )


def _why(found: Recommended) -> Iterator[str]:
    scale, data = scale_of(found.study.objective), found.best.record.spec.data
    yield f"best {scale.words} on {data.chosen_on}: {scale.text(found.best.score)}"
    for place, name in enumerate(found.names):
        own = sorted(
            (each for each in found.trained if each.key.place == place),
            key=lambda each: each.key.level,
        )
        if own:
            tried = [f"{each.record.spec.recipe.lr:g} {_score(found, each)}" for each in own]
            yield f"at {name}, rate {', '.join(tried)}"


def _score(found: Recommended, each: Trained) -> str:
    if each.record.status == "DIVERGED":
        return "diverged"
    return scale_of(found.study.objective).text(each.score)


def _caveats(found: Recommended) -> Iterator[str]:
    key = found.best.key
    levels = {each.key.level for each in found.trained if each.key.place == 0}
    levels |= {each.key.level for each in found.trained if each.key.place == key.place}
    if key.level in (min(levels), max(levels)):
        end = "lowest" if key.level == min(levels) else "highest"
        if len(levels) == 1:
            end = "only"
        yield (
            f"its rate is the {end} that was tried, so that a better one may lie beyond; "
            "a larger --budget goes on from here"
        )
    ranked = sorted((each.score for each in found.trained), reverse=True)
    if len(ranked) > 1 and ranked[0] == ranked[1]:
        yield "another configuration scored the same, and was tried later"


def _left_out(found: Recommended) -> Iterator[str]:
    tried = {each.key.place for each in found.trained}
    left = [n for n in range(len(found.names)) if n not in tried]
    if left:
        unit = found.budget.unit
        costs = found.steps.runs if unit == "runs" else [1.0] * len(found.names)
        words = [f"{found.names[n]} ({costs[n]:.2f})" for n in left]
        yield f"for want of budget ({max(0.0, found.left):.2f} {unit} left): {', '.join(words)}"
