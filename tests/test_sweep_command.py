"""Sweeps and training as a person types them: to the report, killed, stopped, again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from functools import partial

import pytest
from support.cli import harness
from support.few import SET
from support.here import Here, out_of_luck
from support.processes import Forked, one_running, wait_for

from harness.catalogue.studies import load_study, study_names

pytestmark = pytest.mark.usefixtures("all_trained_here", "few_images")

FEW = ["--set", "data.val_fraction=0.8", "--set", "data.options.test_per_class=4"]
"""One in five of the training images trains. Workers do not know `few-rs`."""


def smoke(out, *more, few=SET):
    words = ["--study", "depth_vs_position", "--smoke", "--out", out]
    return harness("sweep", *words, *few, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, all_trained_here, few_images):
    """The store of a finished small sweep."""
    out = tmp_path_factory.mktemp("whole")
    assert smoke(out).exit_code == 0
    return out


@pytest.fixture
def done(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "done")


@pytest.mark.slow
def test_a_small_sweep_from_plan_to_report_and_again(tmp_path):
    dry = smoke(tmp_path, "--dry-run")
    assert dry.exit_code == 0 and "0 done, 0 running" in dry.output and "4 to run" in dry.output
    assert "Estimated cost" in dry.output
    assert not (tmp_path / "studies").exists()

    first = smoke(tmp_path)
    assert first.exit_code == 0, first.output
    (run,) = (tmp_path / "studies").iterdir()
    names = {path.name for path in (run / "report").iterdir()}
    assert {"metrics.csv", "trials.csv", "costs.csv", "report.md"} <= names
    assert {path.split(".")[-1] for path in names} >= {"png", "svg"}
    table = (run / "report" / "metrics.csv").read_bytes()
    trials = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "trials").iterdir()}

    again = smoke(tmp_path)
    assert again.exit_code == 0 and "4 done, 0 running, 0 failed" in again.output
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "trials").iterdir()} == trials
    (run / "report" / "metrics.csv").unlink()
    assert harness("report", run.name, "--out", tmp_path).exit_code == 0
    assert (run / "report" / "metrics.csv").read_bytes() == table


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    """For all studies: many have trials in common."""
    return tmp_path_factory.mktemp("runs")


DRAWN = [name for name in study_names() if load_study(name).base.data.name == "synth-rs"]
"""Studies that need no files of the user's."""


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_every_study_runs_at_smoke_scale(one_store, name):
    study = load_study(name)
    few = SET
    if "dev_per_class" in study.base.data.options:  # all images train
        few = [*FEW[2:], "--set", "recipe.batch_size=256"]
    options = ["--study", name, "--smoke", "--out", one_store, *few]
    result = harness("sweep", *options)
    assert result.exit_code == 0, result.output
    (run,) = (one_store / "studies").glob(f"{name}+*")
    text = (run / "report" / "report.md").read_text()
    if study.searches:
        assert "| metapeft " in text and "| tpe+hyperband " in text
        assert harness("status", run.name, "--out", one_store).exit_code == 0
        return
    if study.trains:
        assert " 0 diverged, 0 failed, 0 missing" in text and "Chosen by the best" in text
    assert len(list((run / "report").glob("*.png"))) == len(study.views)


@pytest.mark.slow
def test_train_prints_groups_and_reuses_the_sweeps_trials(tmp_path):
    args = ["train", "--method", "lora", "--sites", "mlp1", "--depth", "last:1", "--out", tmp_path]
    args += ["--set", "recipe.epochs=1", *SET]
    first = harness(*args)
    assert first.exit_code == 0, first.output
    assert all(word in first.output for word in ["head", "medium", "tail", "validation", "test"])
    again = harness(*args)
    assert again.stdout == first.stdout
    (trial,) = (tmp_path / "trials").iterdir()
    assert trial.name in first.output
    assert "\nTrained    lora at 11.mlp1, seed 0\n" in first.stdout
    following = f"Next       harness export {trial.name} --weights best --out {tmp_path}\n"
    assert first.stdout.endswith(following)


@pytest.mark.slow
def test_selecting_on_test_is_said_everywhere(tmp_path):
    result = smoke(tmp_path, "--select-on", "test")
    assert "SELECTED ON TEST" in result.output
    (run,) = (tmp_path / "studies").iterdir()
    assert "select_on=test" in run.name
    assert "SELECTED ON TEST" in (run / "report" / "report.md").read_text()


@pytest.mark.slow
def test_a_search_spends_its_budget_once_and_shares_the_store(done):
    trials = {path.name for path in (done / "trials").iterdir()}
    args = ["--search", "tpe", "--budget", 3, "--repeats", 2]
    first = smoke(done, *args)
    assert first.exit_code == 0, first.output
    assert "tpe over 4 configurations, budget 3 trials, 2 times" in first.output
    assert {path.name for path in (done / "trials").iterdir()} == trials  # all were known
    (folder,) = (done / "studies").glob("*+tpe")
    logs = {path.name: path.read_bytes() for path in folder.glob("search-*.jsonl")}
    assert set(logs) == {"search-0.jsonl", "search-1.jsonl"}
    table = (folder / "report" / "search.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 3 and table[0].startswith("repeat,number,trial_id")
    again = smoke(done, *args)
    assert again.exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.glob("search-*.jsonl")} == logs
    more = smoke(done, "--search", "tpe", "--budget", 4, "--repeats", 1)
    assert "4 trials" in more.output and more.exit_code == 0


@pytest.mark.slow
def test_a_search_on_a_space_of_its_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from harness.study import Range, Switches\n"
        "from harness.studies.depth_vs_position import study as base\n"
        "def study():\n"
        "    return base().derive(name='mine', space=(\n"
        "        Switches(positions=('q', 'mlp1'), by='position'),\n"
        "        Range(field='recipe.lr', low=0.01, high=0.5, log=True, label='lr')))\n"
    )
    result = harness(
        *("sweep", "--study", path, "--search", "random", "--budget", 2, "--out", tmp_path),
        *("--set", "recipe.epochs=1", *SET),
    )
    assert result.exit_code == 0, result.output
    assert "infinitely many configurations" in result.output
    (run,) = (tmp_path / "studies").iterdir()
    assert "Chosen by the best" in (run / "report" / "report.md").read_text()
    assert len((run / "report" / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_failed_trials_are_counted_exit_with_1_and_run_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("harness.driver.setup.LocalEngine", partial(Here, run=out_of_luck))
        result = smoke(tmp_path)
    assert result.exit_code == 1
    assert "4 trials failed" in result.stderr and "out of luck" in result.stderr
    again = smoke(tmp_path)
    assert again.exit_code == 0 and "4 failed (will be tried again), 0 to run" in again.output


def test_a_store_that_cannot_be_written_exits_with_3(tmp_path):
    (tmp_path / "trials").write_text("a file where the folder should be")
    result = smoke(tmp_path)
    assert result.exit_code == 3
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output


def finished(out):
    return {path.parent.name for path in out.glob("trials/*/record.json")}


LONGER = ["--set", "recipe.epochs=4"]
"""So that a trial is running when another is seen to have ended."""


def begun(out):
    """A sweep in a process of its own, with one worker, of which a trial has ended."""
    process = Forked("depth_vs_position", out, "--smoke", *FEW, *LONGER, "--workers", 1)
    wait_for(lambda: finished(out) or None, process)
    return process


@pytest.mark.slow
def test_a_sweep_killed_with_its_worker_continues_to_the_same_table(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = begun(broken)
    worker = wait_for(lambda: one_running(broken), process)
    for pid in (worker, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.end()
    before = {path: path.read_bytes() for path in broken.glob("trials/*/record.json")}
    assert 0 < len(before) < 4
    for out in (whole, broken):
        assert smoke(out, *LONGER, few=FEW).exit_code == 0
    assert all(path.read_bytes() == text for path, text in before.items())
    tables = [
        next(out.glob("studies/*/report/metrics.csv")).read_bytes() for out in (whole, broken)
    ]
    assert tables[0] == tables[1] and len(finished(broken)) == 4


@pytest.mark.slow
def test_a_grid_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path):
    assert smoke(tmp_path, "--budget", 1).exit_code == 0
    assert len(finished(tmp_path)) == 1
    assert smoke(tmp_path, "--budget", "3epochs").exit_code == 0
    assert len(finished(tmp_path)) == 3


@pytest.mark.slow
def test_a_method_that_learns_strengths_is_a_search(tmp_path):
    search = ["--search", "metapeft", "--budget", 2]
    result = harness("sweep", "--study", "joint_space", "--smoke", "--out", tmp_path, *SET, *search)
    assert result.exit_code == 0, result.output
    records = [json.loads(path.read_text()) for path in tmp_path.glob("trials/*/record.json")]
    assert sorted(record["spec"]["seed"] for record in records) == [0, 1]
    assert all(len(record["learned"]) == 72 for record in records)
    (run,) = (tmp_path / "studies").glob("joint_space+*+metapeft")
    assert len((run / "report" / "search.csv").read_text().splitlines()) == 3
    report = (run / "report" / "report.md").read_text()
    assert "Searches: 1; 2 proposals, 0 of them repeats." in report


@pytest.mark.slow
@pytest.mark.parametrize("keep,kept", [("none", 0), ("best", 1), ("all", 4)])
def test_tensors_are_kept_as_asked(tmp_path, keep, kept):
    assert smoke(tmp_path, "--keep", keep).exit_code == 0
    found = [path.parent.name for path in tmp_path.glob("trials/*/weights.safetensors")]
    assert len(found) == kept
    if keep == "best":
        table = next(tmp_path.glob("studies/*/report/trials.csv")).read_text().splitlines()
        header = table[0].split(",")
        rows = [dict(zip(header, line.split(","), strict=True)) for line in table[1:]]
        best = max(rows, key=lambda row: float(row["select_class_mean"]))
        assert found == [best["trial_id"]]


@pytest.mark.slow
def test_ctrl_c_finishes_the_running_trial(tmp_path):
    process = begun(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    assert process.end().returncode == 130
    assert "The same command continues from here" in process.errors
    claims = {path.parent.name for path in tmp_path.glob("trials/*/claim.json")}
    assert claims == finished(tmp_path) and len(claims) < 4
