"""Writes a run's report folder: figures, CSV and LaTeX tables, `report.md` and `index.html`.

Owns: which files there are. Must not know: how numbers are computed or worded.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from harness.errors import saving
from harness.reports.brief import Brief
from harness.reports.figures import comparison as comparison_figures
from harness.reports.figures import searches as search_figures
from harness.reports.figures.fronts import fronts
from harness.reports.figures.save import save
from harness.reports.figures.sweep import draw
from harness.reports.files.csv_file import write_csv
from harness.reports.files.html import Live, comparison_page, document_page, sweep_page
from harness.reports.files.latex import to_latex
from harness.reports.files.templating import template
from harness.reports.numbers.comparison import load_arms
from harness.reports.numbers.contrasts import CHANCES
from harness.reports.numbers.counts import load_counts
from harness.reports.numbers.fronts import load_fronts
from harness.reports.numbers.gamma import Learned, load_learned
from harness.reports.numbers.pairs import cell_pairs
from harness.reports.numbers.replicates import repeated
from harness.reports.numbers.run import load_run
from harness.reports.numbers.searches import load_searches
from harness.reports.numbers.sweep import choose, over_nuisance, search_answers, summarise
from harness.reports.text.brief import arms_brief, counts_brief, searches_brief, sweep_brief
from harness.reports.text.captions import searches_caption, setting
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
from harness.store.store import Store
from harness.store.summaries import COSTS, OnUnusable


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
    costs = run.trials[[*run.fields, "seed", "trial_id", "status", *COSTS]]
    written = [
        write_csv(
            out / "metrics.csv", everything.assign(selected_on=selected_on), exact=run.fields
        ),
        write_csv(out / "trials.csv", metrics.assign(selected_on=selected_on), exact=run.fields),
        write_csv(out / "costs.csv", costs, exact=run.fields),
    ]
    again = repeated(run)
    if again is not None:
        written.append(write_csv(out / "choices_by_seed.csv", again.choices, exact=run.fields))
    for view in run.figures:
        written += save(out / stem(view), draw(run, summary, choice, view))
    if run.searches:
        written.append(write_csv(out / "search.csv", search_answers(run)))
    pairs = cell_pairs(run)
    if pairs is not None:
        written.append(write_csv(out / "pairs.csv", pairs, exact=CHANCES))
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
    learned, spec = load_learned([trial]), Store(trial.parent.parent).spec(trial.name)
    if learned is None or spec is None:
        return []
    return _gamma(trial, learned, f"Learned strengths, {trial.name}", setting(spec, 1))


def _gamma(folder: Path, learned: Learned, title: str, words: str) -> list[Path]:
    table = write_csv(folder / "gamma.csv", learned.final)
    return [table, *save(folder / "gamma", comparison_figures.gamma(learned, title, words))]


def _write_comparison(folder: RunFolder) -> Written:
    arms = load_arms(folder)
    compared = arms.comparison
    out = _made(folder.report)
    trials = folder.store.trials
    learned = load_learned([trials / trial_id for trial_id in compared.arms[0].trials])
    written = [
        write_csv(out / "arms.csv", arms.table),
        write_csv(out / "arms_by_seed.csv", arms.scores),
    ]
    written += save(out / "arms", comparison_figures.arms(arms))
    written += save(out / "pareto", comparison_figures.pareto(arms))
    if learned is not None:
        words = setting(compared.request, len(compared.seeds))
        written += _gamma(out, learned, f"Learned strengths, {compared.title}", words)
    content = comparison_content(arms, learned)
    if learned is not None and content.has_swept:
        written += save(out / "gamma_and_sweep", comparison_figures.gamma_and_sweep(learned, arms))
    written += [_latex(out, table) for table in (content.arms, *content.papers)]
    text = template("comparison.md.jinja").render(content=content)
    written.append(_text(out / "report.md", text))
    brief = arms_brief(command_line(folder), arms)
    page = comparison_page(folder, arms, content, written, brief)
    written.append(_text(out / "index.html", page))
    return Written(written, brief)


def _write_counts(folder: RunFolder) -> Written:
    """The report of a study that trains nothing."""
    counts = load_counts(folder)
    out = _made(folder.report)
    written = [write_csv(out / "counts.csv", counts.cells)]
    if counts.printed is not None:
        written.append(write_csv(out / "printed.csv", counts.printed))
    brief = counts_brief(counts)
    return Written(_document(folder, counts_document(counts), written, brief), brief)


def _write_searches(folder: RunFolder) -> Written:
    compared = load_searches(folder)
    out = _made(folder.report)
    curves, choices, landscape = compared.curves, compared.choices, compared.landscape
    written = [
        write_csv(out / "searches.csv", choices.judged.reset_index()),
        write_csv(out / "choices.csv", choices.final),
        write_csv(out / "seeds.csv", choices.seeds),
        write_csv(out / "contrasts.csv", choices.contrasts, exact=CHANCES),
        write_csv(out / "within_seeds.csv", choices.within, exact=CHANCES),
        write_csv(out / "answers.csv", compared.answers),
        write_csv(out / "curves.csv", curves.lines),
    ]
    if len(curves.restarts):
        written.append(write_csv(out / "restarts.csv", curves.restarts))
    if landscape is not None and landscape.effects and landscape.effects.has_noise:
        written.append(write_csv(out / "interactions.csv", landscape.effects.anova))
    written += save(out / "anytime", search_figures.anytime(compared))
    written += save(out / "choices", search_figures.finals(compared))
    controls, run = None, compared.recorded.comparison.controls
    if run is not None:
        arms = load_arms(folder.beside(run))
        written += save(out / "controls", comparison_figures.arms(arms))
        controls = comparison_content(arms, None)
    document = search_document(compared, controls, searches_caption(compared))
    brief = searches_brief(command_line(folder), compared)
    return Written(_document(folder, document, written, brief), brief)


def _write_fronts(folder: RunFolder, on_unusable: OnUnusable | None) -> Written:
    """The report of a search, or of several, with more than one objective."""
    found = load_fronts(folder, on_unusable)
    out = _made(folder.report)
    written = [
        write_csv(out / "front.csv", found.front),
        write_csv(out / "points.csv", found.points),
        write_csv(out / "volumes.csv", found.volumes.reset_index(names="search")),
    ]
    written += save(out / "front", fronts(found))
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


def _latex(folder: Path, table: Table) -> Path:
    return _text(folder / f"{table.stem}.tex", to_latex(table))


def _text(path: Path, text: str) -> Path:
    write_atomically(path, text)
    return path
