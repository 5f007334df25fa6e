"""What a store must keep, whoever writes to it and whenever a process dies.

Owns: these tests. Must not know: how a trial is trained.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialSpec
from harness.store.liveness import STALE_S
from harness.store.store import Store
from harness.testing.made import TINY, made_record

RIVALS, TRIALS = 4, 20

OpenStore = Callable[[Path], Store]


class StoreContract:
    """Override the fixture `open_store` for a store of your own."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Opens the store of a folder, anew at every call; can be sent to other processes."""
        return Store

    @pytest.fixture
    def spec(self) -> TrialSpec:
        return resolve(TINY, Runtime())

    def test_a_trial_is_claimed_once_and_published_once(
        self, open_store: OpenStore, spec: TrialSpec, tmp_path: Path
    ) -> None:
        store = open_store(tmp_path)
        assert store.state(spec.trial_id) == "absent" and store.record(spec.trial_id) is None
        with store.claim(spec) as first, open_store(tmp_path).claim(spec) as second:
            assert first is not None and second is None
            assert store.state(spec.trial_id) == "running"
            first.log({"epoch": 0})
            first.publish(made_record(spec))
        assert store.state(spec.trial_id) == "done"
        assert open_store(tmp_path).record(spec.trial_id) == made_record(spec)
        assert store.history(spec.trial_id) == [{"epoch": 0}]
        with store.claim(spec) as again:
            assert again is None

    def test_a_failed_or_stopped_trial_can_be_claimed_again(
        self, open_store: OpenStore, spec: TrialSpec, tmp_path: Path
    ) -> None:
        store = open_store(tmp_path)
        with store.claim(spec) as claim:
            assert claim is not None
            claim.publish(made_record(spec, "FAILED").model_copy(update={"error": "boom"}))
        assert store.state(spec.trial_id) == "failed"
        with store.claim(spec) as claim:
            assert claim is not None and store.record(spec.trial_id) is None
            claim.log({"epoch": 0})
            claim.checkpoint.write_bytes(b"state")
            claim.publish(made_record(spec, "PRUNED"), keep_checkpoint=True)
        assert store.state(spec.trial_id) == "absent"
        with store.claim(spec) as claim:
            assert claim is not None and store.history(spec.trial_id) == []
            assert claim.checkpoint.read_bytes() == b"state"
            claim.publish(made_record(spec))
        assert store.state(spec.trial_id) == "done"
        kept = [json.loads(path.read_text()) for path in tmp_path.glob("attic/*/record.json")]
        assert sorted(str(record["error"]) for record in kept) == ["None", "boom"]

    @pytest.mark.parametrize("case", ["dead pid", "reused pid", "stale heartbeat", "torn claim"])
    def test_the_claim_of_a_crashed_process_is_taken_over(
        self, open_store: OpenStore, spec: TrialSpec, tmp_path: Path, case: str
    ) -> None:
        store = open_store(tmp_path)
        folder = tmp_path / "trials" / spec.trial_id
        folder.mkdir(parents=True)
        claim = folder / "claim.json"
        pid = os.getpid() if case == "reused pid" else _dead_process()
        dead = {"host": socket.gethostname(), "pid": pid, "started": 0.0}
        claim.write_text('{"ho' if case == "torn claim" else json.dumps(dead))
        if case == "stale heartbeat":
            claim.write_text(json.dumps({"host": "another-machine", "pid": 1, "started": 0.0}))
            assert store.state(spec.trial_id) == "running"
            old = time.time() - 2 * STALE_S
            os.utime(claim, (old, old))
        (folder / "history.jsonl").write_text("half a run\n")
        assert store.state(spec.trial_id) == "absent"
        with store.claim(spec) as again:
            assert again is not None
            again.publish(made_record(spec))
        assert store.state(spec.trial_id) == "done" and store.history(spec.trial_id) == []

    def test_of_many_processes_one_gets_each_trial(
        self, open_store: OpenStore, spec: TrialSpec, tmp_path: Path
    ) -> None:
        """All of them want all trials, in the same order and at the same time."""
        context = multiprocessing.get_context("fork")
        gate, got = context.Barrier(RIVALS), context.Queue()
        specs = [spec.model_copy(update={"seed": seed}) for seed in range(TRIALS)]

        def rival() -> None:
            store, mine = open_store(tmp_path), []
            gate.wait()
            for each in specs:
                with store.claim(each) as claim:
                    if claim is not None:
                        claim.publish(made_record(each))
                        mine.append(each.trial_id)
            got.put(mine)

        rivals = [context.Process(target=rival, daemon=True) for _ in range(RIVALS)]
        for process in rivals:
            process.start()
        taken = [trial_id for _ in rivals for trial_id in got.get(timeout=60)]
        for process in rivals:
            process.join()
        assert sorted(taken) == sorted(each.trial_id for each in specs)
        store = open_store(tmp_path)
        assert all(store.record(each.trial_id) == made_record(each) for each in specs)

    def test_a_store_can_be_moved(
        self, open_store: OpenStore, spec: TrialSpec, tmp_path: Path
    ) -> None:
        with open_store(tmp_path / "a").claim(spec) as claim:
            assert claim is not None
            claim.publish(made_record(spec))
        (tmp_path / "a").rename(tmp_path / "b")
        assert open_store(tmp_path / "b").state(spec.trial_id) == "done"


def _dead_process() -> int:
    """The number of a process that has ended."""
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert process.pid is not None
    return process.pid
