"""A run as one file: what is in it, and that it comes out of it as it went in."""

from __future__ import annotations

import base64
import json
import os
import random
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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
from support.fake_trials import Fake, controls, score, written
from support.records import make_record
from support.sweeps import made_metapeft
from support.tables import small_study

from harness.archive.content import Trajectory
from harness.archive.parquet import read_archive
from harness.archive.trees import columns, joined, leaf_of, split
from harness.errors import UserError
from harness.reports.numbers.gamma import load_learned
from harness.store.files import append_line
from harness.store.liveness import write_mark
from harness.store.store import Store

WHOLE = 36
"""Trials of the made-up run."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with one run, and that run's archive."""
    root = tmp_path_factory.mktemp("made")
    made_run(root)
    return root, archive(root, root / "run.parquet")


@pytest.mark.slow
def test_a_run_arrives_as_it_left(made, tmp_path):
    root, file = made
    result = bring(tmp_path, file)
    assert result.exit_code == 0, result.output
    assert f"{WHOLE} new" in result.output
    assert "harness sweep --study joint_space" in result.output
    assert contents(tmp_path, "trials", "studies") == contents(root, "trials", "studies")
    assert reports(tmp_path) == reports(root)
    again = archive(tmp_path, tmp_path / "again.parquet")
    assert again.read_bytes() == file.read_bytes()


def test_the_file_has_typed_columns_that_need_no_harness(made):
    root, file = made
    rows = pd.read_parquet(file).set_index("trial_id")
    store, trial_id = Store(root), some_trial(root)
    record, row = store.record(trial_id), rows.loc[some_trial(root)]
    assert len(rows) == WHOLE and set(rows["record.status"]) == {"COMPLETE", "DIVERGED"}
    assert row["record.test.class_mean"] == record.test.class_mean
    assert list(row["record.test.per_class"]) == list(record.test.per_class)
    assert row["record.cost.flops"] == record.cost.flops
    assert row["record.provenance.device"] == "made up"
    assert json.loads(row["record.spec:j"]) == record.spec.model_dump(mode="json")
    curve = [line["select"]["class_mean"] for line in store.history(trial_id)]
    assert list(row["history.select.class_mean"]) == curve and len(curve) == 10
    assert json.loads(row["cell"]).keys() == {"positions", "depth", "alpha"}
    diverged = rows[rows["record.status"] == "DIVERGED"].iloc[0]
    assert pd.isna(diverged["record.test.class_mean"])


def test_the_same_run_gives_the_same_bytes_and_few(made, tmp_path):
    root, file = made
    assert archive(root, tmp_path / "b.parquet").read_bytes() == file.read_bytes()
    assert file.stat().st_size < 4_000 * WHOLE


def test_archives_and_tables_take_the_place_of_no_other_file(made, tmp_path):
    root, file = made
    other = tmp_path / "notes.parquet"
    other.write_text("notes")
    for command, there in (("archive", other), ("tabulate", other), ("tabulate", file)):
        kept = there.read_bytes()
        result = harness(command, "joint_space", "--file", there, "--out", root)
        what = "an archive" if command == "archive" else "a table"
        assert result.exit_code == 2 and f"holds something other than {what}" in result.stderr
        assert there.read_bytes() == kept
    again = tmp_path / "again.parquet"
    for _ in range(2):
        archive(root, again)
    assert again.read_bytes() == file.read_bytes()


def test_what_has_ended_travels_and_what_is_half_trained_stays(tmp_path):
    root, there = tmp_path / "a", tmp_path / "b"
    made_run(root)
    store, left = Store(root), some_trial(root)
    failed, stopped = sorted(set(os.listdir(store.trials)) - {left})[:2]
    (store.trials / left / "record.json").unlink()
    write_mark(store.trials / left / "claim.json", "A trial")
    (store.trials / left / "checkpoint.pt").write_bytes(b"tensors")
    spec = store.record(failed).spec
    (store.trials / failed / "record.json").write_text(
        make_record(spec, "FAILED", error="Traceback\nValueError: no").model_dump_json(indent=1)
    )
    change_record(store, stopped, lambda record: record.update(status="PRUNED", test=None))
    for name in ("weights.safetensors", "features.npz", "checkpoint.pt"):
        (store.trials / failed / name).write_bytes(b"tensors")
    done = harness("archive", "joint_space", "--file", tmp_path / "f.parquet", "--out", root)
    assert "35 trials" in done.output and "1 FAILED, 1 PRUNED" in done.output.replace("),", "")
    assert "1 have not ended" in done.output
    assert bring(there, tmp_path / "f.parquet").exit_code == 0
    assert not (there / "trials" / left).exists()
    assert Store(there).record(failed).error == "Traceback\nValueError: no"
    assert Store(there).record(stopped).status == "PRUNED"
    names = {path.name for path in (there / "trials").rglob("*") if path.is_file()}
    assert names == {"spec.json", "history.jsonl", "record.json"}
    assert b"tensors" not in (tmp_path / "f.parquet").read_bytes()


def test_a_search_and_what_was_learned_arrive(tmp_path):
    """What was learned to the last digit where tables show it, at both ends, and nearly between."""
    root, there, study = tmp_path / "a", tmp_path / "b", small_study()
    folder = made_metapeft(root, study)
    trial = next((root / "trials").iterdir())
    lines = ["outer_step,inner_step,outer_loss,0.q,1.mlp1", "0,0,nan,1.0,1.0"]
    lines += [f"{n},{3 * n},{1 / (n + 1)},{0.1 * n},{1e-07 * n}" for n in range(1, 50)]
    (trial / "trajectory.csv").write_text("\n".join(lines) + "\n")
    log = folder.log(0).read_text()
    with folder.log(0).open("a") as file:
        file.write('{"tell": "torn')
    archive(root, tmp_path / "f.parquet", folder.name)
    assert bring(there, tmp_path / "f.parquet").exit_code == 0
    copied = (there / "trials" / trial.name / "trajectory.csv").read_text().splitlines()
    assert len(copied) == 51 and copied[:2] == lines[:2] and copied[-1] == lines[-1]
    numbers = [
        [[float(n) for n in line.split(",")] for line in each[2:]] for each in (copied, lines)
    ]
    assert np.allclose(*numbers, rtol=1e-7, atol=0)
    assert (there / "studies" / folder.name / "search-0.jsonl").read_text() == log
    first, learned = load_learned([trial]), load_learned([there / "trials" / trial.name])
    assert learned.final.equals(first.final)
    again = archive(there, tmp_path / "again.parquet", folder.name)
    assert again.read_bytes() == (tmp_path / "f.parquet").read_bytes()


@pytest.mark.slow
def test_a_comparison_of_arms_travels_with_all_that_it_was_charged_for(tmp_path):
    root, there = tmp_path / "a", tmp_path / "b"
    store = Store(root)
    written(controls(store, Fake(store, score)), store)
    archive(root, tmp_path / "f.parquet", "cells")
    assert bring(there, tmp_path / "f.parquet").exit_code == 0
    assert sorted(os.listdir(there / "trials")) == sorted(os.listdir(root / "trials"))
    assert reports(there, "cells") == reports(root, "cells")


def some_tree(draw, depth=0):
    """JSON of any shape, with the leaves that are easily taken for each other."""
    kind = draw.randrange(8 if depth < 3 else 6)
    if kind == 7:
        return {some_word(draw): some_tree(draw, depth + 1) for _ in range(draw.randrange(4))}
    if kind == 6:
        return [some_tree(draw, depth + 1) for _ in range(draw.randrange(4))]
    numbers = [0, 1, -1, 2**63, 10**30, 1.0, 0.0, -0.0, 1e-7, 0.1 + 0.2, 1e300]
    return [None, True, False, draw.choice(numbers), draw.random(), some_word(draw)][kind]


def some_word(draw):
    return draw.choice(["", "a", "a.b", "b", "a:j", "%2E", "é", "\n", "1"])


def test_trees_of_any_shape_come_out_of_columns_as_they_went_in():
    """Ones stay apart from 1.0 and true, nulls from what is absent; keys keep their order."""
    draw = random.Random(0)
    for _ in range(300):
        rows = [
            {some_word(draw): some_tree(draw) for _ in range(draw.randrange(6))}
            for _ in range(draw.randrange(1, 5))
        ]
        taken = [split(row, "record", frozenset()) for row in rows]
        made = columns([found for _, found in taken])
        plain = {leaf_of(name, column.type): column.to_pylist() for name, column in made.items()}
        back = [
            joined(shape, "record", {leaf: values[index] for leaf, values in plain.items()})
            for index, (shape, _) in enumerate(taken)
        ]
        assert json.dumps(back) == json.dumps(rows)


def test_a_trajectory_that_is_not_made_of_numbers_alone_is_left_out():
    text = "outer_step,00.q,01.q\n0,1.0,1e-07\n1,0.1,nan\n"
    whole = Trajectory.parse(text)
    assert whole is not None and whole.text == text
    for other in ("a,b\n1,x\n", "a,b\n1,2\n3\n", "", "a\n1.50\n", "a\n01\n"):
        assert Trajectory.parse(other) is None


def without_footer(data):
    return data[:-8]


DAMAGE = {
    "empty": lambda data: b"",
    "text": lambda data: b"trial_id,score\n",
    "half": lambda data: data[: len(data) // 2],
    "no footer": without_footer,
    "a last byte less": lambda data: data[:-1],
    "a page of zeros": lambda data: data[:200] + bytes(200) + data[400:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_torn_file_is_refused_in_one_sentence(made, tmp_path, kind):
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(DAMAGE[kind](made[1].read_bytes()))
    refused(tmp_path / "out", torn, "damaged")


def refused(out, file, *words):
    """By both commands, with one sentence, and nothing is written."""
    for args in (("import", file), ("verify", file)):
        result = harness(*args, "--out", out)
        assert result.exit_code == 2, result.output
        message = result.stderr.strip()
        assert message.startswith("Error: ") and message.count("\n") == 0, message
        assert all(word in message for word in (str(file), *words)), message
    assert not out.exists()


@pytest.mark.slow
def test_one_wrong_byte_is_found_or_changes_nothing(made, tmp_path):
    data, whole = made[1].read_bytes(), read_archive(made[1])
    copy, found = tmp_path / "copy.parquet", 0
    for at in range(4, len(data), max(1, len(data) // 150)):
        copy.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            assert read_archive(copy) == whole, at
        except UserError as error:
            found += "damaged" in str(error) or "no archive" in str(error)
    assert found > 100


def about_of(**changes):
    return lambda about: {**about, **changes}


def test_files_of_other_kinds_and_of_newer_versions_are_named(made, tmp_path):
    out, root, file = tmp_path / "out", *made
    table = tmp_path / "table.parquet"
    assert harness("tabulate", "joint_space", "--file", table, "--out", root).exit_code == 0
    refused(out, table, "no archive of `harness archive`")
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"trial_id": ["0" * 16]}), plain)
    refused(out, plain, "no archive of `harness archive`")
    refused(out, tmp_path / "none.parquet", "does not exist")
    newer = rewritten(file, tmp_path / "newer.parquet", about=about_of(format=2))
    refused(out, newer, "newer version", "update the harness")
    later = {"record.schema_version": lambda value: 99}
    refused(out, rewritten(file, tmp_path / "l.parquet", columns=later), "newer version", "update")
    assert "damaged" not in bring(out, tmp_path / "l.parquet").stderr


def test_a_field_of_a_newer_version_is_named_and_not_called_damage(tmp_path):
    root = tmp_path / "a"
    made_run(root)
    file = archive(root, tmp_path / "f.parquet")
    table = pq.read_table(file)
    shapes = [json.loads(text) for text in table.column("shape").to_pylist()]
    for shape in shapes:
        shape["aura"] = "n"
    columns = {"shape": lambda text: json.dumps({**json.loads(text), "aura": "n"})}
    newer = rewritten(file, tmp_path / "newer.parquet", columns=columns)
    refused(tmp_path / "out", newer, "'aura'", "newer version")
    assert "damaged" not in bring(tmp_path / "out", newer).stderr


def test_a_record_that_is_not_of_its_spec_is_refused(made, tmp_path):
    columns = {"record.spec:j": lambda text: text.replace('"seed":0', '"seed":7')}
    file = rewritten(made[1], tmp_path / "other.parquet", columns=columns)
    refused(tmp_path / "out", file, "is not used: its spec is that of")


def packed(run, files):
    content = zlib.compress(json.dumps({"run": run, "files": files}).encode())
    return about_of(run=run, files=base64.b64encode(content).decode())


NAMES = ["..", ".", "", "/etc/x", "../x", "a/../../x", "a\\b", "~root", "a\nb", "x" * 300]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_a_file_leads_out_of_the_store(made, tmp_path, name):
    study = read_archive(made[1]).files["study.json"]
    as_run = rewritten(made[1], tmp_path / "run.parquet", about=packed(name, {"study.json": study}))
    refused(tmp_path / "out", as_run)
    files = {"study.json": study, name: "{}"}
    as_file = rewritten(made[1], tmp_path / "file.parquet", about=packed("joint_space", files))
    refused(tmp_path / "out", as_file)
    ids = {"trial_id": lambda key: name, "record.trial_id": lambda key: name}
    refused(tmp_path / "out", rewritten(made[1], tmp_path / "id.parquet", columns=ids))
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.parquet",
        "file.parquet",
        "id.parquet",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["driver.json", "table.parquet", "search-0.jsonl/x", "notes.txt"])
def test_a_run_brings_nothing_but_what_it_is_continued_from(made, tmp_path, name):
    files = {**read_archive(made[1]).files, name: "{}"}
    refused(tmp_path / "o", rewritten(made[1], tmp_path / "f", about=packed("joint_space", files)))


def test_a_run_whose_own_files_are_damaged_is_refused(made, tmp_path):
    for study in ("{}", "null", "[]", "[" * 100_000, '{"study": {}, "cells": []}'):
        about = packed("joint_space", {"study.json": study, "environment.json": "{}"})
        refused(
            tmp_path / "out", rewritten(made[1], tmp_path / "f.parquet", about=about), "damaged"
        )


def test_a_damaged_history_is_not_archived(tmp_path):
    made_run(tmp_path)
    trial = some_trial(tmp_path)
    path = tmp_path / "trials" / trial / "history.jsonl"
    path.write_text("{torn\n" + path.read_text())
    append_line(path, {"epoch": 10})
    result = harness("archive", "joint_space", "--file", tmp_path / "f", "--out", tmp_path)
    assert result.exit_code == 2 and "line 1 is damaged" in result.stderr
    assert not (tmp_path / "f").exists()
