"""A run's results as objects for notebooks; `harness.load` is how to get them.

Owns: the small interface. Must not know: how numbers, words or figures are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from harness.errors import UserError, unknown
from harness.reports.figures.sweep import draw
from harness.reports.numbers.comparison import Arms, load_arms
from harness.reports.numbers.run import Run, load_run
from harness.reports.numbers.searches import Searches, load_searches
from harness.reports.numbers.sweep import choose, over_nuisance, summarise
from harness.reports.text.captions import searches_caption
from harness.reports.text.comparison import comparison_content
from harness.reports.text.searches import verdict
from harness.reports.text.sweep import sweep_content
from harness.store.run_folder import RunFolder
from harness.store.runs import known_run
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


class Results(ABC):
    """A sweep or a comparison. Accuracies are in percent; diverged trials score chance."""

    name: str
    trials: pd.DataFrame
    """Tidy: a row per trial, whatever became of it."""

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
        self.name = folder.name
        self._run: Run = load_run(folder)
        self.trials = self._run.trials
        everything = summarise(self._run)
        self._choice = choose(self._run, everything)
        self._summary = over_nuisance(self._run, everything)

    def best(self) -> Best | None:
        choice, metric = self._choice, self._run.study.objective
        if choice is None:
            return None
        names = [c.removeprefix("test_") for c in choice.row.index if c.startswith("test_")]
        means = [name for name in names if not name.endswith("_ci")]
        return Best(
            cell=choice.cell,
            select=float(choice.row[f"select_{metric}"]),
            test={name: float(choice.row[f"test_{name}"]) for name in means},
            half_width={name: float(choice.row[f"test_{name}_ci"]) for name in means},
        )

    def table(self) -> pd.DataFrame:
        return self._summary.copy()

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
        return _html(self.name, lines, table)


class ComparisonResults(Results):
    """A method and its controls; `trials` has a row per arm and seed."""

    def __init__(self, folder: RunFolder) -> None:
        self.name = folder.name
        self._arms: Arms = load_arms(folder)
        self.trials = self._arms.scores

    def best(self) -> Best:
        table, names = self._arms.table, self._arms.names
        row = table.iloc[int(table["select"].to_numpy().argmax())]
        return Best(
            cell={"arm": row["arm"]},
            select=float(row["select"]),
            test={name: float(row[name]) for name in names},
            half_width={name: float(row[f"{name}_ci"]) for name in names},
        )

    def table(self) -> pd.DataFrame:
        return self._arms.table.copy()

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} compares arms and has no axes: see table().")

    def _repr_html_(self) -> str:
        content = comparison_content(self._arms, None)
        return _html(content.title, [content.caption, content.verdict], "")


class SearchesResults(Results):
    """Searches compared; `trials` has a row per answer of every repeat, in their order."""

    def __init__(self, folder: RunFolder) -> None:
        self.name = folder.name
        self._compared: Searches = load_searches(folder)
        self.trials = self._compared.answers

    def best(self) -> Best:
        """The search whose choices at the common cost have the best mean selection score."""
        table, names = self._compared.choices.table, ("test", *self._compared.recorded.groups)
        row = table.iloc[int(table["select"].to_numpy().argmax())]
        return Best(
            cell={"search": str(row.name)},
            select=float(row["select"]),
            test={name: float(row[name]) for name in names},
            half_width={name: float(row[f"{name}_ci"]) for name in names},
        )

    def table(self) -> pd.DataFrame:
        """As described, with a row per search."""
        return self._compared.choices.judged

    def heatmap(self, rows: str | None = None, columns: str | None = None) -> Figure:
        raise UserError(f"{self.name} compares searches and has no axes: see table().")

    def _repr_html_(self) -> str:
        caption = searches_caption(self._compared)
        return _html(self.name, [caption, verdict(self._compared)], "")


def load(run: str | Path, out: str | Path = "runs") -> Results:
    """Results of a run, by its name in the store `out` or by its folder.

    Raises:
        UserError: there is no such run; names the nearest. Or it trained nothing.
    """
    folder = known_run(str(run), Path(out))
    if folder.kind == "counts":
        raise UserError(f"{folder.name} trains nothing: its report holds all there is.")
    if folder.kind == "comparison":
        return ComparisonResults(folder)
    return SearchesResults(folder) if folder.kind == "searches" else SweepResults(folder)


def _html(title: str, lines: list[str], table: str) -> str:
    body = Markup("").join(Markup("<p>{}</p>").format(line) for line in lines)
    return Markup("<p><strong>{}</strong></p>{}{}").format(title, body, Markup(table))
