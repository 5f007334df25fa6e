"""What a command ends with: the answer in a few lines, of what the data has and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import harness as command
from support.fake_trials import Fake, controls, score, written
from support.records import TINY, publish, tiny_study
from support.runs import RESULTS, made_run, scored, study
from support.sweeps import made_sweep
from support.tables import compare, small_study

import harness
from harness.cli import main
from harness.reports.brief import LABEL, Brief
from harness.reports.trained import TrainResults
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.runs import Command, write_command
from harness.store.store import Store
from harness.store.table import tabulate
from harness.study.axes import Axis

GRID = [[(0.4, 0.3)], [(0.6, 0.5)], [(0.5, 0.55)], [(0.1, 0.1)]]


def is_real(words):
    """Whether it could be typed: the command is there, with these options and arguments."""
    made = main.commands[words[0]].make_context(words[0], list(words[1:]))
    return made.command.name == words[0]


def test_a_sweep_says_choice_score_gap_cost_and_what_is_missing(tmp_path):
    folder = made_run(tmp_path, study(), RESULTS)
    write_command(folder, Command("harness sweep --study made.py --seeds 2", "Every cell."))
    brief = harness.load("made", out=tmp_path).brief
    assert brief.title == "Choice"
    assert brief.choice == (
        "position = mlp1, depth = last:2 (best class mean on validation: 71.0 ± 12.7 %)"
    )
    assert brief.test == (
        "56.0 ± 12.7 % class mean over 2 seeds, 95 % interval, on synth-rs (SYNTHETIC)"
    )
    assert brief.hindsight == (
        "position = q, depth = last:1 is best of 4 cells on test: 81.0 %, 25.0 ± 0.0 points more "
        "than the choice"
    )
    assert brief.cost == "9 trials, 0 min 09 s of device time"
    assert brief.caveat == "1 of 12 trials failed; 3 of 12 trials not run yet"
    assert brief.next == ("sweep", "--study", "made.py", "--seeds", "2")


def test_a_whole_sweep_of_one_seed_has_no_interval_and_can_be_exported(tmp_path):
    made_run(tmp_path, tiny_study(), GRID)
    brief = harness.load("tiny", out=tmp_path).brief
    assert brief.test == "50.0 % class mean on synth-rs (SYNTHETIC)"
    assert "q, alpha = 1.0 is best of 4 cells on test: 55.0 %, 5.0 points more" in brief.hindsight
    assert "one seed, so the score has no interval" in brief.caveat
    assert "alpha = 2.0 is the end of its range" in brief.caveat
    assert brief.next == ("export", "tiny", "--best", "best") and is_real(brief.next)
    best = [[(0.4, 0.3)], [(0.6, 0.6)], [(0.5, 0.55)], [(0.1, 0.1)]]
    made_run(tmp_path / "b", tiny_study(), best)
    brief = harness.load("tiny", out=tmp_path / "b").brief
    assert brief.hindsight == "the choice is also the best of 4 cells on test"
    tied = [[(0.4, 0.6)], *best[1:]]  # hindsight's first cell is another, and no better
    made_run(tmp_path / "c", tiny_study(), tied)
    assert harness.load("tiny", out=tmp_path / "c").brief.hindsight == brief.hindsight


@pytest.mark.parametrize("seed,adds", [(0, True), (99, False)])
def test_seeds_are_added_to_the_first_alone(tmp_path, seed, adds):
    made_run(tmp_path, tiny_study(seeds=(seed,)), GRID)
    caveat = harness.load("tiny", out=tmp_path).brief.caveat
    assert ("`--seeds 3` adds more" in caveat) == adds


def test_nothing_is_said_of_what_is_not_there(tmp_path):
    made_run(tmp_path, tiny_study(), [[None]] * 4)
    brief = harness.load("tiny", out=tmp_path).brief
    assert brief.choice.startswith("none yet: no trial has both")
    assert brief[2:] == (None, None, None, None, ())
    alone = (Axis(field="positions", values=("mlp1",), label="position"),)
    made_run(tmp_path / "b", tiny_study(axes=alone, views=()), [["DIVERGED"]])
    brief = harness.load("tiny", out=tmp_path / "b").brief
    assert brief.hindsight is None and brief.next == ()
    assert "1 of the choice's 1 trial diverged" in brief.caveat


def test_what_was_chosen_on_test_says_so_first(tmp_path):
    base = TINY.with_values({"data.select_on": "test"}, source="test")
    made_run(tmp_path, tiny_study(base=base), GRID)
    assert harness.load("tiny", out=tmp_path).brief.caveat.startswith("SELECTED ON TEST")


@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_arms_that_do_not_differ_are_not_said_to(tmp_path, seeds):
    store = Store(tmp_path)
    folder = written(controls(store, Fake(store, score), seeds=seeds), store)
    results = harness.load(folder)
    brief = results.brief
    assert brief.choice.startswith("metapeft, one shot (best class mean on validation: ")
    assert brief.next[:2] == ("export", results.best().trial_ids[-1]) and is_real(brief.next)
    if len(seeds) == 1:
        assert "one seed, so no arm is shown to differ from another" in brief.caveat
        assert "±" not in brief.test
    else:
        # metapeft's own arms all score the same, so no interval of their differences leaves 0
        names = [n for n in results.table()["arm"] if n.startswith("metapeft")]
        others = len(results.table()) - 1
        assert f"not shown to differ from {len(names) - 1} of the {others} other" in brief.caveat


@pytest.mark.slow
def test_searches_say_what_the_rule_allows(tmp_path):
    tabulate([made_sweep(tmp_path, small_study())], tmp_path / "t.parquet")
    done = compare(tmp_path, tmp_path / "t.parquet", "--search", "random,tpe", "--budget", 4)
    assert done.exit_code == 0, done.output
    results = harness.load("joint_space+searches", out=tmp_path)
    name, brief = results.best().cell["search"], results.brief
    assert brief.choice.startswith(f"{name} (best class mean of its choices on validation")
    assert "over 2 training seeds" in brief.test and "better" not in brief.test
    assert "not shown to differ from random, expected (2 seeds of at least 6)" in brief.caveat
    assert brief.cost.startswith("nothing was trained, a table was replayed")
    words = ("sweep", "--study", "joint_space", "--search", name, "--budget", "4")
    assert brief.next == words and is_real(words)
    assert done.stdout.endswith(f"Next       harness {' '.join(words)} --out {tmp_path}\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_fewer_repeats_than_seeds_are_over_as_many_seeds(tmp_path):
    words = ("compare", "--search", "tpe", "--replay", "synth_rs", "--budget", 3, "--repeats", 1)
    done = command(*words, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    (run,) = (tmp_path / "studies").iterdir()
    brief = harness.load(run.name, out=tmp_path).brief
    assert "95 % interval" not in brief.test and "class mean on synth-rs" in brief.test
    assert "one training seed, so no interval" in brief.caveat
    assert "1 repeat over 1 training seed, " in (run / "report" / "index.html").read_text()


def trained(root, results, first=0):
    store = Store(root)
    ids = []
    for seed, result in enumerate(results, first):
        spec = resolve(TINY.model_copy(update={"seed": seed}), Runtime())
        if isinstance(result, str):
            publish(store, spec, status=result)
        else:
            publish(store, spec, select=scored(result[0]), test=scored(result[1]))
        ids.append(spec.trial_id)
    return TrainResults("lora", store, ids, "class_mean"), ids


def test_a_training_says_its_score_and_its_seeds(tmp_path):
    results, ids = trained(tmp_path, [(0.5, 0.4), (0.6, 0.5)])
    brief = results.brief
    assert brief.title == "Trained" and brief.choice == "lora at 11.mlp1, seeds 0, 1"
    assert brief.test.startswith("45.0 ± 63.5 % class mean over 2 seeds")
    assert brief.hindsight is None and brief.caveat is None
    assert brief.next == ("export", ids[1], "--weights", "best") and is_real(brief.next)
    assert str(results).startswith("Trained    lora at 11.mlp1")
    results, _ = trained(tmp_path / "b", [(0.5, 0.4)])
    assert results.brief.caveat == "one seed, so the score has no interval; `--seeds 3` adds more"
    results, _ = trained(tmp_path / "d", [(0.5, 0.4)], first=99)
    assert results.brief.caveat == "one seed, so the score has no interval"
    results, _ = trained(tmp_path / "c", ["DIVERGED"])
    assert results.brief.next == ()
    assert results.brief.caveat == "1 of 1 seed diverged, and counts as chance"


def test_what_a_study_file_registers_is_exported_with_that_file(tmp_path, monkeypatch):
    results, ids = trained(tmp_path, [(0.5, 0.4)])
    is_known = "harness.catalogue.registered.is_known_anywhere"
    monkeypatch.setattr(is_known, lambda spec: False)
    results._line = "harness train --method mine --study lab/mine.py --seed 0"
    next_ = ("export", ids[0], "--weights", "best", "--study", "lab/mine.py")
    assert results.brief.next == next_
    monkeypatch.setattr(is_known, lambda spec: True)
    assert results.brief.next == next_[:4]


def test_a_report_ends_with_the_lines_that_the_results_give(tmp_path):
    folder = made_run(tmp_path, tiny_study(), GRID)
    shown = command("report", "tiny", "--out", tmp_path).stdout
    assert shown.strip() == str(harness.load(folder))
    assert f"Page       {folder.report / 'index.html'}\n" in shown
    assert shown.endswith(f"Next       harness export tiny --best best --out {tmp_path}\n")
    assert command("report", "tiny", "--out", tmp_path).stdout == shown


def test_lines_are_broken_but_for_what_is_to_be_copied():
    brief = Brief("Choice", "word " * 40, caveat="a " * 60, next=("export", "x" * 90))
    page = Path("y" * 100)
    *lines, path, following = brief.text(Path("runs"), page, width=80).splitlines()
    assert len(lines) == 5 and all(len(line) <= 80 for line in lines)
    assert {line[:LABEL].strip() for line in lines} == {"Choice", "Caveat", ""}
    assert path.split() == ["Page", "y" * 100]
    assert following == f"Next       harness export {'x' * 90}"
    assert len(brief.text(Path("runs")).splitlines()) == 3
    score = Brief("Choice", f"{'x' * 60} 56.0 ± 12.7 %")
    assert score.text(Path("runs"), width=80).splitlines()[1].strip() == "56.0 ± 12.7 %"


def test_a_full_disk_names_the_file_that_was_drawn(tmp_path, monkeypatch):
    made_run(tmp_path, tiny_study(), GRID)

    def full(self, *args, **kwargs):
        raise OSError(27, "File too large")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    result = command("report", "tiny", "--out", tmp_path)
    assert result.exit_code == 3
    assert "report/heatmap_positions_alpha.svg: File too large." in result.stderr
    assert "make room" in result.stderr and "Choice" not in result.stdout
    assert "Traceback" not in result.output
