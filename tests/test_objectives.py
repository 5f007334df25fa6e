"""What choices are made by, apart from what is shown: words, runs, searches, tables, arms."""

from __future__ import annotations

import itertools
import json
import math
from threading import Event

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.cli import harness
from support.fake_trials import Fake, cells, written
from support.hostile import InstantEngine
from support.records import make_record, make_spec, publish
from support.runs import made_run, scored, study
from support.searches import search
from support.sweeps import made_sweep
from support.tables import compare, small_study

from harness.comparison.live import plan_any_sweep
from harness.comparison.methods import compare_methods
from harness.console import SILENT
from harness.driver.batch import _Best
from harness.driver.drive import drive
from harness.driver.request import PlaceRequest, StudyRequest, SweepRequest
from harness.errors import UserError
from harness.export.run import export_optuna
from harness.metrics import scale_of, worth
from harness.reports.files.write import write_report
from harness.reports.notebook import results_of
from harness.reports.numbers.comparison import load_arms
from harness.reports.numbers.fronts import (
    expected_volume,
    hypervolume,
    is_on_front,
    load_fronts,
)
from harness.reports.text.comparison import comparison_content
from harness.reports.text.trials import list_arms
from harness.runner.cost import count_params
from harness.runner.runtime import Runtime
from harness.runner.trial import _of_rows
from harness.search.replay import Recording
from harness.spec import TrialSpec
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run, refuse_other_objective, write_run
from harness.store.search_log import Ask, append_event, read_log, tells
from harness.store.shipped import DEFAULT, file_of
from harness.store.store import Store
from harness.store.summaries import summaries
from harness.store.table import read_table, tabulate


def with_loss(value, loss, micro=None):
    """Scores whose class mean is `value`."""
    return scored(value).model_copy(
        update={"loss": loss, "micro": value if micro is None else micro}
    )


def test_an_objective_is_better_when_higher_and_is_read_as_it_was():
    scores = {"class_mean": 0.613, "micro": 0.7, "loss": 1.2344}
    assert worth("micro", scores) == 0.7 and worth("val_loss", scores) == -1.2344
    assert worth("val_loss", {"loss": math.nan}) == -math.inf
    assert scale_of("class_mean").text(0.613) == "61.3 %"
    assert scale_of("val_loss").text(-1.2344) == "1.234"
    with pytest.raises(UserError, match="--objective val_loss: the recorded scores of an epoch"):
        worth("val_loss", {"class_mean": 0.5})  # a history from before it had the loss


@pytest.mark.parametrize("loss", [0.25, None])
def test_a_summary_has_the_records_objective(tmp_path, loss):
    store, spec = Store(tmp_path), make_spec()
    if loss is None:
        publish(store, spec, status="DIVERGED")
    else:
        publish(store, spec, select=with_loss(0.5, loss), test=scored(0.5))
    record = store.record(spec.trial_id)
    for _ in range(2):  # read from the record, then from the index
        (summary,) = summaries(store, [spec.trial_id]).values()
        expected = -math.log(15) if loss is None else -0.25
        assert summary.objective("val_loss") == record.objective("val_loss") == expected
        assert summary.objective("micro") == record.objective("micro")


def test_progress_shows_the_best_of_losses():
    best = _Best("val", "val_loss")
    assert str(best) == "best val loss -"
    for seed, loss in enumerate((2.0, 1.5, 3.0)):
        best.update(make_record(make_spec(seed=seed), select=with_loss(0.5, loss)))
    assert str(best) == "best val loss 1.500"


CELLS = [  # class mean, loss, micro and test of both seeds
    (0.70, 2.0, 0.40, 0.50),
    (0.50, 0.5, 0.50, 0.60),
    (0.60, 1.0, 0.80, 0.40),
    "DIVERGED",
    (0.30, 2.5, 0.30, 0.30),
    (0.30, 2.6, 0.30, 0.30),
]
CHOSEN = {"val_loss": (1, 60.0), "micro": (2, 40.0)}  # place of the cell, test class mean


def grid(root, made):
    """A finished grid with the scores of `CELLS`."""
    folder = made_run(root, made, [[None, None]] * 6)
    store, count = Store(root), len(CELLS)
    for number, asked in enumerate(read_run(folder).asked):
        spec = plan_of(root, made).plan.cells[number][1]
        each = CELLS[number % count]
        if each == "DIVERGED":
            publish(store, spec, status="DIVERGED")
            continue
        value, loss, micro, test = each
        shift = 0.01 * asked.seed
        publish(
            store, spec, select=with_loss(value + shift, loss, micro), test=scored(test + shift)
        )
    return folder


def plan_of(root, made, **changes):
    asked = StudyRequest(study=made, **changes)
    place = PlaceRequest(out=str(root), device="cpu", cache=0)
    return plan_any_sweep(SweepRequest(study=asked, place=place, line="harness sweep"), SILENT)


@pytest.mark.slow
def test_a_finished_grid_is_chosen_from_again_without_training(tmp_path):
    made = study()
    first = grid(tmp_path, made)
    own = plan_of(tmp_path, made, objective="class_mean")
    assert own.plan.folder.name == "made" and not any("Chosen by" in line for line in own.words())
    before = {path: path.read_bytes() for path in first.path.rglob("*")}
    for objective, (place, test) in CHOSEN.items():
        plan = plan_of(tmp_path, made, objective=objective)
        assert not plan.plan.to_run
        (said,) = [line for line in plan.words() if line.startswith("Chosen by")]
        assert "shown is the test class mean. Trials are the same" in said
        folder = plan.run().folder
        assert folder.name == f"made+objective={objective}"
        best = results_of(folder).best()
        assert best.cell == {"positions": "mlp1", "depth": f"last:{place + 1}"}
        assert best.test["class_mean"] == pytest.approx(test + 0.5)
    assert {path: path.read_bytes() for path in first.path.rglob("*")} == before


@pytest.mark.slow
def test_a_run_chosen_by_the_loss_says_so_wherever_it_is_read(tmp_path):
    made = study(objective="val_loss")
    folder = grid(tmp_path, made)
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "Chosen by the best loss on validation (0.500 ± 0.000): **position = mlp1" in text
    assert "Test accuracy (%), class mean, mean ± 95 % interval" in text
    assert "each seed, by its own loss on validation: 60.5 ± 6.4 % test class mean" in text
    rows = pd.read_csv(folder.report / "trials.csv")
    diverged = rows["select_negated_loss"][rows["status"] == "DIVERGED"]
    assert diverged.tolist() == pytest.approx([-math.log(15)] * 2, abs=1e-4)
    assert "validation (loss)" in (folder.report / "index.html").read_text()
    status = harness("status", "made", "--out", tmp_path)
    assert "depth = last:2, seed 0: 0.500 loss on validation." in status.stdout
    database = f"sqlite:///{tmp_path}/o.db"
    export_optuna(folder, Store(tmp_path), database)
    import optuna

    assert optuna.load_study(study_name="made", storage=database).best_value == -0.5


def test_searches_of_one_objective_are_not_gone_on_with_by_another(tmp_path):
    folder = RunFolder.of(Store(tmp_path), "made+tpe")
    folder.path.mkdir(parents=True)
    write_run(folder, study(), [], {})
    refuse_other_objective(folder, study(objective="micro"))  # nothing was told yet
    append_event(folder.log(0), Ask(params={}, cell={}, seed=0, trial_id="0"))
    refuse_other_objective(folder, study())
    with pytest.raises(UserError, match="made\\+tpe has searches that chose by class_mean"):
        refuse_other_objective(folder, study(objective="micro"))
    asked = StudyRequest(study=study(objective="micro"))
    place = PlaceRequest(out=str(tmp_path), device="cpu")
    with pytest.raises(UserError, match="chose by class_mean, and not by micro"):
        plan_any_sweep(
            SweepRequest(study=asked, place=place, search="tpe", line="harness sweep"), SILENT
        )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with the selection loss, and the store that it was made of."""
    root = tmp_path_factory.mktemp("objectives")
    tabulate([made_sweep(root, small_study())], root / "t.parquet")
    return root


def test_a_table_is_replayed_by_its_loss(table):
    read = read_table(table / "t.parquet")
    store, recording = Store(table), Recording(read, "val_loss")
    for trial_id, trial in list(recording._trials.items())[::5]:
        record = store.record(trial_id)
        assert trial.objective == record.objective("val_loss")
        told = [row["select"] for row in store.history(trial_id) if "select" in row]
        assert trial.curve[: len(told)] == tuple(-each["loss"] for each in told)


def test_a_table_without_the_loss_is_refused_by_it_alone(table, tmp_path):
    old = pq.read_table(table / "t.parquet").drop_columns(["select_loss", "final_loss"])
    pq.write_table(old, tmp_path / "old.parquet")
    result = compare(
        tmp_path, tmp_path / "old.parquet", "--search", "random", "--objective", "val_loss"
    )
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "was tabulated without the selection loss" in result.stderr
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
def test_a_replay_by_another_objective_is_a_run_of_its_own(table, tmp_path):
    args = ("--search", "random,tpe+hyperband", "--repeats", 2, "--budget", 6)
    result = compare(tmp_path, table / "t.parquet", *args, "--objective", "val_loss")
    assert result.exit_code == 0, result.output
    folder = RunFolder.of(Store(tmp_path), "joint_space+objective=val_loss+searches")
    assert read_run(folder).study.objective == "val_loss"
    store = Store(table)
    for log in folder.logs():
        for tell in tells(read_log(log)):
            if tell.status != "PRUNED":
                assert tell.objective == store.record(tell.trial_id).objective("val_loss")
    text = (folder.report / "report.md").read_text()
    assert "the trial with the best loss on validation" in text and "% test class mean." in text
    assert "Regret (of the loss)" in text


def test_objectives_without_effect_or_unknown_are_refused(tmp_path):
    train = ("train", "--method", "lora", "--out", tmp_path)
    result = harness(*train, "--objective", "micro")
    assert result.exit_code == 2 and "--objective is for --controls" in result.stderr
    with pytest.raises(UserError, match="class_mean"):
        StudyRequest(study="depth_vs_position", objective="clas_mean")


def test_arms_are_chosen_by_the_loss_and_shown_by_the_class_mean(tmp_path):
    class ByLoss(Fake):
        def publish(self, request, spec):
            rate = spec.recipe.lr / 0.01  # the loss prefers the smallest rate, accuracy the others
            select = with_loss(0.5 + 0.01 * rate, 1 + rate)
            publish(self.store, spec, select=select, test=scored(0.4))

    store = Store(tmp_path)
    made = compare_methods(
        ["bitfit", "linear_probe"],
        study=cells().derive(objective="val_loss"),
        seeds=(0, 1),
        run=ByLoss(store, None),
        store=store,
        runtime=Runtime(),
    )
    assert made.arms[0].name == "bitfit (× 0.000122)" and made.objective == "val_loss"
    arms = load_arms(written(made, store))
    assert arms.table["select"].iloc[0] == pytest.approx(-1.000122, abs=1e-6)
    assert arms.table["class_mean"].iloc[0] == pytest.approx(40)
    notes = comparison_content(arms, None).notes
    assert any("by its own loss on validation" in note for note in notes)
    listed = list_arms(arms, "cells")
    assert listed.columns[3].name == "validation (loss)" and listed.rows[0].words[3] == "1.000"


def test_a_front_is_replayed_from_the_table_that_ships(tmp_path):
    args = ("--search", "nsga2,random", "--repeats", 2, "--budget", 12)
    goals = ("--objective", "trainable_params,class_mean")
    result = compare(tmp_path, file_of(DEFAULT), *args, *goals)
    assert result.exit_code == 0, result.output
    name = "joint_space+objective=class_mean,trainable_params+searches"
    folder = RunFolder.of(Store(tmp_path), name)
    known = {row.trial_id: row for row in read_table(file_of(DEFAULT)).trials.itertuples()}
    for log in folder.logs():
        for tell in tells(read_log(log)):
            spec = TrialSpec.model_validate_json(known[tell.trial_id].spec)
            assert tell.beside == (-float(count_params(spec).trainable_params),)
    found = load_fronts(folder)
    cells = [known[trial_id] for trial_id in found.space["trial_id"]]
    best: dict[float, float] = {}  # of so many parameters
    for row in cells:
        cost = row.trainable_params
        best[cost] = max(best.get(cost, 0.0), row.final_class_mean)
    front = {c: s for c, s in best.items() if all(s > best[less] for less in best if less < c)}
    assert len(cells) == 864 and len(front) > 3
    told = dict(zip(found.front["trainable_params"], found.front["class_mean"] / 100, strict=True))
    assert told == pytest.approx(front)
    tests = [100 * known[trial_id].test_class_mean for trial_id in found.front["trial_id"]]
    assert found.front["test_class_mean"].tolist() == pytest.approx(tests)
    text = (folder.report / "report.md").read_text()
    assert "random search is expected to dominate" in text and "![The front](front.png)" in text
    assert f"random search of equal cost, in closed form, {found.random[-1]:.1f} %" in result.stdout
    before = {path: path.read_bytes() for path in folder.logs()}
    folder.log(0, "nsga2").write_bytes(
        b"".join(before[folder.log(0, "nsga2")].splitlines(True)[:9])
    )
    assert compare(tmp_path, file_of(DEFAULT), *args, *goals).exit_code == 0
    assert {path: path.read_bytes() for path in folder.logs()} == before


def test_a_front_is_found_by_the_repeats_of_its_own_seed(tmp_path):
    """Of two seeds; every repeat looks at all 18 cells, so each finds all of it."""
    tabulate([made_sweep(tmp_path / "made", small_study())], tmp_path / "t.parquet")
    args = ("--search", "random", "--repeats", 4, "--budget", 18)
    goals = ("--objective", "trainable_params,class_mean")
    result = compare(tmp_path, tmp_path / "t.parquet", *args, *goals)
    assert result.exit_code == 0, result.output
    [folder] = (tmp_path / "studies").iterdir()
    found = load_fronts(RunFolder.of(Store(tmp_path), folder.name))
    assert len(found.front) and found.front["found_by_random"].tolist() == [1.0] * len(found.front)


@pytest.mark.parametrize("goals", [2, 3])
def test_the_volume_of_random_search_is_the_mean_over_all_draws(goals):
    places = np.random.default_rng(goals).random((6, goals)).round(1)
    places[0] = places[1]  # equal ones, and one on the edge of the box
    places[2, 0] = 0.0
    expected = expected_volume(places, 6)
    for drawn in range(1, 7):
        every = [hypervolume(places[list(s)]) for s in itertools.combinations(range(6), drawn)]
        assert expected[drawn - 1] == pytest.approx(np.mean(every))
    assert hypervolume(np.array([[0.5, 1.0], [1.0, 0.25], [0.4, 0.9]])) == pytest.approx(0.625)


def test_a_front_has_no_point_that_another_beats_or_a_guess_equals():
    worths = np.array([[0.9, -5], [0.8, -2], [0.8, -2], [0.7, -4], [0.1, -1]])
    found = is_on_front(worths, np.array([0.1, -5.5]))
    assert found.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("search", "objective", "words"),
    [
        ("nsga2", "class_mean", "--search nsga2 takes several objectives, and class_mean is one"),
        ("gp", "class_mean,tail", "--search gp takes one objective"),
        ("grid", "class_mean,tail", "--search grid takes one objective"),
        ("tpe", "trainable_params", "costs alone are least where nothing is trained"),
        ("tpe", "micro,micro", "micro is given twice"),
        ("tpe", "micro,tail,val_loss,trainable_params", "it takes 3 at most"),
    ],
)
def test_a_search_is_given_as_many_objectives_as_it_takes(tmp_path, search, objective, words):
    with pytest.raises(UserError, match=words):
        asked = StudyRequest(study=study(), objective=objective)
        place = PlaceRequest(out=str(tmp_path), device="cpu")
        plan_any_sweep(
            SweepRequest(study=asked, place=place, search=search, line="harness sweep"), SILENT
        )


def test_a_tail_that_the_data_lacks_is_said():
    assert worth("tail", {"groups": {"head": 0.9, "tail": 0.25}}) == 0.25
    with pytest.raises(UserError, match=r"no group of this name \(its groups: head\)"):
        worth("tail", {"groups": {"head": 0.9}})


def test_a_watched_trial_reports_what_the_tail_scored():
    heard = []
    ask = _of_rows(lambda epoch, scores: bool(heard.append((epoch, json.dumps(scores)))))
    select = {**scored(0.5).model_dump(mode="json"), "groups": {"head": 0.75, "tail": 0.25}}
    assert ask({"epoch": 1, "select": select}) is False
    ((epoch, text),) = heard  # as it is carried from a cluster's worker
    assert epoch == 2 and worth("tail", json.loads(text)) == 0.25


def test_a_report_without_the_objective_ends_the_search_and_not_its_trials(tmp_path):
    store = Store(tmp_path / "store")
    engine = InstantEngine(store, reports=2)
    with pytest.raises(UserError, match="no group of this name"):
        drive(
            search("random", tmp_path / "log", pruner="asha"),
            engine,
            store=store,
            runtime=Runtime(),
            objective="tail",
            max_retries=0,
            stop=Event(),
            on_end=lambda record, is_fresh: None,
        )
    assert engine.answers == 4 * [True]
    assert [store.state(trial_id) for trial_id in engine.submitted] == 2 * ["done"]
