"""The type of what starts an engine. Owns: it. Must not know: which engines there are."""

from __future__ import annotations

from collections.abc import Callable

from harness.engines.base import Engine
from harness.store.store import Store

StartEngine = Callable[[Store, bool], Engine]
"""Starts the engine on a store, for trials that report (True) or for those that do not."""
