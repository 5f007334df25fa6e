"""Trials that a search stopped or asked for twice, whatever else the store has of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.cli import harness
from support.driving import driven
from support.few import SET
from support.searches import study, task
from support.untrained import train_nothing, with_test

from harness.driver.request import EngineRequest
from harness.reports.numbers.run import load_run
from harness.reports.numbers.sweep import best_trial
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search import catalogue
from harness.search.base import WholeTrials
from harness.search.bounded import start_search
from harness.search.catalogue import optuna_search
from harness.spec import Recipe
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run
from harness.store.search_log import read_log, tells
from harness.store.status import look
from harness.store.store import Store
from harness.study.space import SearchSpace
from harness.testing.made import TINY, MadeEngine, made_record
from harness.testing.searches import made_score

EPOCHS = 4
STUDY = study(base=TINY.model_copy(update={"recipe": Recipe(epochs=EPOCHS, precision="fp32")}))
SPACE = SearchSpace(STUDY, 12)


def make(values, seed):
    return resolve(SPACE.request(values, seed), Runtime())


def task_of(log, budget):
    return replace(task(SPACE, log, budget), make=make)


def ran(search, store, on_end=lambda record, is_fresh: None, slots=1):
    engine = MadeEngine(store, made_score, watch=search.needs_epoch_reports, slots=slots)
    driven(search, engine, store, on_end)
    return engine.ran


def test_what_a_search_stopped_is_no_answer_though_another_run_trained_it(tmp_path):
    store = Store(tmp_path)
    for number, params in enumerate(SPACE.enumerate()):
        spec = make(SPACE.at(params), 0)
        scores = [0.5 + 0.01 * number] * EPOCHS
        if number == 5:  # the worst, until the last epoch
            late, scores = spec.trial_id, [0.01] * (EPOCHS - 1) + [0.99]
        with store.claim(spec) as claim:
            for epoch, score in enumerate(scores):
                claim.log({"epoch": epoch, "select": {"class_mean": score}})
            claim.publish(made_record(spec, "COMPLETE", scores[-1]))
    folder = RunFolder.of(store, "made+random+asha")
    folder.path.mkdir(parents=True)
    heard = {}
    search = optuna_search("random", "asha")(task_of(folder.log(0), "12"))
    ran(search, store, lambda record, is_fresh: heard.update({record.trial_id: record.status}))
    write_run(folder, STUDY, [], {"semantics": "3"})
    told = {tell.trial_id: tell.status for tell in tells(read_log(folder.log(0)))}
    assert told[late] == "PRUNED" and {*told.values()} == {"PRUNED", "COMPLETE"}
    assert heard == told
    run = load_run(folder)
    assert dict(zip(run.trials["trial_id"], run.trials["status"], strict=True)) == told
    answer = best_trial(run).trial_id
    assert told[answer] == "COMPLETE" and look(folder).best.score < 0.99
    assert look(folder).counts["stopped early"] == [*told.values()].count("PRUNED")
    # One that the run itself trains, as a comparison does its reference, is an answer of it.
    spec = store.spec(late)
    [cell] = [SPACE.at(p) for p in SPACE.enumerate() if make(SPACE.at(p), 0).trial_id == late]
    write_run(folder, STUDY, [(cell, spec)], {"semantics": "3"})
    assert best_trial(load_run(folder)).trial_id == late and look(folder).best.score == 0.99


class Generations(WholeTrials):
    """Four trials at a time, of which two are the same, and the next when it was told of four."""

    def __init__(self, task):
        self.task, self.number, self.left, self.waiting = task, 0, [], 0

    def ask(self, count):
        if not self.left and not self.waiting:
            position, self.number = self.number % 3, self.number + 1
            cells = [SPACE.at({"positions": position, "alpha": alpha}) for alpha in (0, 0, 1, 2)]
            self.left = [self.task.make(cell, 0) for cell in cells]
            self.waiting = len(self.left)
        asked, self.left = self.left[:count], self.left[count:]
        return asked

    def tell(self, outcome):
        self.waiting -= 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_running_trial_that_is_asked_for_again_is_told_again(tmp_path, workers):
    search = start_search("own", Generations, task_of(tmp_path / "log", "9"))
    specs = ran(search, Store(tmp_path / "store"), slots=workers)
    assert len(specs) == len({spec.trial_id for spec in specs}) == 9


@pytest.mark.usefixtures("few_images")
def test_a_trial_that_fails_does_not_end_the_repeats(tmp_path, monkeypatch):
    ran = []

    def score(spec):
        ran.append(spec.trial_id)
        return 0.5

    def finished(record, value):
        whole = with_test(record, value)
        if len(ran) == 1:
            return whole.model_copy(update={"status": "FAILED", "select": None, "test": None})
        return whole

    train_nothing(monkeypatch, score, finished)
    words = ["--study", "depth_vs_position", *SET, "--search", "random", "--budget", 2]
    result = harness("sweep", *words, "--repeats", 2, "--workers", 1, "--out", tmp_path)
    assert result.exit_code == 1 and "1 trials failed" in result.stderr
    logs = sorted(tmp_path.glob("studies/*/search-*.jsonl"))
    assert [len(tells(read_log(log))) for log in logs] == [2, 2]


def test_checkpoints_are_kept_for_whatever_may_pause(monkeypatch):
    monkeypatch.setattr(catalogue, "installed_searches", lambda: {"own": []})
    names = ("pbt", "own", "tpe", "grid", "tpe+hyperband")
    assert [catalogue.may_pause(name) for name in names] == [True, True, False, False, False]


def test_lost_workers_are_replaced_whatever_the_command():
    assert EngineRequest().max_retries == 2
