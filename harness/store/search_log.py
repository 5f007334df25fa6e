"""The log of a search: what it asked for and was told, line by line.

Owns: names and events of logs, and reading them. Must not know: which search wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue


def name_and_number(log: Path) -> tuple[str, int]:
    name, _, number = log.stem.rpartition("-")
    return name, int(number)


def search_log(folder: Path, search: str, repeat: int) -> Path:
    """The log of one repeat of one search of a comparison."""
    return folder / f"search-{search}-{repeat}.jsonl"


def best_cells(log: Sequence[dict[str, Any]], count: int) -> list[tuple[dict[str, JsonValue], int]]:
    """The best configurations by the log of a search, each with its seed, best first.

    Whole trials only; of two that are equal, the one that ended first.
    """
    asked = {event["trial"]: event for event in log if "ask" in event}
    whole = [event for event in log if event.get("status") == "COMPLETE"]
    found: dict[str, tuple[dict[str, JsonValue], int]] = {}
    for event in sorted(whole, key=lambda event: -float(event["objective"])):
        ask = asked[event["tell"]]
        found.setdefault(json.dumps(ask["cell"], sort_keys=True), (ask["cell"], ask["seed"]))
    return list(found.values())[:count]
