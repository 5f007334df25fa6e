"""The driver keeps every search's budget: in every unit, over interruptions, live and replayed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.hostile import Users
from support.populations import PBT, live, population
from support.searches import lines, make, outcome, run, search, space_of, study, task
from support.sweeps import made_sweep
from support.tables import small_study

from harness.comparison.contest import budget_of
from harness.errors import UserError
from harness.search.base import Decision, Outcome
from harness.search.bounded import start_search
from harness.search.budget import Budget, Spending
from harness.search.catalogue import find_search
from harness.search.replay import Recording
from harness.spec import Change, Placement, Recipe
from harness.store.search_log import Spent, asks, read_log
from harness.store.table import read_table, tabulate
from harness.study.axes import Axis
from harness.study.space import SearchSpace

BUDGETS = [("5", 5), ("2.5", 2), ("20epochs", 5), ("23epochs", 5), ("9s", 5), ("2.5runs", 5)]
"""A trial has 4 epochs, 2 seconds and half a full run."""


def users(log, budget, **changes):
    """A user's search that never looks at its budget."""
    return start_search("users", Users, task(space_of("tpe"), log, budget, **changes))


@pytest.mark.parametrize("budget,count", BUDGETS)
def test_a_search_that_keeps_no_budget_is_held_to_it(tmp_path, budget, count):
    assert len(run(users(tmp_path / "log", budget))) == count
    assert len(lines(tmp_path / "log", "ask")) == len(lines(tmp_path / "log", "tell")) == count


@pytest.mark.parametrize("budget,count", BUDGETS)
@pytest.mark.parametrize("made", [users, lambda log, budget: search("tpe", log, budget)])
def test_a_resumed_search_gets_no_second_budget(tmp_path, made, budget, count):
    log = tmp_path / "log"
    whole = run(made(tmp_path / "whole", budget))
    parts = []
    for _ in range(4):
        parts += run(made(log, budget), most=2)
    assert parts == whole and len(parts) == count
    assert log.read_text() == (tmp_path / "whole").read_text()


@pytest.mark.parametrize("budget", ["5", "20epochs"])
def test_what_was_asked_and_never_told_is_charged_once(tmp_path, budget):
    first = users(tmp_path / "log", budget)
    run(first, most=2)
    lost = first.ask(2)
    again = users(tmp_path / "log", budget)
    assert list(again.ask(2)) == list(lost)
    for spec in lost:
        again.tell(outcome(spec))
    assert len(run(again)) == 1


@pytest.mark.parametrize("budget,count", [("5", 5), ("20epochs", 5), ("9s", 9), ("2.5runs", 9)])
def test_trials_that_run_are_charged_where_their_cost_is_known(tmp_path, budget, count):
    """Nine workers at once: seconds and FLOPs are known when a trial ends, the rest before."""
    assert len(users(tmp_path / "log", budget).ask(9)) == count


def test_epochs_that_a_trial_did_not_take_are_given_back(tmp_path):
    made = users(tmp_path / "log", "12epochs")
    first = made.ask(9)
    assert len(first) == 3 and not made.ask(1)
    made.tell(outcome(first[0], status="DIVERGED", objective=0.1, epochs=1))
    assert not made.ask(1)  # 9 of 12
    made.tell(outcome(first[1], status="DIVERGED", objective=0.1, epochs=3))
    assert len(made.ask(9)) == 1  # 8 of 12


@pytest.mark.parametrize("budget", ["20epochs", "21epochs", "23epochs"])
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "sobol"])
def test_a_budget_in_epochs_leaves_no_proposal_that_no_trial_follows(tmp_path, sampler, budget):
    specs = run(search(sampler, tmp_path / "log", budget))
    asked = {event["trial"] for event in lines(tmp_path / "log", "ask")}
    assert asked == {spec.trial_id for spec in specs}
    assert "tell" in json.loads((tmp_path / "log").read_text().splitlines()[-1])


def test_a_proposal_of_an_earlier_version_beyond_the_budget_stays_one(tmp_path):
    """That version asked before it looked at a budget in epochs."""
    log, extra = tmp_path / "log", tmp_path / "extra"
    run(search("tpe", log, "20epochs"))
    shutil.copy(log, extra)
    (phantom,) = search("tpe", extra, "24epochs").ask(1)
    text = extra.read_text()
    assert text != log.read_text()
    assert run(search("tpe", extra, "20epochs")) == [] and extra.read_text() == text
    assert run(search("tpe", extra, "24epochs")) == [phantom]


def test_trials_of_different_lengths_share_a_budget_in_epochs(tmp_path):
    """A longer one than there is room for is held until there is."""
    lengths = Axis(field="recipe.epochs", values=(2, 4), label="epochs")
    space = SearchSpace(study(axes=(study().axes[0], lengths)), 12)
    assert space.fewest_epochs == 2

    def of_length(values, seed):
        spec = make({**values, "alpha": 1.0}, seed)
        return spec.model_copy(update={"recipe": Recipe(epochs=values["recipe.epochs"])})

    own = replace(task(space, tmp_path / "log", "8epochs"), make=of_length)
    made = start_search("users", Users, own)
    first = made.ask(9)
    assert [spec.recipe.epochs for spec in first] == [2, 4, 2] and not made.ask(1)
    made.tell(outcome(first[1], status="DIVERGED", objective=0.1, epochs=1))
    assert not made.ask(1)  # 5 of 8 are taken, and the next has 4
    made.tell(outcome(first[0], status="DIVERGED", objective=0.1, epochs=1))
    assert [spec.recipe.epochs for spec in made.ask(1)] == [4]


def test_a_comparisons_trials_are_epochs_of_one_length_or_refused():
    def budget(*lengths):
        axis = Axis(field="recipe.epochs", values=lengths, label="epochs")
        return budget_of("8", study(axes=(study().axes[0], axis)))

    assert budget_of("8", study()) == Budget(amount=8 * study().base.recipe.epochs, unit="epochs")
    assert budget(20) == Budget(amount=160, unit="epochs")
    with pytest.raises(UserError, match=r"--budget 8: trials of study .* have 1 to 20 epochs"):
        budget(1, 20)


# Trials that go on.


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["8", "64epochs"])
@pytest.mark.parametrize("pause", [None, 1, 3, 5])
def test_a_population_fits_its_budget_exactly(tmp_path, budget, pause):
    """A copy and what it replaces are one training together, however often it is interrupted."""
    whole = live(population(tmp_path / "whole"))
    parts = []
    while more := live(_population(tmp_path / "parts", budget), most=pause):
        parts += more
    assert parts == whole
    assert sorted((tmp_path / "parts").read_text()) == sorted((tmp_path / "whole").read_text())


def _population(log, budget):
    return find_search("pbt")(task(SearchSpace(PBT, 12), log, budget, epochs=8))


def test_a_population_has_members_of_one_length(tmp_path):
    axes = (*PBT.axes, Axis(field="recipe.epochs", values=(4, 8), label="epochs"))
    space = SearchSpace(PBT.model_copy(update={"axes": axes}), 12)
    with pytest.raises(UserError, match=r"equally many epochs, .* have 4 to 8: .* --only"):
        find_search("pbt")(task(space, tmp_path / "log", "8", epochs=8))


def paused(spec, epochs):
    return Spent(epochs, 2.0 * epochs, 10 * epochs), dict(failed=False, paused=True)


def test_a_trial_that_goes_on_is_charged_for_what_follows(tmp_path):
    spec = make({"alpha": 1.0}, 0)
    copy = spec.model_copy(
        update={"changes": (Change(after=1, placement=Placement({"0.q": 1.0}), lr=1.0),)}
    )
    spending = Spending(Budget.parse("7epochs"), fewest_epochs=4)
    spending.begin(spec)
    total, how = paused(spec, 1)
    assert spending.end(spec, total, **how)
    assert spending.affords(spec) and spending.affords(copy)  # 1 + 3
    spending.begin(spec)
    assert spending.has_room and spending.affords(copy)  # 1 + 3 + 3
    spending.begin(copy)
    assert not spending.has_room
    total, how = paused(spec, 3)
    assert spending.end(spec, total, **how)  # two more epochs
    assert spending.before(copy).epochs == 1 and spending.before(spec).epochs == 3
    assert not spending.end(spec, total, **how)  # no further: it cost nothing


class Pauses(Users):
    """Trains each trial two epochs at a time."""

    needs_epoch_reports = True

    def __init__(self, task):
        super().__init__(task)
        self.again, self.epochs, self.now = [], {}, None

    def ask(self, count):
        return [self.again.pop()] if self.again else self._new()

    def _new(self):
        if not self.left:
            return []
        self.now = self.trial(self.left.popleft())
        return [self.now]

    def report(self, trial_id, epoch, score):
        return Decision.PAUSE if epoch % 2 == 0 else Decision.GO_ON

    def tell(self, outcome):
        super().tell(outcome)
        self.epochs[outcome.trial_id] = outcome.epochs
        self.again += [self.now] if outcome.status == "PRUNED" else []


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    tabulate([made_sweep(root, small_study())], root / "t.parquet")
    return read_table(root / "t.parquet")


def of_table(table, log, budget):
    recording = Recording(table, "class_mean")
    flops = table.info.reference.flops
    made = task(table.space(), log, budget, epochs=10)
    return recording, replace(made, make=recording.make, full_run_flops=flops)


@pytest.mark.parametrize("budget,most", [("3", 3), ("30epochs", 6), ("40s", 8), ("3runs", 8)])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_replay_holds_a_search_that_keeps_no_budget_to_it(tmp_path, table, budget, most, workers):
    recording, made = of_table(table, tmp_path / "log", budget)
    told = recording.replay(start_search("users", Users, made), workers)
    assert 2 < told <= most + workers - 1
    assert recording.replay(start_search("users", Users, made), workers) == 0
    assert len(asks(read_log(tmp_path / "log"))) == told


def test_a_paused_trial_goes_on_in_a_replay(tmp_path, table):
    recording, made = of_table(table, tmp_path / "log", "20epochs")
    started = []
    search = start_search("pauses", lambda task: started.append(Pauses(task)) or started[0], made)
    told = recording.replay(search)
    epochs = started[0].epochs
    first = made.make({"positions": "mlp1", "depth": "last:1", "alpha": 1.0}, 0)
    assert epochs[first.trial_id] == 10 and told > 5
    assert 18 <= sum(epochs.values()) <= 20


def test_a_stopped_trial_is_answered_again_and_not_run_again(tmp_path):
    class Stops(Users):
        needs_epoch_reports = True

        def ask(self, count):
            return [self.trial(self.left[0])] if len(heard) < 3 else []

        def report(self, trial_id, epoch, score):
            return Decision.STOP

        def tell(self, outcome):
            heard.append(outcome)

    heard: list[Outcome] = []
    made = start_search("stops", Stops, task(space_of("tpe"), tmp_path / "log", "9"))
    (spec,) = made.ask(1)
    assert made.report(spec.trial_id, 1, 0.5) is Decision.STOP
    made.tell(outcome(spec, status="PRUNED", objective=0.5, epochs=1))
    assert not made.ask(1)
    assert len(heard) == 3 and len(set(heard)) == 1


def test_a_running_trial_is_not_run_twice(tmp_path):
    class Insists(Users):
        def ask(self, count):
            return [self.trial(self.left[0])]

    made = start_search("insists", Insists, task(space_of("tpe"), tmp_path / "log", "9"))
    assert len(made.ask(3)) == 1 and not made.ask(1)


def test_a_log_that_cannot_be_read_is_refused_by_its_name(tmp_path):
    Path(tmp_path / "log").write_text("nonsense\n\n")
    with pytest.raises(UserError, match="log, line 1 is damaged"):
        users(tmp_path / "log", "5")
