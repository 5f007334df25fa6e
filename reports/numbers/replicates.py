"""One choice per seed: what a procedure chooses when all of it is repeated.

A seed is one replicate of the whole procedure (docs/protocol.md): it chooses by its own selection
scores, pays for what it tried itself, and is scored by its own choice. Owns: that choice. Must not
know: runs, arms, what a cell is.
"""

from __future__ import annotations

import pandas as pd


def choices_by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """What each seed chooses among its own rows, by the highest `select`; of ties the earlier row.

    `scores` has a row per training: `seed`; `cell`, a key of what can be chosen; `select`, better
    when higher, NaN without a score; `test`; and `cost` in any unit. What comes back has a row per
    seed, in the order in which they come first: `seed`; `cell`, `select` and `test` of the chosen
    row and its label in `scores` as `row`; `cost`, the sum of all rows of the seed, chosen or not;
    and `tried`, the number of those with a score. A seed without any is left out.
    """
    by_seed = scores.groupby("seed", sort=False)
    spent = by_seed["cost"].sum()
    known = scores[scores["select"].notna()]
    best = known.groupby("seed", sort=False)["select"].idxmax()
    best = best.reindex([seed for seed in spent.index if seed in best.index])
    chosen = scores.loc[best]
    return pd.DataFrame(
        {
            "seed": best.index.to_numpy(),
            **{name: chosen[name].to_numpy() for name in ("cell", "select", "test")},
            "row": best.to_numpy(),
            "cost": spent.loc[best.index].to_numpy(),
            "tried": known.groupby("seed").size().loc[best.index].to_numpy(),
        }
    )
