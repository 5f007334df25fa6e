"""What a report's folder holds: tables, LaTeX, and the same bytes twice.

To write the goldens again: `python tests/test_report_files.py`, then read the difference.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.runs import RESULTS, made_run, study

from harness.reports.files.latex import to_latex
from harness.reports.files.write import write_report
from harness.reports.text.model import Table

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def folder(tmp_path):
    return made_run(tmp_path, study(), RESULTS)


def goldens_of(root):
    run = made_run(root, study(), RESULTS)
    write_report(run)
    return {name: (run.report / name).read_text() for name in ("metrics.csv", "report.md")}


@pytest.mark.parametrize("name", ["metrics.csv", "report.md"])
def test_written_files_equal_the_goldens(tmp_path, name):
    assert goldens_of(tmp_path)[name] == (GOLDENS / name).read_text()


def cells_of(latex):
    """Header and rows of a LaTeX table, with its symbols read back."""
    body = latex.split("\\toprule\n")[1].split("\n\\bottomrule")[0].replace("\\midrule\n", "")
    for symbol, text in (("$\\pm$", "±"), ("$\\times$", "×"), ("\\textbackslash{}", "\\")):
        body = body.replace(symbol, text)
    lines = [line.removesuffix(" \\\\").replace("\\%", "%") for line in body.splitlines()]
    return [[cell.strip() for cell in line.split(" & ")] for line in lines]


@pytest.mark.slow
def test_latex_tables_have_the_cells_of_the_markdown_tables(folder):
    names = {path.name for path in write_report(folder)}
    markdown = (folder.report / "report.md").read_text()
    stem = "heatmap_positions_depth"
    wanted = {"chosen", stem, f"{stem}_parameters", f"{stem}_paper", "costs"}
    assert {name.removesuffix(".tex") for name in names if name.endswith(".tex")} == wanted
    tables = [part for part in markdown.split("\n\n") if part.startswith("|")]
    for name, table in zip(
        ("chosen", stem, f"{stem}_parameters", f"{stem}_paper", "costs"), tables, strict=True
    ):
        lines = [line.strip().strip("|").split("|") for line in table.splitlines()]
        cells = [[cell.strip() for cell in line] for line in [lines[0], *lines[2:]]]
        latex = (folder.report / f"{name}.tex").read_text()
        assert cells_of(latex) == cells, name
        assert f"\\label{{tab:{name}}}" in latex and "\\caption{" in latex
        columns = latex.split("\\begin{tabular}{")[1].split("}")[0]
        assert columns == "l" + "r" * (len(cells[0]) - 1)


def test_latex_escapes_what_has_a_meaning_there():
    table = Table(
        stem="a_b",
        caption="50 % of `x_1` & γ",
        corner="p \\ d",
        words=pd.DataFrame({"a_1#": ["6.7 ± 0.1 ×", "{$x^~}"]}, index=["α = 1", "<b>"]),
    )
    latex = to_latex(table)
    assert r"\caption{50 \% of x\_1 \& $\gamma$.}" in latex
    assert r"p \textbackslash{} d & a\_1\# \\" in latex
    assert r"$\alpha$ = 1 & 6.7 $\pm$ 0.1 $\times$ \\" in latex
    odd = r"\textless{}b\textgreater{} & \{\$x\textasciicircum{}\textasciitilde{}\} \\"
    assert odd in latex


@pytest.mark.slow
def test_figures_and_tables_are_the_same_bytes_twice(folder):
    first = {path.name: path.read_bytes() for path in write_report(folder)}
    folder.drawn.unlink()
    second = {path.name: path.read_bytes() for path in write_report(folder)}
    assert first == second
    assert {"heatmap_positions_depth.png", "heatmap_positions_depth.svg"} <= set(first)


if __name__ == "__main__":
    scratch = GOLDENS / "scratch"
    GOLDENS.mkdir(exist_ok=True)
    for name, text in goldens_of(scratch).items():
        (GOLDENS / name).write_text(text)
    shutil.rmtree(scratch)
