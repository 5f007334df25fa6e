"""A Ray that the harness starts by itself: where it listens, and what is said when it is lost."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
