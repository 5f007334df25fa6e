"""Results as objects for notebooks; `harness.load` and the other calls of `harness` give them.

Owns: the small interface. Must not know: how numbers, words or figures are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from harness.errors import UserError, unknown
from harness.metrics import Objective, scale_of
from harness.reports.brief import Brief
from harness.reports.figures import comparison as comparison_figures
from harness.reports.figures import searches as search_figures
from harness.reports.figures.sweep import draw
from harness.reports.files.write import write_report
from harness.reports.numbers.comparison import Arms, load_arms
from harness.reports.numbers.counts import load_counts
from harness.reports.numbers.gamma import Learned, load_learned
from harness.reports.numbers.incumbents import with_incumbent
from harness.reports.numbers.run import Run, load_run
from harness.reports.numbers.searches import Searches, load_searches
from harness.reports.numbers.sweep import choose, over_nuisance, summarise
from harness.reports.text.brief import arms_brief, counts_brief, searches_brief, sweep_brief
from harness.reports.text.captions import searches_caption, setting
from harness.reports.text.comparison import comparison_content
from harness.reports.text.model import stem
from harness.reports.text.search_answer import verdict
from harness.reports.text.sweep import sweep_content
from harness.store.run_folder import Kind, RunFolder
from harness.store.runs import command_line
from harness.study.figures import View


@dataclass(frozen=True, kw_only=True)
class Best:
    """What was chosen by the selection score, and its test accuracies in percent."""

    cell: dict[str, Any]
    """Field -> value; of a comparison, the arm."""
    select: float
    """Selection score that it was chosen by, percent, mean over seeds."""
    test: dict[str, float]
    """Average or group -> test accuracy, percent, mean over seeds."""
    half_width: dict[str, float]
    """Of the 95 % Student-t intervals of `test`; NaN with one seed."""
    trial_ids: tuple[str, ...]
    """Of its trials, in the order of their seeds; of searches, of the trials that they chose."""
    chosen_by: str
    """The score that `select` is, in words."""


class Results(ABC):
    """What was run, as it stands in the store. Accuracies are in percent; diverged trials score
    chance."""

    name: str
    trials: pd.DataFrame
    """Tidy: a row per trial, whatever became of it."""
    folder: RunFolder | None = None
    """The run's folder; None of trials that are no run."""

    @property
    def report(self) -> Path:
        """The folder of the report, with `index.html` and `report.md`.

        Raises:
            UserError: these trials are no run, or the report has not been written.
        """
        folder = self._run_folder().report
        if not folder.is_dir():
            raise UserError(f"{self.name} has no report yet: write it with save_report().")
        return folder

    def save_report(self) -> list[Path]:
        """Write the report anew from the store, and return the files written.

        Raises:
            UserError: these trials are no run.
            NotSavedError: a file cannot be written.
        """
        return write_report(self._run_folder())

    def _run_folder(self) -> RunFolder:
        if self.folder is None:
            raise UserError(f"{self.name} is no run of its own, so it has no report.")
        return self.folder

    @property
    @abstractmethod
    def brief(self) -> Brief:
        """The answer in a few lines, as the commands end with; `print` of the results shows it."""

    def __str__(self) -> str:
        folder = self._run_folder()
        page = folder.report / "index.html"
        return self.brief.text(folder.store.root, page if page.is_file() else None)

    @property
    @abstractmethod
    def figures(self) -> tuple[str, ...]:
        """Names of the figures, as the report's files are called."""

    def figure(self, name: str | None = None) -> Figure:
        """A figure of the report, drawn anew; the first one unless another is named.

        Raises:
            UserError: there is none of that name, or none at all.
        """
        if not self.figures:
            raise UserError(f"{self.name} has no figures: see table().")
        if name is not None and name not in self.figures:
            raise UserError(f"{self.name}: {unknown('figure', name, self.figures)}")
        return self._draw(name or self.figures[0])

    @abstractmethod
    def _draw(self, name: str) -> Figure:
        """A figure by its name, which is one of `figures`."""

    @abstractmethod
    def best(self) -> Best | None:
        """The choice on the selection split with its test scores; None before any has both."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Means over seeds with 95 % half-widths (`_ci`): a row per cell, or per arm."""

    @abstractmethod
    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        """Test accuracy over two axes; the study's own two unless others are named.

        Raises:
            UserError: there are no such axes.
        """

    @abstractmethod
    def _repr_html_(self) -> str:
        """A few lines for a notebook."""


class SweepResults(Results):
    """A sweep or search over a study's space."""

    def __init__(self, folder: RunFolder) -> None:
        self.name, self.folder = folder.name, folder
        self._run: Run = load_run(folder)
        self.trials = self._run.trials
        everything = summarise(self._run)
        self._choice = choose(self._run, everything)
        self._summary = over_nuisance(self._run, everything)

    def best(self) -> Best | None:
        choice, objective = self._choice, self._run.study.objective
        if choice is None:
            return None
        names = [c.removeprefix("test_") for c in choice.row.index if c.startswith("test_")]
        means = [name for name in names if not name.endswith("_ci")]
        own = self._run.trials[self._run.cell_numbers == choice.row.name].sort_values("seed")
        return Best(
            trial_ids=tuple(own["trial_id"]),
            chosen_by=score_words(objective, self._run.study.base.data.chosen_on),
            cell=choice.cell,
            select=float(choice.row[self._run.select]),
            test={name: float(choice.row[f"test_{name}"]) for name in means},
            half_width={name: float(choice.row[f"test_{name}_ci"]) for name in means},
        )

    @property
    def brief(self) -> Brief:
        return sweep_brief(self.name, command_line(self._run_folder()), self._run, self._choice)

    def table(self) -> pd.DataFrame:
        return self._summary.copy()

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(stem(view) for view in self._run.figures)

    def _draw(self, name: str) -> Figure:
        view = next(view for view in self._run.figures if stem(view) == name)
        return draw(self._run, self._summary, self._choice, view)

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        run = self._run
        if not run.on_axes:
            raise UserError(f"{self.name} is a search over a space of its own: it has no grid.")
        scientific = [axis.field for axis in run.study.axes if axis.role == "scientific"]
        shown = [view for view in run.study.views if isinstance(view, View)]
        own = (shown[0].rows, shown[0].columns) if shown else tuple(scientific[:2])
        chosen = [rows or own[0], columns or own[-1]]
        for name in chosen:
            if name not in scientific:
                raise UserError(f"{self.name}: {unknown('axis', name, scientific)}")
        if chosen[0] == chosen[1]:
            raise UserError(f"{self.name}: name two axes of {', '.join(scientific)}.")
        labels = [run.axis(name).label for name in chosen]
        view = View(
            kind="heatmap", rows=chosen[0], columns=chosen[1], title=" × ".join(labels).capitalize()
        )
        return draw(run, self._summary, self._choice, view)

    def _repr_html_(self) -> str:
        content = sweep_content(self._run, self._summary, self._choice)
        lines = [content.question, content.counts]
        lines += [content.warning] if content.warning else []
        table = ""
        if content.answer is not None:
            lines.append(f"{content.answer.rule}: {content.answer.cell}.")
            table = content.answer.scores.words.to_html()
        return html_of(self.name, lines, table)


class ComparisonResults(Results):
    """A method and its controls; `trials` has a row per arm and seed."""

    def __init__(self, folder: RunFolder) -> None:
        self.name, self.folder = folder.name, folder
        self._arms: Arms = load_arms(folder)
        self.trials = self._arms.scores

    def best(self) -> Best:
        table, names = self._arms.table, self._arms.names
        best, compared = int(table["select"].to_numpy().argmax()), self._arms.comparison
        row = table.iloc[best]
        return Best(
            trial_ids=compared.arms[best].trials,
            chosen_by=score_words(compared.objective, compared.request.data.chosen_on),
            cell={"arm": row["arm"]},
            select=float(row["select"]),
            test={name: float(row[name]) for name in names},
            half_width={name: float(row[f"{name}_ci"]) for name in names},
        )

    @property
    def brief(self) -> Brief:
        return arms_brief(command_line(self._run_folder()), self._arms)

    def table(self) -> pd.DataFrame:
        return self._arms.table.copy()

    @property
    def figures(self) -> tuple[str, ...]:
        return ("arms", "pareto", *(() if self._learned() is None else ("gamma",)))

    def _draw(self, name: str) -> Figure:
        if name == "gamma":
            learned = self._learned()
            assert learned is not None
            compared = self._arms.comparison
            words = setting(compared.request, len(compared.seeds))
            return comparison_figures.gamma(learned, f"Learned strengths, {compared.title}", words)
        return (comparison_figures.arms if name == "arms" else comparison_figures.pareto)(
            self._arms
        )

    def _learned(self) -> Learned | None:
        trials = self._run_folder().store.trials
        return load_learned([trials / each for each in self._arms.comparison.arms[0].trials])

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} compares arms and has no axes: see table().")

    def _repr_html_(self) -> str:
        content = comparison_content(self._arms, None)
        return html_of(content.title, [content.caption, content.verdict], "")


class SearchesResults(Results):
    """Searches compared; `trials` has a row per answer of every repeat, in their order."""

    def __init__(self, folder: RunFolder) -> None:
        self.name, self.folder = folder.name, folder
        self._compared: Searches = load_searches(folder)
        self.trials = self._compared.answers

    def best(self) -> Best | None:
        """The search whose choices within the budget have the best mean selection score."""
        table, names = self._compared.choices.table, ("test", *self._compared.recorded.groups)
        table = table[table["select"].notna()]
        if table.empty:
            return None
        row = table.iloc[int(table["select"].to_numpy().argmax())]
        study, told = self._compared.recorded.study, self._compared.answers
        own = with_incumbent(told[(told["search"] == row.name) & told["within"]])
        return Best(
            trial_ids=tuple(own.groupby("repeat")["incumbent"].last()),
            chosen_by=score_words(study.objective, study.base.data.chosen_on),
            cell={"search": str(row.name)},
            select=float(row["select"]),
            test={name: float(row[name]) for name in names},
            half_width={name: float(row[f"{name}_ci"]) for name in names},
        )

    @property
    def brief(self) -> Brief:
        return searches_brief(command_line(self._run_folder()), self._compared)

    def table(self) -> pd.DataFrame:
        """As described, with a row per search."""
        return self._compared.choices.judged

    @property
    def figures(self) -> tuple[str, ...]:
        return ("anytime", "choices")

    def _draw(self, name: str) -> Figure:
        figure = search_figures.anytime if name == "anytime" else search_figures.finals
        return figure(self._compared)

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} compares searches and has no axes: see table().")

    def _repr_html_(self) -> str:
        caption = searches_caption(self._compared)
        return html_of(self.name, [caption, verdict(self._compared)], "")


class CountsResults(Results):
    """A study that trains nothing; `trials` has a row per cell with its parameters."""

    def __init__(self, folder: RunFolder) -> None:
        self.name, self.folder = folder.name, folder
        self._counts = load_counts(folder)
        self.trials = self._counts.cells

    def best(self) -> None:
        """Nothing is scored, so nothing is best."""

    @property
    def brief(self) -> Brief:
        return counts_brief(self._counts)

    def table(self) -> pd.DataFrame:
        """The cells, as in `trials`."""
        return self.trials.copy()

    @property
    def figures(self) -> tuple[str, ...]:
        return ()

    def _draw(self, name: str) -> Figure:
        raise NotImplementedError  # there are no names

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} trains nothing and has no accuracies: see table().")

    def _repr_html_(self) -> str:
        return html_of(self.name, [self._counts.study.question], self.trials.to_html(index=False))


def results_of(folder: RunFolder) -> Results:
    """The results of a run, by what was run.

    Raises:
        UserError: the folder holds no run, or a damaged one.
    """
    kinds: dict[Kind, Callable[[RunFolder], Results]] = {
        "sweep": SweepResults,
        "comparison": ComparisonResults,
        "searches": SearchesResults,
        "counts": CountsResults,
    }
    return kinds[folder.kind](folder)


def score_words(objective: Objective, split: str) -> str:
    """What a mean score is, in words; a loss is negated, so that it is better when higher."""
    scale = scale_of(objective)
    return f"mean {'negated ' if scale.sign < 0 else ''}{scale.words} on {split}"


def html_of(title: str, lines: list[str], table: str) -> str:
    """A few escaped lines, and a table that is HTML already."""
    body = Markup("").join(Markup("<p>{}</p>").format(line) for line in lines)
    return Markup("<p><strong>{}</strong></p>{}{}").format(title, body, Markup(table))  # noqa: S704 - pandas escaped it
