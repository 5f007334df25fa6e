"""PEFT hyperparameter-search harness: one runner, many searches, one store, honest reports.

From Python: `harness.recommend`, `harness.train`, `harness.sweep`, `harness.compare` and
`harness.load`; see `harness.entry`, which is imported when one of them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.version import __version__ as __version__

if TYPE_CHECKING:
    from harness.entry import compare, load, recommend, sweep, train

__all__ = ["compare", "load", "recommend", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import harness.entry as entry

    return getattr(entry, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
