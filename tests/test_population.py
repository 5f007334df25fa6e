"""Population-based training, on an objective in closed form: no training."""

from __future__ import annotations

import json
import math

import pytest
from support.populations import ALPHAS, live, population
from support.searches import PLANE, lines, study

from harness.errors import UserError
from harness.study.axes import Axis


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


@pytest.mark.parametrize("part", [0, 3])
def test_a_member_that_failed_is_tried_again_while_nothing_has_come_of_it(tmp_path, part):
    """Of four parts; in the first it is the member that would have been the best."""
    ids = []

    def fate(spec):
        ids.append(spec.trial_id)
        return "FAILED" if len(ids) == 1 + 8 * part else None

    made = population(tmp_path / "log")
    if part == 0:
        made._left.sort(key=lambda spec: abs(math.log2(spec.options["values"]["alpha"])))
    live(made, fate=fate)
    lost = ids[8 * part]
    assert ids.count(lost) == 1 + part
    again = population(tmp_path / "log")
    before = (tmp_path / "log").read_text()
    tried = [trial_id for trial_id, _ in live(again)]
    assert tried == ([] if part == 0 else [lost])
    assert again._generation == 3 and (tmp_path / "log").read_text().startswith(before)


@pytest.mark.parametrize("most", [9, 17])
def test_a_population_goes_on_past_a_member_that_failed(tmp_path, most):
    def fate(spec):
        first.append(spec.trial_id)
        return "FAILED" if spec.trial_id == first[0] else None

    first = []
    whole = live(population(tmp_path / "whole"), fate=fate)
    first = []
    parts = live(population(tmp_path / "parts"), most=most, fate=fate)
    parts += live(population(tmp_path / "parts"), fate=fate)
    assert parts == whole


def test_a_failed_member_is_the_worst_also_where_all_scores_are_negative(tmp_path):
    """As those of losses are."""

    def fate(spec):
        return "FAILED" if not spec.changes and spec.options["values"]["alpha"] == 1.0 else None

    for shift in (0.0, -3.0):
        live(population(tmp_path / f"{shift}"), fate=fate, shift=shift)
    assert lines(tmp_path / "-3.0", "ask") == lines(tmp_path / "0.0", "ask")


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


def test_a_population_that_has_gone_on_keeps_its_size(tmp_path):
    log = tmp_path / "log"
    live(population(log), most=3)
    assert len(live(population(log, size=10), most=7)) == 7  # nobody was ranked yet
    live(population(log, size=10))
    with pytest.raises(UserError, match=r"begun with 10 members, .* the same --budget again"):
        population(log, size=12)
    assert live(population(log, size=10)) == []


def test_a_copy_keeps_a_strength_of_which_there_is_one(tmp_path):
    rates = Axis(field="recipe.lr", values=(0.1, 0.2, 0.4, 0.8), label="lr")
    only = study(axes=(Axis(field="alpha", values=(1.0,), label="alpha"), rates))
    live(population(tmp_path / "log", size=4, made=only))
    cells = [event["cell"] for event in lines(tmp_path / "log", "ask")]
    changed = [change["values"] for cell in cells for change in cell.get("changes", [])]
    assert changed and {change["alpha"] for change in changed} == {1.0}
    assert {change["recipe.lr"] for change in changed} <= {*rates.values}
