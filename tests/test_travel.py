"""A sweep that is killed half-way, taken elsewhere and continued there; trials trained again."""

from __future__ import annotations

import json
import os
import signal

import pandas as pd
import pytest
from support.archives import archive, bring, change_record, made_run, rewritten
from support.cli import harness
from support.processes import Forked, wait_for

from harness.store.store import Store

STUDY = """
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base

def study():
    values = {"recipe.epochs": 2, "recipe.precision": "fp32", "data.options.test_per_class": 8}
    values["data.val_fraction"] = 0.8
    return base().derive(
        name="mine",
        base=base().base.with_values(values, source="mine"),
        axes=(
            Axis(field="depth", values=("last:1", "last:2"), label="depth"),
            Axis(field="alpha", values=(1.0, 4.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="depth", columns="alpha", title="t"),),
        smoke={},
        reference=None,
        seeds=(0,),
    )
"""
SEARCHES = {
    "mine": [],
    "mine+tpe+median": ["--search", "tpe", "--pruner", "median", "--budget", "4"],
}
COSTS = ["device_s", "spent_device_s", "wall_s", "peak_memory_mb", "device"]
"""Columns of a run's tables that say how long it took, and where."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "mine.py"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, study, all_trained_here):
    """A store in which the grid has run undisturbed."""
    root = tmp_path_factory.mktemp("trained")
    assert sweep(study, root).exit_code == 0
    return root


def sweep(study, root, *more):
    return harness("sweep", "--study", study, "--out", root, *more)


def tables(root, run):
    """The tables of a run's report without what it cost, and its trials' scores."""
    found = {}
    for path in sorted((root / "studies" / run / "report").glob("*.csv")):
        if path.name != "costs.csv":
            table = pd.read_csv(path)
            found[path.name] = table.drop(columns=[c for c in COSTS if c in table]).to_csv()
    for path in sorted((root / "trials").iterdir()):
        record = json.loads((path / "record.json").read_text())
        found[path.name] = [record[key] for key in ("spec", "status", "select", "test")]
        found[path.name] += (path / "history.jsonl").read_text().splitlines()
    return found


def log_of(root, run):
    """What a search asked and was told, without device seconds."""
    path = root / "studies" / run / "search-0.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in COSTS} for row in rows]


def ended(root):
    return list(root.glob("trials/*/record.json"))


def killed_half_way(study, root, *more):
    """A sweep that got no further than its second trial: it and its worker are killed."""
    driver = Forked(study, root, "--workers", 1, *more)
    (ended, *_) = wait_for(
        lambda: two if len(two := [*root.glob("trials/*/record.json")]) > 1 else None, driver
    )
    for pid in (driver.pid, json.loads(ended.with_name("claim.json").read_text())["pid"]):
        os.kill(pid, signal.SIGKILL)
    assert driver.end().returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("run", SEARCHES)
def test_a_killed_sweep_goes_on_elsewhere_as_if_nothing_had_been(tmp_path, study, trained, run):
    more, whole = SEARCHES[run], trained
    if more:
        whole = tmp_path / "whole"
        assert sweep(study, whole, *more, "--workers", 1).exit_code == 0
    killed_half_way(study, tmp_path / "a", *more)
    done = len(ended(tmp_path / "a"))
    file = archive(tmp_path / "a", tmp_path / "half.parquet", run)
    there = tmp_path / "b"
    assert bring(there, file).exit_code == 0
    assert len(ended(there)) == done < 4
    assert not list(there.rglob("claim.json")) and not list(there.rglob("driver.json"))
    assert sweep(study, there, *more, "--workers", 1).exit_code == 0
    assert tables(there, run) == tables(whole, run)
    assert log_of(there, run) == log_of(whole, run)
    if more:
        return
    back = archive(there, tmp_path / "back.parquet", run)
    assert bring(tmp_path / "a", back).exit_code == 0  # and home again
    assert harness("report", run, "--out", tmp_path / "a").exit_code == 0
    assert tables(tmp_path / "a", run).items() >= tables(whole, run).items()


@pytest.mark.slow
def test_verify_agrees_and_finds_the_one_score_that_was_changed(tmp_path, trained):
    file = archive(trained, tmp_path / "run.parquet", "mine")
    before = sorted(trained.rglob("*"))
    result = harness("verify", "mine", "--sample", 2, "--workers", 2, "--out", trained)
    assert result.exit_code == 0, result.output
    assert "2 of 2 trials agree, of 4 finished ones" in result.output
    assert "to the last bit, on the same type of CPU and versions" in result.output
    assert result.output.count("same bits") == result.output.count("agrees") == 2
    assert sorted(trained.rglob("*")) == before
    nudge = {"record.test.class_mean": lambda value: value + 1e-12}
    result = harness("verify", rewritten(file, tmp_path / "f", columns=nudge), "--sample", 1)
    assert result.exit_code == 1 and "0 of 1 trials agree" in result.output
    assert "disagrees: test class_mean differs by 1e-12" in result.output

    elsewhere = {"record.provenance.device": lambda value: "another CPU"}
    moved = rewritten(file, tmp_path / "moved", columns={**nudge, **elsewhere})
    result = harness("verify", moved, "--sample", 1, "--out", tmp_path)
    assert result.exit_code == 0 and "within 2 points" in result.output
    assert "0 came out with the same bits, and accuracies differ by 1e-10 points" in result.output
    raised = {"record.test.class_mean": lambda value: value + 0.04}
    moved = rewritten(file, tmp_path / "raised", columns={**raised, **elsewhere})
    result = harness("verify", moved, "--sample", 1, "--out", tmp_path)
    assert result.exit_code == 1 and "test class_mean differs by 0.04" in result.output
    (trial_id,) = {p.name for p in (trained / "trials").iterdir() if p.name in result.output}
    change_record(Store(trained), trial_id, lambda record: record["test"].update(loss=0.5))
    result = harness("verify", "mine", "--sample", 4, "--workers", 2, "--out", trained)
    assert result.exit_code == 1 and "3 of 4 trials agree" in result.output
    assert f"Trial {trial_id} disagrees: test loss differs by" in result.output


def test_what_cannot_be_verified_is_refused_in_one_sentence(tmp_path, monkeypatch):
    made_run(tmp_path, seeds=(0,))
    both = tmp_path / "studies" / "joint_space.parquet"
    (tmp_path / "studies" / "joint_space").rename(both)
    monkeypatch.chdir(tmp_path)
    archive(tmp_path, tmp_path / "joint_space.parquet", both.name)
    for source, word in (
        ("nothing", "Unknown run 'nothing'"),
        ("no.parquet", "does not exist"),
        ("joint_space.parquet", "is a file, and a run"),
    ):
        result = harness("verify", source, "--out", tmp_path)
        assert result.exit_code == 2 and word in result.stderr
        assert result.stderr.strip().count("\n") == 0
