"""The few lines that a command ends with, and how they stand under each other.

Owns: their type, their labels and their layout. Must not know: what is said in them, terminals; it
imports nothing that computes or draws.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OUT = "runs"
"""The store of commands that name none."""
LABEL = 11
"""Characters of the column of labels."""
HELD = re.compile(r" [±=] | %")
"""What stays on the line of what it belongs to."""
NARROWEST = 40
"""Characters of a terminal below which lines are not broken."""


class Brief(NamedTuple):
    """A run's answer, each line without its label; None: there is nothing to say."""

    title: str
    """What the first line is called."""
    choice: str
    test: str | None = None
    """Test score of the choice, with its interval where it has one."""
    hindsight: str | None = None
    """What is best on test, which only hindsight knows, and how far the choice lies below it."""
    cost: str | None = None
    caveat: str | None = None
    """What must be known beside the score, in clauses."""
    next: tuple[str, ...] = ()
    """Words of the next command, after `harness` and without the store; none: there is none."""

    @property
    def said(self) -> dict[str, str]:
        """Label -> words of every line that there is, but for what to do next."""
        said = {
            self.title: self.choice,
            "Test": self.test,
            "Hindsight": self.hindsight,
            "Cost": self.cost,
            "Caveat": self.caveat,
        }
        return {label: words for label, words in said.items() if words}

    def text(self, store: Path, page: Path | None = None, width: int | None = None) -> str:
        """The lines, each under its label; `page` is where there is more of it.

        Those of more than `width` characters are broken, but for a path and a command, which are
        to be copied.
        """
        lines: list[str] = []
        for label, words in self.said.items():
            lines += lines_under(label, words, width)
        if page is not None:
            lines.append(f"{'Page':<{LABEL}}{page}")
        if self.next:
            place = [] if str(store) == OUT else ["--out", str(store)]
            lines.append(f"{'Next':<{LABEL}}{shlex.join(['harness', *self.next, *place])}")
        return "\n".join(lines)


def lines_under(label: str, words: str, width: int | None) -> Iterator[str]:
    """Words behind a label, broken where a line would have more than `width` characters."""
    if width is None or width < NARROWEST:
        yield f"{label:<{LABEL}}{words}"
        return
    whole = HELD.sub(lambda part: part[0].replace(" ", "\u00a0"), words)
    for line in textwrap.wrap(
        whole,
        width,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
    ):
        yield line.replace("\u00a0", " ")
