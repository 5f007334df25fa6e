"""One page per run that needs nothing else: figures, tables, the study, every trial, commands.

Owns: what of a run goes into `index.html`. Must not know: how numbers are worded or computed; the
look is in `templates/page.*`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from harness.catalogue.rerun import places
from harness.metrics import SHOWN
from harness.reports.figures.style import DPI
from harness.reports.files.templating import template
from harness.reports.numbers.comparison import Arms, front
from harness.reports.numbers.run import Run
from harness.reports.numbers.sweep import Choice
from harness.reports.text.comparison import choosing
from harness.reports.text.document import Document
from harness.reports.text.model import ComparisonContent, Section, SweepContent, Table
from harness.reports.text.names import metric_words, split_words
from harness.reports.text.trials import TrialList, list_arms, list_sweep
from harness.spec import TrialRequest, TrialSpec
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, read_command
from harness.study.axes import Axis, Range, in_words
from harness.study.study import Study

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


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page's template prints."""

    run: str
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


def sweep_page(
    folder: RunFolder,
    run: Run,
    choice: Choice | None,
    content: SweepContent,
    written: Sequence[Path],
) -> str:
    """The page of a sweep; `written` are the files of its report so far."""
    trials = list_sweep(run, choice)
    parts = [
        Part(
            anchor=f"view-{number}",
            title=section.view.title,
            figure=_picture(folder, section.figure, section.alt, section.caption),
            tables=sorted(section.tables, key=lambda table: not _is_first(section, table)),
        )
        for number, section in enumerate(content.sections)
    ]
    study, command = run.study, read_command(folder)
    split = split_words(run)
    metric = metric_words(study.objective)
    rule = (
        f"The cell with the best {metric} on {split}, averaged over seeds; ties go to the first. "
        "Nuisance axes are chosen by the same rule. "
    )
    rule += (
        "The test set was seen by every choice."
        if run.selected_on_test
        else "The test set is scored once per trial and enters no choice."
    )
    definition = {
        "Seeds": ", ".join(map(str, run.seeds)),
        "Selection rule": rule,
        "Search and budget": command.plan if command else "not recorded",
        "Held fixed": study.fixed or "-",
    }
    varied = {axis.field for axis in study.axes}
    page = Page(
        run=folder.name,
        content=content,
        parts=[*parts, Part(anchor="cost", title="Cost", tables=[content.costs])],
        definition=definition,
        axes=_axes(study),
        base=_base(study.base, trials.example, varied),
        trials=trials,
        command=command,
        precision=_precision(study.base, trials.example),
        places=_places(trials.example),
        files=[path.name for path in written],
    )
    return _rendered(page)


def comparison_page(
    folder: RunFolder, arms: Arms, content: ComparisonContent, written: Sequence[Path]
) -> str:
    """The page of a comparison; `written` are the files of its report so far."""
    compared, command = arms.comparison, read_command(folder)
    trials = list_arms(arms, study=folder.name.split("+")[0])
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
    best = ", ".join(front(arms.table, "runs_per_seed", SHOWN))
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
    definition = {
        "Seeds": ", ".join(map(str, compared.seeds)),
        "Selection rule": f"Settings {choosing(compared)}",
        "Budget": command.plan if command else "not recorded",
        "Unit of cost": compared.unit,
    }
    page = Page(
        run=folder.name,
        content=content,
        parts=parts,
        definition=definition,
        axes=None,
        base=_base(compared.request, trials.example, set()),
        trials=trials,
        command=command,
        precision=_precision(compared.request, trials.example),
        places=_places(trials.example),
        files=[path.name for path in written],
    )
    return _rendered(page)


def document_page(folder: RunFolder, content: Document, written: Sequence[Path]) -> str:
    """The page of a document; `written` are the files of its report so far."""
    study, command = content.study, read_command(folder)
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
        content=content,
        parts=parts,
        definition=content.definition,
        axes=_axes(study),
        base=_base(study.base, None, {axis.field for axis in study.axes}),
        trials=None,
        command=command,
        precision=None,
        places={},
        files=[path.name for path in written],
    )
    return _rendered(page)


def _rendered(page: Page) -> str:
    script = (resources.files("harness.reports") / "templates" / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template("page.html.jinja").render(
        page=page,
        content=page.content,
        is_sweep=isinstance(page.content, SweepContent),
        is_document=isinstance(page.content, Document),
        is_number=_is_number,
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


def _axes(study: Study) -> Table:
    rows: dict[str, dict[str, str]] = {}
    for axis in study.axes:
        values = ", ".join(in_words(value) for value in axis.values)
        rows[axis.field] = {"meaning": axis.label, "role": axis.role, "values": values}
    for part in study.space:
        if isinstance(part, Axis):
            values, label = ", ".join(in_words(value) for value in part.values), part.label
        elif isinstance(part, Range):
            scale = ", on a log scale" if part.log else ""
            values, label = f"{part.low:g} to {part.high:g}{scale}", part.label
        else:
            label = f"sites on or off, by {part.by}"
            values = (
                f"{', '.join(part.positions)}; alpha {part.alpha_low:g} to {part.alpha_high:g}, on "
                "a log scale"
            )
            if part.ranks:
                values += f"; rank {', '.join(map(str, part.ranks))}"
        name = "placement" if not isinstance(part, Axis | Range) else part.field
        rows[f"{name} (searches)"] = {"meaning": label, "role": "searched", "values": values}
    return Table(
        stem="axes", caption="Axes", corner="field", words=pd.DataFrame.from_dict(rows, "index")
    )


def _base(request: TrialRequest, example: TrialSpec | None, varied: set[str]) -> dict[str, str]:
    """Every field of the base, with what a trial's spec made of defaults."""
    fields = request.model_dump(mode="json", exclude={"seed", "changes"})
    if example is not None:
        spec = example.model_dump(mode="json", include={"options", "backbone", "data", "recipe"})
        if example.method != request.method:
            del spec["options"]
        fields |= spec
    return {
        name: "varied" if name in varied else in_words(value)
        for name, value in _leaves(fields)
        if value not in (None, {}) or name in varied
    }


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict) and value and name != "placement":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _places(example: TrialSpec | None) -> dict[str, str]:
    return {} if example is None else places(example)


def _precision(request: TrialRequest, example: TrialSpec | None) -> str | None:
    if request.recipe.precision != "auto" or example is None:
        return None
    return example.recipe.precision
