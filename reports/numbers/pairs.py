"""Every pair of a sweep's cells by test score, with correction for their number.

Pairs with the chosen cell alone do not tell whether any two cells differ. Owns: which pairs there
are. Must not know: how a pair is judged, figures, sentences.
"""

from __future__ import annotations

import pandas as pd

from harness.reports.numbers.contrasts import contrasts
from harness.reports.numbers.run import Run

FEWEST_SEEDS = 3
"""With fewer, hardly a pair can be told apart."""
MOST_CELLS = 80
"""Of more, hardly one of their thousands of pairs survives the correction."""


def cell_pairs(run: Run) -> pd.DataFrame | None:
    """A row per pair of cells, as of `contrasts`, by test score; cells by their values.

    None without enough seeds, with one cell or too many, and for a search, whose cells have not
    been tried on the same seeds.
    """
    if run.searches or not 1 < len(run.cells) <= MOST_CELLS or len(run.seeds) < FEWEST_SEEDS:
        return None
    names = [
        ", ".join(f"{run.label(field)} = {run.words(value)}" for field, value in cell.items())
        for cell in run.cells
    ]
    # Placements, for one, are named by how many sites they have.
    if len(set(names)) < len(names):
        names = [f"{name} (cell {number})" for number, name in enumerate(names, start=1)]
    scores = pd.DataFrame(
        {
            "search": [names[number] for number in run.cell_numbers],
            "seed": run.trials["seed"],
            "test": run.trials[run.test],
        }
    ).dropna()
    arms = [name for name in names if name in set(scores["search"])]
    found = contrasts(scores, arms, tuple(arms)).drop(columns="chance_half_width")
    return found if len(found) else None
