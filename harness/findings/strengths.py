"""Which strengths were chosen: whether a range may have been too narrow for an arm.

Owns: the levels of the strength grid and their counts. Must not know: how an arm chooses, words.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from harness.findings.scenario import Scenario

LEVELS = (1, 4, 16, 64)
"""α² × rate over that of α = 1 and rate r; the first and the last are the edges of the grid."""
OUTER_RATE = "options.outer_lr"
ARMS = (
    "LoRA at every linear map, tuned",
    "grid",
    "MetaPEFT, tuned",
    "LoRA's space, exhausted",
)
"""Those that choose a strength, and are no mean over replays."""


def strengths_table(scenario: Scenario, arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per arm: in how many seeds its choice has each level, by level; of MetaPEFT's that at
    which γ starts, its `defaults`, and the outer rates chosen beside, `outer RATE`."""
    rate = scenario.trials["lora"]["recipe.lr"].min()
    rows = {}
    for name in ARMS:
        own = arms[name]
        levels = (own["alpha"] ** 2 * own["recipe.lr"] / rate).round()
        row = {str(level): int((levels == level).sum()) for level in LEVELS}
        if OUTER_RATE in own:
            rates = scenario.trials["gamma"][OUTER_RATE].unique()
            row["defaults"] = int(own[OUTER_RATE].isna().sum())
            row |= {f"outer {each:g}": int((own[OUTER_RATE] == each).sum()) for each in rates}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")
