"""What is asked for has an effect, or is refused in one sentence before anything is computed."""

from __future__ import annotations

import pytest
from support.cli import harness
from support.records import tiny_study
from support.runs import made_run

from harness.catalogue.studies import load_study
from harness.cli.given import parse_settings
from harness.driver.request import StudyRequest
from harness.driver.said import said, varied_by
from harness.driver.setup import asked_study
from harness.errors import UserError
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import Recipe, TrialRequest
from harness.study.axes import Axis

SWEEP = ("sweep", "--study", "depth_vs_position")
METAPEFT = ("train", "--method", "metapeft", "--base", "lora", "--dry-run")
METHODS = ("compare", "--seeds", 1, "--methods")
REPLAY = ("compare", "--replay", "synth_rs", "--repeats", 1)
PACK = ("data", "pack", "folder", "--data-root", ".")
JOBS = ("--engine", "slurm", "--workers", 2, "--slurm")


def refused(tmp_path, *words):
    result = harness(*words, "--out", tmp_path / "o")
    assert result.exit_code == 2 and not (tmp_path / "o").exists(), result.output
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("search", [(), ("--search", "tpe")])
@pytest.mark.parametrize("field,value", [("positions", "q"), ("depth", "nonsense")])
def test_a_setting_that_an_axis_would_override_is_refused(tmp_path, search, field, value):
    line = refused(tmp_path, *SWEEP, *search, "--set", f"{field}={value}")
    assert f"varies {field}" in line and f"--only {field}=VALUE" in line


@pytest.mark.parametrize("search", [(), ("--search", "tpe")])
def test_a_seed_that_the_studys_own_would_override_is_refused(tmp_path, search):
    line = refused(tmp_path, *SWEEP, *search, "--set", "seed=3")
    assert "seeds of its own" in line and "`--seeds N`" in line


@pytest.mark.parametrize("search", [(), ("--search", "random")])
@pytest.mark.parametrize(
    "words,said",
    [
        (("--budget", "0.5"), "Bad --budget '0.5'"),
        (("--budget", "0.5epochs"), "Bad --budget '0.5epochs'"),
        (("--budget", ""), "Bad --budget ''"),
        (("--on-bad-image", "skip"), "--on-bad-image skip: synth-rs is drawn"),
        (("--select-on", "test", "--set", "data.select_on=val"), "give one of them"),
        (("--set", "recipe.lr=0.1", "--set", "recipe.lr=0.2"), "give one of them"),
        (("--set", "recipe.lr=0.1", "--set", 'recipe={"lr":0.3}'), "give one of them"),
        (("--set", 'options={"rank":2}', "--set", "options.rank=4"), "give one of them"),
        (("--set", 'recipe={"lr":0.1,"lr":0.2}'), "--set recipe: its value has lr twice"),
        (("--set", "backbone.sha256=abc"), "it is computed of the files"),
        (("--set", "data.sha256=abc"), "it is computed of the files"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path, search, words, said):
    assert said in refused(tmp_path, *SWEEP, "--smoke", "--dry-run", *search, *words)


@pytest.mark.parametrize(
    "words,said",
    [
        ((*METAPEFT, "--set", "options.base=adaptformer"), "and --base lora: give one of them"),
        ((*METAPEFT, "--set", 'options={"base":"adapter"}'), "and --base lora: give one of them"),
        ((*SWEEP, "--set", "data.name=folder", "--set", "data=synth-rs"), "give one of them"),
        ((*SWEEP, "--set", "backbone=vit_pico", "--set", "backbone.name=x"), "give one of them"),
        ((*PACK, "--set", "data=rsscn7"), "the dataset is the one named, folder"),
        ((*PACK, "--set", "data.name=rsscn7"), "the dataset is the one named, folder"),
        ((*PACK, "--set", "recipe.lr=0.1"), "no effect on `harness data pack`"),
        ((*PACK, "--set", "data.val_fraction=0.1"), "no effect on `harness data pack`"),
        ((*PACK, "--set", "seed=1"), "reads data.options and recipe.augment and"),
        ((*REPLAY, "--search", "tpe", "--on-bad-image", "skip"), "a table has its own"),
        ((*SWEEP, "--engine", "ray", "--gpus-per-trial", 0.25, "--device", "cpu"), "run on cpu"),
        ((*REPLAY, "--search", "tpe,tpe"), "--search tpe,tpe: tpe is given twice"),
        ((*REPLAY, "--search", "all,tpe"), "--search all,tpe: all stands alone"),
        (("train", "--method", "lora", "--sites", "q,v,q"), "--sites q,v,q: q is given twice"),
        ((*METHODS, "lora,lora"), "--methods lora,lora: lora is given twice"),
        ((*METHODS, "all,lora"), "--methods all,lora: all stands alone"),
        ((*METHODS, "lora"), "name at least two methods"),
        ((*METHODS, "lora,bitfit", "--set", "alpha=8"), "--set alpha: every method is compared at"),
        ((*METHODS, "lora,lora+adaptfromer"), "Did you mean 'adaptformer'"),
        ((*REPLAY, "--search", "tpe", "--budget", "3epochs"), "pays for no trial: each has 8"),
        ((*SWEEP, "--search", "tpe", "--budget", "5epochs"), "pays for no trial: each has 10"),
        (("compare", "--search", "tpe", "--budget", "5epochs"), "pays for no trial: each has"),
        ((*REPLAY, "--search", "cmaes"), "cmaes needs a space of continuous variables"),
        ((*REPLAY, "--search", "tpe+hyperband"), "search 'tpe+hyperband' watches the scores"),
        ((*SWEEP, *JOBS, "timeout_min=5", "--dry-run"), "--engine slurm"),
        ((*SWEEP, "--set", "recipe.lr=.1"), "--set recipe.lr=.1: write a number as JSON has it"),
        ((*SWEEP, "--device", "cpu:3"), "Device 'cpu:3' is not there: a machine has one cpu"),
    ],
)
def test_it_is_refused_at_once(tmp_path, words, said):
    assert said in refused(tmp_path, *words)


def test_what_a_check_of_data_does_not_read_is_refused(tmp_path):
    line = refused(tmp_path, "data", "check", "folder", "--set", "recipe.crop_scale_min=0.2")
    assert line.endswith("`harness data check`, which reads data.options: leave it out.")


def test_images_are_not_given_to_verify_what_is_drawn(tmp_path):
    made_run(tmp_path, tiny_study(), [[(0.4, 0.3)]] * 4)
    result = harness("verify", "tiny", "--data-root", tmp_path, "--out", tmp_path)
    assert result.exit_code == 2 and "not read from files; leave it out." in result.stderr


def test_weights_are_not_given_to_verify_what_had_none(tmp_path):
    made_run(tmp_path, tiny_study(), [[(0.4, 0.3)]] * 4)
    file = tmp_path / "w.safetensors"
    file.write_text("")
    result = harness("verify", "tiny", "--weights", file, "--out", tmp_path)
    assert result.exit_code == 2 and "had its weights from a file; leave it out." in result.stderr


@pytest.mark.parametrize(
    "typed,changed", [("--alpha 1", "alpha=4"), ("--depth all", "depth=last:2")]
)
def test_a_default_that_is_typed_is_no_less_said(tmp_path, typed, changed):
    words = ("train", "--method", "lora", *typed.split(), "--set", changed)
    assert f"that is for {typed.split()[0]} to say" in refused(tmp_path, *words)


def test_a_run_without_learned_strengths_is_named_as_one(tmp_path):
    made_run(tmp_path, tiny_study(), [[(0.4, 0.3)]] * 4)
    words = ("derive", "tiny", "--rule", "topk", "--file", tmp_path / "p.json")
    result = harness(*words, "--out", tmp_path)
    assert result.exit_code == 2 and "Run tiny is none of `harness train --controls`" in (
        result.stderr
    )


@pytest.mark.parametrize("command", ["pack", "bench"])
def test_a_file_in_the_place_of_the_store_is_named(tmp_path, command):
    (tmp_path / "o").write_text("")
    result = harness("data", command, "folder", "--data-root", tmp_path, "--out", tmp_path / "o")
    assert result.exit_code == 2 and "cannot be there" in result.stderr


def test_a_search_that_varies_nothing_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.driver.run.probe_seconds", lambda spec, runtime: 60.0)
    words = ("--search", "metapeft", "--dry-run", "--out", tmp_path / "o")
    result = harness("sweep", "--study", "joint_space", *words)
    assert result.exit_code == 0 and "varied" not in result.stdout
    assert "Trains: vit_pico on synth-rs (SYNTHETIC); metapeft" in result.stdout


def test_a_run_that_is_tabulated_is_named_once(tmp_path):
    made_run(tmp_path, tiny_study(), [[(0.4, 0.3)]] * 4)
    twice = ("tiny", tmp_path / "studies" / "tiny")
    result = harness("tabulate", *twice, "--file", tmp_path / "t.parquet", "--out", tmp_path)
    assert result.exit_code == 2 and "Run tiny is given twice" in result.stderr


def test_a_grids_budget_pays_for_a_trial(tmp_path):
    line = refused(tmp_path, *SWEEP, "--dry-run", "--budget", "1epochs")
    assert "pays for no trial: each has" in line


def test_a_name_leaves_the_parts_beside_it_open():
    words = ("data=folder", "data.options.split_seed=1", "backbone=vit_pico", "backbone.img_size=8")
    assert len(parse_settings(words)) == 4 == len(parse_settings(words[::-1]))


def test_so_it_is_of_named_variants_and_parts_of_fields():
    for study, field in (("methods", "method"), ("position_vs_alpha", "alpha")):
        with pytest.raises(UserError, match="would override it"):
            asked_study(StudyRequest(study=study), {field: 1})
    axis = load_study("protocol_mstar_lora")
    assert axis.varied_by("positions").field == "where" and axis.varied_by("recipe.epochs") is None


@pytest.mark.parametrize(
    "flags", [("--alpha", 4, "--set", "alpha=2"), ("--set", "seed=1"), ("--set", "method=bitfit")]
)
def test_what_a_flag_of_train_says_is_not_set_as_well(tmp_path, flags):
    assert "to say" in refused(tmp_path, "train", "--method", "lora", *flags)


@pytest.mark.parametrize(
    "words",
    [
        (*SWEEP, "--dry-run"),
        ("train", "--method", "lora", "--sites", "mlp1"),
        ("compare", "--methods", "lora,bitfit"),
        ("compare", "--search", "random"),
    ],
)
def test_a_folder_of_images_that_nothing_reads_is_refused(tmp_path, words):
    line = refused(tmp_path, *words, "--data-root", tmp_path)
    assert "synth-rs is drawn" in line and "--set data=folder" in line


@pytest.mark.parametrize("device", ["fpga", "ipu", "xla", "hip", "meta", "mps", "gpu", "cuda:99"])
def test_a_device_that_trials_do_not_run_on_is_refused(tmp_path, device):
    line = refused(tmp_path, "train", "--method", "linear_probe", "--device", device)
    assert repr(device) in line


@pytest.mark.parametrize(
    "settings,word",
    [
        (["backbone.img_size=8"], "do not fit img_size 8"),
        (
            ["backbone=vit_small_patch16_224", "backbone.weights=random", "backbone.img_size=8"],
            "backbone.img_size=8: no patch",
        ),
    ],
)
def test_an_image_without_a_patch_ends_in_planning(tmp_path, settings, word):
    words = [each for setting in settings for each in ("--set", setting)]
    assert word in refused(tmp_path, *SWEEP, "--smoke", *words)


# What is trained is said.


def test_the_line_names_data_backbone_placement_alpha_rate_and_seeds():
    request = TrialRequest(positions=("q", "v"), depth="last:3", alpha=4.0)
    request = request.with_values({"recipe.batch_size": 32, "recipe.lr": 0.2}, source="test")
    assert said(resolve(request, Runtime()), (0, 1, 2)) == (
        "Trains: vit_pico on synth-rs (SYNTHETIC); lora; q+v in 3 blocks; α = 4 (each Δ times "
        "α/r); lr 0.2 (SGD at 0.1), batch 32, 10 epochs; seeds 0 to 2."
    )


@pytest.mark.parametrize(
    "method,meaning", [("lotr", "each Δ times α/r"), ("bottleneck", "each Δ times α")]
)
def test_alpha_is_said_to_mean_what_the_method_makes_of_it(method, meaning):
    spec = resolve(TrialRequest(method=method, alpha=2.0), Runtime())
    assert f"α = 2 ({meaning})" in said(spec, (7,)) and "seed 7" in said(spec, (7,))


def test_what_varies_is_named_and_not_stated():
    study = load_study("joint_space")
    spec = resolve(next(study.cell_requests())[1], Runtime())
    words = said(spec, study.seeds, varied_by(study.axes))
    assert words.endswith("varied: position, depth (last N blocks), alpha.") and "α =" not in words
    assert varied_by(load_study("per_site").space) == {"placement": "sites and their α"}


def test_the_rate_is_the_one_that_sgd_begins_with():
    recipe = Recipe(lr=0.2, batch_size=32)
    assert recipe.first_rate == 0.1 and Recipe(lr=0.2).first_rate == 0.2


# Some values of an axis.


def only(**wanted):
    return asked_study(StudyRequest(study="depth_vs_position", only=wanted), {})


def test_only_leaves_some_values_in_the_order_of_the_axis():
    study, name = only(positions="v,q")
    assert study.axes[0].values == ("q", "v") and len(study.cells()) == 2 * 12
    assert name == "depth_vs_position+positions=q,v"
    assert only(positions=["v", "q"]) == (study, name)
    assert only(positions='["q", "v"]') == (study, name)


def test_numbers_are_matched_as_numbers():
    study, _ = asked_study(StudyRequest(study="position_vs_alpha", only={"alpha": "4,1.0"}), {})
    axis = next(axis for axis in study.axes if axis.field == "alpha")
    assert axis.values == (1.0, 4.0)


@pytest.mark.parametrize(
    "wanted,word", [({"positions": "mlp11"}, "mlp1"), ({"position": "q"}, "positions")]
)
def test_what_the_study_does_not_vary_is_refused_with_the_nearest(wanted, word):
    with pytest.raises(UserError, match=f"Did you mean '{word}'"):
        only(**wanted)


def test_a_small_version_keeps_what_is_asked_for():
    asked = StudyRequest(study="depth_vs_position", only={"positions": "k"}, smoke=True)
    study, name = asked_study(asked, {})
    assert study.axes[0].values == ("k",) and name == "depth_vs_position+positions=k+smoke"


IDLE = [
    ("tau=2", "loss=cross_entropy"),
    ("head_scale=10", "head=linear"),
    ("crop_scale_min=0.5", "augment=none"),
]


@pytest.mark.parametrize("idle,needed", IDLE)
@pytest.mark.parametrize(
    "words", [(*SWEEP, "--smoke", "--dry-run"), ("train", "--method", "lora"), ("recommend",)]
)
def test_a_setting_of_the_recipe_without_effect_is_refused(tmp_path, words, idle, needed):
    given = [word for each in (idle, needed) for word in ("--set", f"recipe.{each}")]
    line = refused(tmp_path, *words, *given)
    assert f"--set recipe.{idle} has no effect with recipe.{needed}: leave one of" in line


@pytest.mark.parametrize("idle,needed", IDLE)
def test_what_stands_in_a_base_or_serves_some_cells_is_none_of_them(idle, needed):
    (name, value), (other, chosen) = (word.split("=") for word in (idle, needed))
    base = TrialRequest().with_values({f"recipe.{name}": float(value)}, source="test")
    study = tiny_study(base=base)
    settings = {f"recipe.{other}": chosen}
    found, _ = asked_study(StudyRequest(study=study, settings=settings), settings)
    assert found.base.recipe.idle == {name: other}
    default = getattr(Recipe(), other)
    axis = Axis(field=f"recipe.{other}", values=(chosen, default), label=other)
    varied = tiny_study(base=base.with_values(settings, source="test")).derive(
        axes=(axis,), views=()
    )
    settings = {f"recipe.{name}": float(value)}
    asked_study(StudyRequest(study=varied, settings=settings), settings)
