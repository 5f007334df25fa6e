"""`sweep --dry-run`: what would run is resolved, its cost is stated, and nothing is left behind."""

from __future__ import annotations

import pytest
from support.cli import harness
from support.few import FEW
from support.images import tree, two_splits

from harness.runner.cost import probe_seconds
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime


def dry(tmp_path, *words):
    result = harness(
        "sweep", "--study", "joint_space", *words, "--dry-run", "--out", tmp_path / "o"
    )
    assert not (tmp_path / "o").exists()
    return result


@pytest.mark.parametrize("search", ["tpe", "pbt", "metapeft"])
@pytest.mark.parametrize(
    "setting,word",
    [
        ("options.rnak=8", "rank"),
        ("data=nonsense", "synth-rs"),
        ("data.options.test_per_class=-1", "test_per_class"),
        ("backbone=nonsense", "backbone 'nonsense'"),
        ("recipe.precision=fp61", "fp16"),
    ],
)
def test_what_a_search_could_not_run_is_refused(tmp_path, search, setting, word):
    result = dry(tmp_path, "--search", search, "--set", setting)
    assert result.exit_code == 2 and word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_search_that_cannot_search_the_space_is_refused(tmp_path):
    result = dry(tmp_path, "--search", "cmaes")
    assert result.exit_code == 2 and "cmaes needs" in result.stderr


def test_a_budget_in_seconds_is_its_cost(tmp_path):
    words = ("--search", "random", "--budget", "90s", "--repeats", 2, "--workers", 1)
    result = dry(tmp_path, *words)
    assert result.exit_code == 0
    assert "Estimated cost: 3 min 00 s of cpu, 3 min 00 s with 1 workers." in result.stdout


@pytest.mark.parametrize(
    "search,budget,trials",
    [("tpe", "4", 4), ("gp", "20epochs", 2), ("random", "3runs", 3), ("metapeft", "2", 2)],
)
def test_other_budgets_cost_so_many_whole_trials(tmp_path, monkeypatch, search, budget, trials):
    monkeypatch.setattr("harness.driver.run.probe_seconds", lambda spec, runtime: 60.0)
    result = dry(tmp_path, "--search", search, "--budget", budget, "--workers", 1)
    assert f"Estimated cost: {trials} min 00 s of cpu" in result.stdout


@pytest.mark.parametrize(
    "module,search", [("plan", []), ("run", ["--search", "random", "--budget", "3"])]
)
def test_why_a_cost_is_not_known_is_said(tmp_path, monkeypatch, module, search):
    def fails(spec, runtime):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(f"harness.driver.{module}.probe_seconds", fails)
    result = dry(tmp_path, *search)
    assert result.exit_code == 0, result.output
    assert "unknown, because a first look at a trial failed (RuntimeError: out of memory)" in (
        " ".join(result.stdout.split())
    )


def test_the_one_epoch_of_a_first_look_has_no_warm_up(few_images):
    request = FEW.with_values({"recipe": "deit"}, source="test")
    assert (
        request.recipe.warmup_epochs and probe_seconds(resolve(request, Runtime()), Runtime()) > 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("search", [[], ["--search", "random", "--budget", "3"]])
def test_images_are_not_packed_and_still_counted_and_timed(tmp_path, monkeypatch, search):
    """The estimate is by trials of the sizes that are listed, whatever their pixels show."""
    monkeypatch.setattr("harness.data.decode_many.decoded", lambda *given: 1 / 0)
    root = two_splits(tmp_path / "d", {"a": 40, "b": 20, "c": 12}, {"a": 3, "b": 3, "c": 3})
    sets = ("data=folder", "data.options.imbalance=4", "recipe.epochs=1", "recipe.batch_size=8")
    words = ["--data-root", root, *(word for each in sets for word in ("--set", each))]
    result = dry(tmp_path, *words, *search)
    assert result.exit_code == 0, result.output
    assert "The 81 images of folder are not packed yet" in result.stderr
    assert "Trains: vit_pico on folder;" in result.stdout and "Estimated cost: " in result.stdout
    assert result.stdout.count(" to run.") == (not search)
    wrong = dry(tmp_path, *words, "--set", "data.options.bands=[0]", *search)
    assert wrong.exit_code == 2 and "have 1 bands, and the backbone takes 3" in wrong.stderr


@pytest.mark.slow
def test_with_a_pack_the_trials_that_are_done_are_known(tmp_path):
    root = two_splits(tmp_path / "d")
    run = ["sweep", "--study", "depth_vs_position", "--smoke", "--set", "data=folder"]
    run += ["--set", "recipe.epochs=1", "--data-root", root, "--out", tmp_path / "runs"]
    assert harness(*run, "--budget", 1, "--workers", 1).exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    planned = harness(*run, "--dry-run")
    assert "Trials: 1 done" in planned.stdout and "packed yet" not in planned.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_none_to_select_on_is_refused_before_anything_is_computed(tmp_path):
    root = two_splits(tmp_path / "d", {"a": 1, "b": 1})
    result = dry(tmp_path, "--set", "data=folder", "--data-root", root)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "No class of folder has two training images" in " ".join(result.stderr.split())


def test_a_folder_without_a_test_image_is_refused(tmp_path):
    tree(tmp_path / "d", {"a": 1, "b": 1})
    result = dry(tmp_path, "--set", "data=folder", "--data-root", tmp_path / "d")
    assert result.exit_code == 2 and "folder has no test image" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "given, word",
    [
        (("backbone=vit_tiny_patch16_224", "backbone.weights=random"), "backbone.img_size=32"),
        (("backbone.in_chans=1",), "backbone.in_chans=3"),
    ],
)
def test_drawn_images_that_a_backbone_does_not_take_are_refused(tmp_path, given, word):
    given = [part for setting in given for part in ("--set", setting)]
    result = dry(tmp_path, *given, "--search", "random", "--budget", "2runs")
    assert result.exit_code == 2 and f"give --set {word}" in " ".join(result.stderr.split())
    trained = harness("train", "--method", "linear_probe", *given, "--out", tmp_path / "t")
    assert trained.exit_code == 2 and f"give --set {word}" in " ".join(trained.stderr.split())


def test_bands_are_looked_at_before_images_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.datasets.synth_rs.SynthRS.load", lambda options: 1 / 0)
    words = ("train", "--method", "lora", "--dry-run", "--out", tmp_path / "o")
    result = harness(*words, "--set", "backbone.in_chans=4")
    assert result.exit_code == 2 and "give --set backbone.in_chans=3" in result.stderr
    assert harness(*words).exit_code == 0
