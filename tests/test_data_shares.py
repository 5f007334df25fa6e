"""Training on a share of the data, and searches whose rungs are such shares."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from support.cli import harness
from support.driving import driven
from support.searches import study as made_study
from support.untrained import train_nothing, with_test

from harness.data.dataset import share_of, split
from harness.errors import UserError
from harness.runner.prepare import dataset_of, prepare
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import Outcome, SearchTask
from harness.search.budget import Budget
from harness.search.catalogue import share_search
from harness.search.shares import SHARES
from harness.spec import DataSpec
from harness.store.search_log import SHARE, asks, read_log, tells
from harness.store.store import Store
from harness.study.space import SearchSpace
from harness.testing.made import TINY, MadeEngine
from harness.testing.searches import PLANE

LABELS = torch.tensor([0] * 90 + [1] * 10 + [2] * 3 + [3])


def spec_of(share, **values):
    return resolve(TINY.with_values({SHARE: share, **values}, source="test"), Runtime())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_is_of_every_class_and_a_part_of_larger_ones(seed):
    shares = (0.01, 1 / 9, 1 / 3, 0.5, 0.9, 1.0)
    kept = [share_of(LABELS, share, seed) for share in shares]
    for index, share in zip(kept, shares, strict=True):
        counts = torch.bincount(LABELS[index], minlength=4).tolist()
        assert counts == [max(1, round(share * count)) for count in (90, 10, 3, 1)]
        assert index.tolist() == sorted(set(index.tolist()))
    for smaller, larger in itertools.pairwise(kept):
        assert set(smaller.tolist()) < set(larger.tolist())
    assert torch.equal(kept[-1], torch.arange(len(LABELS)))


def test_seeds_draw_different_shares():
    one, other = (set(share_of(LABELS, 0.3, seed).tolist()) for seed in (0, 1))
    assert one != other


@pytest.mark.slow
def test_what_is_held_out_stays_whole():
    spec = spec_of(1.0)
    dataset = dataset_of(spec, "")
    whole, part = (
        split(dataset, DataSpec(name="synth-rs", train_share=share), seed=3)
        for share in (1.0, 0.25)
    )
    for name in ("select", "test"):
        one, other = getattr(whole, name), getattr(part, name)
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)
    expected = [max(1, round(0.25 * count)) for count in whole.train_counts.tolist()]
    assert part.train_counts.tolist() == expected
    assert torch.bincount(part.train.labels).tolist() == expected


@pytest.mark.slow
def test_a_trial_on_a_share_trains_on_as_many_images(tmp_path):
    from harness.runner.trial import run_trial

    store = Store(tmp_path)
    found = {}
    for share in (1.0, 0.5):
        spec = spec_of(share, depth="last:1")
        record = run_trial(spec, Runtime(), store)
        assert record.status == "COMPLETE"
        assert record.cost.images_backward == len(prepare(spec, Runtime()).split.train) * (
            spec.recipe.epochs
        )
        found[share] = record.cost.images_backward
    assert found[0.5] == pytest.approx(found[1.0] / 2, rel=0.05)


def space():
    return SearchSpace(made_study(), 12)


def rung_search(log, sampler="random", pruner="asha", budget="40", made=None):
    made = made or space()
    return share_search(sampler, pruner)(
        SearchTask(
            space=made,
            make=lambda values, seed: resolve(made.request(values, seed), Runtime()),
            name="made",
            seed=0,
            budget=Budget.parse(budget),
            full_run_flops=1,
            epochs=4,
            log=log,
        )
    )


def alpha_of(spec):
    return next(iter(spec.placement.root.values()))


def told(search, spec, objective):
    search.tell(
        Outcome(
            trial_id=spec.trial_id,
            status="COMPLETE",
            objective=objective,
            epochs=4,
            device_s=1.0,
            flops=1,
        )
    )


def test_the_better_third_goes_on_to_more_data(tmp_path):
    """ASHA by hand: at a rung, of n trials so far the best n // 3 go on, or the best of fewer."""
    plane = SearchSpace(made_study(PLANE), 12)  # where no configuration is drawn twice
    search = rung_search(tmp_path / "log", made=plane)
    ends_at = {0.5: 3, 0.4: 1, 0.6: 3, 0.3: 1, 0.55: 1, 0.58: 2, 0.7: 3}
    """Score -> its last rung. 0.55 is the second of five, of which one goes on; 0.58 is the second
    of six, of which two do, and then the second of three."""
    (spec,) = search.ask(1)
    for score, last in ends_at.items():
        first = spec
        for rung in range(last):
            assert spec.data.train_share == pytest.approx(3.0 ** (rung - 2))
            assert (spec.placement, spec.seed) == (first.placement, first.seed)
            told(search, spec, score)
            (spec,) = search.ask(1)
        assert spec.data.train_share == pytest.approx(1 / 9)
    events = read_log(tmp_path / "log")
    assert Counter(tell.status for tell in tells(events)) == {"PRUNED": 11, "COMPLETE": 3}
    assert sum(SHARE not in ask.cell for ask in asks(events)) == 3


def test_what_is_trained_on_all_of_it_is_an_ordinary_trial(tmp_path):
    search = rung_search(tmp_path / "log")
    (first,) = search.ask(1)
    told(search, first, 0.5)
    (second,) = search.ask(1)
    told(search, second, 0.5)
    (whole,) = search.ask(1)
    ask = asks(read_log(tmp_path / "log"))[-1]
    assert whole.trial_id == resolve(space().request(ask.cell, ask.seed), Runtime()).trial_id
    assert SHARE not in ask.cell


def test_brackets_of_hyperband_begin_at_different_shares(tmp_path):
    search, begun = rung_search(tmp_path / "log", pruner="hyperband", budget="200"), Counter()
    seen = set()
    while specs := search.ask(1):
        (spec,) = specs
        known = (alpha_of(spec), str(spec.placement), spec.seed)
        if known not in seen:
            seen.add(known)
            begun[spec.data.train_share] += 1
        told(search, spec, 0.5)
    assert set(begun) == set(SHARES), begun


def test_an_answer_whose_following_trial_was_not_written_is_followed_up(tmp_path):
    log = tmp_path / "log"
    search = rung_search(log)
    (first,) = search.ask(1)
    told(search, first, 0.5)
    before = log.read_text()
    (second,) = search.ask(1)
    assert second.data.train_share == pytest.approx(1 / 3)
    whole = log.read_text()
    for left in (before, whole):  # killed before, and after
        log.write_text(left)
        assert rung_search(log).ask(1) == [second]
        assert log.read_text() == whole


def test_nothing_is_asked_for_that_the_budget_does_not_pay(tmp_path):
    """The log has no trial that never begins, which a report would miss."""
    search, store = rung_search(tmp_path / "log", budget="9s"), Store(tmp_path / "store")
    engine_after(search, store)
    log = read_log(tmp_path / "log")
    assert len(tells(log)) == 9
    assert {tell.trial_id for tell in tells(log)} == {ask.trial_id for ask in asks(log)}


def test_two_at_a_time_wait_for_the_same_answer(tmp_path):
    """A proposal that repeats one that runs goes on with it."""
    search, store = rung_search(tmp_path / "log", budget="30"), Store(tmp_path / "store")
    engine = engine_after(search, store, slots=3)
    ids = [spec.trial_id for spec in engine.ran]
    assert len(ids) == len(set(ids)) and 1.0 in {spec.data.train_share for spec in engine.ran}
    log = read_log(tmp_path / "log")
    assert {tell.trial_id for tell in tells(log)} == {ask.trial_id for ask in asks(log)}


def engine_after(search, store, slots=1):
    """The engine after it, whose trials score more with α and take a second."""
    engine = MadeEngine(store, lambda spec: 0.5 + alpha_of(spec) / 100, watch=False, slots=slots)
    driven(search, engine, store)
    return engine


SWEEP = (
    *("sweep", "--study", "joint_space", "--only", "positions=q,v,mlp1", "--only", "depth=last:1"),
    *("--set", "recipe.epochs=1", "--set", "data.options.test_per_class=4"),
    *("--set", "data.val_fraction=0.8", "--workers", "1"),
)


@pytest.fixture
def without_training(monkeypatch):
    """Trials end at once, with scores that grow with α."""
    train_nothing(monkeypatch, lambda spec: 0.4 + alpha_of(spec) / 1e5, with_test)


@pytest.mark.slow
@pytest.mark.usefixtures("without_training")
def test_a_sweep_on_shares_reports_whole_trials_alone(tmp_path):
    import pandas as pd

    args = (*SWEEP, "--search", "random+asha", "--fidelity", "data", "--out", tmp_path)
    done = harness(*args, "--budget", "14s")
    assert done.exit_code == 0, done.output
    assert "stopped by asha on 1/9, 1/3 of the training data" in done.output
    (run,) = (tmp_path / "studies").iterdir()
    assert run.name.endswith("+random+asha+data")
    trials = pd.read_csv(run / "report" / "trials.csv")
    shares = {
        path.name: Store(tmp_path).record(path.name).spec.data.train_share
        for path in (tmp_path / "trials").iterdir()
    }
    assert set(shares.values()) == set(SHARES)
    for row in trials.itertuples():
        assert row.status == ("COMPLETE" if shares[row.trial_id] == 1 else "PRUNED")
        assert pd.notna(row.select_class_mean) == (shares[row.trial_id] == 1)
    assert SHARE not in trials.columns
    status = harness("status", run.name, "--out", tmp_path)
    parts = sum(share < 1 for share in shares.values())
    assert status.exit_code == 0 and f"{parts} stopped early" in status.output
    before = {path.name for path in (tmp_path / "trials").iterdir()}
    again = harness(*args, "--budget", "14s")
    assert again.exit_code == 0, again.output
    assert {path.name for path in (tmp_path / "trials").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "args,words",
    [
        (["--search", "tpe+asha", "--budget", "12"], "the budget is in full runs or seconds"),
        (["--search", "tpe+asha"], "the budget is in full runs or seconds"),
        (["--search", "tpe", "--budget", "2runs"], "give --pruner, too"),
        (["--search", "pbt", "--budget", "2runs"], "--fidelity is not for --search pbt"),
        (["--budget", "2"], "--fidelity is for a search"),
        (["--search", "tpe+asha", "--set", "data.train_share=0.5", "--budget", "2runs"], SHARE),
        (
            ["--search", "tpe+asha", "--objective", "class_mean,tail", "--budget", "2runs"],
            "--pruner asha",
        ),
    ],
)
def test_what_shares_do_not_go_with_is_refused(tmp_path, args, words):
    refused = harness(*SWEEP, *args, "--fidelity", "data", "--out", tmp_path)
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr and refused.stderr.strip().count("\n") == 0
    assert not (tmp_path / "trials").exists()


def test_shares_do_not_go_with_a_search_over_no_axis(tmp_path):
    args = ("sweep", "--study", "joint_space", "--search", "snip", "--fidelity", "data")
    refused = harness(*args, "--out", tmp_path)
    assert refused.exit_code == 2 and "--fidelity is not for --search snip" in refused.stderr


@pytest.mark.parametrize("share", [0.0, 1.5, "all"])
def test_no_share_is_refused(share):
    with pytest.raises(UserError, match="train_share"):
        TINY.with_values({SHARE: share}, source="test")


def test_the_usual_name_elsewhere_is_met():
    with pytest.raises(UserError, match=r"Did you mean 'data\.train_share'"):
        TINY.with_values({"data_share": 0.5}, source="test")
