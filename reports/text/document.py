"""A report that is an answer and chapters, for what is neither a sweep nor arms beside each other.

Owns: the shape that Markdown, HTML and LaTeX share. Must not know: what is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.reports.text.model import Table
from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A headed part. Words between backticks are code."""

    title: str
    figure: str | None = None
    """Name of the figure's file, without the ending."""
    alt: str = ""
    text: list[str] = field(default_factory=list)
    """Paragraphs, after the figure."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A report."""

    title: str
    question: str
    warning: str | None
    caption: str
    answer: list[str]
    """Paragraphs."""
    chapters: list[Chapter]
    definition: dict[str, str]
    study: Study
    environment: dict[str, str]

    @property
    def tables(self) -> list[Table]:
        return [table for chapter in self.chapters for table in chapter.tables]
