"""`python -m harness.reports.redraw`: the gallery's figures anew from its tables, nothing trained.

For a change of how figures look. Sweeps' figures and those of arms are drawn; t-SNE, learned paths,
curves of searches and fronts need what only a store has, and stay as they are until `make
reproduce`. Owns: how a run is put together from its committed tables. Must not know: how a figure
looks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.catalogue.studies import load_study, study_names
from harness.datasets.dota import CLASSES
from harness.metrics import OVERALL
from harness.reports.figures import comparison as of_arms
from harness.reports.figures.save import save
from harness.reports.figures.sweep import draw
from harness.reports.numbers.comparison import Arms
from harness.reports.numbers.run import Run, plain
from harness.reports.numbers.sweep import choose, over_nuisance, summarise
from harness.reports.reproduce import GALLERY, entries
from harness.reports.text.model import stem
from harness.store.comparisons import Arm, Comparison
from harness.store.summaries import COSTS
from harness.study.figures import Embedding

UNIT = re.compile(r'in full runs of "([^"]+)"')
SHOWN_ELSEWHERE = {"searches/controls": "metapeft_lora"}
"""A figure in another folder than the tables that it is drawn from, which are those of this one."""


def read_sweep(folder: Path) -> Run | None:
    """The run of a folder of the gallery; None where its rows are not the cells of its study.

    Scores have the four decimals of the tables.
    """
    study_name = re.sub(r"_\d_seeds$", "", folder.name)
    if study_name not in study_names() or not (folder / "trials.csv").is_file():
        return None
    own, costs = (pd.read_csv(folder / f"{name}.csv") for name in ("trials", "costs"))
    seeds = tuple(map(int, own["seed"].drop_duplicates()))
    study = load_study(study_name).derive(seeds=seeds)
    cells = [{field: plain(v) for field, v in cell.items()} for cell in study.cells()]
    numbers = np.tile(np.arange(len(cells)), len(seeds))
    if len(own) != len(numbers):
        return None
    for field in cells[0]:
        values = [cells[number][field] for number in numbers]
        if [_text(value) for value in own[field]] != [_text(value) for value in values]:
            return None
        own[field] = pd.Series(values)
    absent = {name: float("nan") for name in COSTS if name not in costs}
    costs = costs.assign(**absent)[list(COSTS)]
    named = [n.removeprefix("binomial_") for n in map(str, own) if n.startswith("binomial_")]
    return Run(
        study=study,
        store=folder,
        environment={},
        trials=pd.concat([own.drop(columns="selected_on"), costs], axis=1),
        cells=cells,
        on_axes=True,
        searches={},
        cell_numbers=numbers,
        groups=tuple(named),
        chance=100 / len(CLASSES),
    )


def _text(value: object) -> str:
    """A value as a table and as a study has it: `1.0000`, `1.0` and `1` are one."""
    return str(float(value)) if isinstance(value, int | float) else str(value)


def read_arms(folder: Path) -> Arms:
    """A comparison of the gallery, without its trials."""
    table, scores = (pd.read_csv(folder / f"{name}.csv") for name in ("arms", "arms_by_seed"))
    text = (folder / "report.md").read_text()
    unit = UNIT.search(text)
    assert unit is not None, f"{folder}/report.md does not say what a full run is"
    none = ("not kept",)
    names = [name for name in map(str, table) if f"{name}_ci" in table]
    return Arms(
        comparison=Comparison(
            title=text.splitlines()[0].removeprefix("# "),
            request=load_study("depth_vs_position").base,
            seeds=tuple(map(int, scores["seed"].drop_duplicates())),
            objective="class_mean",
            unit=unit[1],
            inner_steps=None,
            arms=tuple(Arm(name=name, trials=none, charged=none) for name in table["arm"]),
            notes=(),
        ),
        environment={},
        groups=tuple(n for n in names if n not in (*OVERALL, "select", "minus_first")),
        scores=scores,
        table=table,
        pairs=pd.DataFrame(),
        time_ratio=float("nan"),
        swept=None,
        records={},
    )


def main(*wanted: str) -> None:
    """Draw all that can be drawn, or that of some folders, and print which files."""
    for name in wanted or entries():
        folder, run = GALLERY / name, read_sweep(GALLERY / name)
        if run is not None:
            everything = summarise(run)
            choice, summary = choose(run, everything), over_nuisance(run, everything)
            for view in run.figures:
                if not isinstance(view, Embedding):
                    _keep(folder / stem(view), draw(run, summary, choice, view))
        elif (folder / "trials.csv").is_file():
            print(f"{name}: left as it is, because its rows are not the cells of its study")
        elif (folder / "arms.csv").is_file():
            arms = read_arms(folder)
            _keep(folder / "arms", of_arms.arms(arms))
            _keep(folder / "pareto", of_arms.pareto(arms))
    for place, name in SHOWN_ELSEWHERE.items():
        if not wanted or name in wanted:
            _keep(GALLERY / place, of_arms.arms(read_arms(GALLERY / name)))


def _keep(path: Path, figure: Figure) -> None:
    """The gallery keeps PNG alone."""
    png, svg = save(path, figure)
    svg.unlink()
    print(png.relative_to(GALLERY))


if __name__ == "__main__":
    main(*sys.argv[1:])
