"""A comparison of searches, live or replayed, in numbers.

Owns: which parts there are and in which order they follow from each other. Must not know: how a
part is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from harness.errors import UserError
from harness.reports.numbers.choices import Choices, Part, choices
from harness.reports.numbers.incumbents import Curves, all_answers, curves
from harness.reports.numbers.landscape import Landscape, landscape
from harness.reports.numbers.random_search import expected_random
from harness.reports.numbers.recorded import Recorded, read_recorded
from harness.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Searches:
    """A comparison with its results."""

    parts: list[Part]
    """The searches on its own space, then those on the spaces beside it."""
    answers: pd.DataFrame
    """A row per answer of every repeat; see `incumbents.all_answers`."""
    curves: Curves
    """What had been found by which cost."""
    choices: Choices
    """Searches judged at their budget."""
    landscape: Landscape | None
    """The comparison's own space; None without a table of every cell."""

    @property
    def recorded(self) -> Recorded:
        """What was asked on the comparison's own space, and what became of it."""
        return self.parts[0].recorded

    @property
    def learned(self) -> tuple[str, ...]:
        """Arms that find strengths in one trial per training seed."""
        return tuple(name for part in self.parts for name in part.recorded.learned)


def load_searches(folder: RunFolder) -> Searches:
    """Read a comparison's folder, and those beside it, and compute its numbers.

    Raises:
        UserError: a folder is no comparison of searches, or has no answer yet.
    """
    recorded = read_recorded(folder)
    compared = [recorded, *(read_recorded(folder.beside(n)) for n in recorded.comparison.beside)]
    if len(compared) > 1:
        labels = _labels([each.study.name for each in compared])
        compared = [_labelled(each, label) for each, label in zip(compared, labels, strict=True)]
    spaces = [landscape(each) for each in compared]
    parts = [_part(*each) for each in zip(compared, spaces, strict=True)]
    told = pd.concat([part.told for part in parts], ignore_index=True)
    if any(part.told.empty for part in parts):
        raise UserError(f"{folder}: no trial of a search has finished yet.")
    return Searches(
        parts=parts,
        answers=told,
        curves=curves(compared, told),
        choices=choices(parts),
        landscape=spaces[0],
    )


def _part(recorded: Recorded, space: Landscape | None) -> Part:
    cells = None if space is None else space.cells
    told = all_answers(recorded, cells)
    expected = None
    if cells is not None and len(told):
        expected = expected_random(recorded, cells, float(told["cost"].max()))
    return Part(recorded=recorded, told=told, cells=cells, expected=expected)


def _labels(studies: list[str]) -> list[str]:
    """What tells studies from each other: their names without the words that all begin with."""
    words = [name.split("_") for name in studies]
    shared = 0
    while all(len(each) > shared + 1 for each in words) and len({e[shared] for e in words}) == 1:
        shared += 1
    return ["_".join(each[shared:]) for each in words]


def _labelled(recorded: Recorded, label: str) -> Recorded:
    named = replace(recorded, label=label)
    return replace(named, logs={(named.arm(n), r): e for (n, r), e in recorded.logs.items()})
