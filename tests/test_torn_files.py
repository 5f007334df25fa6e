"""A run's files that are empty, torn, foreign or of another version: a sentence, no traceback."""

from __future__ import annotations

import json
import os
import sqlite3

import pyarrow.parquet as pq
import pytest
from support.cli import harness
from support.records import tiny_study
from support.runs import made_run
from support.sweeps import made_sweep
from support.tables import small_study

from harness.errors import UserError
from harness.insertion.placements import read_placement
from harness.store.liveness import living_owner
from harness.store.runs import (
    Command,
    read_command,
    read_comparison,
    read_counts,
    read_environment,
    read_run,
    read_search_comparison,
    write_command,
)
from harness.store.store import Store
from harness.store.summaries import VERSION, summaries
from harness.store.table import read_table, tabulate

RESULTS = [[(0.4, 0.3)], [(0.6, 0.5)], ["FAILED"], [None]]


@pytest.fixture
def folder(tmp_path):
    made = made_run(tmp_path, tiny_study(), RESULTS)
    write_command(made, Command("harness sweep --study tiny", "4 trials"))
    return made


def changed(**fields):
    return lambda whole: json.dumps({**json.loads(whole), **fields}).encode()


BROKEN = {
    "empty": lambda whole: b"",
    "torn": lambda whole: whole[: len(whole) // 2],
    "utf-16": lambda whole: whole.decode().encode("utf-16"),
    "latin": lambda whole: b'{"a": "\xe9"}',
    "null": lambda whole: b"null",
    "list": lambda whole: b"[]",
    "number": lambda whole: b"1e999",
    "deep": lambda whole: b'{"a":' * 200_000,
    "foreign": lambda whole: b'{"name": "x", "value": [1, 2]}',
    "of a newer version": changed(added={"later": 1}),
}
READERS = {
    "study": read_run,
    "environment": read_environment,
    "command": read_command,
    "comparison": read_comparison,
    "searches": read_search_comparison,
    "counts": read_counts,
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("file", READERS)
def test_every_file_of_a_run_is_refused_in_one_sentence(folder, file, how):
    path = getattr(folder, file)
    whole = path.read_bytes() if path.exists() else b'{"title": "x"}'
    path.write_bytes(BROKEN[how](whole))
    with pytest.raises(UserError) as refused:
        READERS[file](folder)
    message = str(refused.value)
    assert message.startswith(f"{path} is damaged, or of another version of the harness: ")
    assert message.endswith("; move it out of the run's folder, and give the run's command again.")
    assert "\n" not in message and len(message) < 500 + len(str(path))


@pytest.mark.parametrize("file", ["study", "environment", "command"])
def test_a_byte_order_mark_changes_nothing(folder, file):
    before = READERS[file](folder)
    path = getattr(folder, file)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert READERS[file](folder) == before


def test_a_run_that_was_killed_before_its_environment_was_written_can_be_read(folder):
    folder.environment.unlink()
    assert read_run(folder).environment == {}
    assert harness("status", folder).exit_code == 0


@pytest.mark.parametrize("words", ["status", "report", "export --csv x.csv"])
@pytest.mark.parametrize("file", ["study", "environment"])
def test_the_commands_that_read_a_run_say_so(folder, words, file):
    getattr(folder, file).write_bytes(b"null")
    command, *options = words.split()
    result = harness(command, folder, *options)
    assert result.exit_code in (2, 3) and result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_conflicted_copy_of_a_log_is_named(folder):
    folder.log(0).write_text("")
    (folder.path / "search-0 (conflicted copy).jsonl").write_text("")
    result = harness("status", folder)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "search-0 (conflicted copy).jsonl is called like the log of a search" in result.stderr


CLAIMS = ["", "{", "null", "[]", "5", '{"pid": "x"}', '{"pid": 1e9}', '{"host": 1}', "[" * 100_000]


@pytest.mark.parametrize("text", [*CLAIMS, b"\xff\xfe\x00"])
def test_a_mark_of_another_shape_is_nobodys(tmp_path, text):
    path = tmp_path / "claim.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert living_owner(path) is None


ROWS = {
    "no JSON": lambda database: database.execute(f"UPDATE v{VERSION} SET json = '['"),
    "null": lambda database: database.execute(f"UPDATE v{VERSION} SET json = NULL"),
    "a number": lambda database: database.execute(f"UPDATE v{VERSION} SET json = 5"),
    "too short": lambda database: database.execute(f"UPDATE v{VERSION} SET json = '[1]'"),
    "two in one": lambda database: database.execute(f"UPDATE v{VERSION} SET json = '[1], [2]'"),
    "a column more": lambda database: database.execute(f"ALTER TABLE v{VERSION} ADD COLUMN more"),
    "a column less": lambda database: database.execute(f"ALTER TABLE v{VERSION} DROP COLUMN time"),
}


@pytest.mark.parametrize("how", ROWS)
def test_an_index_of_another_shape_is_made_again(folder, how):
    store, ids = Store(folder.store.root), [each.trial_id for each in read_run(folder).asked]
    before = summaries(store, ids)
    with sqlite3.connect(store.root / "index.sqlite") as database:
        ROWS[how](database)
    database.close()
    assert summaries(store, ids) == before == summaries(store, ids)


@pytest.mark.parametrize("how", BROKEN)
def test_a_placement_file_is_refused_in_one_sentence(tmp_path, how):
    path = tmp_path / "placement.json"
    path.write_bytes(BROKEN[how](b'{"rule": "topk"}'))
    with pytest.raises(UserError, match="is damaged, or of another version") as refused:
        read_placement(path)
    assert str(path) in str(refused.value) and "make it again" in str(refused.value)


STOPS = ["SystemExit(3)", "GeneratorExit()", "type('Stop', (BaseException,), {})('enough')"]


@pytest.mark.parametrize("raised", STOPS)
def test_a_study_file_may_raise_whatever_it_likes(tmp_path, raised):
    path = tmp_path / "mine.py"
    path.write_text(f"raise {raised}")
    result = harness("sweep", "--study", path, "--dry-run", "--out", tmp_path / "runs")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: mine.py cannot be read as Python: ")


def test_a_table_without_one_of_its_columns_is_refused(tmp_path):
    path, torn = tmp_path / "whole.parquet", tmp_path / "torn.parquet"
    tabulate([made_sweep(tmp_path, small_study())], path)
    table = pq.read_table(path)
    for column in ("cell", "seed", "status", "device_s", "select_class_mean", "test_micro"):
        pq.write_table(table.drop_columns([column]), torn)
        with pytest.raises(UserError, match="is no table of") as refused:
            read_table(torn)
        assert str(torn) in str(refused.value) and "\n" not in str(refused.value)
    pq.write_table(table, torn)
    assert len(read_table(torn).rows) == table.num_rows


def test_no_file_takes_the_place_of_a_pipe(tmp_path):
    """Nor of a device, as in `archive --file /dev/stdout`, which took its place for root."""
    made_sweep(tmp_path, small_study())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for command in ("archive", "tabulate"):
        result = harness(command, "joint_space", "--file", pipe, "--out", tmp_path)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
        assert "is no file but a device or a pipe" in result.stderr
    assert pipe.is_fifo() and [path.name for path in tmp_path.glob("pipe*")] == ["pipe"]
