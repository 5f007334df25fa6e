"""Commands that only look answer without what trains and draws, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.records import tiny_study
from support.runs import made_run

from harness.catalogue.answers import cache_folder, kept
from harness.version import source_hash

HEAVY = {"torch", "timm", "peft", "optuna", "ray", "pandas", "matplotlib", "pyarrow", "scipy"}


def run(*commands, cache, **environment):
    """What commands print one after the other, and which heavy modules they have imported."""
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"for words in {[list(map(str, words)) for words in commands]!r}:\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert not end.code, (words, end.code)\n"
        f"print('imported', *({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.splitlines()[-1].split()[1:])


def test_status_imports_nothing_heavy(tmp_path):
    made_run(tmp_path, tiny_study(), [[(0.4, 0.3)], [(0.6, 0.5)], ["FAILED"], [None]])
    shown, imported = run(("status", "tiny", "--out", tmp_path), cache=tmp_path)
    assert "2 done, 1 failed, 1 waiting of 4" in shown and not imported
    shown, imported = run(("runs", "--out", tmp_path), cache=tmp_path)
    assert "incomplete" in shown and "2/4" in shown and not imported


@pytest.mark.slow
def test_lists_are_made_once_and_then_known(tmp_path):
    lists = [("list", kind) for kind in ("methods", "datasets", "backbones", "studies")]
    first, imported = run(*lists, cache=tmp_path)
    assert "torch" in imported
    again, imported = run(*lists, cache=tmp_path)
    assert again == first and not imported
    for word in ("lora", "synth-rs", "vit_pico", "joint_space"):
        assert word in again


def test_searches_are_listed_without_what_proposes(tmp_path):
    shown, imported = run(("list", "searches"), cache=tmp_path)
    assert "tpe" in shown and not imported


@pytest.fixture
def count(tmp_path, monkeypatch):
    """An answer, and how often it had to be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = []

    def find():
        found.append(1)
        return {"n": len(found)}

    return lambda **of: (kept("test", find, **of), len(found))


def test_an_answer_holds_for_a_machine_and_a_state_of_the_code(count, monkeypatch):
    assert count(of="a") == count(of="a") == ({"n": 1}, 1)
    assert count(of="b") == ({"n": 2}, 2)
    monkeypatch.setattr("harness.catalogue.answers.source_hash", lambda: "edited")
    assert count(of="b") == ({"n": 3}, 3)


@pytest.mark.parametrize(
    "file,is_source",
    [
        ("spec/trial.py", True),
        ("findings/rule.py", True),
        ("reports/files/page.css", True),
        ("comparison/table.csv", True),
        ("reports/findings/arms.csv", False),
        ("reports/archives/searched.csv", False),
        ("reports/gallery/bench/train.csv", False),
    ],
)
def test_results_that_come_in_are_no_change_of_the_code(tmp_path, monkeypatch, file, is_source):
    monkeypatch.setattr("harness.version.__file__", str(tmp_path / "version.py"))
    states = []
    for text in ("before", "after"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        states.append(source_hash.__wrapped__())
    assert (states[0] != states[1]) == is_source


@pytest.mark.parametrize("damaged", ["", "{", "[]", json.dumps({"key": 1})])
def test_a_damaged_answer_is_found_again(count, damaged):
    count()
    (path,) = cache_folder().glob("*")
    path.write_text(damaged)
    assert count() == count() == ({"n": 2}, 2)


def test_where_nothing_can_be_kept_it_is_found_each_time(count):
    cache_folder().parent.mkdir(parents=True)
    cache_folder().write_text("a file lies where the folder would be")
    assert count() == ({"n": 1}, 1) and count() == ({"n": 2}, 2)


def test_the_folder_is_that_of_the_platform_unless_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder().parent == tmp_path / "mine"
