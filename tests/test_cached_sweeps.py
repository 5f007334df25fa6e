"""Whole sweeps with kept activations and without: the same records, proposals and reports."""

from __future__ import annotations

import json
import re
from typing import ClassVar

import pytest
from support.cli import harness as command
from support.few import FEW
from support.records import TINY, tiny_study

import harness
from harness.console import Silent
from harness.study.axes import Axis

TIMES = {"wall_s", "device_s", "actual_device_s", "peak_memory_mb"}
SAY_TIMES = {"costs.csv", "search.csv"}


class Lines(Silent):
    """Keeps what is said."""

    said: ClassVar[list[str]] = []

    def say(self, line):
        Lines.said.append(line)


def study(epochs=2, base=TINY):
    return tiny_study(
        base=base.with_values({"recipe.epochs": epochs}, source="test"),
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="depth", values=("last:1", "last:3", "last:12"), label="depth"),
        ),
        views=(),
    )


def trials(out):
    """Trial -> its numbers, without times and machine."""
    found = {}
    for path in out.glob("trials/*/record.json"):
        record = json.loads(path.read_text())
        del record["provenance"]
        record["cost"] = {k: v for k, v in record["cost"].items() if k not in TIMES}
        found[path.parent.name] = record, (path.parent / "history.jsonl").read_bytes()
    return found


def tables(out):
    """Name -> what reports say, costs aside."""
    paths = out.glob("studies/*/report/*.csv")
    return {path.name: path.read_bytes() for path in paths if path.name not in SAY_TIMES}


def log(out):
    """What a search asked, heard and learned, without times."""
    (path,) = out.glob("studies/*/search-0.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in each.items() if not k.endswith("device_s")} for each in events]


@pytest.mark.slow
def test_a_grid_is_the_same_with_the_cache_and_without(tmp_path):
    Lines.said.clear()
    for name, cache in (("with", "2G"), ("small", "9M"), ("without", 0)):
        harness.sweep(study(), workers=2, out=tmp_path / name, cache=cache, console=Lines())
    assert len(trials(tmp_path / "without")) == 6
    assert trials(tmp_path / "with") == trials(tmp_path / "without") == trials(tmp_path / "small")
    assert tables(tmp_path / "with") == tables(tmp_path / "without")
    assert not (tmp_path / "without" / "cache").exists()
    cuts = {path.suffix for path in (tmp_path / "with" / "cache").rglob("epoch-*")}
    assert cuts - {".lock"} == {".0", ".9", ".11"}
    said = [line for line in Lines.said if line.startswith("Cache")]
    assert len(said) == 2
    assert re.fullmatch(
        r"Cache: [1-6] of 6 trials began from kept activations; [0-9.]+ of [0-9.]+ s of device "
        r"time saved; \d+ MB in .*with/cache\.",
        said[0],
    )


SEARCHES = {
    "trials": dict(search="random", budget=5),
    "runs": dict(search="random", budget="2.5runs"),
    "pruner": dict(search="random", budget=6, pruner="asha"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("trained_here", "few_images")
@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_proposes_the_same(tmp_path, kind):
    """Also where it was stopped in between: the second command continues the first one's log."""
    asked, made = SEARCHES[kind], study(3, FEW)
    for name, cache in (("with", "2G"), ("without", 0)):
        harness.sweep(made, **asked, workers=1, out=tmp_path / name, cache=cache)
    assert log(tmp_path / "with") == log(tmp_path / "without")
    assert trials(tmp_path / "with") == trials(tmp_path / "without")
    if kind == "pruner":
        harness.sweep(made, **{**asked, "budget": 3}, workers=1, out=tmp_path / "twice")
        harness.sweep(made, **asked, workers=1, out=tmp_path / "twice")
        assert log(tmp_path / "twice") == log(tmp_path / "without")
        assert trials(tmp_path / "twice") == trials(tmp_path / "without")


def test_what_is_no_size_is_one_sentence(tmp_path):
    asked = ("sweep", "--study", "depth_vs_position", "--cache", "much", "--out", tmp_path)
    result = command(*asked)
    assert result.exit_code == 2
    assert result.stderr == "Error: --cache much: write a size such as 500M or 2G, or 0 for none.\n"
