"""What the report of a study that trains nothing says.

Owns: its sentences and tables. Must not know: how parameters are counted.
"""

from __future__ import annotations

import pandas as pd

from harness.reports.numbers.counts import Counts, disagreements
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import Table


def counts_document(counts: Counts) -> Document:
    """The whole report."""
    study, printed = counts.study, counts.printed
    rows, *columns = (axis.field for axis in study.axes)
    table = counts.cells.pivot_table(
        index=rows, columns=columns, values="trainable_params", sort=False
    )
    table.columns = pd.Index([", ".join(map(str, names)) for names in table.columns])
    disagree = [] if printed is None else disagreements(printed)
    chapters = [
        Chapter(
            title="Trainable parameters",
            tables=[
                Table(
                    stem="counts",
                    caption="Trainable parameters beside the head",
                    corner=study.axes[0].label,
                    words=table.map(lambda value: f"{value:.0f}"),
                )
            ],
        )
    ]
    if printed is not None:
        first = str(printed.columns[0])
        chapters.append(
            Chapter(
                title="The paper's cells",
                text=[
                    'Rounded to 0.001 M. "As named" means that the method and rank of the row give '
                    "the printed number; otherwise every cell of the table above that rounds to it "
                    "on the row's backbone is listed."
                ],
                tables=[
                    Table(
                        stem="printed",
                        caption="Paper, in millions, and which formula gives it",
                        corner=first,
                        words=printed.set_index(first).map(str),
                        is_paper=True,
                    )
                ],
                notes=disagree,
            )
        )
    answer = f"{len(counts.cells)} cells were counted."
    if printed is not None:
        answer += (
            f" Of {len(printed)} printed numbers, {len(printed) - len(disagree)} are those of the "
            "method and rank they are printed for."
        )
    return Document(
        title=study.name,
        question=f"{study.question} (paper: {study.paper})",
        warning=None,
        caption="Computed from the methods' formulas, which the tests compare with the modules "
        f"themselves; nothing was trained. Fixed: {study.fixed}.",
        answer=[answer],
        chapters=chapters,
        definition={"Held fixed": study.fixed},
        study=study,
        environment=counts.environment,
    )
