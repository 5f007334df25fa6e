"""Runs from elsewhere in a store: halves that make a whole, and what is kept apart."""

from __future__ import annotations

import json

import pytest
from support.archives import (
    archive,
    bring,
    change_record,
    contents,
    made_run,
    reports,
    rewritten,
    some_trial,
)
from support.cli import harness
from support.records import make_record, make_spec
from support.sweeps import made_metapeft
from support.tables import small_study

from harness.archive.agree import compare
from harness.archive.merge import NotOneRun, merged
from harness.archive.parquet import read_archive
from harness.spec import SEMANTICS
from harness.store.files import append_line
from harness.store.liveness import driving, write_mark
from harness.store.run_folder import RunFolder
from harness.store.store import Store
from harness.testing.made import made_record


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """The archives of a run's two seeds, made apart, and the store of the whole."""
    root = tmp_path_factory.mktemp("halves")
    files = []
    for seed in (0, 1):
        made_run(root / str(seed), seeds=(seed,))
        files.append(archive(root / str(seed), root / f"{seed}.parquet"))
    made_run(root / "whole")
    return files, root / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_halves_made_apart_are_the_whole(halves, tmp_path, order):
    files, whole = halves
    result = bring(tmp_path, *(files[index] for index in order))
    assert result.exit_code == 0, result.output
    assert result.output.count("18 new") == 2
    assert contents(tmp_path, "trials", "studies") == contents(whole, "trials", "studies")
    assert reports(tmp_path) == reports(whole)
    file = archive(tmp_path, tmp_path / "merged.parquet")
    assert file.read_bytes() == archive(whole, tmp_path / "whole.parquet").read_bytes()


@pytest.mark.slow
def test_a_half_into_a_store_that_has_the_other(halves, tmp_path):
    files, whole = halves
    made_run(tmp_path, seeds=(1,))
    assert bring(tmp_path, files[0]).exit_code == 0
    assert contents(tmp_path, "trials", "studies") == contents(whole, "trials", "studies")
    assert bring(tmp_path, archive(whole, tmp_path / "w.parquet")).exit_code == 0
    (tmp_path / "w.parquet").unlink()
    assert contents(tmp_path, "trials", "studies") == contents(whole, "trials", "studies")


def test_importing_again_changes_nothing(halves, tmp_path):
    files, _ = halves
    bring(tmp_path, *files)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    again = bring(tmp_path, *files, files[0])
    assert again.exit_code == 0 and again.output.count("18 known") == 3
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == times


def other_scores(shift, device=None):
    """A change of a record, in one test score and perhaps in where it was made."""

    def change(record):
        record["test"]["class_mean"] += shift
        if device is not None:
            record["provenance"]["device"] = device

    return change


def changed(root, file, change):
    """The archive of a run in which one trial differs; and that trial's id."""
    made_run(root, seeds=(0,))
    trial_id = some_trial(root)
    change_record(Store(root), trial_id, change)
    return archive(root, file), trial_id


@pytest.mark.slow
@pytest.mark.parametrize("shift,device", [(0.05, None), (0.001, None), (-0.05, "another CPU")])
def test_other_numbers_are_a_conflict_that_is_named_and_kept_apart(tmp_path, shift, device):
    here = tmp_path / "here"
    made_run(here, seeds=(0,))
    before = contents(here, "trials", "studies")
    file, trial_id = changed(tmp_path / "t", tmp_path / "f.parquet", other_scores(shift, device))
    for _ in range(2):
        result = bring(here, file)
        assert result.exit_code == 1 and "17 known" in result.output
        (sentence,) = result.stderr.strip().splitlines()
        known = json.loads(before[f"trials/{trial_id}/record.json"])["test"]["class_mean"]
        for word in (trial_id, "test class_mean", f"by {abs(shift):.3g}"):
            assert word in sentence
        assert ("not alike" in sentence) == (device is not None)
        assert contents(here, "trials", "studies") == before
        (apart,) = (here / "conflicts").iterdir()
        assert apart.name.startswith(trial_id) and str(apart) in sentence
        kept = json.loads((apart / "record.json").read_text())
        assert kept["test"]["class_mean"] == known + shift


@pytest.mark.slow
@pytest.mark.parametrize("shift,device", [(1e-9, None), (0.02, "another CPU")])
def test_within_the_tolerance_the_stores_own_numbers_stay(tmp_path, shift, device):
    here = tmp_path / "here"
    made_run(here, seeds=(0,))
    before = contents(here)
    file, _ = changed(tmp_path / "t", tmp_path / "f.parquet", other_scores(shift, device))
    result = bring(here, file)
    assert result.exit_code == 0 and "18 known" in result.output
    assert "1 of the known differ within the tolerance" in result.output
    assert contents(here) == before


def test_what_ended_otherwise_is_a_conflict(tmp_path):
    here = tmp_path / "here"
    made_run(here, seeds=(0,))
    change = lambda record: record.update(status="DIVERGED", test=None, select=None)  # noqa: E731
    file, trial_id = changed(tmp_path / "t", tmp_path / "f.parquet", change)
    result = bring(here, file)
    assert result.exit_code == 1
    assert f"{trial_id} is in conflict: it is COMPLETE here and DIVERGED there" in result.stderr


def test_the_result_replaces_a_failure_and_never_the_other_way(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for root in (here, there):
        made_run(root, seeds=(0,))
    trial_id = some_trial(here)
    whole = (there / "trials" / trial_id / "record.json").read_bytes()
    failed = make_record(Store(here).record(trial_id).spec, "FAILED", error="ValueError: no")
    (here / "trials" / trial_id / "record.json").write_text(failed.model_dump_json(indent=1))
    files = [archive(root, tmp_path / f"{root.name}.parquet") for root in (here, there)]
    assert "1 new, 17 known" in bring(here, files[1]).output
    assert (here / "trials" / trial_id / "record.json").read_bytes() == whole
    (old,) = (here / "attic").iterdir()
    assert "ValueError: no" in (old / "record.json").read_text()
    before = contents(there)
    assert "18 known" in bring(there, files[0]).output
    assert contents(there) == before


def test_nothing_imported_is_alive_and_what_is_alive_here_is_left_alone(halves, tmp_path):
    files, whole = halves
    store, trial_id = Store(tmp_path), some_trial(whole)
    seed = Store(whole).record(trial_id).spec.seed
    (store.trials / trial_id).mkdir(parents=True)
    write_mark(store.trials / trial_id / "claim.json", "A trial")
    result = bring(tmp_path, files[seed])
    assert "17 new, 1 being trained here, left alone" in result.output
    assert {path.name for path in (store.trials / trial_id).iterdir()} == {"claim.json"}
    claims = [path.parent.name for path in tmp_path.rglob("claim.json")]
    assert claims == [trial_id]
    (store.trials / trial_id / "claim.json").unlink()
    seen = harness("status", "joint_space", "--out", tmp_path).output
    assert "Driver: none" in seen and "17 done, 1 waiting" in seen


def test_a_run_that_is_driven_here_is_not_touched(halves, tmp_path):
    folder = RunFolder.of(Store(tmp_path), "joint_space")
    with driving(folder.driver_mark):
        result = bring(tmp_path, halves[0][0])
    assert result.exit_code == 2 and "is being driven by process" in result.stderr
    assert contents(tmp_path) == {}


def test_one_bad_file_among_several_leaves_the_store_as_it_was(halves, tmp_path):
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(halves[0][1].read_bytes()[:-100])
    result = bring(tmp_path / "out", halves[0][0], torn)
    assert result.exit_code == 2 and "torn.parquet" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_of_the_same_name_and_another_study_is_put_beside(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    made_run(here)
    made_run(there, objective="micro")
    before = contents(here)
    file = archive(there, tmp_path / "f.parquet")
    for _ in range(2):
        result = bring(here, file)
        assert result.exit_code == 1 and "the study differs in objective" in result.stderr
        after = contents(here)
        beside = {path for path in after if path not in before}
        (run,) = {path.split("/")[1] for path in beside}
        assert run.startswith("joint_space+import-") and run in result.stderr
        assert {path: after[path] for path in before} == before
    assert reports(here, run).keys() == reports(there).keys()


@pytest.mark.slow
def test_seeds_of_another_semantics_are_not_joined(halves, tmp_path):
    made_run(tmp_path / "other", seeds=(1,))
    environment = tmp_path / "other" / "studies" / "joint_space" / "environment.json"
    environment.write_text(json.dumps({"semantics": str(SEMANTICS - 1)}))
    other = archive(tmp_path / "other", tmp_path / "other.parquet")
    bring(tmp_path / "out", halves[0][0])
    before = contents(tmp_path / "out", "studies")
    result = bring(tmp_path / "out", other)
    assert result.exit_code == 1 and "To go on" not in result.output
    words = f"made under SEMANTICS {SEMANTICS}, the other under {SEMANTICS - 1}"
    assert words in result.stderr
    assert contents(tmp_path / "out", "studies").items() >= before.items()


def test_a_damaged_record_here_is_named_before_anything_is_taken(halves, tmp_path):
    bad = sorted(read_archive(halves[0][0]).trials, key=lambda trial: trial.trial_id)[-1].trial_id
    (tmp_path / "trials" / bad).mkdir(parents=True)
    (tmp_path / "trials" / bad / "record.json").write_text("{")
    before = contents(tmp_path)
    result = bring(tmp_path, halves[0][0])
    assert result.exit_code == 2 and bad in result.stderr and "damaged" in result.stderr
    assert contents(tmp_path) == before


def test_records_that_do_not_say_their_semantics_arrive(tmp_path):
    made_run(tmp_path / "a", seeds=(0,))
    for trial in (tmp_path / "a" / "trials").iterdir():
        change_record(Store(tmp_path / "a"), trial.name, lambda r: r["provenance"].clear())
    file = archive(tmp_path / "a", tmp_path / "f.parquet")
    result = bring(tmp_path / "out", file)
    assert result.exit_code == 0 and "18 new" in result.output


def searched(root, *, more=0, other=False):
    """A run of a search, whose log may go on or say something else."""
    folder = made_metapeft(root, small_study())
    log = folder.log(0)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    if other:
        rows[-1]["objective"] = 0.25
        log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for _ in range(more):
        append_line(log, rows[0])
    return folder


def test_a_log_goes_on_where_it_is_longer_and_never_gets_shorter(tmp_path):
    short, long = searched(tmp_path / "a"), searched(tmp_path / "b", more=3)
    files = [archive(tmp_path / n, tmp_path / f"{n}.parquet", short.name) for n in "ab"]
    whole = long.log(0).read_bytes()
    assert bring(tmp_path / "a", files[1]).exit_code == 0
    assert short.log(0).read_bytes() == whole
    assert bring(tmp_path / "a", files[0]).exit_code == 0
    assert short.log(0).read_bytes() == whole


def test_a_search_that_asked_otherwise_is_put_beside(tmp_path):
    here = searched(tmp_path / "a")
    before = here.log(0).read_bytes()
    searched(tmp_path / "b", other=True)
    file = archive(tmp_path / "b", tmp_path / "b.parquet", here.name)
    result = bring(tmp_path / "a", file)
    assert result.exit_code == 1 and "search-0.jsonl differs before its end" in result.stderr
    assert here.log(0).read_bytes() == before


def test_grids_are_joined_only_if_their_cells_are_the_same_trials():
    cell = {"cell": {"alpha": 1.0}, "seed": 0, "trial_id": "a"}
    grids = [
        {"study.json": json.dumps({"study": {"seeds": [0]}, "cells": [{**cell, "trial_id": key}]})}
        for key in "ab"
    ]
    assert merged(grids[0], grids[0]) == grids[0]
    with pytest.raises(NotOneRun, match="the same cell is another trial"):
        merged(*grids)


@pytest.mark.slow
def test_results_of_an_older_version_are_reported_and_said_not_to_be_reused(tmp_path):
    root, out = tmp_path / "a", tmp_path / "out"
    folder = made_run(root)
    store, study = Store(root), json.loads(folder.study.read_text())
    ids = {}
    for path in sorted(store.trials.iterdir()):
        record = store.record(path.name)
        older = record.spec.id_under(SEMANTICS - 1)
        ids[path.name] = older
        made = record.model_dump(mode="json")
        made |= {"trial_id": older, "provenance": {"semantics": str(SEMANTICS - 1)}}
        (path / "record.json").write_text(json.dumps(made))
        path.rename(path.with_name(older))
    for cell in study["cells"]:
        cell["trial_id"] = ids[cell["trial_id"]]
    folder.study.write_text(json.dumps(study))
    file = archive(root, tmp_path / "old.parquet")
    result = bring(out, file)
    assert result.exit_code == 0 and "36 new" in result.output
    assert f"SEMANTICS {SEMANTICS - 1}" in result.output and "none is reused" in result.output
    assert reports(out) == reports(root)
    asked = harness("verify", file, "--out", tmp_path)
    assert asked.exit_code == 2 and "verify it with the version that made it" in asked.stderr


def test_a_bit_more_that_one_side_knows_is_no_difference():
    """A version that keeps more of a trial agrees with one that kept less."""
    record = make_record(make_spec(), provenance={"device": "x"})
    rows = [{"epoch": 0, "lr": 0.1, "select": {"micro": 0.5}}]
    more = [{"epoch": 0, "lr": 0.1, "select": {"micro": 0.5, "loss": 1.0}}, {"epoch": 1}]
    assert compare(record, record, rows, more).same_bits
    other = [{"epoch": 0, "lr": 0.1, "select": {"micro": 0.25}}]
    assert not compare(record, record, rows, other).same_bits
    there = record.model_copy(update={"provenance": {"device": "y"}})
    assert not compare(record, there).alike
    gpu = record.model_copy(update={"provenance": {"device": "NVIDIA H100"}})
    assert not compare(gpu, gpu).alike


def test_what_is_left_of_a_collapsed_training_is_not_compared_on_another_machine():
    """Where it collapsed in both; on a like machine its bits are the same all the same."""
    plain = made_record(make_spec(), score=0.12)
    record = plain.model_copy(update={"provenance": {"device": "x"}, "num_classes": 15})
    worse = record.test.model_copy(update={"micro": record.test.micro - 0.05})
    here = record.model_copy(update={"test": worse})
    there = here.model_copy(update={"provenance": {"device": "y"}})
    collapsed, learned = (
        [{"epoch": n, "train_loss": loss} for n, loss in enumerate(losses)]
        for losses in ((1.6, 3.7, 3.2), (1.6, 1.9, 1.5))
    )
    for one, other, agrees in (
        (collapsed, collapsed, True),
        (collapsed, learned, False),
        (learned, collapsed, False),
        (learned, learned, False),
        (collapsed, collapsed[:1], False),
        (collapsed, [*collapsed[:1], {"epoch": 1, "train_loss": None, "diverged": True}], False),
    ):
        found = compare(record, there, one, other)
        assert found.is_verified == found.can_be_merged == found.collapsed == agrees
    assert not compare(record, here, collapsed, collapsed).is_verified
    above = record.test.model_copy(update={"class_mean": 0.21})  # more than three times chance
    kept = record.model_copy(update={"test": above})
    assert not compare(kept, there, collapsed, collapsed).is_verified


def test_feature_distances_may_differ_by_the_order_of_a_sum():
    record = made_record(make_spec())

    def moved(by, name="distance"):
        values = {"distance": {"head": 0.5}, "groups": {"head": 0.5}}
        values[name] = {"head": 0.5 + by}
        return record.model_copy(update={"test": record.test.model_copy(update=values)})

    assert compare(moved(0), moved(1e-15)).same_bits
    assert not compare(moved(0), moved(1e-9)).same_bits
    assert not compare(moved(0), moved(1e-15, "groups")).same_bits


def test_a_tampered_file_cannot_take_a_trials_place(halves, tmp_path):
    """The ids of two trials exchanged: each is then not that of its spec."""
    ids = [trial.trial_id for trial in read_archive(halves[0][0]).trials[:2]]
    swap = dict(zip(ids, reversed(ids), strict=True))
    columns = {name: lambda key: swap.get(key, key) for name in ("trial_id", "record.trial_id")}
    file = rewritten(halves[0][0], tmp_path / "f.parquet", columns=columns)
    result = bring(tmp_path / "out", file)
    assert result.exit_code == 2 and "its spec is that of" in result.stderr


def test_scores_that_no_training_can_have_given_are_not_taken(halves, tmp_path):
    columns = {"record.test.class_mean": lambda share: 7.5}
    file = rewritten(halves[0][0], tmp_path / "f.parquet", columns=columns)
    result = bring(tmp_path / "out", file)
    assert result.exit_code == 2 and "test.class_mean cannot be 7.5" in result.stderr
    assert not (tmp_path / "out" / "trials").exists()
