"""`harness.load`: what a notebook gets of a run, and that it leaves the notebook as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from support.fake_trials import Fake, controls, score, written
from support.runs import EVIL, RESULTS, made_run, study, texts
from support.sweeps import made_sweep
from support.tables import compare, small_study

import harness
from harness.errors import UserError
from harness.store.store import Store
from harness.store.table import tabulate
from harness.study.axes import Axis


def test_a_sweep_by_value(tmp_path):
    folder = made_run(tmp_path, study(), RESULTS)
    results = harness.load("made", out=tmp_path)
    assert len(results.trials) == 12 and results.trials["status"].value_counts()["MISSING"] == 3
    best = results.best()
    assert best.cell == {"positions": "mlp1", "depth": "last:2"}
    assert best.select == pytest.approx(71) and best.test["class_mean"] == pytest.approx(56)
    assert best.test["tail"] == pytest.approx(46)
    assert best.half_width["class_mean"] == pytest.approx(12.7062, abs=1e-3)
    table = results.table()
    assert table["test_class_mean"][0] == pytest.approx(61)
    assert table["test_class_mean_ci"][0] == pytest.approx(12.7062, abs=1e-3)
    table["test_class_mean"] = 0.0
    assert results.table()["test_class_mean"][0] == pytest.approx(61)
    assert harness.load(folder).best() == best


@pytest.mark.slow
def test_heatmaps_of_the_study_and_of_any_two_axes(tmp_path):
    made_run(tmp_path, study(views=()), RESULTS)
    before = dict(matplotlib.rcParams)
    results = harness.load("made", out=tmp_path)
    assert results.heatmap().axes[0].get_ylabel() == "position"
    turned = results.heatmap(rows="depth", columns="positions")
    assert turned.axes[0].get_ylabel() == "depth" and "Depth × position" in texts(turned)
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(UserError, match=r"Unknown axis 'alpha'.*depth, positions"):
        results.heatmap(rows="alpha")
    with pytest.raises(UserError, match="name two axes of positions, depth"):
        results.heatmap(rows="depth")
    alone = (Axis(field="depth", values=("last:1", "last:2"), label="depth"),)
    made_run(tmp_path / "b", study(axes=alone, views=()), RESULTS[:2])
    with pytest.raises(UserError, match="name two axes of depth"):
        harness.load("made", out=tmp_path / "b").heatmap()


@pytest.mark.slow
def test_searches_by_value(tmp_path):
    made = small_study(seeds=(0,))
    tabulate([made_sweep(tmp_path, made)], tmp_path / "t.parquet")
    done = compare(tmp_path, tmp_path / "t.parquet", "--search", "random,tpe", "--budget", 2)
    assert done.exit_code == 0, done.output
    results = harness.load("joint_space+searches", out=tmp_path)
    table = results.table()
    assert list(table.index) == ["random", "tpe"] and len(results.trials) >= 4
    best = results.best()
    assert table.loc[best.cell["search"], "select"] == table["select"].max() == best.select
    assert best.test["test"] == table.loc[best.cell["search"], "test"]
    assert "Replayed" in results._repr_html_()
    with pytest.raises(UserError, match="no axes"):
        results.heatmap()


def test_nothing_finished_has_no_best(tmp_path):
    made_run(tmp_path, study(), [[None, None]] * 6)
    results = harness.load("made", out=tmp_path)
    assert results.best() is None and "12 missing" in results._repr_html_()


def test_a_comparison_by_value(tmp_path):
    store = Store(tmp_path)
    folder = written(controls(store, Fake(store, score)), store)
    results = harness.load(folder)
    best = results.best()
    assert best.cell == {"arm": "metapeft, one shot"}
    assert best.test["class_mean"] == pytest.approx(60.5)
    assert best.select == pytest.approx(60.5)
    assert results.table()["arm"].iloc[0] == "metapeft, one shot"
    assert set(results.trials["seed"]) == {0, 1}
    with pytest.raises(UserError, match="compares arms"):
        results.heatmap()
    assert "is better than" in results._repr_html_()


def test_the_short_html_is_short_and_escaped(tmp_path):
    made_run(tmp_path, study(question=EVIL), RESULTS)
    text = harness.load("made", out=tmp_path)._repr_html_()
    assert "<script" not in text and "&lt;script" in text
    assert "position = mlp1, depth = last:2" in text and "56.0 ± 12.7" in text
    assert len(text) < 3000


def test_a_run_that_is_not_there(tmp_path):
    made_run(tmp_path, study(), RESULTS)
    with pytest.raises(UserError, match=r"Unknown run 'maed'\. Did you mean 'made'"):
        harness.load("maed", out=tmp_path)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, harness\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'pydantic', 'reports'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_loading_needs_no_torch(tmp_path):
    made_run(tmp_path, study(), RESULTS)
    code = (
        f"import sys, harness\nharness.load('made', out={str(tmp_path)!r}).heatmap()\n"
        "heavy = {'torch', 'timm', 'optuna', 'ray'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


@pytest.mark.slow
def test_the_notebook_that_ships_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """Its code cells in their order, each run with `exec` in one namespace, as a kernel would.

    There is no kernel in it: Jupyter is none of the requirements.
    """
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    best = names["results"].best()
    printed = capsys.readouterr().out
    assert best.trial_ids[0] in printed and f"{best.select:.1f} %" in printed
    assert (tmp_path / "runs/studies/depth_vs_position+smoke/report/index.html").is_file()


def test_the_notebook_that_ships_holds_no_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
