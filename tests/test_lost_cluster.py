"""A lost cluster, driver or worker; and where a Ray that the harness starts by itself listens."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.records import TINY

from harness.engines.local import LocalEngine
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.store import Store

SCRIPT = """
import json, pathlib, sys, time
import psutil
from harness.cli.terminal import exit_code_of
from harness.engines.ray_tune import RayEngine
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest
from harness.store.store import Store

def endless(spec, runtime, store, should_continue):
    time.sleep(600)

if __name__ == "__main__":
    store = Store(pathlib.Path("store"))
    engine = RayEngine(store=store, runtime=Runtime(), workers=1, run=endless)
    everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for each in everyone for socket in each.net_connections("tcp")]
    print(json.dumps([socket.laddr.ip for socket in sockets if socket.status == "LISTEN"]))
    engine.submit(resolve(TrialRequest(), Runtime()))
    next(each for each in everyone if each.name() == "raylet").kill()
    try:
        engine.next()
    except Exception as error:
        code = exit_code_of(error)
    engine.close()
    sys.exit(code)
"""


@pytest.mark.slow
def test_it_listens_on_loopback_only_and_its_loss_is_one_sentence(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    lines = ended.stdout.splitlines()
    addresses = {address.removeprefix("::ffff:") for address in json.loads(lines[0])}
    assert addresses == {"127.0.0.1"}
    assert ended.returncode == 3 and len(lines) == 1
    said = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and said[0].startswith("Error: The Ray cluster is gone: 127.0.0.1:")
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("act", ["theirs.recv()", "theirs.send(1)"])
def test_a_worker_whose_driver_is_gone_ends_without_a_word(act):
    code = (
        "from multiprocessing import Pipe\n"
        "from harness.engines.processes import ending_with_its_pipe\n"
        "ours, theirs = Pipe()\n"
        "ours.close()\n"
        f"with ending_with_its_pipe(): {act}\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


def nothing(spec, runtime, store, should_continue):
    pass


@pytest.mark.slow
def test_a_worker_that_died_with_nothing_to_do_is_replaced(tmp_path):
    spec = resolve(TINY, Runtime())
    engine = LocalEngine(store=Store(tmp_path), runtime=Runtime(), workers=1, run=nothing)
    for _ in range(2):
        engine.submit(spec)
        assert engine.next().crash is None
        engine._idle[0].process.kill()
        engine._idle[0].process.join()
    engine.close()
