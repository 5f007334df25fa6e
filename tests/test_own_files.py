"""Commands for trials of what only a study file registers name the file, and give these trials."""

from __future__ import annotations

import shlex

from support.own_study import elsewhere, study_file

from harness.catalogue.registered import is_known_anywhere
from harness.catalogue.rerun import TrainCommands
from harness.catalogue.studies import load_study
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest, TrialSpec


def test_a_trial_of_what_a_file_registers_is_given_by_a_command_that_names_the_file(tmp_path):
    path = str(study_file(tmp_path, "in_file"))
    study = load_study(path)
    commands = TrainCommands(study.base, study.name, path)
    for method in ("in_file", "bitfit"):
        spec = resolve(study.base.with_values({"method": method, "seed": 3}, source="t"), Runtime())
        words = shlex.split(commands.of(spec, {"method": method}))
        assert words[:4] == ["harness", "train", "--study", path]
        run = elsewhere(*words[1:], "--out", tmp_path / "runs")
        assert run.returncode == 0, run.errors
        assert (tmp_path / "runs/trials" / spec.trial_id).is_dir()
    shipped = TrialRequest(method="lora")
    words = shlex.split(commands.of(resolve(shipped, Runtime()), {}))
    assert words[2:4] == ["--study", "depth_vs_position"]


def test_strengths_of_a_base_in_a_file_are_derived_and_trained_with_that_file(tmp_path):
    path, place = study_file(tmp_path, "learned"), ("--out", tmp_path / "runs")
    words = ("--study", path, "--method", "metapeft", "--base", "learned", *place)
    ran = elsewhere("train", *words, "--set", "recipe.epochs=2")
    assert ran.returncode == 0, ran.errors
    (trial,) = (tmp_path / "runs/trials").iterdir()
    spec = TrialSpec.model_validate_json((trial / "spec.json").read_text())
    assert not is_known_anywhere(spec)
    derive = ("derive", trial.name, "--rule", "as_is", "--file", tmp_path / "all.json", *place)
    bare = elsewhere(*derive)
    assert bare.returncode == 2 and "name the study file that registers it" in bare.errors
    assert not (tmp_path / "all.json").exists()
    derived = elsewhere(*derive, "--study", path)
    assert derived.returncode == 0, derived.errors
    command = shlex.split(derived.output.splitlines()[-1].removeprefix("Next: "))
    assert command[:4] == ["harness", "train", "--study", str(path)]
    again = elsewhere(*command[1:])
    assert again.returncode == 0, again.errors
    (other,) = (path for path in trial.parent.iterdir() if path != trial)
    made = TrialSpec.model_validate_json((other / "spec.json").read_text())
    assert made.method == "learned"
    assert (made.data, made.backbone, made.recipe) == (spec.data, spec.backbone, spec.recipe)
