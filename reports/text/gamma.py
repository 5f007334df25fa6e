"""The words on strengths that a method learned.

Owns: these sentences. Must not know: how evenness or agreement is computed.
"""

from __future__ import annotations

import math
from pathlib import Path

from harness.reports.numbers.gamma import OFF, Learned, describe, load_learned


def say_learned(trials: list[Path]) -> str | None:
    """What these trials learned, in one sentence; None if they did not."""
    learned = load_learned(trials)
    return None if learned is None else describe_learned(learned)


def describe_learned(learned: Learned) -> str:
    """What was learned, in one sentence for range, evenness and agreement each."""
    words = learned_words(learned)
    return (
        f"Strengths from {words['lowest']} to {words['highest']}, mean {words['mean']} (start "
        f"{words['start']}). Evenness (entropy over that of equal strengths) {words['evenness']}; "
        f"below {OFF:g}: {words['share_off']} % of the sites. Agreement between seeds (mean "
        f"Spearman correlation over sites): {words['agreement']}."
    )


def learned_words(learned: Learned) -> dict[str, str]:
    """The numbers of `describe` as words, with the `start`."""
    facts = describe(learned)
    words = {name: f"{value:.2f}" for name, value in facts.items()}
    agreement = facts["agreement"]
    words["agreement"] = "one seed" if math.isnan(agreement) else f"{agreement:.2f}"
    words["share_off"] = f"{100 * facts['share_off']:.0f}"
    words["start"] = f"{learned.final['start'].mean():g}"
    return words
