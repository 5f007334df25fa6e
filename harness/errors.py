"""Errors that the command line prints as one sentence instead of a traceback."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_GIVEN = 120
"""Characters of a name that an error repeats."""
ENDLESS = re.compile(r"\S{400,}")
MOST_LISTED = 20
"""Of more names than this, an error lists the nearest only."""
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place that you may write to"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST), "name a place that can be made"),
    errno.EISDIR: "name a file that is no folder",
    errno.ENAMETOOLONG: "name a shorter place",
    errno.EINVAL: "name another place",
}
"""What helps where something cannot be written."""


class NotSavedError(RuntimeError):
    """A result could not be written, so nothing that follows could be either; the CLI exits 3."""


class UserError(ValueError):
    """A mistake in what the user asked for: the message says what, where and the remedy; exit 2.

    Of a word that nobody would read to its end, it repeats the beginning.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(ENDLESS.sub(lambda word: f"{word[0][:LONGEST_GIVEN]}...", message))


class TakenOver(UserError):
    """What this process was writing belongs to another by now, because this one was paused."""


class TrialsFailed(RuntimeError):
    """Trials ended with an error of their own. The others are in the store; the CLI exits 1."""


class Interrupted(RuntimeError):
    """The user stopped the work, which the same command continues; the CLI exits 130."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, with the nearest match and the choices."""
    choices, given = sorted(allowed), given[:LONGEST_GIVEN]
    near = difflib.get_close_matches(given, choices, n=5, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = choices if len(choices) <= MOST_LISTED else [*near, f"{len(choices)} in all"]
    allowed = f"Allowed: {', '.join(listed)}" if choices else "There is none"
    return UserError(f"Unknown {kind} {given!r}.{hint} {allowed}.")


def remedy(error: OSError) -> str:
    """What to do about something that cannot be written, for the middle of a sentence."""
    return REMEDIES.get(error.errno or 0, "see to that")


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failure to write into one sentence.

    Raises:
        NotSavedError: the file cannot be written; names it and the reason.
    """
    try:
        yield
    except OSError as error:
        raise NotSavedError(
            f"Results cannot be saved: {path}: {error.strerror or error}. What was saved is whole; "
            f"{remedy(error)} and give the command again."
        ) from error
