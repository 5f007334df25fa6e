"""One contract for every search, on an objective in closed form: no training."""

from __future__ import annotations

import json
import math

import pytest

from harness.errors import UserError
from harness.search.base import Budget, Outcome, Restarts
from harness.search.optuna_search import PRUNERS, SAMPLERS, OptunaSearch
from harness.search.population import PopulationSearch
from harness.spec import BackboneSpec, Change, DataSpec, Placement, Recipe, TrialRequest, TrialSpec
from harness.study.axes import Axis, Range, Switches
from harness.study.figures import Points
from harness.study.space import SearchSpace
from harness.study.study import Study

CELLS = (
    Axis(field="positions", values=("mlp1", "q", "v"), label="position"),
    Axis(field="alpha", values=(0.5, 1.0, 2.0, 4.0), label="alpha"),
)
PLANE = (
    Range(field="alpha", low=0.1, high=10.0, log=True, label="alpha"),
    Range(field="recipe.lr", low=0.01, high=1.0, log=True, label="lr"),
)


def study(space=(), axes=CELLS):
    return Study(
        name="made",
        question="?",
        paper="none",
        base=TrialRequest(alpha=2.0, recipe=Recipe(lr=0.1)),
        axes=axes,
        space=space,
        views=(Points(rows=axes[0].field, title="t"),),
        fixed="",
    )


def space_of(sampler):
    return SearchSpace(study(PLANE if sampler == "cmaes" else ()), 12)


def make(values, seed):
    """A spec that is its values and its seed, without looking at a backbone."""
    values = dict(values)
    changes = [
        Change(after=c["after"], placement=Placement({"0.q": c["values"]["alpha"]}), lr=1.0)
        for c in values.pop("changes", [])
    ]
    return TrialSpec(
        method="lora",
        options={"values": values},
        placement=Placement({}),
        backbone=BackboneSpec(),
        data=DataSpec(),
        recipe=Recipe(epochs=4),
        changes=tuple(changes),
        seed=seed,
    )


def score(spec):
    values = spec.options["values"]
    bonus = {"mlp1": 0.3, "q": 0.0, "v": 0.2}.get(values.get("positions"), 0.0)
    return 0.5 + bonus - 0.1 * abs(values["alpha"] - 2)


def outcome(spec, **changes):
    fields = dict(trial_id=spec.trial_id, status="COMPLETE", epochs=4, device_s=2.0, flops=10)
    if "objective" not in changes:
        fields["objective"] = score(spec)
    return Outcome(**{**fields, **changes})


def search(sampler, log, budget="12", **changes):
    fields = dict(
        name="made",
        first_seed=0,
        on_repeat="cached",
        budget=Budget.parse(budget),
        full_run_flops=20,
        log=log,
    )
    space = changes.pop("space", None) or space_of(sampler)
    return OptunaSearch(sampler, space, make, **{**fields, **changes})


def run(made, most=None):
    """Ask and tell one by one; the specs in order."""
    specs = []
    while most is None or len(specs) < most:
        asked = made.ask(1)
        if not asked:
            break
        specs += asked
        made.tell(outcome(asked[0]))
    return specs


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_budget_in_trials_is_met_exactly_by_different_trials(tmp_path, sampler):
    specs = run(search(sampler, tmp_path / "log", "9"))
    assert len(specs) == 9 == len({spec.trial_id for spec in specs})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopping_anywhere_and_going_on_is_the_uninterrupted_search(tmp_path, sampler):
    whole = [spec.trial_id for spec in run(search(sampler, tmp_path / "whole", "10"))]
    parts = []
    for _ in range(4):
        parts += run(search(sampler, tmp_path / "parts", "10"), most=3)
    assert [spec.trial_id for spec in parts] == whole
    assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text()


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


@pytest.mark.parametrize("text", ["", "0", "-3", "12 weeks", "epochs", "1e3"])
def test_a_bad_budget_is_refused(text):
    with pytest.raises(UserError, match="Bad budget"):
        Budget.parse(text)


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
    with pytest.raises(UserError, match="another search or space"):
        search("sobol", tmp_path / "log", name="other")


def test_cmaes_needs_continuous_variables(tmp_path):
    with pytest.raises(UserError, match="continuous"):
        search("cmaes", tmp_path / "log", space=space_of("tpe"))


# Spaces.


def test_a_space_knows_its_size_default_and_points():
    space = SearchSpace(study(), 12)
    assert space.size == 12
    assert space.default() == {"positions": 0, "alpha": 2}
    points = list(space.enumerate())
    assert len(points) == 12 and points[1] == {"positions": 0, "alpha": 1}
    values = space.values(lambda name, domain: points[7][name])
    assert values == {"positions": "q", "alpha": 4.0}
    request = space.request(values, seed=3)
    assert (request.positions, request.alpha, request.seed) == (("q",), 4.0, 3)


def test_all_blocks_are_the_deepest_of_a_depth_axis():
    depths = Axis(field="depth", values=("last:1", "last:12", "last:6"), label="depth")
    groups = Axis(field="depth", values=("blocks:0-2", "blocks:3-5"), label="depth")
    assert SearchSpace(study(axes=(depths,)), 12).default() == {"depth": 1}  # the base has "all"
    assert SearchSpace(study(axes=(groups,)), 12).default() == {"depth": 0}


def test_a_continuous_space_is_infinite_and_starts_at_the_base():
    space = SearchSpace(study(PLANE), 12)
    assert space.size == float("inf")
    assert space.default() == {"alpha": 2.0, "recipe.lr": 0.1}
    with pytest.raises(UserError, match="no list"):
        list(space.enumerate())


@pytest.mark.parametrize("by,count", [("site", 72), ("position", 6), ("blocks", 4)])
def test_no_alpha_for_what_is_off(by, count):
    part = Switches(positions=("q", "k", "v", "out", "mlp1", "mlp2"), by=by)
    space = SearchSpace(study((part,)), 12)
    names = []

    def suggest(name, domain):
        names.append(name)
        if name.endswith(" on"):
            return sum(seen.endswith(" on") for seen in names) % 2
        return 3.0

    values = space.values(suggest)
    groups = [name for name in names if name.endswith(" on")]
    alphas = [name for name in names if name.endswith(" alpha")]
    assert len(groups) == count and 0 < len(alphas) < count
    request = space.request(values, seed=0)
    assert set(request.placement.root.values()) == {3.0}
    assert len(request.placement) == len(alphas) * 72 / count
    assert len(space.default()) == 2 * count


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_per_site_spaces_can_be_searched(tmp_path, sampler):
    part = Switches(positions=("q", "mlp1"), by="position")
    space = SearchSpace(study((part,)), 12)
    made = search(sampler, tmp_path / "log", "14", space=space)
    sizes = set()
    while asked := made.ask(1):
        placement = asked[0].options["values"]["placement"]
        sizes.add(len(placement))
        made.tell(outcome(asked[0], objective=len(placement) / 24))
    assert sizes == {0, 12, 24} or sizes == {12, 24}


# Watching.


def watched(made, most=None):
    """Run trials of four epochs; what was asked, and how many epochs each was given."""
    epochs = {}
    while (most is None or len(epochs) < most) and (asked := made.ask(1)):
        (spec,) = asked
        epochs[spec.trial_id] = 4
        for epoch in (1, 2, 3):
            now = score(spec) * epoch / 4
            if not made.report(spec.trial_id, epoch, now):
                made.tell(outcome(spec, status="PRUNED", objective=now, epochs=epoch))
                epochs[spec.trial_id] = epoch
                break
        else:
            made.tell(outcome(spec))
    return epochs


PRUNING = [p for p in PRUNERS if p != "none"]


@pytest.mark.parametrize("pruner", PRUNING)
def test_bad_trials_are_stopped_and_the_best_is_not(tmp_path, pruner):
    epochs = watched(search("random", tmp_path / "log", "12", pruner=pruner, epochs=4))
    assert len(epochs) == 12 and 1 <= min(epochs.values()) < 4
    best = max((make(cell, 0) for cell in study().cells()), key=score)
    assert epochs[best.trial_id] == 4


@pytest.mark.parametrize("pruner", PRUNING)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_rungs_come_back_after_an_interruption(tmp_path, sampler, pruner):
    changes = dict(pruner=pruner, epochs=4)
    whole = watched(search(sampler, tmp_path / "whole", "12", **changes))
    parts = {}
    for _ in range(4):
        parts.update(watched(search(sampler, tmp_path / "parts", "12", **changes), most=3))
    assert parts == whole
    assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text()


def test_a_report_that_was_heard_is_answered_again_and_logged_once(tmp_path):
    changes = dict(pruner="median", epochs=4)
    first = search("random", tmp_path / "log", **changes)
    (spec,) = first.ask(1)
    assert first.report(spec.trial_id, 1, 0.3) and first.report(spec.trial_id, 2, 0.4)
    again = search("random", tmp_path / "log", **changes)
    assert again.ask(1)[0].trial_id == spec.trial_id
    assert again.report(spec.trial_id, 2, 0.4) and again.report(spec.trial_id, 3, 0.5)
    assert (tmp_path / "log").read_text().count('"report"') == 3


def test_epochs_of_stopped_trials_are_all_that_a_budget_is_charged(tmp_path):
    epochs = watched(search("random", tmp_path / "log", "20epochs", pruner="asha", epochs=4))
    assert 20 - 4 < sum(epochs.values()) <= 20
    assert len(epochs) > 20 / 4


def test_a_stopped_trial_is_never_told_as_a_whole_one(tmp_path):
    """TPE must not take its part of a score for a bad score of a whole training."""
    import optuna

    made = search("tpe", tmp_path / "log", pruner="median", epochs=4)
    watched(made)
    states = [trial.state for trial in made._study.get_trials()]
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
    assert made.warm == 9
    again = search("tpe", tmp_path / "log", "12", warm=known)
    assert again.warm == 9 and run(again) == []


@pytest.mark.parametrize("space", [(), PLANE, (Switches(positions=("q", "mlp1"), by="position"),)])
def test_a_space_finds_the_variables_of_its_own_configurations(space):
    made = SearchSpace(study(space), 12)
    params = made.default()
    values = made.values(lambda name, domain: params[name])
    assert made.params(values) == params
    assert made.params({"positions": "k"}) is None


def test_a_placement_that_groups_cannot_make_has_no_variables():
    space = SearchSpace(study((Switches(positions=("q", "mlp1"), by="position"),)), 2)
    even = {"0.q": 2.0, "1.q": 2.0}
    assert space.params({"placement": even}) == {"q on": 1, "q alpha": 2.0, "mlp1 on": 0}
    for wrong in ({"0.q": 2.0}, {**even, "1.q": 3.0}, {**even, "0.k": 1.0}):
        assert space.params({"placement": wrong}) is None


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


# A population.

ALPHAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
PBT = study(
    axes=(
        Axis(field="positions", values=("mlp1", "q", "v"), label="position"),
        Axis(field="alpha", values=ALPHAS, label="alpha"),
    )
)


def population(log, size=8, made=PBT, epochs=8):
    space = SearchSpace(made, 12)
    return PopulationSearch(space, make, name="made", seed=0, size=size, epochs=epochs, log=log)


def live(made, most=None, fate=lambda spec: None):
    """Train members of 8 epochs as an engine would; (trial, epochs) in order of their ends."""
    ends = []
    while (most is None or len(ends) < most) and (asked := made.ask(1)):
        (spec,) = asked
        until = next((e for e in range(1, 8) if not made.report(spec.trial_id, e, 0.1)), 8)
        alpha = [spec.options["values"]["alpha"], *(c.placement.root["0.q"] for c in spec.changes)]
        worth = 0.5 - 0.05 * abs(math.log2(alpha[-1]))
        status = fate(spec) or ("COMPLETE" if until == 8 else "PRUNED")
        objective = None if status == "FAILED" else worth
        cost = dict(epochs=until, device_s=2.0 * until, flops=10 * until)
        made.tell(outcome(spec, status=status, objective=objective, **cost))
        ends.append((spec.trial_id, until))
    return ends


def lines(log, kind):
    return [e for e in map(json.loads, log.read_text().splitlines()) if kind in e]


def test_a_population_costs_its_members_and_no_more(tmp_path):
    ends = live(population(tmp_path / "log"))
    told = lines(tmp_path / "log", "tell")
    assert len(ends) == len(told) <= 8 * 4
    assert [until for _, until in ends] == sorted(until for _, until in ends)  # side by side
    shared = 8 * 4 - len(told)  # copies that became the same trial are trained once
    assert sum(e["epochs"] for e in told) == 8 * 8 - 2 * shared
    assert sum(e["device_s"] for e in told) == 2.0 * sum(e["epochs"] for e in told)
    assert sum(e["flops"] for e in told) == 10 * sum(e["epochs"] for e in told)


def test_the_worst_quarter_goes_on_as_moved_copies_of_the_best(tmp_path):
    live(population(tmp_path / "log", size=16))
    cells = [e["cell"] for e in lines(tmp_path / "log", "ask")]
    first, copies = cells[:16], [cell for cell in cells[16:] if len(cell["changes"]) == 1]
    assert len({json.dumps(cell) for cell in first}) == 16
    ranked = sorted(first, key=lambda cell: abs(math.log2(cell["alpha"])))
    cut = abs(math.log2(ranked[3]["alpha"]))
    for copy in (c for c in copies if c["changes"][0]["after"] == 2):
        origin = {k: v for k, v in copy.items() if k != "changes"}
        assert origin in first and abs(math.log2(origin["alpha"])) <= cut
        assert set(copy["changes"][0]["values"]) == {"alpha"}
        assert copy["changes"][0]["values"]["alpha"] != origin["alpha"]
    # The worst four of the first part were never trained again.
    told = lines(tmp_path / "log", "tell")
    asked = lines(tmp_path / "log", "ask")
    lives = {e["trial"]: sum(t["tell"] == e["trial"] for t in told) for e in asked}
    ids = {json.dumps(e["cell"]): e["trial"] for e in asked}
    assert sorted(lives[ids[json.dumps(cell)]] for cell in first).count(1) >= 4


@pytest.mark.parametrize("pause", [1, 3, 5])
def test_a_population_goes_on_after_an_interruption(tmp_path, pause):
    whole = live(population(tmp_path / "whole"))
    parts = []
    while more := live(population(tmp_path / "parts"), most=pause):
        parts += more
    assert parts == whole
    assert sorted((tmp_path / "parts").read_text()) == sorted((tmp_path / "whole").read_text())


def test_members_that_end_early_are_neither_copied_nor_trained_on(tmp_path):
    best = min(ALPHAS, key=lambda alpha: abs(math.log2(alpha)))

    def fate(spec):
        is_best = spec.options["values"]["alpha"] == best
        return "DIVERGED" if is_best and not spec.changes else None

    ends = live(population(tmp_path / "log", size=18), fate=fate)
    asked = lines(tmp_path / "log", "ask")
    lost = {e["trial"] for e in asked if e["cell"]["alpha"] == best and "changes" not in e["cell"]}
    assert len(lost) == 3 and sum(trial in lost for trial, _ in ends) == 3
    assert not [e for e in asked if e["cell"]["alpha"] == best and "changes" in e["cell"]]


def test_a_failed_member_is_replaced_and_tried_again_by_the_next_command(tmp_path):
    failed = []

    def fate(spec):
        failed.append(spec.trial_id)
        return "FAILED" if spec.trial_id == failed[0] else None

    live(population(tmp_path / "log"), fate=fate)
    assert failed.count(failed[0]) == 1
    assert population(tmp_path / "log").ask(8)[0].trial_id == failed[0]


def test_numbers_of_a_range_are_moved_by_a_factor_within_it(tmp_path):
    made = study(PLANE)
    live(population(tmp_path / "log", size=40, made=made))
    low, high, steps = 0.1, 10.0, set()
    for event in lines(tmp_path / "log", "ask"):
        now = event["cell"]["alpha"]
        for change in event["cell"].get("changes", []):
            assert low <= change["values"]["alpha"] <= high
            assert 0.01 <= change["values"]["recipe.lr"] <= 1.0
            steps.add(round(change["values"]["alpha"] / now, 6))
            now = change["values"]["alpha"]
    assert {0.8, 1.2} < steps  # and values drawn anew
