"""One page per run that needs nothing else: figures, tables, the study, every trial, commands.

Owns: what of a run goes into `index.html`. Must not know: how numbers are worded or computed; the
look is in `templates/page.*`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from harness.metrics import Objective, scale_of
from harness.reports.brief import Brief
from harness.reports.figures.style import DPI
from harness.reports.files.details import compact, read_details
from harness.reports.files.facts import axes_of, base_of, places_of, precision_of
from harness.reports.files.templating import template
from harness.reports.numbers.comparison import Arms, front
from harness.reports.numbers.importance import Importance, importances
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice
from harness.reports.text.comparison import choosing
from harness.reports.text.document import Document
from harness.reports.text.model import ComparisonContent, Section, SweepContent, Table
from harness.reports.text.names import metric_words, split_words
from harness.reports.text.terms import TERMS, WORDS
from harness.reports.text.trials import TrialList, list_arms, list_sweep
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, command_line, read_command
from harness.study.figures import View

NUMBER = re.compile(
    r"([-+]?\d+(\.\d+)?(e[-+]?\d+)?( ± \d+(\.\d+)?| \[[^\]]*\])?( [×%])?|-|never|chosen|one seed)?"
)
"""What a column of numbers may hold."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as a data URI, and what is to be read instead of it."""

    name: str
    source: str
    alt: str
    caption: str
    width: int
    """Of the drawing as it was laid out, in CSS pixels; so is `height`."""
    height: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A headed part of the page."""

    anchor: str
    title: str
    text: str | None = None
    figure: Picture | None = None
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


SCRIPTS = ("state", "tables", "charts", "trial", "map", "lines", "live")
"""`templates/page_<name>.js` in the order of running; they are one script."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A page of a run that goes on."""

    every_s: int
    """How often the page loads itself anew; 0: never, because what wrote it was ended."""
    written: str
    """When, for the reader."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page's template prints."""

    run: str
    brief: Brief
    content: SweepContent | ComparisonContent | Document
    parts: list[Part]
    definition: dict[str, str]
    axes: Table | None
    base: dict[str, str]
    """What every trial has unless an axis says otherwise, field by field."""
    trials: TrialList | None
    """None where the report is of no trials of its own."""
    command: Command | None
    precision: str | None
    """What the device made of `auto`; None where the study names the precision."""
    places: dict[str, str]
    """Flags of the commands -> the word where a path of the reader's machine belongs."""
    files: list[str]
    data: str | None = None
    """JSON for the script: what it draws of the trials; None where there are none."""
    left_out: int = 0
    """Trials that `data` has no details of, for want of room."""
    importances: list[tuple[str, Importance]] = field(default_factory=list)
    """With the words for each axis."""
    live: Live | None = None

    @property
    def next(self) -> str | None:
        """The command that goes on, in the store that the run's own command named."""
        if not self.brief.next:
            return None
        given = shlex.split(self.command.line) if self.command else []
        is_named = "--out" in given and "--out" not in self.brief.next
        place = given[given.index("--out") :][:2] if is_named else []
        return shlex.join(["harness", *self.brief.next, *place])


def sweep_page(
    folder: RunFolder,
    run: Run,
    choice: Choice | None,
    content: SweepContent,
    written: Sequence[Path],
    brief: Brief,
    live: Live | None = None,
) -> str:
    """The page of a sweep; `written` are the files of its report so far.

    A `live` one has no figures, which take longer to draw than all else.
    """
    trials = list_sweep(run, choice, command_line(folder))
    parts = [
        Part(
            anchor=f"view-{number}",
            title=section.view.title,
            figure=None if live else _picture(folder, section.figure, section.alt, section.caption),
            tables=sorted(section.tables, key=lambda table: not _is_first(section, table)),
        )
        for number, section in enumerate(content.sections)
    ]
    study, command = run.study, read_command(folder)
    data, left_out = _data(folder, trials, study.objective, split_words(run), _first_map(run))
    definition = {
        "Seeds": ", ".join(map(str, run.seeds)),
        "Selection rule": _rule(run),
        "Search and budget": command.plan if command else "not recorded",
        "Held fixed": study.fixed or "-",
    }
    varied = {axis.field for axis in study.axes}
    page = Page(
        run=folder.name,
        brief=brief,
        content=content,
        parts=[*parts, Part(anchor="cost", title="Cost", tables=[content.costs])],
        definition=definition,
        axes=axes_of(study),
        base=base_of(study.base, trials.example, varied),
        trials=trials,
        command=command,
        precision=precision_of(study.base, trials.example),
        places=places_of(trials.example),
        files=[path.name for path in written],
        data=data,
        left_out=left_out,
        importances=[(run.label(each.field), each) for each in importances(run)],
        live=live,
    )
    return _rendered(page)


def _rule(run: Run) -> str:
    """How the choice was made, and whether it has seen the test set."""
    metric, split = metric_words(run.study.objective), split_words(run)
    rule = (
        f"The cell with the best {metric} on {split}, averaged over seeds; ties go to the first. "
        "Nuisance axes are chosen by the same rule. "
    )
    return rule + (
        "The test set was seen by every choice."
        if run.selected_on_test
        else "The test set is scored once per trial and enters no choice."
    )


def _first_map(run: Run) -> list[str]:
    """The axes of the study's first map, by their words, which the page's map starts with."""
    views = [view for view in run.figures if isinstance(view, View)]
    return [run.label(name) for view in views[:1] for name in (view.rows, view.columns)]


def _data(
    folder: RunFolder, trials: TrialList, objective: Objective, split: str, view: list[str]
) -> tuple[str, int]:
    """JSON for the script, and how many trials it has no details of."""
    details, scale = read_details(folder.store, trials, objective), scale_of(objective)
    data = {
        "axes": trials.axes,
        "select": trials.select_column,
        "less_is_better": scale.sign < 0,
        "score": f"{split} {scale.words}{' (%)' if scale.unit else ''}",
        "view": view,
        "classes": details.classes,
        "trials": details.trials,
    }
    return compact(data), details.left_out


def comparison_page(
    folder: RunFolder,
    arms: Arms,
    content: ComparisonContent,
    written: Sequence[Path],
    brief: Brief,
) -> str:
    """The page of a comparison; `written` are the files of its report so far."""
    compared, command = arms.comparison, read_command(folder)
    line = None if command is None else command.line
    trials = list_arms(arms, study=folder.name.split("+")[0], line=line)
    split = compared.request.data.chosen_on
    data, left_out = _data(folder, trials, compared.objective, split, [])
    definition = {
        "Seeds": ", ".join(map(str, compared.seeds)),
        "Selection rule": f"Settings {choosing(compared)}",
        "Budget": command.plan if command else "not recorded",
        "Unit of cost": compared.unit,
    }
    page = Page(
        run=folder.name,
        brief=brief,
        content=content,
        parts=_arms_parts(folder, arms, content),
        definition=definition,
        axes=None,
        base=base_of(compared.request, trials.example, set()),
        trials=trials,
        command=command,
        precision=precision_of(compared.request, trials.example),
        places=places_of(trials.example),
        files=[path.name for path in written],
        data=data,
        left_out=left_out,
    )
    return _rendered(page)


def _arms_parts(folder: RunFolder, arms: Arms, content: ComparisonContent) -> list[Part]:
    alt = (
        "Points with intervals: test accuracy of every arm, all classes and by group, a dot for "
        "every seed. Its numbers are in the table below."
    )
    parts = [
        Part(
            anchor="arms",
            title="Arms",
            figure=_picture(folder, "arms", alt, "Dots: seeds. In brackets: cost in full runs."),
            tables=[content.arms, *content.papers],
            notes=content.notes,
        )
    ]
    best = ", ".join(front(arms.table))
    alt = f"Test accuracy of every arm against its cost in full runs. On the front: {best}."
    words = f"On the front, which no arm beats in both: {best}. By the means alone."
    pareto = _picture(folder, "pareto", alt, words)
    parts.append(Part(anchor="pareto", title="Accuracy and cost", figure=pareto))
    if content.learned is not None:
        alt = (
            "Maps of block by position with the learned strength at four moments of the run, the "
            f"paths of all sites, and their ends. {content.learned}"
        )
        learned = _picture(folder, "gamma", alt, "Dotted: the strength at the start.")
        title = "What was learned"
        parts.append(Part(anchor="learned", title=title, text=content.learned, figure=learned))
        if content.has_swept:
            alt = (
                "Two maps: learned strength by position and block, and test accuracy of the sweep. "
                "Their numbers are in gamma.csv and in the sweep's own report."
            )
            beside = _picture(folder, "gamma_and_sweep", alt, "")
            title = "Learned beside swept"
            parts.append(Part(anchor="beside", title=title, figure=beside))
    return parts


def document_page(
    folder: RunFolder,
    content: Document,
    written: Sequence[Path],
    brief: Brief,
    command: Command | None = None,
) -> str:
    """The page of a document; `written` are the files of its report so far, `command` is what made
    it where that is not the run's."""
    study, command = content.study, command or read_command(folder)
    parts = [
        Part(
            anchor=f"chapter-{number}",
            title=chapter.title,
            text=" ".join(chapter.text) or None,
            figure=_picture(folder, chapter.figure, chapter.alt, "") if chapter.figure else None,
            tables=chapter.tables,
            notes=chapter.notes,
        )
        for number, chapter in enumerate(content.chapters)
    ]
    page = Page(
        run=folder.name,
        brief=brief,
        content=content,
        parts=parts,
        definition=content.definition,
        axes=axes_of(study),
        base=base_of(study.base, None, {axis.field for axis in study.axes}),
        trials=None,
        command=command,
        precision=None,
        places={},
        files=[path.name for path in written],
    )
    return _rendered(page)


def _rendered(page: Page) -> str:
    folder = resources.files("harness.reports") / "templates"
    parts = [(folder / f"page_{name}.js").read_text() for name in SCRIPTS]
    script = "\n".join(['"use strict";', *parts])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template("page.html.jinja").render(
        page=page,
        content=page.content,
        is_sweep=isinstance(page.content, SweepContent),
        is_document=isinstance(page.content, Document),
        is_number=_is_number,
        terms=TERMS,
        words=WORDS,
        script=script,
        script_hash=digest,
    )


def _is_first(section: Section, table: Table) -> bool:
    """The paper's numbers stand right after ours."""
    return table.is_paper or table is section.tables[0]


def _picture(folder: RunFolder, name: str, alt: str, caption: str) -> Picture:
    """A figure that has been written; PNG, because it looks the same with every font."""
    data = (folder.report / f"{name}.png").read_bytes()
    pixels = struct.unpack(">II", data[16:24])  # the PNG's header
    width, height = (round(96 * count / DPI) for count in pixels)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return Picture(name=name, source=source, alt=alt, caption=caption, width=width, height=height)


def _is_number(words: Sequence[object]) -> bool:
    """Whether a column, or rows' names, sort as numbers."""
    return all(NUMBER.fullmatch(str(word)) for word in words)
