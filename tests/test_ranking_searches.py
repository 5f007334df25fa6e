"""Training-free searches: one trial ranks the sites, and the better half is trained once."""

from __future__ import annotations

import pytest
from support.records import TINY, make_record
from support.runs import scored, study

from harness.comparison.contest import makers_of
from harness.comparison.replay import replay_searches
from harness.comparison.request import SearchesRequest
from harness.errors import UserError
from harness.runner.runtime import Runtime
from harness.search.base import Outcome, SearchTask
from harness.search.budget import Budget
from harness.search.plan import SearchRequest, live_space, plan_searches, ranking_cells
from harness.search.ranking import NAMES
from harness.spec import Placement
from harness.store.run_folder import RunFolder
from harness.store.search_log import asks, read_log, tells
from harness.store.shipped import DEFAULT, file_of
from harness.store.store import Store


@pytest.fixture
def made():
    return study(base=TINY.model_copy(update={"alpha": 4.0}))


@pytest.fixture
def start(made, tmp_path):
    """Start one of the searches, or go on with its log."""

    def start(name):
        space, make = live_space(made, Runtime())
        task = SearchTask(
            space=space,
            make=make,
            name="made",
            seed=0,
            budget=Budget.parse("2"),
            full_run_flops=1,
            epochs=made.base.recipe.epochs,
            log=tmp_path / f"{name}.jsonl",
        )
        return makers_of([name], {}, ("class_mean",), ranking_cells(made))[name](task)

    return start


def told(spec, learned=None, status="COMPLETE"):
    record = make_record(spec, select=scored(0.5))
    return Outcome(
        trial_id=spec.trial_id,
        status=status,
        objective=None if status == "FAILED" else record.objective("class_mean"),
        epochs=1,
        device_s=1.0,
        flops=7,
        learned=learned,
    )


def test_every_ranking_of_a_method_is_a_search_by_name(made):
    assert tuple(ranking_cells(made)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_better_half_of_the_sites_is_trained_at_the_studys_strength(start, tmp_path, name):
    search = start(name)
    (first,) = search.ask(1)
    assert first.method == "metapeft" and set(first.placement.root.values()) == {4.0}
    assert first.recipe.batch_size == (1 if name == "fisher" else TINY.recipe.batch_size)
    assert not search.ask(1)
    assert [spec.trial_id for spec in start(name).ask(1)] == [first.trial_id]  # asked, never told
    sites = [*first.placement.root]
    search.tell(told(first, Placement({site: float(n) for n, site in enumerate(sites)})))
    (second,) = search.ask(1)
    assert second.method == TINY.method
    assert second.placement.root == dict.fromkeys(sites[len(sites) // 2 :], 4.0)
    assert second.recipe == TINY.recipe.model_copy(update={"precision": second.recipe.precision})
    again = start(name)
    assert [spec.trial_id for spec in again.ask(1)] == [second.trial_id]
    again.tell(told(second))
    assert not again.ask(1) and not start(name).ask(1)
    log = read_log(tmp_path / f"{name}.jsonl")
    assert [ask.trial_id for ask in asks(log)] == [first.trial_id, second.trial_id]
    assert [tell.flops for tell in tells(log)] == [7, 7]  # both are charged


@pytest.mark.parametrize("status", ["FAILED", "DIVERGED"])
def test_what_ranked_nothing_ends_the_search(start, status):
    search = start("snip")
    (first,) = search.ask(1)
    search.tell(told(first, status=status))
    assert not search.ask(1)


def test_what_has_no_effect_is_refused(made, tmp_path):
    folder = RunFolder.of(Store(tmp_path), "made+snip")
    with pytest.raises(UserError, match="--budget is not for --search snip"):
        plan_searches(made, Runtime(), folder, SearchRequest(name="snip", budget="4"))
    assert plan_searches(made, Runtime(), folder, SearchRequest(name="snip")).count == 2


def test_a_table_leaves_them_out_and_says_so(tmp_path):
    asked = SearchesRequest(searches="random,snip", budget="2", line="harness compare")
    folder = replay_searches(asked, file_of(DEFAULT), None, Store(tmp_path), processes=1)
    assert "snip trains sites that it chooses itself" in folder.searches.read_text()
