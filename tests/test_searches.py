"""One contract for every search, on an objective in closed form: no training."""

from __future__ import annotations

import json

import pytest
from optuna.samplers import GPSampler
from support.searches import CELLS, make, outcome, run, score, search, space_of, study

from harness.errors import UserError
from harness.search.base import Decision, Restarts
from harness.search.budget import Budget
from harness.search.optuna_search import PRUNERS, SAMPLERS
from harness.study.axes import Axis
from harness.study.space import SearchSpace

GO_ON = Decision.GO_ON


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_budget_in_trials_is_met_exactly_by_different_trials(tmp_path, sampler):
    specs = run(search(sampler, tmp_path / "log", "9"))
    assert len(specs) == 9 == len({spec.trial_id for spec in specs})


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopping_anywhere_and_going_on_is_the_uninterrupted_search(tmp_path, sampler):
    whole = [spec.trial_id for spec in run(search(sampler, tmp_path / "whole", "10"))]
    parts = []
    for _ in range(4):
        parts += run(search(sampler, tmp_path / "parts", "10"), most=3)
    assert [spec.trial_id for spec in parts] == whole
    assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_was_asked_and_never_told_is_asked_again_first(tmp_path, sampler):
    first = search(sampler, tmp_path / "log")
    run(first, most=4)
    lost = first.ask(2)
    again = search(sampler, tmp_path / "log")
    assert [spec.trial_id for spec in again.ask(2)] == [spec.trial_id for spec in lost]
    for spec in lost:
        again.tell(outcome(spec))
    rest = run(again)
    assert len(rest) == 12 - 6 and not {s.trial_id for s in rest} & {s.trial_id for s in lost}


@pytest.mark.slow
def test_gp_proposes_what_optunas_own_sampler_does(tmp_path, monkeypatch):
    """Also while two trials run, for which it computes something else."""

    def proposals(path):
        made = search("gp", path, "500")
        running = list(made.ask(3))
        while running:
            made.tell(outcome(running.pop(0)))
            running += made.ask(1)
        return path.read_text()

    quick = proposals(tmp_path / "quick")
    monkeypatch.setattr("harness.search.optuna_search.quick_gp_sampler", lambda: GPSampler)
    assert proposals(tmp_path / "own") == quick and quick.count("ask") > 12


def test_what_failed_is_tried_again_after_a_restart(tmp_path):
    first = search("tpe", tmp_path / "log")
    (spec,) = first.ask(1)
    first.tell(outcome(spec, status="FAILED", objective=None))
    assert first.ask(1)[0].trial_id != spec.trial_id
    assert search("tpe", tmp_path / "log").ask(1)[0].trial_id == spec.trial_id


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_what_failed_is_not_tried_again_at_once(tmp_path, sampler):
    made, specs = search(sampler, tmp_path / "log", "500"), []
    while len(specs) < 100 and (asked := made.ask(1)):
        specs += asked
        made.tell(outcome(asked[0], status="FAILED", objective=None))
    assert len({spec.trial_id for spec in specs}) == len(specs) == 12


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_finite_space_is_used_up_and_no_budget_evaporates(tmp_path, sampler):
    made = search(sampler, tmp_path / "log", "500")
    specs = run(made)
    assert len({spec.trial_id for spec in specs}) == len(specs) == 12
    asks = [
        e["ask"] for e in map(json.loads, (tmp_path / "log").read_text().splitlines()) if "ask" in e
    ]
    assert len(asks) > len({json.dumps(ask) for ask in asks})


def test_a_repeat_becomes_the_next_seed_when_asked_to(tmp_path):
    specs = run(search("tpe", tmp_path / "log", "40", on_repeat="next-seed"))
    assert len(specs) == 40 == len({spec.trial_id for spec in specs})
    seeds = {}
    for spec in specs:
        seeds.setdefault(json.dumps(spec.options), []).append(spec.seed)
    assert all(found == list(range(len(found))) for found in seeds.values())
    assert max(len(found) for found in seeds.values()) > 1


@pytest.mark.parametrize(
    "budget,count",
    [("5", 5), ("5trials", 5), ("20epochs", 5), ("23epochs", 5), ("9s", 5), ("2.5runs", 5)],
)
def test_budgets_in_every_unit(tmp_path, budget, count):
    """A trial has 4 epochs, 2 seconds and half a full run."""
    assert len(run(search("random", tmp_path / "log", budget))) == count
    assert len(run(search("random", tmp_path / "log", budget))) == 0
    longer = search("random", tmp_path / "log", "8")
    assert len(run(longer)) == 3


@pytest.mark.parametrize(
    "text",
    ["", "0", "-3", "12 weeks", "epochs", "1e3", "1e400", "9" * 400, "9" * 400 + "epochs"],
)
def test_a_bad_budget_is_refused(text):
    with pytest.raises(UserError, match="Bad --budget"):
        Budget.parse(text)


@pytest.mark.slow
def test_a_model_finds_the_best_cell_sooner_than_chance(tmp_path):
    """On 3 x 40 cells with one peak, over 10 repeats."""
    wide = Axis(field="alpha", values=tuple(i / 10 for i in range(40)), label="alpha")
    space = SearchSpace(study(axes=(CELLS[0], wide)), 12)
    found = {}
    for sampler in ("random", "tpe"):
        tops = []
        for repeat in range(10):
            log = tmp_path / f"{sampler}{repeat}"
            specs = run(search(sampler, log, "25", space=space, name=f"r{repeat}"))
            tops.append(max(score(spec) for spec in specs))
        found[sampler] = sum(tops) / 10
    assert found["tpe"] > found["random"]


def test_a_torn_last_line_is_dropped_and_a_damaged_one_refused(tmp_path):
    log = tmp_path / "log"
    run(search("tpe", log), most=3)
    whole = log.read_text()
    log.write_text(whole + '{"ask": {"pos')
    assert len(run(search("tpe", log))) == 9
    log.write_text("nonsense\n" + whole)
    with pytest.raises(UserError, match="line 1 is damaged"):
        search("tpe", log)


def test_the_log_of_another_space_is_refused(tmp_path):
    run(search("sobol", tmp_path / "log"), most=3)
    with pytest.raises(UserError, match="another search, space or seed"):
        search("sobol", tmp_path / "log", name="other")


def test_cmaes_needs_continuous_variables(tmp_path):
    with pytest.raises(UserError, match="continuous"):
        search("cmaes", tmp_path / "log", space=space_of("tpe"))


# Stopping early.


def watched(made, most=None):
    """Run trials of four epochs; what was asked, and how many epochs each was given."""
    epochs = {}
    while (most is None or len(epochs) < most) and (asked := made.ask(1)):
        (spec,) = asked
        epochs[spec.trial_id] = 4
        for epoch in (1, 2, 3):
            now = score(spec) * epoch / 4
            if made.report(spec.trial_id, epoch, now) is not Decision.GO_ON:
                made.tell(outcome(spec, status="PRUNED", objective=now, epochs=epoch))
                epochs[spec.trial_id] = epoch
                break
        else:
            made.tell(outcome(spec))
    return epochs


PRUNING = [p for p in PRUNERS if p != "none"]


@pytest.mark.parametrize("pruner", PRUNING)
def test_bad_trials_are_stopped_and_the_best_is_not(tmp_path, pruner):
    epochs = watched(search("random", tmp_path / "log", "12", pruner=pruner))
    assert len(epochs) == 12 and 1 <= min(epochs.values()) < 4
    best = max((make(cell, 0) for cell in study().cells()), key=score)
    assert epochs[best.trial_id] == 4


@pytest.mark.slow
@pytest.mark.parametrize("pruner", PRUNING)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_rungs_come_back_after_an_interruption(tmp_path, sampler, pruner):
    changes = dict(pruner=pruner)
    whole = watched(search(sampler, tmp_path / "whole", "12", **changes))
    parts = {}
    for _ in range(4):
        parts.update(watched(search(sampler, tmp_path / "parts", "12", **changes), most=3))
    assert parts == whole
    assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text()


def test_a_report_that_was_heard_is_answered_again_and_logged_once(tmp_path):
    changes = dict(pruner="median")
    first = search("random", tmp_path / "log", **changes)
    (spec,) = first.ask(1)
    assert [first.report(spec.trial_id, e, s) for e, s in ((1, 0.3), (2, 0.4))] == 2 * [GO_ON]
    again = search("random", tmp_path / "log", **changes)
    assert again.ask(1)[0].trial_id == spec.trial_id
    assert [again.report(spec.trial_id, e, s) for e, s in ((2, 0.4), (3, 0.5))] == 2 * [GO_ON]
    assert (tmp_path / "log").read_text().count('"report"') == 3


@pytest.mark.parametrize("pruner", PRUNING)
def test_a_trial_that_was_to_stop_is_stopped_when_it_reports_again(tmp_path, pruner):
    """By a worker that was lost with the answer, or after a kill before its end was told."""
    made, stopped = search("random", tmp_path / "log", pruner=pruner), None
    while stopped is None:
        (spec,) = made.ask(1)
        for epoch in (1, 2, 3):
            report = (spec.trial_id, epoch, score(spec) * epoch / 4)
            if made.report(*report) is Decision.STOP:
                stopped = report
                break
        else:
            made.tell(outcome(spec))
    assert made.report(*stopped) is Decision.STOP
    again = search("random", tmp_path / "log", pruner=pruner)
    assert again.ask(1)[0].trial_id == stopped[0]
    earlier = [again.report(stopped[0], epoch, 0.0) for epoch in range(1, stopped[1])]
    assert earlier == len(earlier) * [GO_ON]
    assert [again.report(*stopped) for _ in range(2)] == 2 * [Decision.STOP]


def test_epochs_of_stopped_trials_are_all_that_a_budget_is_charged(tmp_path):
    epochs = watched(search("random", tmp_path / "log", "20epochs", pruner="asha"))
    assert 20 - 4 < sum(epochs.values()) <= 20
    assert len(epochs) > 20 / 4


def test_a_stopped_trial_is_never_told_as_a_whole_one(tmp_path):
    """TPE must not take its part of a score for a bad score of a whole training."""
    import optuna

    made = search("tpe", tmp_path / "log", pruner="median")
    watched(made)
    states = [trial.state for trial in made._search._study.get_trials()]
    assert optuna.trial.TrialState.PRUNED in states
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    pruned = [event for event in events if event.get("status") == "PRUNED"]
    assert states.count(optuna.trial.TrialState.PRUNED) >= len(pruned) > 0


# What is known before.


def test_a_warm_start_is_learned_from_and_costs_nothing(tmp_path):
    space = space_of("tpe")
    points = [
        (params, score(make(space.values(lambda n, d, p=params: p[n]), 0)))
        for params in space.enumerate()
    ]
    known, unknown = points[:9], points[9:]
    made = search("tpe", tmp_path / "log", "12", warm=known)
    specs = run(made)
    left = {json.dumps(space.values(lambda n, d, p=params: p[n])) for params, _ in unknown}
    assert {json.dumps(spec.options["values"]) for spec in specs} == left
    assert made._search.warm == 9
    again = search("tpe", tmp_path / "log", "12", warm=known)
    assert again._search.warm == 9 and run(again) == []


def test_restarts_are_asked_once_and_keep_their_log(tmp_path):
    trials = [({"method": "m"}, make({"alpha": 1.0}, seed)) for seed in range(3)]
    first = Restarts(trials, tmp_path / "log")
    (spec,) = first.ask(1)
    first.tell(outcome(spec))
    again = Restarts(trials, tmp_path / "log")
    for spec in again.ask(3):
        again.tell(outcome(spec))
    assert again.ask(1) == []
    told = [json.loads(line).get("tell") for line in (tmp_path / "log").read_text().splitlines()]
    assert [trial for trial in told if trial] == [spec.trial_id for _, spec in trials]
