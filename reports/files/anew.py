"""Writes a run's report folder: figures, CSV and LaTeX tables, `report.md` and `index.html`.

Owns: which files there are. Must not know: how numbers are computed or worded.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from harness.errors import saving
from harness.reports.brief import Brief
from harness.reports.figures import comparison as comparison_figures
from harness.reports.figures import searches as search_figures
from harness.reports.figures.fronts import fronts
from harness.reports.figures.style import DPI, style
from harness.reports.figures.sweep import draw
from harness.reports.files.html import Live, comparison_page, document_page, sweep_page
from harness.reports.files.latex import to_latex
from harness.reports.files.templating import template
from harness.reports.numbers.comparison import load_arms
from harness.reports.numbers.counts import load_counts
from harness.reports.numbers.fronts import load_fronts
from harness.reports.numbers.gamma import Learned, load_learned
from harness.reports.numbers.pairs import cell_pairs
from harness.reports.numbers.replicates import repeated
from harness.reports.numbers.run import load_run
from harness.reports.numbers.searches import load_searches
from harness.reports.numbers.sweep import choose, over_nuisance, search_answers, summarise
from harness.reports.text.brief import arms_brief, counts_brief, searches_brief, sweep_brief
from harness.reports.text.captions import searches_caption
from harness.reports.text.comparison import comparison_content
from harness.reports.text.counts import counts_document
from harness.reports.text.document import Document
from harness.reports.text.fronts import fronts_brief, fronts_document
from harness.reports.text.model import Table, stem
from harness.reports.text.searches import search_document
from harness.reports.text.sweep import sweep_content
from harness.store.files import write_atomically
from harness.store.run_folder import RunFolder
from harness.store.runs import command_line, read_study
from harness.store.summaries import COSTS, OnUnusable

QUOTED = re.compile(r'[",\r\n]')


class Written(NamedTuple):
    """A report that has been written."""

    files: list[Path]
    """In the order of writing."""
    brief: Brief


def write_anew(folder: RunFolder, on_unusable: OnUnusable | None = None) -> Written:
    """Write all of `report/` in the folder of a sweep or a comparison.

    `metrics.csv` and `trials.csv` hold no times or paths, so the same results give the same bytes.
    A sweep's records that cannot be used are told to `on_unusable`, and missing in its tables.

    Raises:
        UserError: the folder is not a run, or a record cannot be used: in a comparison, or without
            `on_unusable`.
        NotSavedError: a file cannot be written; names it.
    """
    if folder.kind == "comparison":
        return _write_comparison(folder)
    if folder.kind == "counts":
        return _write_counts(folder)
    if folder.kind == "searches":
        several = bool(read_study(folder).further)
        return _write_fronts(folder, on_unusable) if several else _write_searches(folder)
    run = load_run(folder, on_unusable)
    if run.study.further:
        return _write_fronts(folder, on_unusable)
    everything = summarise(run)
    choice = choose(run, everything)
    summary = over_nuisance(run, everything)
    selected_on = run.study.base.data.selected_on
    out = _made(folder.report)
    metrics = run.trials.drop(columns=list(COSTS))
    written = [
        _csv(out / "metrics.csv", everything.assign(selected_on=selected_on)),
        _csv(out / "trials.csv", metrics.assign(selected_on=selected_on)),
        _csv(out / "costs.csv", run.trials[[*run.fields, "seed", "trial_id", "status", *COSTS]]),
    ]
    again = repeated(run)
    if again is not None:
        written.append(_csv(out / "choices_by_seed.csv", again.choices))
    for view in run.figures:
        written += _save(out / stem(view), draw(run, summary, choice, view))
    if run.searches:
        written.append(_csv(out / "search.csv", search_answers(run)))
    pairs = cell_pairs(run)
    if pairs is not None:
        written.append(_csv(out / "pairs.csv", pairs))
    content = sweep_content(run, summary, choice, pairs)
    written += [_latex(out, table) for table in content.tables]
    written.append(_text(out / "report.md", template("report.md.jinja").render(content=content)))
    brief = sweep_brief(folder.name, command_line(folder), run, choice)
    page = sweep_page(folder, run, choice, content, written, brief)
    written.append(_text(out / "index.html", page))
    return Written(written, brief)


def write_live(folder: RunFolder, live: Live) -> None:
    """Write the page of a sweep that goes on, without figures and the report's other files.

    Records that cannot be used are missing in it, without a word: the report tells them.

    Raises:
        UserError: the folder is not a run.
        NotSavedError: the file cannot be written.
    """
    run = load_run(folder, lambda trial_id, why: None)
    everything = summarise(run)
    choice = choose(run, everything)
    content = sweep_content(run, over_nuisance(run, everything), choice, cell_pairs(run))
    brief = sweep_brief(folder.name, command_line(folder), run, choice)
    page = sweep_page(folder, run, choice, content, (), brief, live)
    _text(_made(folder.report) / "index.html", page)


def write_gamma(trial: Path) -> list[Path]:
    """Write `gamma.csv` and `gamma.png|svg` into a trial's folder, if it learned strengths."""
    learned = load_learned([trial])
    return [] if learned is None else _gamma(trial, learned, f"Learned strengths, {trial.name}")


def _gamma(folder: Path, learned: Learned, title: str) -> list[Path]:
    table = _csv(folder / "gamma.csv", learned.final)
    return [table, *_save(folder / "gamma", comparison_figures.gamma(learned, title))]


def _write_comparison(folder: RunFolder) -> Written:
    arms = load_arms(folder)
    compared = arms.comparison
    out = _made(folder.report)
    trials = folder.store.trials
    learned = load_learned([trials / trial_id for trial_id in compared.arms[0].trials])
    written = [_csv(out / "arms.csv", arms.table), _csv(out / "arms_by_seed.csv", arms.scores)]
    written += _save(out / "arms", comparison_figures.arms(arms))
    written += _save(out / "pareto", comparison_figures.pareto(arms))
    if learned is not None:
        written += _gamma(out, learned, f"Learned strengths, {compared.title}")
    content = comparison_content(arms, learned)
    if learned is not None and content.has_swept:
        written += _save(out / "gamma_and_sweep", comparison_figures.gamma_and_sweep(learned, arms))
    written += [_latex(out, table) for table in (content.arms, *content.papers)]
    text = template("comparison.md.jinja").render(content=content)
    written.append(_text(out / "report.md", text))
    brief = arms_brief(arms)
    page = comparison_page(folder, arms, content, written, brief)
    written.append(_text(out / "index.html", page))
    return Written(written, brief)


def _write_counts(folder: RunFolder) -> Written:
    """The report of a study that trains nothing."""
    counts = load_counts(folder)
    out = _made(folder.report)
    written = [_csv(out / "counts.csv", counts.cells)]
    if counts.printed is not None:
        written.append(_csv(out / "printed.csv", counts.printed))
    brief = counts_brief(counts)
    return Written(_document(folder, counts_document(counts), written, brief), brief)


def _write_searches(folder: RunFolder) -> Written:
    compared = load_searches(folder)
    out = _made(folder.report)
    curves, choices, landscape = compared.curves, compared.choices, compared.landscape
    written = [
        _csv(out / "searches.csv", choices.judged.reset_index()),
        _csv(out / "choices.csv", choices.final),
        _csv(out / "seeds.csv", choices.seeds),
        _csv(out / "contrasts.csv", choices.contrasts),
        _csv(out / "answers.csv", compared.answers),
        _csv(out / "curves.csv", curves.lines),
    ]
    if len(curves.restarts):
        written.append(_csv(out / "restarts.csv", curves.restarts))
    if landscape is not None and landscape.effects and landscape.effects.has_noise:
        written.append(_csv(out / "interactions.csv", landscape.effects.anova))
    written += _save(out / "anytime", search_figures.anytime(compared))
    written += _save(out / "choices", search_figures.finals(compared))
    controls, run = None, compared.recorded.comparison.controls
    if run is not None:
        arms = load_arms(folder.beside(run))
        written += _save(out / "controls", comparison_figures.arms(arms))
        controls = comparison_content(arms, None)
    document = search_document(compared, controls, searches_caption(compared))
    brief = searches_brief(command_line(folder), compared)
    return Written(_document(folder, document, written, brief), brief)


def _write_fronts(folder: RunFolder, on_unusable: OnUnusable | None) -> Written:
    """The report of a search, or of several, with more than one objective."""
    found = load_fronts(folder, on_unusable)
    out = _made(folder.report)
    written = [
        _csv(out / "front.csv", found.front),
        _csv(out / "points.csv", found.points),
        _csv(out / "volumes.csv", found.volumes.reset_index(names="search")),
    ]
    written += _save(out / "front", fronts(found))
    brief = fronts_brief(found)
    return Written(_document(folder, fronts_document(found), written, brief), brief)


def _document(
    folder: RunFolder, content: Document, written: list[Path], brief: Brief
) -> list[Path]:
    """Write a document in every format, beside the files written so far."""
    out = folder.report
    written += [_latex(out, table) for table in content.tables]
    written.append(_text(out / "report.md", template("document.md.jinja").render(content=content)))
    written.append(_text(out / "index.html", document_page(folder, content, written, brief)))
    return written


def _made(folder: Path) -> Path:
    with saving(folder):
        folder.mkdir(exist_ok=True)
    return folder


def _csv(path: Path, table: pd.DataFrame) -> Path:
    # Put together here, because pandas takes many times as long, which shows with 100,000 trials.
    columns = [_cells(column) for _, column in table.items()]
    rows = [map(_quoted, map(str, table.columns)), *zip(*columns, strict=True)]
    return _text(path, "\n".join(map(",".join, rows)) + "\n")


def _cells(column: pd.Series[Any]) -> list[str]:
    """A column as it stands in a CSV file: numbers to four decimals, nothing where none is."""
    values = column.to_list()
    if column.dtype.kind == "f":
        return ["" if value != value else f"{value:.4f}" for value in values]
    if column.dtype.kind == "i":
        return [str(value) for value in values]
    if isinstance(column.dtype, pd.StringDtype):
        texts = column.fillna("").to_list()
        return [*map(_quoted, texts)] if QUOTED.search("".join(texts)) else texts
    known = {  # by type as well: 1 and True are one key, and two texts
        (kind, value): "" if pd.isna(value) else _quoted(str(value))
        for kind, value in {(type(value), value) for value in values}
    }
    return [known[type(value), value] for value in values]


def _quoted(text: str) -> str:
    """Within quotation marks where it would else be read as more than one cell."""
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def _save(path: Path, figure: Figure) -> list[Path]:
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    drawn = io.BytesIO()
    with style(), saving(paths[1]):
        figure.savefig(drawn, format="png", dpi=DPI)
        figure.savefig(paths[1], metadata={"Date": None})
    # Drawings have few colours: 256 of them are a third of the bytes, in the page as well.
    few = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with saving(paths[0]):
        few.save(paths[0], optimize=True, dpi=(DPI, DPI))
    return paths


def _latex(folder: Path, table: Table) -> Path:
    return _text(folder / f"{table.stem}.tex", to_latex(table))


def _text(path: Path, text: str) -> Path:
    write_atomically(path, text)
    return path
