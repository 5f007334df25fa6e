"""The commands that a page prints give the very trials and runs that they stand under."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from importlib import resources

import pytest
from support.cli import harness
from support.images import two_splits
from support.records import TINY, publish

from harness.catalogue.rerun import TrainCommands
from harness.catalogue.studies import load_study
from harness.driver.plan import make_plan
from harness.model.weight_files import sha256_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest
from harness.store.store import Store
from harness.study.space import SearchSpace

BASE = load_study("k_steps").base
CHANGES = [
    {"after": 2, "values": {"alpha": 2.0, "recipe.lr": 0.05}},
    {"after": 4, "values": {"recipe.lr": 0.1}},
]
CASES = {
    "defaults": (TrialRequest(), {}),
    "tiny": (TINY, {"positions": "q,mlp1", "depth": "last:2", "alpha": 0.1, "seed": 7}),
    "one block": (TINY, {"depth": "block:3", "recipe.loss": "cross_entropy"}),
    "options": (TINY, {"options.rank": 2}),
    "learned": (BASE, {"options.inner_steps": 2, "options.base_options": {"rank": 2}}),
    "restart": (TINY, {"method": "metapeft", "options": {"base": "lora", "base_options": {}}}),
    "other method": (TINY, {"method": "adaptformer", "positions": None}),
    "sum": (TINY, {"method": "lora+adaptformer", "positions": None}),
    "bitfit": (TINY, {"method": "bitfit", "positions": None, "depth": "first:4"}),
    "no sites": (TINY, {"method": "linear_probe", "positions": None, "depth": "all"}),
    "changes": (TINY, {"recipe.epochs": 9, "changes": CHANGES}),
    "on test": (TINY, {"data.select_on": "test", "data.options.seed": 3}),
}


def sites_left_out(values):
    space = SearchSpace(load_study("per_site"), 12)
    return space.request(values, 1)


def assert_gives(command, spec, tmp_path):
    """The command finds the trial that is in the store, and makes no other."""
    store = Store(tmp_path)
    publish(store, spec)
    words = shlex.split(command)
    assert words[:2] == ["harness", "train"]
    result = harness(*words[1:], "--out", tmp_path, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{spec.trial_id}  ")
    assert [path.name for path in store.trials.iterdir()] == [spec.trial_id]


@pytest.mark.parametrize("study", ["k_steps", "of_a_user"])
@pytest.mark.parametrize("case", CASES)
def test_a_trial_is_given_by_its_command(case, study, tmp_path):
    base, cell = CASES[case]
    spec = resolve(base.with_values(cell, source="test"), Runtime())
    assert_gives(TrainCommands(base, study).of(spec, cell), spec, tmp_path)


def test_a_trial_of_a_gpu_keeps_its_precision_on_a_cpu(tmp_path):
    spec = resolve(BASE, Runtime(device="cuda"))
    assert spec.recipe.precision == "bf16"
    assert_gives(TrainCommands(BASE, "k_steps").of(spec, {}), spec, tmp_path)


@pytest.mark.parametrize(
    "sites", [{"3.q": 0.3, "11.mlp1": 2.0}, {"3.q": 1.0, "5.q": 1.0}, {"3.q": 2.0}, {}]
)
def test_sites_one_by_one(sites, tmp_path):
    values = {"placement": sites}
    spec = resolve(sites_left_out(values), Runtime())
    base = load_study("per_site").base
    assert_gives(TrainCommands(base, "per_site").of(spec, values), spec, tmp_path)


def test_changed_sites_one_by_one(tmp_path):
    change = {"after": 1, "values": {"placement": {"3.q": 0.1, "11.mlp1": 2.0}}}
    values = {"placement": {"3.q": 0.3, "11.mlp1": 2.0}, "changes": [change]}
    spec = resolve(sites_left_out(values), Runtime())
    base = load_study("per_site").base
    assert_gives(TrainCommands(base, "per_site").of(spec, values), spec, tmp_path)


def printed(folder, command):
    text = (folder / "report" / "index.html").read_text()
    return [html.unescape(found) for found in re.findall(rf"<code>({command} .*?)</code>", text)]


@pytest.mark.slow
def test_a_page_prints_the_command_of_the_run_and_of_every_trial(tmp_path):
    study = load_study("depth_vs_position").at_smoke_scale()
    study = study.derive(base=study.base.with_values({"options.rank": 2}, source="test"))
    store = Store(tmp_path)
    plan = make_plan(study, store=store, run_name="any", runtime=Runtime())
    for spec in plan.to_run:
        publish(store, spec)
    given = ("sweep", "--study", "depth_vs_position", "--smoke", "--set", "options.rank=2")
    place = ("--out", tmp_path, "--workers", 1)
    assert harness(*given, *place).exit_code == 0
    folder = tmp_path / "studies" / "depth_vs_position+options.rank=2+smoke"
    (command,) = printed(folder, "harness sweep")
    assert command == shlex.join(["harness", *given])
    again = harness(*shlex.split(command)[1:], *place)
    assert "4 done, 0 running, 0 failed (will be tried again), 0 to run" in again.stdout
    trials = printed(folder, "harness train")
    assert len(trials) == len(plan.cells) == 4
    for words, (_, spec) in zip(trials, plan.cells, strict=True):
        shown = harness(*shlex.split(words)[1:], *place)
        assert shown.stdout.startswith(f"{spec.trial_id}  ")
    assert {path.name for path in store.trials.iterdir()} == {s.trial_id for s in plan.to_run}


@pytest.mark.slow
def test_the_commands_of_a_run_on_files_leave_open_where_they_lie(tmp_path):
    root, file = two_splits(tmp_path / "my images"), tmp_path / "vit.safetensors"
    shutil.copy(str(resources.files("harness") / "assets" / "vit_pico.safetensors"), file)
    values = {"data": "folder", "backbone.weights": "file", "backbone.sha256": sha256_of(file)}
    study = load_study("depth_vs_position").at_smoke_scale()
    study = study.derive(base=study.base.with_values(values, source="test"))
    runtime = Runtime(data_root=str(root), packs=str(tmp_path / "packs"), weights=file)
    store = Store(tmp_path)
    plan = make_plan(study, store=store, run_name="any", runtime=runtime)
    for spec in plan.to_run:
        publish(store, spec)
    given = ("sweep", "--study", "depth_vs_position", "--smoke", "--set", "data=folder")
    place = ("--out", tmp_path, "--workers", 1)
    ran = harness(*given, "--weights", file, "--data-root", root, *place)
    assert ran.exit_code == 0 and "4 done" in ran.stdout, ran.output
    (folder,) = (tmp_path / "studies").iterdir()
    (command,) = printed(folder, "harness sweep")
    left_open = ("--weights", "FILE", "--data-root", "FOLDER")
    assert command == shlex.join(["harness", *given, *left_open])
    page = (folder / "report" / "index.html").read_text()
    assert str(tmp_path) not in page
    assert "<code>--weights FILE</code> and <code>--data-root FOLDER</code>" in page

    def typed(words):
        here = {"FILE": file, "FOLDER": root}
        return harness(*(here.get(word, word) for word in shlex.split(words)[1:]), *place)

    assert "4 done, 0 running, 0 failed (will be tried again), 0 to run" in typed(command).stdout
    trials = printed(folder, "harness train")
    for words, (_, spec) in zip(trials, plan.cells, strict=True):
        assert typed(words).stdout.startswith(f"{spec.trial_id}  ")
    assert {path.name for path in store.trials.iterdir()} == {s.trial_id for s in plan.to_run}
