"""The error that a user's mistake raises; the CLI prints it as one sentence and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for. The message says what, where and the remedy."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, with the nearest match and all choices."""
    choices = sorted(allowed)
    near = difflib.get_close_matches(given, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {given!r}.{hint} Allowed: {', '.join(choices)}.")
