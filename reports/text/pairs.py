"""What every pair of a sweep's cells says together, in a sentence.

Owns: that sentence; its words are those of the rule. Must not know: how a pair is judged.
"""

from __future__ import annotations

import pandas as pd

from harness.reports.numbers.verdict import FEWEST
from harness.reports.text.numbers import signed


def pairs_words(pairs: pd.DataFrame) -> str:
    """Of all pairs, how many differ after correction, the largest of them, and the verdicts."""
    count = len(pairs)
    differing = pairs[pairs["p_holm"] < 0.05]
    words = (
        f"Every pair of cells, paired by seed (pairs.csv): with Holm's correction over {count}, "
        f"{len(differing) or 'none'} differ{'s' if len(differing) == 1 else ''} (p < 0.05)"
    )
    if len(differing):
        most = differing.iloc[int(differing["mean"].abs().to_numpy().argmax())]
        words += (
            f", the most {most['first']} minus {most['second']} "
            f"({signed(most['mean'], most['half_width'])})"
        )
    if pairs["seeds"].max() < FEWEST:
        return f"{words}; fewer than {FEWEST} seeds, so by the rule not informative."
    verdicts = pairs["verdict"].replace("worse", "better").value_counts()
    said = [
        f"{verdicts[word]} {words_of}"
        for word, words_of in (
            ("better", "with one cell better"),
            ("equivalent", "equivalent"),
            ("undecided", "undecided"),
            ("not informative", "not informative"),
        )
        if word in verdicts.index
    ]
    return f"{words}; by the rule: {', '.join(said)}."
