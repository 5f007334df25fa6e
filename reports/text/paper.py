"""The paper's tables, to be read beside ours.

Owns: their captions. Must not know: our numbers.
"""

from __future__ import annotations

from harness.reports.numbers.paper import Paper, paper_grid
from harness.reports.numbers.run import Run
from harness.reports.text.model import Table, stem
from harness.reports.text.names import corner_words
from harness.reports.text.numbers import with_interval
from harness.study.figures import View


def paper_grid_table(run: Run, view: View) -> Table | None:
    """The paper's numbers over the two axes of a view; None without a reference."""
    paper = paper_grid(run, view.rows, view.columns)
    if paper is None:
        return None
    return Table(
        stem=f"{stem(view)}_paper",
        caption=_caption(f"{run.study.paper}, DOTA, ViT-B/16", paper[1]),
        corner=corner_words(run, view),
        words=paper[0].map(with_interval),
        is_paper=True,
    )


def papers_tables(of: str, papers: list[Paper], corner: str, digits: int = 1) -> list[Table]:
    """A table for each of `papers`, numbered after the stem `of`."""
    return [
        Table(
            stem=f"{of}_paper" + (f"_{number}" if number else ""),
            caption=_caption(paper.title, paper.source),
            corner=corner,
            words=paper.table.map(lambda value: with_interval(value, digits=digits)),
            is_paper=True,
        )
        for number, paper in enumerate(papers)
    ]


def _caption(title: str, source: str) -> str:
    exact = "some cells are less exact, see `baselines/paper`"
    how = exact if title.startswith(source) else f"{source}; {exact}"
    return f"Paper, {title} ({how}), beside ours and never mixed in"
