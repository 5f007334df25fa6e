"""The server that workers are forked from starts before the driver is ready, and never stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest
from support.cli import harness
from support.processes import command, wait_for

from harness.driver.request import EngineRequest
from harness.engines import processes


@pytest.fixture
def started(monkeypatch):
    """How often the server was started."""
    calls = []
    monkeypatch.setattr(processes.forkserver, "ensure_running", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize(
    "device,has_driver,count",
    [("cpu", True, 1), (None, False, 1), (None, True, 0), ("cuda", True, 0), ("cuda:1", False, 0)],
)
def test_it_is_for_the_cpu(tmp_path, monkeypatch, started, device, has_driver, count):
    driver = tmp_path / "nvidia"
    if has_driver:
        driver.mkdir()
    monkeypatch.setattr(processes, "DRIVER_OF_GPUS", driver)
    EngineRequest().start_ahead(device)
    assert len(started) == count


def test_ray_has_processes_of_its_own(started):
    EngineRequest(kind="ray").start_ahead("cpu")
    assert not started


AHEAD = """
import json, os, sys
from multiprocessing import forkserver
if __name__ == "__main__":
    from harness.engines.processes import start_ahead
    start_ahead("cpu")
    ahead = forkserver._forkserver._forkserver_pid
    early = sorted({"torch", "numpy"} & set(sys.modules))
from pathlib import Path
from harness.engines.local import LocalEngine
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.store import Store
from support.records import TINY

def note(spec, runtime, store, should_continue):
    (store.root / "parent").write_text(str(os.getppid()))

if __name__ == "__main__":
    root = Path(sys.argv[1])
    engine = LocalEngine(store=Store(root), runtime=Runtime(), workers=1, run=note)
    engine.submit(resolve(TINY, Runtime()))
    assert engine.next().crash is None
    engine.close()
    print(json.dumps([early, ahead, int((root / "parent").read_text())]))
"""


@pytest.mark.slow
def test_workers_are_forked_from_the_server_that_was_started_ahead(tmp_path):
    script = tmp_path / "ahead.py"
    script.write_text(AHEAD)
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(path)},
    )
    assert done.returncode == 0, done.stderr
    early, ahead, parent = json.loads(done.stdout)
    assert early == [] and ahead == parent


def of_session(session):
    """The processes of a session that are not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


@pytest.mark.slow
def test_nothing_is_left_behind_where_planning_fails(tmp_path):
    """At once, while the server is still importing."""
    words = ("--smoke", "--set", "recipe.epochs=none")
    process = subprocess.Popen(
        command("depth_vs_position", str(tmp_path / "out"), *words),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = process.communicate()[1]
    assert process.returncode == 2 and said.startswith("Error: "), said
    wait_for(lambda: None if of_session(process.pid) else True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_dry_run_starts_no_server(tmp_path, monkeypatch, started):
    def refused(**how):
        raise AssertionError("an engine was made")

    monkeypatch.setattr("harness.driver.setup.LocalEngine", refused)
    words = ["--study", "depth_vs_position", "--device", "cpu", "--out", tmp_path]
    done = harness("sweep", *words, "--dry-run")
    assert done.exit_code == 0, done.output
    assert not started
