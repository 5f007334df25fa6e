"""One choice per seed: what a procedure chooses when all of it is repeated.

A seed is one replicate of the whole procedure (docs/protocol.md): it chooses by its own selection
scores, pays for what it tried itself, and is scored by its own choice. Owns: that choice. Must not
know: arms, figures, words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from harness.reports.numbers.run import Run
from harness.reports.numbers.statistics import mean_and_half_width


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


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The choice of a sweep repeated in each of its seeds."""

    choices: pd.DataFrame
    """A row per seed: `seed`, the chosen cell's fields, its two scores under the names that
    `Run.trials` has for them, `tried` (cells with a score), `tflop` of all that the seed trained,
    and `chosen_by`, how many seeds chose the same cell."""
    counts: list[tuple[int, int]]
    """Number of a cell in `Run.cells`, and how many seeds chose it; the most frequent first."""
    mean: float
    """Of the choices' test scores; `half_width` is that of its 95 % interval over seeds."""
    half_width: float


def repeated(run: Run) -> Repeated | None:
    """Each seed's own choice among a grid's cells.

    None with fewer than two seeds that have scores, or a single cell; and of a search, whose seeds
    have not each seen all that it saw.
    """
    if run.searches or len(run.cells) < 2:
        return None
    trials = run.trials
    select, test = run.select, run.test
    flops = trials["flops"].astype(float) - trials["test_flops"].astype(float).fillna(0.0)
    scores = pd.DataFrame(
        {
            "seed": trials["seed"],
            "cell": run.cell_numbers,
            "select": trials[select].where(trials[test].notna()),
            "test": trials[test],
            "cost": flops / 1e12,
        }
    )
    found = choices_by_seed(scores)
    if len(found) < 2:
        return None
    counts = Counter(map(int, found["cell"]))
    cells = pd.DataFrame([run.cells[number] for number in found["cell"]], columns=run.fields)
    mean, half = mean_and_half_width(found["test"])
    return Repeated(
        choices=pd.DataFrame(
            {
                "seed": found["seed"],
                **{field: cells[field] for field in run.fields},
                select: found["select"],
                test: found["test"],
                "tried": found["tried"],
                "tflop": found["cost"],
                "chosen_by": found["cell"].map(counts),
            }
        ),
        counts=sorted(counts.items(), key=lambda each: (-each[1], each[0])),
        mean=mean,
        half_width=half,
    )
