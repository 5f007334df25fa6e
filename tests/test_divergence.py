"""A training whose numbers overflow is a result, in whichever step or pass it does."""

from __future__ import annotations

import json

import pytest
from support.few import FEW

from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.store.store import Store
from harness.training import train as training

pytestmark = pytest.mark.usefixtures("few_images")


def run(tmp_path, **values):
    spec = resolve(FEW.with_values(values, source="test"), Runtime())
    record = run_trial(spec, Runtime(keep_features=True), Store(tmp_path))
    return record, Store(tmp_path).history(spec.trial_id)


def is_without_scores(record):
    return (record.status, record.select, record.test, record.tested_epoch, record.error) == (
        "DIVERGED",
        None,
        None,
        None,
        None,
    ) and record.learned is None


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_overflow_in_the_last_step_of_an_epoch(tmp_path, epochs):
    """One step an epoch, so the loss of the first is that of the untrained head."""
    values = {"recipe.epochs": epochs, "recipe.batch_size": 512, "recipe.lr": 1e30}
    record, history = run(tmp_path, **values)
    assert is_without_scores(record) and record.epochs_run == 1
    (row,) = history
    assert row["epoch"] == 0 and row["train_loss"] > 0 and row["diverged"] and "select" not in row
    assert record.cost.images_forward > record.cost.images_backward
    json.dumps(history, allow_nan=False)


def test_an_overflow_in_the_test_alone(tmp_path, monkeypatch):
    def evaluate(classifier, dataset, images, precision, distributed, prefixes, part):
        if part == "test":
            for each in classifier.attachment.parameters():
                each.data.fill_(float("inf"))
        return scored(classifier, dataset, images, precision, distributed, prefixes, part)

    scored = training.evaluate
    monkeypatch.setattr(training, "evaluate", evaluate)
    record, history = run(tmp_path)
    assert is_without_scores(record) and record.epochs_run == 1
    assert [row["epoch"] for row in history] == [0]
