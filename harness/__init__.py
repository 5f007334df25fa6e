"""PEFT hyperparameter-search harness: one runner, many searches, one store, honest reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.version import __version__ as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from harness.reports.notebook import Results


def load(run: str | Path, out: str | Path = "runs") -> Results:
    """Results of a run for a notebook: `.trials`, `.table()`, `.best()`, `.heatmap()`.

    `run` is its name in the store `out`, or its folder.

    Raises:
        UserError: there is no such run; names the nearest.
    """
    from harness.reports.notebook import (
        load as loaded,  # pandas and matplotlib, which the rest needs not
    )

    return loaded(run, out)
