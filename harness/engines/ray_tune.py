"""Where trials run: the workers of a Ray cluster, on one machine or many, through Ray Tune.

Tune asks its search algorithm what to run; here that is a queue which the driver fills, so that
what is tried, retried, stopped and recorded is decided in the same place as for local processes.
Owns: Ray Tune. Must not know: which trial is worth running, or why.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import queue
import shutil
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by Ray when it is imported: nothing is sent home or written beside our own store, and the
# console is ours.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # no second cluster after a lost one

import ray
from ray import tune
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.exceptions import AuthenticationError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from harness.engines.base import Ended, Reported, RunTrial
from harness.engines.processes import leaving_signals
from harness.errors import NotSavedError, TakenOver, UserError
from harness.runner.memory import keep_freed_memory
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import TrialSpec
from harness.store.store import Store

WAITING_CPUS = 0.01
"""Of a worker that only waits for the processes that train its trial together."""
KNOCK_S = 0.3
"""From one look at whether the cluster is still there to the next."""
KNOCKS = 3
"""Without an answer, after which it is gone."""
CLOSE_S = 5.0
"""How long to wait for Tune to notice that nothing more will come."""

Event = Ended | Reported | Exception


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What every worker is given once."""

    root: Path
    runtime: Runtime
    watch: bool
    run: RunTrial
    together: int
    answers: Any


class RayEngine:
    """The `Engine` contract on Ray Tune.

    Actors are used again, so that a trial costs no process start. `gpus_per_trial` below 1 lets
    trials share a GPU; of 2 or more (on the CPU: processes), they train one trial together.

    Raises:
        UserError: there is no cluster at `address`, or it has not what a trial needs.
    """

    def __init__(
        self,
        *,
        store: Store,
        runtime: Runtime,
        workers: int | None,
        gpus_per_trial: float = 1.0,
        address: str | None = None,
        watch: bool = False,
        run: RunTrial = run_trial,
    ) -> None:
        on_gpu = runtime.device.startswith("cuda")
        together = int(gpus_per_trial) if gpus_per_trial > 1 else 1
        own_cpus = 1.0 if together == 1 else WAITING_CPUS
        cpus = own_cpus if together == 1 else own_cpus + together
        _connect(address, None if on_gpu else math.ceil((workers or 1) * cpus))
        self.slots = _slots(workers, {"GPU": gpus_per_trial} if on_gpu else {"CPU": cpus})
        self._folder = store.root.resolve() / "ray" / f"{os.getpid()}-{id(self)}"
        self._answers = ray.remote(_Answers).options(num_cpus=0).remote()
        self._events: queue.Queue[Event] = queue.Queue()
        self._feed = _Feed()
        self._closed, self._lost = threading.Event(), False
        addresses = [] if str(address).startswith("ray://") else _addresses()
        threading.Thread(target=self._watch, args=(addresses,), daemon=True).start()
        common = _Common(
            root=store.root.resolve(),
            runtime=runtime.at("cuda:0") if on_gpu else runtime,  # Ray shows a worker its own
            watch=watch,
            run=run,
            together=together,
            answers=self._answers,
        )
        # Processes that train together reserve their own devices, through Ray Train.
        resources = {"cpu": own_cpus, "gpu": gpus_per_trial if on_gpu and together == 1 else 0.0}
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_Trial, common=common), resources),
            tune_config=tune.TuneConfig(
                search_alg=self._feed,
                scheduler=_Listener(self._events),
                num_samples=-1,
                max_concurrent_trials=self.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._folder.parent),
                name=self._folder.name,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        self._thread = threading.Thread(target=self._fit, args=(tuner,), daemon=True)
        self._thread.start()

    def _fit(self, tuner: tune.Tuner) -> None:
        try:
            tuner.fit()
        except Exception as error:  # of Ray itself; the driver must not wait for ever
            self._events.put(error)

    def _watch(self, addresses: list[str]) -> None:
        """Notice a cluster that is gone before Ray does, which ends this process without a word."""
        missed = 0
        while missed < KNOCKS:
            if self._closed.wait(KNOCK_S):
                return
            try:
                for address in addresses:
                    _knock(address)
                missed = 0
            except OSError:
                missed += 1
        self._lost = True
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self._events.put(
            NotSavedError(
                f"The Ray cluster is gone: {' or '.join(addresses)} answers no more. The trials "
                "that it ran are not saved, all earlier ones are; the same command goes on."
            )
        )

    def submit(self, spec: TrialSpec) -> None:
        self._feed.put(spec)

    def next(self) -> Ended | Reported:
        """Raises `NotSavedError` when the store cannot be written, `UserError` as a trial does."""
        event = self._events.get()
        while self._lost and not isinstance(event, Exception):  # what ended with the cluster
            event = self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        ray.get(self._answers.put.remote(self._feed.runs[spec.trial_id], goes_on))

    def close(self) -> None:
        self._closed.set()
        if self._lost:
            return  # nobody is there to be told, and Ray would wait for it
        self._feed.put(None)
        self._thread.join(CLOSE_S)
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _connect(address: str | None, cpus: int | None) -> None:
    """Join a cluster, or start one of this machine alone with at least `cpus` places."""
    ray_worker.print_to_stdstream = _say_nothing  # logs of a raylet, to stdout
    if address is None:
        with leaving_signals(), _on_this_machine_alone():
            ray.init(
                address="local",
                num_cpus=max(cpus or 0, len(os.sched_getaffinity(0))),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        return
    what = "no Ray cluster answers there; start one with `ray start --head`"
    try:
        _knock(address)
        if address != "auto":  # then somebody is there
            what = (
                "who answers there is no Ray cluster, or asks for its token (RAY_AUTH_MODE=token "
                "with RAY_AUTH_TOKEN, or the head's ~/.ray/auth_token)"
            )
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, AuthenticationError) as error:  # a ConnectionError among them
        raise UserError(f"--address {address}: {what}.") from error


def _say_nothing(*_: object, **__: object) -> None:
    pass


@contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """A cluster that is started in it listens at 127.0.0.1 only, where no other machine reaches it.

    Ray would listen on all interfaces, and takes no loopback address as its own, but on systems for
    which this switch of its is off.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _knock(address: str) -> None:
    """Fail at once where nothing listens, for which Ray itself would try for many minutes."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=CLOSE_S).close()


def _addresses() -> list[str]:
    """Where the cluster's head, and this machine's part of it, listen."""
    context = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return [context.gcs_address, f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}"]


def _slots(workers: int | None, needs: dict[str, float]) -> int:
    """How many trials fit the cluster at once."""
    ((name, amount),) = needs.items()
    room = int(ray.cluster_resources().get(name, 0.0) / amount)
    if room < 1:
        ray.shutdown()
        raise UserError(f"A trial needs {amount:g} {name}; the Ray cluster does not have that.")
    return min(room, workers or room)


class _Feed(Searcher):
    """Tune's search algorithm: hands over what the driver has submitted."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: queue.Queue[TrialSpec | None] = queue.Queue()
        self.runs: dict[str, str] = {}
        """Trial -> the latest run of it, as Tune names it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps copies to resume from; we resume from the store

    def put(self, spec: TrialSpec | None) -> None:
        """Submit a trial; None: nothing more will come."""
        self._waiting.put(spec)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            spec = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if spec is None:
            finished: str = Searcher.FINISHED
            return finished
        self.runs[spec.trial_id] = trial_id
        return {"spec": spec.model_dump_json(), "run": trial_id}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The driver hears it from `_Listener`."""


class _Listener(FIFOScheduler):
    """Tune's scheduler: passes on what trials say. Who stops early is for the search to say."""

    def __init__(self, events: queue.Queue[Event]) -> None:
        super().__init__()
        self._events = events

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._events.put(Reported(_spec(trial), result["epoch"], json.loads(result["scores"])))
        go_on: str = self.CONTINUE
        return go_on

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        kind, message = json.loads(result["problem"]) or ("", "")
        if kind in ("", TakenOver.__name__):
            self._events.put(Ended(_spec(trial), None, message or None))
        else:
            self._events.put(UserError(message) if kind == "UserError" else NotSavedError(message))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        reason = str(trial.get_error()).strip() or "no reason is known"
        self._events.put(Ended(_spec(trial), f"The worker or its machine was lost:\n{reason}"))


def _spec(trial: Any) -> TrialSpec:
    return TrialSpec.model_validate_json(trial.config["spec"])


class _Answers:
    """An actor that takes the search's answers to the workers that wait for them."""

    def __init__(self) -> None:
        self._boxes: defaultdict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)

    async def put(self, run: str, goes_on: bool) -> None:
        await self._boxes[run].put(goes_on)

    async def get(self, run: str) -> bool:
        return await self._boxes[run].get()


class _Trial(tune.Trainable):
    """One trial in a worker: a step lasts until it reports or ends.

    A watched trial runs in a thread of its own, so that a step can return in the middle of it.
    """

    def setup(self, config: dict[str, Any], common: _Common) -> None:
        self._common = common
        if common.runtime.device == "cpu" and common.runtime.keep_memory:
            keep_freed_memory()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._spec = TrialSpec.model_validate_json(new_config["spec"])
        self._run = new_config["run"]
        self._said: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self._heard: queue.Queue[bool] = queue.Queue()
        self._thread: threading.Thread | None = None
        return True

    def step(self) -> dict[str, Any]:
        if not self._common.watch:
            return self._work()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work_apart, daemon=True)
            self._thread.start()
        else:
            self._heard.put(ray.get(self._common.answers.get.remote(self._run)))
        said = self._said.get()
        if isinstance(said, BaseException):
            raise said
        return said

    def _work_apart(self) -> None:
        """Work in a thread, and leave no step to wait for one that has died."""
        try:
            self._said.put(self._work())
        except BaseException as error:
            self._said.put(error)

    def _work(self) -> dict[str, Any]:
        common, problem = self._common, None
        store = Store(common.root)
        try:
            if common.together > 1:
                from harness.engines.ray_train import run_together

                run_together(self._spec, common.runtime, store, common.together)
            else:
                goes_on = self._goes_on if common.watch else None
                common.run(self._spec, common.runtime, store, goes_on)
        except (UserError, NotSavedError) as error:
            problem = (type(error).__name__, str(error))
        return {"done": True, "problem": json.dumps(problem)}

    def _goes_on(self, epoch: int, scores: dict[str, Any]) -> bool:
        self._said.put({"epoch": epoch, "scores": json.dumps(scores)})
        return self._heard.get()
