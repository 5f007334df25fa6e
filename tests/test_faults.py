"""Things that really go wrong: killed drivers, workers and machines, full disks, little memory.

Whatever happens, the same command then ends in the table of a sweep that nothing happened to.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import signal
import subprocess
from functools import partial

import psutil
import pytest
import torch
from support.processes import Forked, one_running, records, running, table, wait_for
from support.records import TINY

from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.store.liveness import driving
from harness.store.run_folder import RunFolder
from harness.store.store import Store

FEW_IMAGES = """
from harness.data.contract import DATASETS
from support.few import FewRS

DATASETS.add("few-rs", FewRS)
"""
STUDY = """
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base


def study():
    made = base()
    return made.derive(
        name="faults",
        base=made.base.with_values(
            {
                "depth": "last:1",
                "recipe.epochs": 4,
                "data": "DATA",
                "data.options.test_per_class": 4,
                "data.val_fraction": FRACTION,
            },
            source="test",
        ),
        axes=(
            Axis(field="positions", values=POSITIONS, label="position"),
            Axis(field="alpha", values=(0.5, 1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="t"),),
        reference=None,
    )
"""
WORDS = {
    "grid": "--workers 2",
    "tpe": "--workers 1 --search tpe --budget 12",
    "tpe and hyperband": "--workers 1 --search tpe --pruner hyperband --budget 12",
}
SEARCHES = {name: words.split() for name, words in WORDS.items()}


def written(folder, head, **values):
    text = STUDY
    for name, value in values.items():
        text = text.replace(name, str(value))
    path = folder / "faults.py"
    path.write_text(head + text)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Twelve short trials."""
    values = {"DATA": "few-rs", "FRACTION": 0.5, "POSITIONS": ("mlp1", "q", "v", "out")}
    return written(tmp_path_factory.mktemp("study"), FEW_IMAGES, **values)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Three trials, each so long that it can be caught while it trains."""
    values = {"DATA": "synth-rs", "FRACTION": 0.8, "POSITIONS": ("mlp1",)}
    return written(tmp_path_factory.mktemp("longer"), "", **values)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Study and kind of search -> the folder of a sweep that nothing happens to."""

    @functools.cache
    def out(study, kind="grid"):
        made = tmp_path_factory.mktemp("undisturbed")
        assert Forked(study, made, *SEARCHES[kind]).end().returncode == 0
        return made

    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "tpe and hyperband"])
def test_a_driver_killed_at_random_moments_loses_and_repeats_nothing(
    study, undisturbed, tmp_path, kind
):
    rng = random.Random(kind)
    seen = {}
    for _ in range(6):
        process = Forked(study, tmp_path, *SEARCHES[kind])
        if not process.ends_within(rng.uniform(0, 4)):
            os.kill(process.pid, signal.SIGKILL)
        process.end()
        now = records(tmp_path)
        assert all(now[trial] == content for trial, content in seen.items())
        seen = now
    assert Forked(study, tmp_path, *SEARCHES[kind]).end().returncode == 0
    whole = undisturbed(study, kind)
    assert table(tmp_path) == table(whole)
    assert set(records(tmp_path)) == set(records(whole))
    assert not list(tmp_path.glob("attic/*/record.json"))
    if kind != "grid":
        logs = [next(out.glob("studies/*/search-0.jsonl")) for out in (tmp_path, whole)]
        assert outcomes(logs[0]) == outcomes(logs[1])


def outcomes(log):
    """What the search asked, heard and learned, without times."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [{k: v for k, v in event.items() if k != "device_s"} for event in events]


@pytest.mark.slow
def test_a_killed_worker_costs_its_trial_one_retry(longer, undisturbed, tmp_path):
    process = Forked(longer, tmp_path, "--workers", "1")
    os.kill(wait_for(lambda: one_running(tmp_path), process), signal.SIGKILL)
    assert process.end().returncode == 0, process.errors
    assert table(tmp_path) == table(undisturbed(longer))
    assert len(list(tmp_path.glob("attic/*"))) == 1


@pytest.mark.slow
def test_a_trial_whose_worker_always_dies_is_recorded_and_counted(longer, tmp_path):
    process = Forked(longer, tmp_path, "--workers", "1", "--max-retries", "1")
    first = wait_for(lambda: next(iter(running(tmp_path)), None), process)
    killed = []
    while len(killed) < 2:
        pid = wait_for(lambda: running(tmp_path).get(first), process)
        if pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    assert process.end().returncode == 1
    assert "1 trials failed" in process.errors and "exit code -9" in process.errors
    assert Store(tmp_path).record(first).status == "FAILED"
    assert len(records(tmp_path)) == 3


@pytest.mark.slow
def test_a_lost_node_of_a_ray_cluster_is_survived(longer, undisturbed, tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        raylet = node.all_processes["raylet"][0].process.pid
        process = Forked(longer, tmp_path, "--engine", "ray", "--address", cluster.address)

        def on_the_node():
            children = {child.pid for child in psutil.Process(raylet).children()}
            return next((pid for pid in running(tmp_path).values() if pid in children), None)

        trial = wait_for(on_the_node, process)
        os.kill(trial, signal.SIGSTOP)  # it shall not end before its node is gone
        cluster.remove_node(node, allow_graceful=False)
        os.kill(trial, signal.SIGKILL)
        assert process.end().returncode == 0, process.errors
        assert table(tmp_path) == table(undisturbed(longer))
        assert list(tmp_path.glob("attic/*"))
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_full_disk_is_named_and_what_is_saved_is_whole(study, undisturbed, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", tmp_path])
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        full = Forked(study, tmp_path, "--workers", "2").end()
        assert full.returncode == 3
        assert "Results cannot be saved" in full.errors and "No space left" in full.errors
        assert "Traceback" not in full.errors
        saved = records(tmp_path)
        assert 0 < len(saved) < 12
        for trial in saved:
            assert Store(tmp_path).record(trial).status == "COMPLETE"
        subprocess.run(["mount", "-o", "remount,size=50m", tmp_path], check=True)
        assert Forked(study, tmp_path, "--workers", "2").end().returncode == 0
        assert table(tmp_path) == table(undisturbed(study))
        assert all(records(tmp_path)[trial] == content for trial, content in saved.items())
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def no_file_beyond(most):
    """For this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind,most,file",
    [("tpe", 3000, "search-0.jsonl"), ("tpe and hyperband", 7000, "checkpoint.pt")],
)
def test_a_file_cut_short_by_a_full_disk_is_mended(study, undisturbed, tmp_path, kind, most, file):
    """No file may grow beyond `most` bytes, which ends the writing of `file` in its middle."""
    limit = partial(no_file_beyond, most)
    workers_write_it = file == "checkpoint.pt"
    cut = Forked(study, tmp_path, *SEARCHES[kind], prepare=limit, in_workers=workers_write_it).end()
    assert cut.returncode == 3, cut.errors
    assert "Results cannot be saved" in cut.errors and file in cut.errors
    assert "Traceback" not in cut.errors
    assert Forked(study, tmp_path, *SEARCHES[kind]).end().returncode == 0
    assert table(tmp_path) == table(undisturbed(study, kind))


@pytest.mark.slow
def test_a_second_driver_of_a_run_is_refused_by_the_name_of_the_first(study, tmp_path):
    with driving(RunFolder.of(Store(tmp_path), "faults").driver_mark):
        second = Forked(study, tmp_path).end()
    assert second.returncode == 2
    assert f"process {os.getpid()}" in second.errors and "--out" in second.errors
    assert not list(tmp_path.glob("trials/*"))


# Memory.


def out_of_memory_beyond(most, monkeypatch):
    """As a device whose memory holds so many images of training at once."""
    from harness.training.classifier import Classifier

    real = Classifier.forward

    def forward(self, images):
        if self.training and torch.is_grad_enabled() and len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return real(self, images)

    monkeypatch.setattr(Classifier, "forward", forward)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "metapeft"])
def test_a_trial_that_runs_out_of_memory_is_tried_in_parts(tmp_path, monkeypatch, method):
    values = {"method": method, "recipe.epochs": 2, "recipe.batch_size": 30}  # 8, 8, 7 and 7
    spec = resolve(TINY.with_values(values, source="test"), Runtime())
    whole = run_trial(spec, Runtime(), Store(tmp_path / "whole"))
    assert whole.parts == 1
    out_of_memory_beyond(8, monkeypatch)
    parted = run_trial(spec, Runtime(), Store(tmp_path / "parted"))
    if method == "metapeft":  # its outer step has the batch whole
        assert parted.status == "FAILED" and "OutOfMemory" in parted.error
        return
    assert (parted.status, parted.parts, parted.epochs_run) == ("COMPLETE", 4, 2)
    assert parted.select.loss == pytest.approx(whole.select.loss, rel=1e-5)
    histories = [Store(tmp_path / name).history(spec.trial_id) for name in ("whole", "parted")]
    for before, after in zip(*histories, strict=True):
        assert after["train_loss"] == pytest.approx(before["train_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_trial_that_never_fits_fails_with_the_reason(tmp_path, monkeypatch):
    spec = resolve(TINY, Runtime())
    out_of_memory_beyond(4, monkeypatch)
    record = run_trial(spec, Runtime(), Store(tmp_path))
    assert record.status == "FAILED" and "OutOfMemoryError" in record.error
