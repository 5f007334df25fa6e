"""A comparison of searches, live or replayed, in numbers.

Owns: which parts there are and in which order they follow from each other. Must not know: how a
part is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.errors import UserError
from harness.reports.numbers.choices import Choices, choices
from harness.reports.numbers.incumbents import Curves, all_answers, curves
from harness.reports.numbers.landscape import Landscape, landscape
from harness.reports.numbers.recorded import Recorded, read_recorded
from harness.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Searches:
    """A comparison with its results."""

    recorded: Recorded
    """What was asked and what became of it."""
    answers: pd.DataFrame
    """A row per answer of every repeat; see `incumbents.all_answers`."""
    curves: Curves
    """What had been found by which cost."""
    choices: Choices
    """Searches judged at a cost that all of them were given."""
    landscape: Landscape | None
    """The space itself; None without a table of every cell."""


def load_searches(folder: RunFolder) -> Searches:
    """Read a comparison's folder and compute its numbers.

    Raises:
        UserError: the folder is no comparison of searches, or has no answer yet.
    """
    recorded = read_recorded(folder)
    space = landscape(recorded)
    cells = None if space is None else space.cells
    told = all_answers(recorded, cells)
    if told.empty:
        raise UserError(f"{folder}: no trial of a search has finished yet.")
    return Searches(
        recorded=recorded,
        answers=told,
        curves=curves(recorded, told, cells),
        choices=choices(recorded, told, cells),
        landscape=space,
    )
