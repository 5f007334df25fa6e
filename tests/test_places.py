"""Where results cannot be kept: the cause and what helps, before anything is computed."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from support.cli import harness
from support.hostile import InstantEngine
from support.records import TINY

from harness.driver.batch import Batch
from harness.errors import NotSavedError, TrialsFailed, UserError, saving
from harness.metrics import SHOWN
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.store import Store

COMMANDS = {
    "sweep": ("sweep", "--study", "depth_vs_position", "--smoke", "--dry-run"),
    "search": ("sweep", "--study", "depth_vs_position", "--search", "tpe", "--dry-run"),
    "train": ("train", "--method", "linear_probe"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "place,said",
    [
        ("file/below", "is a file"),
        ("n" * 300, "File name too long; name a shorter place"),
        ("/proc/nope", "cannot be used: "),
    ],
)
def test_a_store_that_cannot_be_made_is_refused_before_anything_runs(
    tmp_path, command, place, said
):
    (tmp_path / "file").write_text("")
    result = harness(*COMMANDS[command], "--out", tmp_path / place)
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and len(result.stderr) < 500
    assert "make room" not in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_store_that_may_only_be_read_is_refused_before_anything_runs(tmp_path, monkeypatch):
    def denied(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("harness.store.store.TemporaryFile", denied)
    words = ("sweep", "--study", "depth_vs_position", "--smoke", "--out", tmp_path)
    assert harness(*words, "--dry-run").exit_code == 0
    result = harness(*words)
    said = "cannot be used: Permission denied; name a place that you may write to."
    assert result.exit_code == 2 and said in result.stderr


def test_trying_a_place_leaves_nothing_and_takes_nothing(tmp_path):
    Store(tmp_path / "a" / "b").refuse_unmakeable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    Store(tmp_path / "a" / "b").refuse_unmakeable()
    Store(tmp_path / "a").refuse_unmakeable()
    assert [each.name for each in tmp_path.rglob("*")] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "own").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied; name a place that you may write to"):
        Store(tmp_path / "own" / "runs").refuse_unmakeable()


@pytest.mark.parametrize(
    "number,helps",
    [
        (errno.ENOSPC, "make room and"),
        (errno.EDQUOT, "make room and"),
        (errno.EACCES, "name a place that you may write to and"),
        (errno.EROFS, "name a place that you may write to and"),
        (errno.ENOENT, "name a place that can be made and"),
        (errno.ENAMETOOLONG, "name a shorter place and"),
        (errno.EIO, "see to that and"),
    ],
)
def test_what_cannot_be_saved_says_what_helps(tmp_path, number, helps):
    with pytest.raises(NotSavedError) as error, saving(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    said = str(error.value)
    assert (
        f"{os.strerror(number)}. What was saved is whole; {helps} give the command again." in said
    )
    assert ("make room" in said) == (number in (errno.ENOSPC, errno.EDQUOT))


class Failing(InstantEngine):
    """The second and the third trial fail, each with an error of its own."""

    def next(self):
        number = len(self.submitted) - len(self._running)
        error = f"Traceback\nValueError: the {number}th" if number in (1, 2) else None
        self.record = {} if error is None else {"status": "FAILED", "error": error}
        return super().next()


def test_a_batch_counts_what_failed_and_names_the_first(tmp_path):
    store = Store(tmp_path)
    specs = resolve(TINY, Runtime()).over_seeds(range(4))
    batch = Batch(store, Runtime(), TINY, lambda store, watch: Failing(store, slots=1))
    assert batch.problem is None
    with batch, pytest.raises(TrialsFailed) as error:
        batch.complete(specs, title="t", objective=SHOWN)
    assert str(error.value) == str(batch.problem)
    assert str(batch.problem).startswith(
        f"2 trials failed; the first, {specs[1].trial_id}, with: ValueError: the 1th Its record"
    )
    again = Batch(store, Runtime(), TINY, lambda store, watch: InstantEngine(store))
    with again:
        again.complete(specs, title="t", objective=SHOWN)
    assert again.problem is None


class Removing(InstantEngine):
    """All trials' folders are removed as the third ends, which then runs again."""

    def next(self):
        event = super().next()
        if len(self.submitted) - len(self._running) == 3:
            shutil.rmtree(self.store.trials)
        return event


def test_records_that_were_removed_in_mid_run_are_missed(tmp_path):
    store = Store(tmp_path)
    specs = resolve(TINY, Runtime()).over_seeds(range(6))
    batch = Batch(store, Runtime(), TINY, lambda store, watch: Removing(store))
    with batch, pytest.raises(NotSavedError, match="records of 2 of 6 trials are gone"):
        batch.complete(specs, title="t", objective=SHOWN)
    assert len(store.lost(spec.trial_id for spec in specs)) == 2
    whole = Batch(store, Runtime(), TINY, lambda store, watch: InstantEngine(store))
    with whole:
        whole.complete(specs, title="t", objective=SHOWN)
    assert store.lost(spec.trial_id for spec in specs) == []
