"""A run's folder: its store and the names of its files; a trial's state from one read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from support.cli import harness
from support.records import TINY, make_record, tiny_study
from support.runs import made_run, scored

from harness.errors import UserError
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.liveness import driving
from harness.store.run_folder import RunFolder
from harness.store.runs import find_run, known_run
from harness.store.store import Store

RESULTS = [[(0.4, 0.3)], [(0.6, 0.5)], ["FAILED"], [None]]


@pytest.mark.parametrize(
    "start, path",
    [
        (".", "out/studies/tiny"),
        ("out", "studies/tiny"),
        ("out/studies", "tiny"),
        ("out/studies/tiny", "."),
        ("out/studies/tiny/report", ".."),
        ("out/trials", "../studies/tiny"),
    ],
)
def test_a_folder_finds_its_store_and_name_from_wherever_it_is_named(
    tmp_path, monkeypatch, start, path
):
    of_store = RunFolder.of(Store(tmp_path / "out"), "tiny")
    assert of_store.path == tmp_path / "out" / "studies" / "tiny"
    assert of_store.store.root == tmp_path / "out"
    (tmp_path / start).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / start)
    folder = RunFolder(Path(path))
    assert folder.name == "tiny" and str(folder) == path
    assert not folder.store.root.is_absolute()
    assert folder.store.root.resolve() == tmp_path / "out"
    assert folder.beside("other").path.resolve() == tmp_path / "out" / "studies" / "other"


def test_a_run_is_found_by_name_by_path_and_from_inside(tmp_path, monkeypatch):
    folder = made_run(tmp_path, tiny_study(), RESULTS)
    assert find_run("tiny", tmp_path) == folder == known_run(str(folder), tmp_path / "elsewhere")
    assert find_run("tinny", tmp_path) is None
    seen = harness("status", "tiny", "--out", tmp_path).output
    assert "2 done" in seen
    monkeypatch.chdir(folder.path)
    assert harness("status", ".").output == seen


@pytest.mark.parametrize(
    "files, kind",
    [
        (["study.json"], "sweep"),
        (["study.json", "searches.json"], "searches"),
        (["study.json", "counts.json"], "counts"),
        (["comparison.json"], "comparison"),
    ],
)
def test_the_kind_of_a_run_is_told_by_its_files(tmp_path, files, kind):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    assert not folder.exists
    for file in files:
        (folder.path / file).touch()
    assert folder.exists and folder.kind == kind


def test_logs_are_named_in_one_place_and_come_in_order(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.log(2).name == "search-2.jsonl"
    assert folder.log(3, "tpe+hyperband").name == "search-tpe+hyperband-3.jsonl"
    for repeat, search in itertools.product((10, 2, 0), (None, "random", "gp")):
        folder.log(repeat, search).touch()
    (tmp_path / "study.json").touch()
    wanted = [folder.log(n, search) for search in (None, "gp", "random") for n in (0, 2, 10)]
    assert folder.logs() == wanted


def test_a_run_has_one_driver(tmp_path):
    folder = RunFolder.of(Store(tmp_path), "new")
    with driving(folder.driver_mark):
        assert (tmp_path / "studies" / "new" / "driver.json").is_file()
        refused = pytest.raises(UserError, match="is being driven by process")
        with refused, driving(folder.driver_mark):
            pass
    assert not folder.driver_mark.exists()


class CountingStore(Store):
    reads = 0

    def record(self, trial_id):
        self.reads += 1
        return super().record(trial_id)


def test_a_trials_state_and_record_come_from_one_read(tmp_path):
    store, spec = Store(tmp_path), resolve(TINY, Runtime())
    assert store.look_up(spec.trial_id) == ("absent", None)
    with store.claim(spec) as claim:
        assert store.look_up(spec.trial_id) == ("running", None)
        claim.publish(make_record(spec, status="FAILED"))
    for status, state in (("PRUNED", "absent"), ("FAILED", "failed"), ("COMPLETE", "done")):
        record = make_record(spec, status=status, select=scored(0.5))
        with store.claim(spec) as claim:
            claim.publish(record)
        counting = CountingStore(tmp_path)
        assert counting.look_up(spec.trial_id) == (state, record)
        assert counting.reads == 1
