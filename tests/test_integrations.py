"""`--log` with the real libraries: `make integrations`."""

from __future__ import annotations

import pytest

from harness.export.loggers import open_logger

pytestmark = pytest.mark.integration


def write(logger):
    """Two trials at a time."""
    for key in ("a", "b"):
        logger.begin(key, f"lora,{key}", {"method": "lora"})
    for key in ("a", "b"):
        logger.log(key, 1, {"select/class_mean": 50.0})
    logger.end("a", "COMPLETE", 1, {"test/class_mean": 40.0})
    logger.end("b", "FAILED", 1, {})


def test_mlflow_has_a_run_for_each_trial(tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    for _ in range(2):  # the experiment is there the second time
        write(open_logger(f"mlflow:{uri}", "some_run"))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("some_run").experiment_id
    runs = client.search_runs([experiment])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    whole = next(run for run in runs if run.info.status == "FINISHED")
    assert whole.data.metrics == {"select/class_mean": 50.0, "test/class_mean": 40.0}
    assert whole.data.params == {"method": "lora"}


def test_wandb_writes_offline_a_run_for_each_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    write(open_logger("wandb", "some_run"))
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2
