"""The files of two sweeps beside each other: a page, the same as text, and its table.

Owns: which files there are, and their names. Must not know: what stands in them.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from harness.errors import saving
from harness.reports.brief import Brief
from harness.reports.files.csv_file import write_csv
from harness.reports.files.html import document_page
from harness.reports.files.templating import template
from harness.reports.numbers.beside import load_beside
from harness.reports.text.beside import beside_brief, beside_document
from harness.store.files import write_atomically
from harness.store.run_folder import RunFolder
from harness.store.runs import Command


class WrittenBeside(NamedTuple):
    """What was written, and its lines in brief."""

    page: Path
    brief: Brief


def write_beside(one: RunFolder, other: RunFolder) -> WrittenBeside:
    """Write `beside_OTHER.html`, `.md` and `.csv` into the report folder of the first run.

    Raises:
        UserError: the two cannot be put beside each other.
        NotSavedError: a file cannot be written; names it.
    """
    found = load_beside(one, other)
    content, brief = beside_document(found), beside_brief(found)
    out = one.report
    with saving(out):
        out.mkdir(exist_ok=True)
    page = out / f"beside_{other.name}.html"
    table = write_csv(page.with_name(f"beside_{other.name}.csv"), found.cells)
    text = page.with_name(f"beside_{other.name}.md")
    write_atomically(text, template("document.md.jinja").render(content=content))
    line = shlex.join(["harness", "report", one.name, "--beside", other.name])
    command = Command(line, "Nothing is trained.")
    write_atomically(page, document_page(one, content, [table, text], brief, command))
    return WrittenBeside(page, brief)
