"""One trial on several devices at once: data-parallel processes started by Ray Train.

Owns: Ray Train. Must not know: searches, or how the processes share a batch
(`harness.training.distributed`).
"""

from __future__ import annotations

import os
import shutil
from typing import Any

# Read by Ray when it is imported, in this process and in those that it starts.
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import WorkerGroupError

from harness.errors import NotSavedError, UserError
from harness.runner.runtime import Runtime
from harness.runner.trial import follow_trial, run_trial
from harness.spec import TrialSpec
from harness.store.store import Store
from harness.training.distributed import DistributedContext


def run_together(spec: TrialSpec, runtime: Runtime, store: Store, count: int) -> None:
    """Run a trial in `count` processes with DistributedDataParallel; the first one records it.

    The global batch is the recipe's, so the result is that of one process but for rounding.

    Raises:
        UserError: as the trial does.
        NotSavedError: the store cannot be written.
    """
    on_gpu = runtime.device.startswith("cuda")
    folder = store.root / "ray" / f"train-{spec.trial_id}-{os.getpid()}"
    trainer = TorchTrainer(
        _train,
        train_loop_config={
            "spec": spec.model_dump_json(),
            "runtime": runtime,
            "store": store,
        },
        scaling_config=ScalingConfig(num_workers=count, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(storage_path=str(folder.parent), name=folder.name),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        for problem in error.worker_failures.values():
            if isinstance(problem, UserError | NotSavedError):
                raise problem from error
        if store.record(spec.trial_id) is None:
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _train(config: dict[str, Any]) -> None:
    """What every process does."""
    spec = TrialSpec.model_validate_json(config["spec"])
    context, device = get_context(), get_device()
    world = DistributedContext(context.get_world_rank(), context.get_world_size(), device)
    runtime: Runtime = config["runtime"].at(str(device))
    store: Store = config["store"]
    if not world.agree(store.state(spec.trial_id) in ("absent", "failed")):
        return
    if world.rank > 0:
        follow_trial(spec, runtime, world)
        return
    record = run_trial(spec, runtime, store, distributed=world)
    if record is None or record.status == "FAILED":
        raise RuntimeError("the other processes wait for this one; end them")
