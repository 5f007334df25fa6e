"""The parts of a report: tables, answers, sections.

Owns: the types that Markdown, HTML and LaTeX are made from. Must not know: what is said in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.study.figures import AnyView, Points, View


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it is to be read: `words` holds strings, its index the rows' names."""

    stem: str
    """Name of its file, without the ending."""
    caption: str
    """One sentence, without the full stop."""
    corner: str
    """What the rows' names are."""
    words: pd.DataFrame
    has_means: bool = False
    """The last row is the mean of the others."""
    chosen: tuple[Any, Any] | None = None
    """Row and column of the chosen cell."""
    is_paper: bool = False

    @property
    def markdown(self) -> str:
        return self.words.rename_axis(self.corner).to_markdown(disable_numparse=True)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The chosen cell and what is to be known about the choice."""

    rule: str
    cell: str
    scores: Table
    """Test accuracies in one row."""
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One view: its figure and the tables under it, the paper's last."""

    view: AnyView
    figure: str
    """Name of the figure's file, without the ending."""
    alt: str
    caption: str
    tables: list[Table]


@dataclass(frozen=True, kw_only=True)
class SweepContent:
    """A sweep's report. Words between backticks are code."""

    title: str
    question: str
    warning: str | None
    caption: str
    counts: str
    searches: str | None
    answer: Answer | None
    sections: list[Section]
    costs: Table
    environment: dict[str, str]

    @property
    def tables(self) -> list[Table]:
        chosen = [] if self.answer is None else [self.answer.scores]
        return [*chosen, *(t for section in self.sections for t in section.tables), self.costs]


@dataclass(frozen=True, kw_only=True)
class ComparisonContent:
    """A comparison's report."""

    title: str
    caption: str
    verdict: str
    arms: Table
    papers: list[Table]
    notes: list[str]
    learned: str | None
    has_swept: bool
    """Whether the map of a sweep stands beside what was learned."""
    environment: dict[str, str]


def stem(view: AnyView) -> str:
    """Name of a view's files, without the ending."""
    fields = [view.rows, view.columns] if isinstance(view, View) else [view.rows]
    if isinstance(view, Points) and view.value != "accuracy":
        fields.append(view.value)
    return "_".join([view.kind, *fields]).replace(".", "-")
