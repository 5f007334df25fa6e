"""Trials as they are trained, in TensorBoard, MLflow and Weights & Biases: one small interface.

Owns: what `--log` may say, and how each tool is written to. Must not know: where trials run, or
when there is something to write (`harness.driver.logged`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UserError, unknown

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Kind of a logger -> the package that it needs; an extra of the kind's name brings it."""


LONGEST_FOLDER = 200
KEPT_END = 60
"""Bytes of the name of a trial's folder, and of its end where it is cut."""


class Logger(Protocol):
    """Where trials are written to, several at a time; called by one thread.

    Whatever it raises is said once, and it is not called again; no trial is lost by it.
    """

    def begin(self, trial_id: str, name: str, settings: Mapping[str, str]) -> None:
        """A trial was given to a worker; `name` is how a person is to know it."""

    def log(self, trial_id: str, epoch: int, scalars: Mapping[str, float]) -> None:
        """It has run `epoch` epochs; names and units as of `harness.export.scalars`."""

    def end(self, trial_id: str, status: str, epoch: int, finals: Mapping[str, float]) -> None:
        """It is over, with the status of its record, or `UNFINISHED`: there is no record here."""


def check_logs(given: Sequence[str]) -> None:
    """Whether `--log` can be followed: its kind, what stands behind it, and its package.

    Raises:
        UserError: it cannot, or the same is given twice; names the extra that lacks.
    """
    for text in given:
        kind, _, target = text.partition(":")
        if kind not in PACKAGES:
            raise unknown("logger of --log:", kind, PACKAGES)
        if kind == "tensorboard" and not target:
            raise UserError(f"--log {text}: write a folder behind it, as in tensorboard:logs.")
        if kind == "mlflow" and not target:
            raise UserError(
                f"--log {text}: write a tracking URI behind it, as in mlflow:sqlite:///mlflow.db."
            )
        if given.count(text) > 1:
            raise UserError(f"--log {text} is given twice.")
        if find_spec(PACKAGES[kind]) is None:
            raise UserError(
                f"--log {text}: the package {PACKAGES[kind]} is not installed; install the extra "
                f"{kind}, as in pip install 'peft-hpo-harness[{kind}]'."
            )


def open_logger(text: str, run: str) -> Logger:
    """The logger that one checked `--log` names, for a run of this name.

    Raises:
        UserError: it cannot be written to; says why.
    """
    kind, _, target = text.partition(":")
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(Path(target) / run),
        "mlflow": lambda: MLflow(target, run),
        "wandb": lambda: WandB(run, target or None),
    }
    try:
        return makers[kind]()
    except Exception as error:  # of any kind: each tool has errors of its own
        raise UserError(f"--log {text} cannot be used: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class TensorBoard:
    """A folder of events for each trial, through tensorboardX."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def begin(self, trial_id: str, name: str, settings: Mapping[str, str]) -> None:
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(self._folder / _shortened(name.replace("/", "_"))))
        table = "\n".join(f"| {field} | {value} |" for field, value in settings.items())
        writer.add_text("settings", f"| field | value |\n|---|---|\n{table}")
        self._writers[trial_id] = writer

    def log(self, trial_id: str, epoch: int, scalars: Mapping[str, float]) -> None:
        writer = self._writers[trial_id]
        for key, value in scalars.items():
            writer.add_scalar(key, value, epoch)
        writer.flush()

    def end(self, trial_id: str, status: str, epoch: int, finals: Mapping[str, float]) -> None:
        writer = self._writers.pop(trial_id)
        for key, value in finals.items():
            writer.add_scalar(key, value, epoch)
        writer.add_text("status", status, epoch)
        writer.close()


def _shortened(name: str) -> str:
    """A folder's name, of which a file system takes 255 bytes; seed and id stand at its end."""
    every = name.encode()
    if len(every) <= LONGEST_FOLDER:
        return name
    parts = every[: LONGEST_FOLDER - KEPT_END], every[-KEPT_END:]
    return "…".join(part.decode(errors="ignore") for part in parts)


class MLflow:
    """A run for each trial, in the experiment of the run's name, at any tracking URI."""

    def __init__(self, uri: str, run: str) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(run)
        self._experiment = (
            self._client.create_experiment(run) if found is None else found.experiment_id
        )
        self._runs: dict[str, str] = {}

    def begin(self, trial_id: str, name: str, settings: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        made = self._client.create_run(self._experiment, run_name=name)
        self._runs[trial_id] = made.info.run_id
        params = [Param(field, value) for field, value in settings.items()]
        self._client.log_batch(made.info.run_id, params=params)

    def log(self, trial_id: str, epoch: int, scalars: Mapping[str, float]) -> None:
        import time

        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, float(value), now, epoch) for key, value in scalars.items()]
        self._client.log_batch(self._runs[trial_id], metrics=metrics)

    def end(self, trial_id: str, status: str, epoch: int, finals: Mapping[str, float]) -> None:
        self.log(trial_id, epoch, finals)
        ended = {"PRUNED": "KILLED", "UNFINISHED": "KILLED", "FAILED": "FAILED"}.get(
            status, "FINISHED"
        )
        run = self._runs.pop(trial_id)
        self._client.set_tag(run, "status", status)
        self._client.set_terminated(run, ended)


class WandB:
    """A run for each trial, grouped by the run's name; offline, unless WANDB_MODE says else."""

    def __init__(self, run: str, project: str | None) -> None:
        import wandb

        self._wandb, self._group = wandb, run
        self._project = project or os.environ.get("WANDB_PROJECT", "peft-hpo-harness")
        self._mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._runs: dict[str, Any] = {}

    def begin(self, trial_id: str, name: str, settings: Mapping[str, str]) -> None:
        self._runs[trial_id] = self._wandb.init(
            project=self._project,
            group=self._group,
            name=name,
            config=dict(settings),
            mode=self._mode,
            reinit="create_new",  # several trials at a time, each with a run of its own
            settings=self._wandb.Settings(silent=True, console="off"),
        )

    def log(self, trial_id: str, epoch: int, scalars: Mapping[str, float]) -> None:
        self._runs[trial_id].log({**scalars, "epoch": epoch})

    def end(self, trial_id: str, status: str, epoch: int, finals: Mapping[str, float]) -> None:
        run = self._runs.pop(trial_id)
        run.log({**finals, "epoch": epoch})
        run.summary["status"] = status
        run.finish(exit_code=int(status == "FAILED"))
