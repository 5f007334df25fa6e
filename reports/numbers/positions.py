"""The one order in which positions stand in tables and figures.

Owns: that order. Must not know: what is shown of a position.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.spec import POSITIONS

PLACES: dict[str, int] = {position: place for place, position in enumerate(POSITIONS)}


def in_block_order(values: Iterable[Any]) -> list[Any]:
    """Single positions as an image passes them in a block; whatever else there is, as it stands.

    An axis that has anything beside single positions, such as `q+v`, keeps its study's order.
    """
    found = list(values)
    if not all(isinstance(value, str) and value in PLACES for value in found):
        return found
    return sorted(found, key=PLACES.__getitem__)
