"""The log of a search: the bytes of every event, and what is refused."""

from __future__ import annotations

import json

import pytest
from support.records import tiny_study

from harness.errors import UserError
from harness.store.files import append_line
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run, write_run
from harness.store.search_log import (
    Ask,
    Report,
    Spent,
    Tell,
    Warm,
    append_event,
    asks,
    read_log,
    tells,
)
from harness.store.store import Store

TOLD = dict(status="PRUNED", objective=0.5, epochs=2, device_s=3.0, flops=4)
EVENTS = {
    '{"warm": {"x": 1}, "objective": 0.25}': Warm(params={"x": 1}, objective=0.25),
    '{"ask": {"x": 0.5}, "cell": {"alpha": 2.0}, "seed": 3, "trial": "a"}': Ask(
        params={"x": 0.5}, cell={"alpha": 2.0}, seed=3, trial_id="a"
    ),
    '{"report": "a", "epoch": 1, "score": 0.5}': Report(trial_id="a", epoch=1, score=0.5),
    '{"tell": "a", "status": "PRUNED", "objective": 0.5, "epochs": 2, "device_s": 3.0, '
    '"flops": 4}': Tell(trial_id="a", **TOLD),
    '{"tell": "b", "status": "FAILED", "objective": null, "epochs": 0, "device_s": 0, '
    '"flops": 0}': Tell(
        trial_id="b", status="FAILED", objective=None, epochs=0, device_s=0, flops=0
    ),
    '{"tell": "a", "status": "PRUNED", "objective": 0.5, "epochs": 2, "device_s": 3.0, "flops": 4, '
    '"until": 6, "total_epochs": 6, "total_device_s": 9.5, "total_flops": 12}': Tell(
        trial_id="a", **TOLD, until=6, total=Spent(6, 9.5, 12)
    ),
}
"""Lines as searches have written them since tables were first compared, and what they mean."""


def test_every_event_keeps_its_bytes_and_is_read_as_it_was_written(tmp_path):
    log = tmp_path / "log"
    for event in EVENTS.values():
        append_event(log, event)
    assert log.read_text() == "".join(f"{line}\n" for line in EVENTS)
    assert read_log(log) == list(EVENTS.values())


def test_a_log_that_is_not_there_has_no_events(tmp_path):
    assert read_log(tmp_path / "log") == []


@pytest.mark.parametrize(
    "line, words",
    [
        ({"pause": "a", "epoch": 1}, "unknown event 'pause' .known: ask, report, tell, warm."),
        ({}, "unknown event ''"),
        ({"ask": {}, "seed": 1}, "the ask event lacks a value"),
        ({"tell": "a", **TOLD, "status": "PAUSED"}, "the tell event .* has an unknown one"),
        ({"tell": "a", **TOLD, "objective": "high"}, "the tell event .* has an unknown one"),
        ({"tell": "a", **TOLD, "until": "later"}, "the tell event .* has an unknown one"),
        ({"tell": ["a"], **TOLD}, "the tell event .* has an unknown one"),
        ({"ask": {"x": "y"}, "cell": {}, "seed": 0, "trial": "a"}, "the ask event .* unknown one"),
        ({"ask": {}, "cell": None, "seed": 0, "trial": "a"}, "the ask event .* unknown one"),
        ({"report": "a", "epoch": 1, "score": None}, "the report event .* unknown one"),
        ({"warm": [1], "objective": 0.5}, "the warm event .* unknown one"),
    ],
)
def test_what_no_version_wrote_is_refused_by_name_and_line(tmp_path, line, words):
    log = tmp_path / "search-0.jsonl"
    append_event(log, Report(trial_id="a", epoch=1, score=0.5))
    append_line(log, line)
    with pytest.raises(UserError, match=f"search-0.jsonl, line 2: {words}") as refused:
        read_log(log)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line", [b"null", b"[1]", b"5", b"\xff\xfe{\x00}\x00", b'{"report": "\xe9"}', b"[" * 100_000]
)
def test_a_line_that_is_no_object_is_named_wherever_it_stands(tmp_path, line):
    log = tmp_path / "search-0.jsonl"
    first = next(iter(EVENTS)).encode()
    log.write_bytes(b"\n".join((first, line, first, b"")))
    with pytest.raises(UserError, match=r"search-0.jsonl, line 2 is damaged; move the file away"):
        read_log(log)


def test_keys_beside_those_of_an_event_are_left_alone(tmp_path):
    append_line(tmp_path / "log", {"tell": "a", **TOLD, "note": "of a user's own search"})
    assert read_log(tmp_path / "log") == [Tell(trial_id="a", **TOLD)]


def test_a_torn_last_line_is_left_out_and_mended_by_its_writer_alone(tmp_path):
    log = tmp_path / "log"
    whole = "".join(f"{line}\n" for line in EVENTS)
    log.write_text(whole + '{"tell": "a", "sta')
    assert read_log(log) == list(EVENTS.values())
    assert log.read_text() != whole
    assert read_log(log, mend=True) == list(EVENTS.values())
    assert log.read_text() == whole


def test_an_ask_that_was_never_told_is_read(tmp_path):
    folder = RunFolder.of(Store(tmp_path), "tiny")
    folder.path.mkdir(parents=True)
    write_run(folder, tiny_study(), [], {})
    rows = [{"ask": {}, "cell": {"alpha": 1.0}, "seed": 0, "trial": name} for name in "ab"]
    lines = [json.dumps(row) for row in (rows[0], {"tell": "a", **TOLD}, rows[1])]
    folder.log(0).write_text("".join(f"{line}\n" for line in lines))
    run = read_run(folder)
    assert [asked.trial_id for asked in run.asked] == ["a", "b"]
    assert [ask.trial_id for ask in asks(run.searches[0])] == ["a", "b"]
    assert [tell.trial_id for tell in tells(run.searches[0])] == ["a"]
