"""From Python and on the command line: the same trials, the same numbers, the same report."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from functools import partial

import pytest
from support.cli import harness as command
from support.few import VALUES
from support.here import Here, out_of_luck
from support.sweeps import made_sweep
from support.tables import compare, small_study

import harness
from harness.catalogue.studies import load_study
from harness.console import SILENT
from harness.errors import TrialsFailed, UserError
from harness.store.table import tabulate

STUDY = f"""
FEW = {VALUES}
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base


def study():
    made = base()
    return made.derive(
        name="small",
        base=made.base.with_values(
            {{**FEW, "recipe.epochs": 1, "depth": "last:1"}}, source="test"
        ),
        seeds=(0,),
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="alpha", values=(1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="t"),),
        reference=None,
    )
"""
pytestmark = pytest.mark.usefixtures("all_trained_here", "few_images")

ONE_CORE = ("--workers", 1)
SMALL = {"recipe.epochs": 1, **VALUES}
SET = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.py"
    path.write_text(STUDY)
    return path


@pytest.fixture
def silent(capfd):
    """Nothing may be printed by what the test does before it looks itself."""

    def check():
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "")

    return check


TIMES = {"wall_s", "device_s", "actual_device_s", "peak_memory_mb"}
SAY_TIMES = {"costs.csv", "search.csv", "arms.csv"}


def stored(out):
    """What a store holds, without times, processes and machines: file -> content."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "record.json":
            record = json.loads(path.read_text())
            record["cost"] = {k: v for k, v in record["cost"].items() if k not in TIMES}
            found[name] = {k: v for k, v in record.items() if k != "provenance"}
        elif path.suffix == ".csv" and path.name not in SAY_TIMES:
            found[name] = path.read_bytes()
        elif path.name in ("study.json", "spec.json", "command.json", "comparison.json"):
            found[name] = path.read_text()
        elif path.is_file():
            found[name] = None
    return {n: c for n, c in found.items() if not n.endswith((".lock", ".sqlite", "claim.json"))}


def alike(one, other):
    """Whether two stores differ in nothing but times."""
    assert stored(one) == stored(other)
    return True


@pytest.mark.slow
def test_a_sweep_is_that_of_the_command(study, tmp_path, silent):
    results = harness.sweep(study, workers=1, out=tmp_path / "a")
    silent()
    assert command("sweep", "--study", study, *ONE_CORE, "--out", tmp_path / "b").exit_code == 0
    assert alike(tmp_path / "a", tmp_path / "b")
    assert len(results.trials) == 4 and set(results.trials["status"]) == {"COMPLETE"}
    best = results.best()
    scores = results.trials.set_index("trial_id")["select_class_mean"]
    assert scores[best.trial_ids[0]] == scores.max() == best.select
    assert best.chosen_by == "mean class mean on validation"
    assert results.figures == ("heatmap_positions_alpha",)
    assert results.figure().axes[0].get_ylabel() == "position"
    with pytest.raises(UserError, match="Did you mean 'heatmap_positions_alpha'"):
        results.figure("heatmap_position_alpha")
    loaded = harness.load("small", out=tmp_path / "a")
    assert str(loaded.best()) == str(best) and loaded.trials.equals(results.trials)
    table = results.report / "metrics.csv"
    before = table.read_bytes()
    table.unlink()
    assert table in results.save_report() and table.read_bytes() == before
    ids = set(results.trials["trial_id"])
    again = harness.sweep(load_study(str(study)), workers=1, out=tmp_path / "a")
    assert set(again.trials["trial_id"]) == ids  # a Study has the ids of its file
    assert {path.name for path in (tmp_path / "a" / "trials").iterdir()} == ids


@pytest.mark.slow
def test_a_search_and_settings_are_those_of_the_command(study, tmp_path, silent):
    given = {"search": "random", "budget": 2, "seeds": 1, "settings": {"recipe.lr": 0.02}}
    results = harness.sweep(str(study), **given, workers=1, out=tmp_path / "a")
    silent()
    words = ("sweep", "--study", study, "--search", "random", "--budget", 2, "--seeds", 1)
    done = command(*words, "--set", "recipe.lr=0.02", *ONE_CORE, "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert alike(tmp_path / "a", tmp_path / "b")
    assert results.name == "small+recipe.lr=0.02+random"
    line = json.loads((results.folder.command).read_text())["line"]
    assert shlex.split(line) == ["harness", *map(str, words), "--set", "recipe.lr=0.02"]


@pytest.mark.slow
def test_training_is_that_of_the_command(tmp_path, silent):
    given = {"sites": ["q", "mlp1"], "depth": "last:1", "alpha": 2, "seeds": 2}
    results = harness.train("lora", **given, settings=SMALL, workers=1, out=tmp_path / "a")
    silent()
    words = ("train", "--method", "lora", "--sites", "q,mlp1", "--depth", "last:1", "--alpha", 2)
    done = command(*words, "--seeds", 2, *SET, *ONE_CORE, "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert alike(tmp_path / "a", tmp_path / "b")
    best, row = results.best(), results.table().iloc[0]
    assert list(results.trials["seed"]) == [0, 1] and row["n"] == 2
    assert best.trial_ids == tuple(results.trials["trial_id"])
    assert best.test["class_mean"] == pytest.approx(results.trials["test_class_mean"].mean())
    assert f"{best.test['class_mean']:.1f} ±" in done.stdout
    with pytest.raises(UserError, match="no run of its own"):
        results.save_report()
    with pytest.raises(UserError, match="no figures"):
        results.figure()


@pytest.mark.slow
def test_a_comparison_of_methods_is_that_of_the_command(tmp_path, silent, monkeypatch):
    monkeypatch.setattr("harness.comparison.methods.RATES", (0.5, 1.0))
    monkeypatch.setattr("harness.comparison.methods.FURTHER", 0)
    given = {"methods": ["bitfit", "linear_probe"], "seeds": 1, "settings": SMALL, "workers": 1}
    results = harness.compare(**given, out=tmp_path / "a")
    silent()
    words = ("compare", "--methods", "bitfit,linear_probe", "--seeds", 1)
    done = command(*words, *SET, *ONE_CORE, "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert alike(tmp_path / "a", tmp_path / "b")
    best = results.best()
    assert len(best.trial_ids) == 1 and best.cell["arm"] in set(results.table()["arm"])
    assert results.figures == ("arms", "pareto") and results.figure("pareto").axes


@pytest.mark.slow
def test_a_replay_is_that_of_the_command(tmp_path, silent):
    table = tmp_path / "t.parquet"
    tabulate([made_sweep(tmp_path / "made", small_study())], table)
    given = {"search": ["random", "tpe"], "replay": table, "budget": 3, "repeats": 2}
    results = harness.compare(**given, study="joint_space", out=tmp_path / "a")
    silent()
    words = ("--search", "random,tpe", "--budget", 3, "--repeats", 2)
    done = compare(tmp_path / "b", table, *words)
    assert done.exit_code == 0, done.output
    assert alike(tmp_path / "a", tmp_path / "b")
    best = results.best()
    assert best.cell["search"] in ("random", "tpe") and len(best.trial_ids) == 2
    known = results.trials.set_index("trial_id")["select"]
    chosen = known[~known.index.duplicated()][list(best.trial_ids)]
    assert chosen.mean() == pytest.approx(best.select)
    assert results.figure("choices").axes and harness.load(results.folder.path).best() == best


@pytest.mark.slow
def test_a_study_that_trains_nothing_gives_its_counts(tmp_path, silent):
    results = harness.sweep("module_size", smoke=True, out=tmp_path)
    silent()
    assert results.best() is None and (results.trials["trainable_params"] > 0).all()
    assert harness.load(results.folder.path).table().equals(results.table())
    assert (results.report / "report.md").is_file()


@pytest.mark.parametrize(
    "call,words",
    [
        (
            lambda o: harness.sweep("depth_vs_postion", out=o),
            ["sweep", "--study", "depth_vs_postion"],
        ),
        (
            lambda o: harness.sweep("k_steps", repeats=3, out=o),
            ["sweep", "--study", "k_steps", "--repeats", 3],
        ),
        (
            lambda o: harness.sweep("k_steps", settings={"recipe.rl": 1}, out=o),
            ["sweep", "--study", "k_steps", "--set", "recipe.rl=1"],
        ),
        (
            lambda o: harness.sweep("k_steps", search="tpee", out=o),
            ["sweep", "--study", "k_steps", "--search", "tpee"],
        ),
        (lambda o: harness.train("lorra", out=o), ["train", "--method", "lorra"]),
        (
            lambda o: harness.train("lora", sites="mlp3", out=o),
            ["train", "--method", "lora", "--sites", "mlp3"],
        ),
        (lambda o: harness.compare(out=o), ["compare"]),
        (lambda o: harness.compare(methods="lora", out=o), ["compare", "--methods", "lora"]),
        (
            lambda o: harness.compare(search="tpe", replay=True, smoke=True, out=o),
            ["compare", "--search", "tpe", "--replay", "--smoke"],
        ),
        (lambda o: harness.load("nothing", out=o), ["report", "nothing"]),
    ],
)
def test_a_mistake_is_the_commands_sentence(tmp_path, call, words):
    with pytest.raises(UserError) as error:
        call(tmp_path)
    typed = command(*words, "--out", tmp_path)
    assert typed.exit_code == 2 and typed.stderr == f"Error: {error.value}\n"


@pytest.mark.parametrize(
    "given,words",
    [
        ({"engine": "rai"}, "--engine: 'rai'. Did you mean 'ray'"),
        ({"pruner": "ashaa"}, "--pruner: 'ashaa'. Did you mean 'asha'"),
        ({"keep": "bst"}, "--keep: 'bst'. Did you mean 'best'"),
        ({"select_on": "train"}, "Allowed: test, val"),
        ({"on_bad_image": "skp"}, "Did you mean 'skip'"),
        ({"seeds": 0}, "--seeds 0: it takes whole numbers from 1 to 10000"),
        ({"workers": 1.5}, "workers=1.5: it takes int | None."),
        ({"gpus_per_trial": 0.0, "engine": "ray"}, "--gpus-per-trial 0: it must be above 0"),
    ],
)
def test_what_the_command_line_cannot_be_given_is_refused_as_well(tmp_path, given, words):
    with pytest.raises(UserError) as error:
        harness.sweep("k_steps", **given, out=tmp_path)
    assert words in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_console_is_told_what_the_command_prints(study, tmp_path):
    class Told:
        def __init__(self):
            self.lines, self.counted = [], []

        def say(self, line):
            self.lines.append(line)

        def warn(self, line):
            raise AssertionError(line)

        def progress(self, title, total, unit):
            return nullcontext(lambda note: self.counted.append((title, total, unit, note)))

        interruptible = SILENT.interruptible

    told = Told()
    harness.sweep(study, budget=1, workers=1, out=tmp_path, console=told)
    assert len(told.lines) == 3 and told.lines[1].startswith("Trains: vit_pico on few-rs")
    assert told.lines[2].startswith("Trials: 0 done, 0 running")
    ((title, total, unit, note),) = told.counted
    assert (title, total, unit) == ("small", 1, "trials") and note.startswith("best val ")


@pytest.mark.slow
def test_failed_trials_are_raised_after_the_report(tmp_path, study, monkeypatch, silent):
    monkeypatch.setattr("harness.driver.setup.LocalEngine", partial(Here, run=out_of_luck))
    with pytest.raises(TrialsFailed, match=r"^1 trials failed; .* out of luck"):
        harness.sweep(study, budget=1, workers=1, out=tmp_path)
    silent()
    assert "1 failed" in (tmp_path / "studies/small/report/report.md").read_text()


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="swep"):
        harness.swep  # noqa: B018
