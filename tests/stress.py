"""`make stress`: what CI has no time for. Seed and counts are printed; exits with 1 at a fault.

    python tests/stress.py [--seed 0] [--inputs 20000] [--disturbances 40] [--trials 3000]

Generated inputs of every kind; a sweep and a search on local workers and on Ray, which are killed,
paused and given clocks that step, and end in the tables of an undisturbed run; and thousands of
trials in one process, whose memory, open files and threads do not grow.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import torch

STALE_S = 3.0
os.environ["HARNESS_STALE_S"] = str(STALE_S)
os.environ.setdefault("RAY_worker_niceness", "0")

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from support.fuzz import KINDS  # noqa: E402
from support.processes import one_running, records, start, sweep, table  # noqa: E402
from support.records import TINY  # noqa: E402
from test_faults import outcomes, written  # noqa: E402

from harness.runner.resolve import resolve  # noqa: E402
from harness.runner.runtime import Runtime  # noqa: E402
from harness.runner.trial import run_trial  # noqa: E402
from harness.store.store import Store  # noqa: E402

CASES = {
    "local grid": ["--workers", "2"],
    "local tpe": ["--workers", "1", "--search", "tpe", "--budget", "12"],
    "ray grid": ["--workers", "2", "--engine", "ray"],
}
ROUNDS = 5
"""Disturbances of one sweep, at most, before it is left to end."""
WARM_UP = 0.2
"""Share of the trials after which memory is compared."""
GROWTH = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--disturbances", type=int, default=40)
    parser.add_argument("--trials", type=int, default=3_000)
    asked = parser.parse_args()
    chosen = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    print(f"seed {chosen}", flush=True)
    torch.set_num_threads(1)
    if asked.inputs:
        generate(chosen, asked.inputs)
    disturb(random.Random(chosen), asked.disturbances)
    keep_training(asked.trials)


def generate(chosen: int, wanted: int) -> None:
    """So many inputs in all, shared by the weights of their kinds."""
    whole = sum(kind.weight for kind in KINDS.values())
    done: Counter[str] = Counter()
    for name, kind in KINDS.items():
        count = -(-wanted * kind.weight // whole)
        begun = time.monotonic()

        quiet = list(HealthCheck)
        how = settings(
            max_examples=count, deadline=None, database=None, suppress_health_check=quiet
        )
        seed(chosen)(how(given(kind.inputs)(counting(kind.check, done, name))))()
        print(f"inputs: {name} {done[name]}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"inputs: {done.total()} in all, each a success or one sentence", flush=True)


def counting(check, done: Counter[str], name: str):
    def counted(value: object) -> None:
        done[name] += 1
        check(value)

    return counted


def disturb(rng: random.Random, wanted: int) -> None:
    """Sweeps that are disturbed `ROUNDS` times each, then end as one that was not."""
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="stress-") as place:
        positions = ("mlp1", "q", "v", "out")
        study = written(Path(place), "", DATA="synth-rs", FRACTION=0.2, POSITIONS=positions)
        whole = {}
        for number in itertools.count():
            if done.total() >= wanted:
                break
            name = list(CASES)[number % len(CASES)]
            words = CASES[name]
            base = name.split()[1]
            if base not in whole:
                whole[base] = Path(place, base)
                ended(sweep(study, whole[base], *CASES[f"local {base}"]))
            out = Path(place, str(number))
            for _ in range(ROUNDS):
                before = records(out)
                what = one_disturbance(rng, study, out, words)
                after = records(out)
                assert all(after[trial] == text for trial, text in before.items()), "record lost"
                if what is None:
                    break
                done[f"{name.split()[0]} {what}"] += 1
            ended(sweep(study, out, *words))
            assert table(out) == table(whole[base]), f"{name}: another table"
            assert set(records(out)) == set(records(whole[base]))
            assert not list(out.glob("attic/*/record.json")), "a finished trial ran twice"
            if base == "tpe":
                logs = [next(each.glob("studies/*/search-0.jsonl")) for each in (out, whole[base])]
                assert outcomes(logs[0]) == outcomes(logs[1])
            print(f"disturbances: {name}, {dict(done)}", flush=True)
    print(f"disturbances: {done.total()} in all, nothing lost, nothing twice", flush=True)


def ended(process) -> None:
    assert process.returncode == 0, process.errors


def one_disturbance(rng: random.Random, study: Path, out: Path, words: list[str]) -> str | None:
    """Start the sweep, do something to it, and have it be gone; None: it had ended before."""
    what = rng.choice(("driver killed", "worker killed", "all paused", "clock stepped"))
    process = start(study, out, *words)
    with suppress(Exception):
        process.wait(timeout=rng.uniform(6, 16))
    if process.poll() is not None:
        return None
    if what == "worker killed":
        pid = one_running(out)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(rng.uniform(0, 2))
    elif what == "all paused":
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(STALE_S + 0.5)
        other = sweep(study, out, *words)  # takes over what is paused, or says who has it
        assert other.returncode in (0, 2, 3) and "Traceback" not in other.errors, other.errors
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0, 2))
    elif what == "clock stepped":
        shift = rng.choice((-7200.0, 7200.0))
        marks = [*out.glob("trials/*/claim.json"), *out.glob("studies/*/driver.json")]
        for mark in marks:
            with suppress(FileNotFoundError):
                at = mark.stat().st_mtime + shift
                os.utime(mark, (at, at))
        time.sleep(rng.uniform(0, 2))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return what


def keep_training(wanted: int) -> None:
    """Tiny trials in one process; what it holds afterwards is what it held when warm."""
    own = psutil.Process()
    small = {"data.val_fraction": 0.9, "data.options.test_per_class": 1}
    base = TINY.with_values(small, source="stress")
    warm = now = None
    with tempfile.TemporaryDirectory(prefix="stress-") as place:
        store = Store(Path(place))
        for number in range(wanted):
            request = base.with_values({"alpha": 1 + number / wanted}, source="stress")
            record = run_trial(resolve(request, Runtime()), Runtime(), store)
            assert record.status == "COMPLETE", record.error
            if number + 1 in (int(wanted * WARM_UP), wanted) or number % 500 == 499:
                now = own.memory_info().rss, own.num_fds(), threading.active_count()
                print(f"trials: {number + 1}; {now[0] / 2**20:.0f} MB, {now[1:]}", flush=True)
            if number + 1 == int(wanted * WARM_UP):
                warm = now
    if warm and now:
        assert now[0] <= warm[0] * (1 + GROWTH), "memory grows"
        assert now[1] <= warm[1] and now[2] <= warm[2], "descriptors or threads grow"
    print(f"trials: {wanted} in all, flat", flush=True)


if __name__ == "__main__":
    sys.exit(main())
