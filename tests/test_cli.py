"""What a person types: help, flags, lists, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import click
import pytest
from support.cli import harness

from harness.cli import main
from harness.errors import SYNONYMS, unknown
from harness.insertion.placements import PlacementFile
from harness.spec import BackboneSpec, Placement

FLAGS = {
    # --log, of what trains: where curves go live, which no trial or study knows.
    # --fidelity: what a pruner stops by; the search's, as --pruner is.
    "sweep": "--address --budget --cache --data-root --device --dry-run --engine --fidelity "
    "--gpus-per-trial "
    "--keep --log --max-retries --objective --on-bad-image --on-repeat --only --out --pruner "
    "--repeats --search --seeds --select-on --set --slurm --smoke --study --warm-start --weights "
    "--workers",
    # --slurm: what jobs ask for, which is of the cluster and no part of any study.
    # --dry-run: which layers a placement means on a backbone, before its weights are downloaded.
    "train": "--alpha --base --controls --data-root --depth --device --dry-run "
    "--log --method --objective --on-bad-image --out "
    "--seed --seeds --set --sites --study --weights --workers",
    **dict.fromkeys(("tabulate", "archive"), "--file --out"),
    "compare": "--budget --charge --confirm --controls --data-root --device --half-width "
    "--log --methods --objective --on-bad-image --out --repeats --replay --search --seeds --set "
    "--smoke --study --weights --workers",
    # --data, --backbone: short for --set, because whoever asks for a recommendation has these two.
    "recommend": "--backbone --budget --data --data-root --device --dry-run --log --on-bad-image "
    "--out --set --study --weights --workers",
    # --study: learned by a method that a study file registers.
    "derive": "--file --out --rule --study --value",
    # A search's best, in use: which trial (--best), in which form (--merged), with what one that
    # kept no weights is trained again (--backbone, and what every command that trains has).
    # --names: peft finds layers by their names, and transformers has others than timm.
    "export": "--backbone --best --csv --data-root --device --merged --names --on-bad-image "
    "--optuna --out "
    "--parquet --peft --study --tensorboard --weights",
    # --split: the images that a trial was tested on cannot be told from others by their folder.
    "predict": "--device --on-bad-image --out --split --study --weights",
    **dict.fromkeys(("status", "import"), "--out"),
    "verify": "--data-root --device --on-bad-image --out --sample --seed --study --weights "
    "--workers",
    **dict.fromkeys(("list", "data", "bench"), ""),
    "runs": "--out",
    # --yes: a script has nobody who could be asked.
    "runs delete": "--out --yes",
    "report": "--beside --out --paper",
    "pretrain": "--file --seed",
    "bench overhead": "--trials --workers",
    "bench train": "--case --device --out --rounds --set",
    "bench scaling": "--device --out --rounds --set --trials",
    "bench sweep": "--cells",
    "data check": "--data-root --download --out --set --study",
    "data pack": "--data-root --on-bad-image --out --set --size --study",
    "data bench": "--data-root --out --set --size --study",
}
"""Flags do not grow: what is science goes into a study, and `--set` reaches every field."""


def commands(group=main, above=()):
    """Words -> command, those in groups included."""
    for name, command in group.commands.items():
        yield " ".join([*above, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))


def test_flags_are_frozen():
    found = {
        name: " ".join(sorted(o for p in command.params for o in p.opts if o.startswith("--")))
        for name, command in commands()
    }
    assert found == FLAGS


def test_a_home_that_the_shell_left_is_found_and_an_empty_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert harness("runs", "--out=~/mine").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    refused = harness("runs", "--out", "")
    assert refused.exit_code == 2 and "--out is empty" in refused.stderr
    about = {"method": "lora", "options": {}, "rule": "as_is", "value": None, "trials": ()}
    made = PlacementFile(placement=Placement({"0.mlp1": 1.0}), backbone=BackboneSpec(), **about)
    (tmp_path / "p.json").write_text(made.model_dump_json())
    written = harness("export", tmp_path / "p.json", "--peft=~/config")
    assert written.exit_code == 0, written.output
    assert (tmp_path / "config").is_dir() and not (tmp_path / "~").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "--study", "depth_vs_position", "--smoke"],
        ["train", "--method", "linear_probe"],
        ["status", "mine"],
        ["archive", "mine", "--file", "f.parquet"],
        ["derive", "mine", "--rule", "as_is", "--file", "f.json"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_store_that_would_be_a_file_is_refused(tmp_path, monkeypatch, command, below):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    result = harness(*command, "--out", file / below)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert file.read_text() == "notes" and [each.name for each in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("command", [[], *(name.split() for name in FLAGS)])
def test_help_has_an_example_and_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"try: main({[*command, '--help']!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'optuna', 'ray', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Examples:" in run.stdout and "  harness " in run.stdout


STUDY = """
from harness.study import Axis
from harness.studies.depth_vs_position import study as base
def study():
    return base().derive(name="mine", {change})
"""


@pytest.mark.parametrize(
    "change,words",
    [
        ("seeds=()", ["seeds", "at least 1"]),
        ("objective='clas_mean'", ["'objective'", "'class_mean'"]),
        ("questionn='?'", ["'questionn'", "Did you mean 'question'"]),
        ("axes=(Axis(field='alpha', values=(), label='a'),), views=()", ["values", "at least 1"]),
        (
            "axes=(Axis(field='alfa', values=(1.0,), label='a'),), views=()",
            ["Did you mean 'alpha'"],
        ),
        ("axes=(Axis(field='positions', values=('mlp',), label='p'),), views=()", ["'mlp2'"]),
        ("axes=(Axis(field='depth', values=('last:40',), label='d'),), views=()", ["last:40"]),
        ("axes=(Axis(field='alpha', values=('x',), label='a'),), views=()", ["'alpha'", "'x'"]),
        ("views=base().views, axes=base().axes[:1]", ["depth", "positions"]),
        ("seeds=1 / 0", ["ZeroDivisionError"]),
    ],
)
def test_a_wrong_study_is_refused_in_one_sentence_that_names_the_file(tmp_path, change, words):
    path = tmp_path / "mine.py"
    path.write_text(STUDY.format(change=change))
    result = harness("sweep", "--study", path, "--out", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 2
    message = result.stderr.strip()
    assert message.count("\n") == 0 and message.startswith("Error: ")
    assert all(word in message for word in ["mine", *words]), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "args,words",
    [
        (["sweep", "--study", "depth_vs_postion"], "Did you mean 'depth_vs_position'"),
        (["sweep", "--study", "none.py"], "none.py does not exist"),
        (["sweep", "--study", "depth_vs_position", "--set", "recipe.lr"], "FIELD=VALUE"),
        (["sweep", "--study", "depth_vs_position", "--set", "recipe.rl=1"], "recipe.lr"),
        (["sweep", "--study", "depth_vs_position", "--device", "tpu"], "cpu, cuda"),
        (["sweep", "--study", "k_steps", "--repeats", "3"], "--repeats is for a search"),
        (["sweep", "--study", "k_steps", "--budget", "3s"], "in trials or epochs"),
        (["sweep", "--study", "k_steps", "--search", "tpee"], "Did you mean 'tpe'"),
        (["sweep", "--study", "k_steps", "--search", "bohb"], "Did you mean 'tpe+hyperband'"),
        (["sweep", "--study", "k_steps", "--search", "bayesian"], "Did you mean 'gp' or 'tpe'"),
        (
            ["sweep", "--study", "k_steps", "--search", "tpe+asha", "--pruner", "median"],
            "--search tpe+asha and --pruner median: give one of them",
        ),
        (
            ["sweep", "--study", "depth_vs_position", "--workers", "100000"],
            "--workers 100000: each",
        ),
        (
            ["sweep", "--study", "depth_vs_position", "--only", "depth=last:1,last:1"],
            "Values of depth: one is named twice in last:1, last:1",
        ),
        (["sweep", "--study", "k_steps", "--set", "learning_rate=1"], "Did you mean 'recipe.lr'"),
        (["sweep", "--study", "k_steps", "--set", "recipe.bs=1"], "'recipe.batch_size'"),
        (["sweep", "--study", "k_steps", "--search", "metapeft", "--budget", "3s"], "restarts"),
        (["sweep", "--study", "k_steps", "--search", "tpe", "--budget", "x"], "Bad --budget 'x'"),
        (["sweep", "--study", "k_steps", "--search", "cmaes"], "continuous"),
        (["sweep", "--study", "k_steps", "--search", "pbt"], "alpha or recipe.lr"),
        (["sweep", "--study", "per_site", "--search", "pbt", "--budget", "9s"], "its members"),
        (["sweep", "--study", "k_steps", "--search", "pbt", "--pruner", "asha"], "--pruner is not"),
        (["train", "--method", "lorra"], "Did you mean 'lora'"),
        (["train", "--method", "lora", "--sites", "mlp3"], "'mlp3'"),
        (["train", "--method", "lora", "--seed", "3", "--seeds", "2"], "give one of them"),
        (["train", "--method", "lora", "--base", "lora"], "--base is for --method metapeft"),
        (["train", "--method", "lora", "--objective", "tail,micro"], "takes one of them"),
        (["export", "nope", "--best", "here"], "--best is for a run, and 'nope' is none"),
        (["recommend", "--budget", "5run"], "write full runs or trials, as in 5runs or 5"),
        (["train", "--method", "lora", "--depth", "last:0"], "last:N"),
        (
            ["train", "--method", "lora", "--set", "data.name=imagenet"],
            "Unknown dataset 'imagenet'",
        ),
        (["train", "--method", "lora", "--alpha", "-1"], "alpha"),
        pytest.param(
            *(["train", "--method", "lora", "--set", "backbone.img_size=64"], "leave it out"),
            marks=pytest.mark.slow,
        ),
        (["train", "--method", "lora", "--weights", "none.pth"], "none.pth cannot be read"),
        (["train", "--method", "lora", "--set", "backbone.name=vit_tiny_local"], "--weights"),
        (["report", "nothing"], "Unknown run 'nothing'"),
    ],
)
def test_mistakes_exit_with_2_and_one_sentence(tmp_path, args, words):
    result = harness(*args, *([] if "--out" in args else ["--out", tmp_path]))
    assert result.exit_code == 2, result.output
    assert words in result.stderr and "Traceback" not in result.output
    assert result.stderr.strip().count("\n") == 0


@pytest.mark.parametrize(
    "kind,words",
    [
        ("methods", ["vpt_deep", "adaptformer", "rank=4"]),
        pytest.param(
            *("studies", ["depth_vs_position", "Fig. 1(c)", "72", "est.", "~", "none"]),
            marks=pytest.mark.slow,
        ),
        ("datasets", ["synth-rs", "SYNTHETIC"]),
        ("backbones", ["vit_pico", "DINOv2", "satmae_vit_l16", "augreg_in21k_ft_in1k"]),
        ("searches", ["SAMPLER+hyperband", "BOHB", "metapeft", "pbt"]),
        ("tables", ["joint_space", "synth_rs", "SYNTHETIC", "vit_pico"]),
        ("methods lora", ["options.rank", "whole number ≥ 1", "alpha_over_r, alpha", "q, k, v"]),
        ("methods lora+adaptformer", ["options.lora.rank", "options.adaptformer.scale"]),
        ("methods linear_probe", ["--set"]),
        ("datasets folder", ["data.options.imbalance", "null"]),
        ("fields recipe.e", ["recipe.epochs", "recipe.epoch_rule", "last, best", "true or false"]),
    ],
)
def test_lists(kind, words, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = harness("list", *kind.split())
    assert result.exit_code == 0
    assert all(word in result.output for word in words)


@pytest.mark.parametrize(
    "args,words",
    [
        (["methods", "lorra"], "Did you mean 'lora'"),
        (["searches", "tpe"], "harness list searches takes no name"),
        (["fields", "lr"], "Did you mean 'recipe.lr'"),
    ],
)
def test_a_list_of_nothing_is_one_sentence(args, words):
    result = harness("list", *args)
    assert result.exit_code == 2 and words in result.stderr and result.stdout == ""


def test_a_field_is_no_flag_and_the_error_says_how_it_is_set(tmp_path):
    result = harness("train", "--method", "lora", "--batch-size", "8", "--out", tmp_path)
    assert result.exit_code == 2 and "Write --set recipe.batch_size=VALUE." in result.stderr
    result = harness("status", "x", "--batch-size", "8", "--out", tmp_path)
    assert result.exit_code == 2 and "--set" not in result.stderr


def test_what_synonyms_stand_for_is_there():
    from harness.insertion.method import METHODS
    from harness.metrics import Objective
    from harness.search.optuna_search import PRUNERS, SAMPLERS
    from harness.spec import POSITIONS, TrialRequest
    from harness.spec.fields import fields_of

    known = {field.name for field in fields_of(TrialRequest)} | set(METHODS.names())
    known |= {"grid", "pbt", *SAMPLERS, *POSITIONS, *get_args(Objective)}
    known |= {f"{sampler}+{pruner}" for sampler in SAMPLERS for pruner in PRUNERS}
    known |= {"options.rank", "data.options.imbalance"}
    assert not {name for names in SYNONYMS.values() for name in names} - known
    assert all(word == word.lower() and "-" not in word for word in SYNONYMS)


@pytest.mark.parametrize(
    "given,allowed,hint",
    [
        ("BOHB", ["random", "tpe", "gp"], "'tpe+hyperband'"),
        ("asha", ["random", "gp"], "'random+asha'"),
        ("learning-rate", ["recipe", "alpha"], "'recipe.lr'"),
        ("options.r", ["rank", "scale"], "'rank'"),
        ("epochs", ["head", "tail"], None),
        ("lr", ["recipe", "data"], "'recipe.lr'"),
    ],
)
def test_what_is_meant_is_said_where_it_can_be_had(given, allowed, hint):
    said = str(unknown("word", given, allowed))
    assert ("Did you mean" in said) == (hint is not None)
    assert hint is None or f"Did you mean {hint}?" in said


def test_set_reads_json_and_words():
    from harness.cli.given import parse_settings

    values = parse_settings(("recipe.lr=0.5", "method=lora", 'options={"rank": 2}', "a=b=c"))
    assert values == {"recipe.lr": 0.5, "method": "lora", "options": {"rank": 2}, "a": "b=c"}
    assert json.dumps(values)


def test_every_option_has_help_or_speaks_for_itself():
    for name, command in commands():
        for option in command.params:
            if isinstance(option, click.Option):
                plain = ("seed", "workers", "trials", "size")
                assert option.help or option.name in plain, (name, option.name)
