"""One contract for every engine, and that they give the same store."""

from __future__ import annotations

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from support.records import TINY, make_record, publish, tiny_study

from harness.cli import main
from harness.driver.drive import drive
from harness.driver.plan import make_plan
from harness.engines.local import LocalEngine
from harness.engines.processes import context_for
from harness.engines.ray_tune import RayEngine, _Common, _Trial
from harness.errors import UserError
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import Decision, GridSearch, SearchTask
from harness.search.budget import UNLIMITED
from harness.search.optuna_search import OptunaSearch
from harness.search.warm_start import known_points
from harness.store.store import Store
from harness.study.space import SearchSpace

ENGINES = {"local": LocalEngine, "ray": RayEngine}
FEW = ["--set", "data.options.test_per_class=4", "--set", "data.val_fraction=0.8"]


def start(kind, folder, **changes):
    fields = dict(store=Store(folder), runtime=Runtime(), workers=2)
    return ENGINES[kind](**{**fields, **changes})


def of_epochs(*numbers):
    return [
        resolve(TINY.with_values({"recipe.epochs": number}, source="test"), Runtime())
        for number in numbers
    ]


def note_cores(spec, runtime, store, should_continue):
    (store.root / "cores").write_text(json.dumps(sorted(os.sched_getaffinity(0))))


@pytest.mark.slow
def test_a_worker_keeps_to_no_core_or_two_commands_would_share_one(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core")
    engine = start("local", tmp_path, workers=len(cores), run=note_cores)
    try:
        engine.submit(of_epochs(1)[0])
        assert engine.next().crash is None
    finally:
        engine.close()
    assert json.loads((tmp_path / "cores").read_text()) == cores


def note_server(spec, runtime, store, should_continue):
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    facts["command"] = Path(f"/proc/{os.getppid()}/cmdline").read_text()
    facts["runner"] = "harness.runner.trial" in sys.modules
    (store.root / "server.json").write_text(json.dumps(facts))


@pytest.mark.slow
def test_workers_are_forked_from_a_server_that_has_one_thread(tmp_path):
    """A fork of a process with threads may inherit a lock that no one holds."""
    engine = start("local", tmp_path, workers=1, run=note_server)
    try:
        engine.submit(of_epochs(1)[0])
        assert engine.next().crash is None
    finally:
        engine.close()
    facts = json.loads((tmp_path / "server.json").read_text())
    assert "forkserver" in facts["command"] and "harness.runner.trial" in facts["command"]
    assert facts["Threads"].strip() == "1" and facts["runner"]


def test_on_cuda_workers_are_spawned():
    assert context_for("cuda:1").get_start_method() == "spawn"
    assert context_for("cpu").get_start_method() == "forkserver"


def sweep(*arguments):
    return CliRunner().invoke(main, ["sweep", *(str(argument) for argument in arguments)])


def results(out):
    """Everything but times, machines and versions."""
    kept = {}
    for path in sorted(Path(out).glob("trials/*/record.json")):
        record = json.loads(path.read_text())
        for name in ("cost", "provenance"):
            record.pop(name)
        kept[path.parent.name] = record
    return kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "search,is_joined",
    [
        (["depth_vs_position", "--search", "tpe", "--pruner", "median", "--budget", "3"], False),
        (
            ["position_vs_alpha", "--search", "pbt", "--budget", 2, "--set", "recipe.epochs=3"],
            True,
        ),
    ],
    ids=["tpe", "pbt"],
)
def test_both_engines_give_the_same_store(tmp_path, request, search, is_joined):
    """On a cluster of Ray's that is started for the sweep, and on one that it joins."""
    address = ["--address", request.getfixturevalue("cluster")] if is_joined else []
    for kind, more in (("local", []), ("ray", address)):
        arguments = ["--engine", kind, "--workers", 1, "--out", tmp_path / kind, *FEW]
        run = sweep("--study", *search, "--smoke", *arguments, *more)
        assert run.exit_code == 0, run.output
    assert results(tmp_path / "local") == results(tmp_path / "ray") != {}
    names = ["metrics.csv", "trials.csv"]
    for name in names:
        tables = [next((tmp_path / kind).glob(f"studies/*/report/{name}")) for kind in ENGINES]
        assert tables[0].read_text() == tables[1].read_text()


ONE_CELL_EACH = """
from harness.study import Axis, Points
from harness.studies.k_steps import study as base


def study():
    axes = (Axis(field="method", values=("lora", "metapeft"), label="method"),)
    views = (Points(rows="method", title="t"),)
    return base().derive(name="one", axes=axes, views=views, reference=None, seeds=(0,), smoke={})
"""


@pytest.mark.slow
def test_two_processes_that_train_one_trial_equal_one(tmp_path, cluster):
    """LoRA, and MetaPEFT on it. The last batch of an epoch does not split evenly."""
    study = tmp_path / "one.py"
    study.write_text(ONE_CELL_EACH)
    common = ["--study", study, "--device", "cpu", "--workers", 1]
    common += ["--set", "recipe.epochs=1", *FEW]
    together = ["--engine", "ray", "--address", cluster, "--gpus-per-trial", 2]
    for name, arguments in (("one", []), ("two", together)):
        run = sweep(*common, *arguments, "--out", tmp_path / name)
        assert run.exit_code == 0, run.output
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert set(one) == set(two)
    assert {record["spec"]["method"] for record in one.values()} == {"lora", "metapeft"}
    for trial in one:
        for part in ("select", "test"):
            for name in ("class_mean", "micro", "loss"):
                assert two[trial][part][name] == pytest.approx(one[trial][part][name], abs=1e-4)
        costs = json.loads((tmp_path / "two/trials" / trial / "record.json").read_text())["cost"]
        assert 0 < costs["device_s"] <= 2 * costs["wall_s"]


def test_what_a_cluster_lacks_is_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--address .*no Ray cluster answers"):
        start("ray", tmp_path, address="127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr("ray.init", Mock(side_effect=ConnectionError))
        with pytest.raises(UserError, match=r"--address .*asks for its token"):
            start("ray", tmp_path, address=address)
    run = sweep("--study", "depth_vs_position", "--address", "auto", "--out", tmp_path)
    assert run.exit_code == 2 and "--engine ray" in run.output
    run = sweep("--study", "depth_vs_position", "--engine", "ray", "--gpus-per-trial", "2.5")
    assert run.exit_code == 2 and "whole number" in run.output


# What a search is told of trials that ran elsewhere.


class NoEngine:
    slots = 1

    def submit(self, spec):
        raise AssertionError("everything is in the store")


def test_a_finished_trial_is_watched_in_its_history(tmp_path):
    """A search that stops early is charged the epochs that it would have watched, no more."""
    store, study = Store(tmp_path), tiny_study()
    plan = make_plan(study, store=store, run_name="tiny", runtime=Runtime())
    for index, spec in enumerate(plan.to_run):
        with store.claim(spec) as claim:
            for epoch in range(4):
                claim.log({"epoch": epoch, "select": {"class_mean": 0.1 * (4 - index)}})
            claim.publish(make_record(spec, epochs_run=4))
    space = SearchSpace(study, 12)
    task = SearchTask(
        space=space,
        make=lambda values, seed: resolve(space.request(values, seed), Runtime()),
        name="n",
        seed=0,
        budget=UNLIMITED,
        full_run_flops=1,
        epochs=4,
        log=tmp_path / "log",
    )
    drive(
        OptunaSearch("random", task, on_repeat="cached", pruner="asha"),
        NoEngine(),
        store=store,
        runtime=Runtime(),
        objective="class_mean",
        max_retries=0,
        stop=Event(),
        on_end=lambda record, is_fresh: None,
    )
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = {event["tell"]: event for event in events if "tell" in event}
    assert len(told) == 4
    stopped = [event for event in told.values() if event["status"] == "PRUNED"]
    assert stopped and all(event["device_s"] == event["epochs"] / 4 for event in stopped)
    reports = [event for event in events if "report" in event]
    assert max(event["epoch"] for event in reports) == 3  # the last epoch stops nothing


def test_points_of_another_run_are_known_and_foreign_ones_refused(tmp_path):
    from harness.store.runs import write_run

    store, study = Store(tmp_path), tiny_study(seeds=(0, 1))
    plan = make_plan(study, store=store, run_name="tiny", runtime=Runtime())
    for spec in plan.to_run:
        publish(store, spec, status="DIVERGED")
    plan.folder.path.mkdir(parents=True)
    write_run(plan.folder, study, plan.cells, {})

    def known(other):
        space = SearchSpace(other, 12)

        def make(values, seed):
            return resolve(space.request(values, seed), Runtime())

        return known_points(plan.folder, space, make, "class_mean")

    points = known(study)
    assert len(points) == 4 and all(score == 1 / 15 for _, score in points)
    assert {json.dumps(params) for params, _ in points} == {
        json.dumps(params) for params in SearchSpace(study, 12).enumerate()
    }
    with pytest.raises(UserError, match="--warm-start tiny: none"):
        known(tiny_study(base=TINY.with_values({"recipe.lr": 0.5}, source="test")))


def test_a_grid_needs_no_reports():
    grid = GridSearch([])
    assert not grid.needs_epoch_reports and grid.report("x", 1, 0.0) is Decision.GO_ON


class Broken(BaseException):
    """Nothing that a trial makes a record of."""


def breaks(spec, runtime, store, goes_on):
    raise Broken("device-side assert")


@pytest.mark.parametrize("watch", [True, False])
def test_what_leaves_a_trial_in_a_ray_worker_ends_its_step(tmp_path, watch):
    """Where the trial has a thread of its own, too; the engine takes it for a lost worker."""
    common = _Common(
        root=tmp_path, runtime=Runtime(), watch=watch, run=breaks, together=1, answers=None
    )
    trial = object.__new__(_Trial)
    trial._common = common
    trial.reset_config({"spec": of_epochs(1)[0].model_dump_json(), "run": "1"})
    with ThreadPoolExecutor() as pool, pytest.raises(Broken, match="device-side"):
        step = pool.submit(trial.step)
        try:
            step.result(timeout=20)
        finally:
            trial._said.put({})  # whoever waits for ever is let go
