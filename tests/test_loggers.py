"""`--log`: what is written while trials run, what is refused before, and that no trial is lost."""

from __future__ import annotations

import sys
from threading import Event
from types import SimpleNamespace

import pytest
from support.cli import harness
from support.few import SET

from harness.console import SILENT
from harness.driver import logged
from harness.engines.base import Ended
from harness.export import loggers
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("all_trained_here", "few_images")

TRAIN = ["train", "--method", "lora", "--sites", "q", "--depth", "last:1", *SET]
TRAIN += ["--set", "recipe.epochs=2", "--device", "cpu"]


class Kept:
    """A logger that remembers, or breaks at one of its calls."""

    def __init__(self, breaks_at=None):
        self.calls, self.breaks_at = [], breaks_at

    def begin(self, trial_id, name, settings):
        self._call("begin", trial_id, settings)

    def log(self, trial_id, epoch, scalars):
        self._call("log", trial_id, epoch, scalars)

    def end(self, trial_id, status, epoch, finals):
        self._call("end", trial_id, status, epoch, finals)

    def _call(self, *call):
        self.calls.append(call)
        if call[0] == self.breaks_at:
            raise OSError("the server is gone")


@pytest.mark.slow
def test_trials_are_logged_and_a_logger_that_breaks_loses_none(tmp_path, monkeypatch):
    whole, broken = Kept(), Kept(breaks_at="log")
    made = {"tensorboard:a": whole, "tensorboard:b": broken}
    monkeypatch.setattr("harness.driver.logged.open_logger", lambda text, run: made[text])
    words = [word for text in made for word in ("--log", text)]
    result = harness(*TRAIN, "--out", tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert result.output.count("--log tensorboard:b failed") == 1
    assert [call[0] for call in broken.calls] == ["begin", "log"]
    (trial,) = (path.name for path in (tmp_path / "trials").iterdir())
    record, history = Store(tmp_path).record(trial), Store(tmp_path).history(trial)
    assert [call[0] for call in whole.calls] == ["begin", "log", "log", "end"]
    assert {call[1] for call in whole.calls} == {trial}
    assert whole.calls[0][2]["method"] == "lora" and whole.calls[0][2]["positions"] == "q"
    for call, row in zip(whole.calls[1:3], history, strict=True):
        assert call[2] == row["epoch"] + 1
        assert call[3]["select/class_mean"] == 100 * row["select"]["class_mean"]
        assert call[3]["train_loss"] == row["train_loss"]
    _, _, status, epoch, finals = whole.calls[3]
    assert (status, epoch) == ("COMPLETE", 2)
    assert finals["test/class_mean"] == 100 * record.test.class_mean
    assert finals["device_s"] == record.cost.device_s

    again = harness(*TRAIN, "--out", tmp_path, "--log", "tensorboard:a")
    assert again.exit_code == 0 and len(whole.calls) == 4  # known trials are not logged anew


def test_folders_of_long_names_keep_their_ends(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = loggers.TensorBoard(tmp_path)
    for seed in (0, 1):
        writer.begin(str(seed), f"{'méthode+' * 40},seed={seed},{'0' * 16}", {})
        writer.end(str(seed), "COMPLETE", 1, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[-24:-17] for name in names] == [",seed=0", ",seed=1"]
    assert max(len(name.encode()) for name in names) <= 255


def test_a_paused_trial_that_goes_on_at_once_is_followed_to_its_end(monkeypatch):
    """Though its logger was still busy with its beginning."""
    monkeypatch.setattr(logged, "settings", lambda spec: {})
    monkeypatch.setattr(logged, "scalars", lambda row: {})
    monkeypatch.setattr(logged, "finals", lambda record: {})
    begun, may_go_on = Event(), Event()

    class Busy(Kept):
        def begin(self, *what):
            super().begin(*what)
            begun.set()
            may_go_on.wait(10)

    spec = SimpleNamespace(method="lora", seed=0, trial_id="a")
    epochs, ended = [{"epoch": 0}], SimpleNamespace(status="PRUNED")
    store = SimpleNamespace(history=lambda key: epochs, record=lambda key: ended)
    inner = SimpleNamespace(
        slots=1, submit=lambda spec: None, next=lambda: Ended(spec, None), close=lambda: None
    )
    busy = Busy()
    engine = logged.LoggedEngine(inner, store, logged.Logs({"busy": busy}, SILENT))
    engine.submit(spec)
    assert begun.wait(10)
    engine.next()
    engine.submit(spec)
    may_go_on.set()
    epochs.append({"epoch": 1})
    ended.status = "COMPLETE"
    engine.next()
    engine.close()
    assert [call[0] for call in busy.calls] == ["begin", "log", "log", "end"]
    assert busy.calls[-1][1:4] == ("a", "COMPLETE", 2)


def test_mistakes_are_one_sentence_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        loggers, "find_spec", lambda name: None if name == "mlflow" else sys.__spec__
    )
    (tmp_path / "file").write_text("")
    for log, words in (
        (["mlflow:sqlite:///x.db"], "install the extra mlflow, as in pip install"),
        (["tensorbord:x"], "Did you mean 'tensorboard'?"),
        (["tensorboard"], "write a folder behind it"),
        (["mlflow"], "write a tracking URI behind it"),
        (["tensorboard:x", "tensorboard:x"], "is given twice"),
        ([f"tensorboard:{tmp_path / 'file' / 'x'}"], "cannot be used: "),
    ):
        flags = [word for text in log for word in ("--log", text)]
        result = harness(*TRAIN, "--out", tmp_path / "runs", *flags)
        assert result.exit_code == 2 and words in result.output, result.output
    replay = harness("compare", "--search", "tpe", "--replay", "--log", "tensorboard:x")
    assert replay.exit_code == 2 and "--log are for live trials" in replay.output
    assert not (tmp_path / "runs").exists()
