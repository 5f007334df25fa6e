"""What can be seen of a run from outside, and taken out of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import optuna
import pandas as pd
import pytest
from pydantic import ValidationError
from support.cli import harness
from support.records import TINY, make_record, tiny_study
from support.runs import made_run, scored

from harness.driver.plan import make_plan
from harness.metrics import OVERALL, SplitMetrics
from harness.reports.numbers.run import load_run
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.liveness import driving
from harness.store.records import Cost
from harness.store.runs import read_run
from harness.store.store import Store
from harness.store.summaries import BY_GROUP, COSTS, summaries
from harness.study.axes import Axis


@pytest.fixture
def folder(tmp_path):
    """Four cells: two with scores, one failed, one not begun."""
    results = [[(0.4, 0.3)], [(0.6, 0.5)], ["FAILED"], [None]]
    return made_run(tmp_path, tiny_study(), results)


def test_no_axis_is_called_as_a_column_of_results(folder):
    run = load_run(folder, lambda trial_id, why: None)
    for column in set(run.trials.columns) - set(run.fields):
        with pytest.raises(ValidationError, match="no column of its results"):
            Axis.named(column, "label", {"one": {"alpha": 1.0}})


def test_status_says_how_far_a_run_is(folder, tmp_path):
    seen = harness("status", "tiny", "--out", tmp_path).output
    assert "2 done, 1 failed, 1 waiting of 4" in seen
    assert "Driver: none; the same command continues the run." in seen
    assert "Best so far: positions = mlp1, alpha = 2.0, seed 0: 60.0 % class mean" in seen
    assert "Failed: " in seen
    assert harness("status", folder).output == seen


def test_status_of_a_run_that_goes_on(folder, tmp_path):
    plan = make_plan(tiny_study(), store=Store(tmp_path), run_name="tiny", runtime=Runtime())
    with driving(folder.driver_mark), Store(tmp_path).claim(plan.to_run[-1]):
        seen = harness("status", "tiny", "--out", tmp_path).output
    assert "1 running" in seen and "Driver: process" in seen and "Time left: about 0 min" in seen


def test_an_unknown_run_is_refused_with_the_nearest(folder, tmp_path):
    result = harness("status", "tinny", "--out", tmp_path)
    assert result.exit_code == 2 and "Did you mean 'tiny'" in result.output


def test_a_changed_record_is_read_again_and_a_damaged_index_made_again(folder, tmp_path):
    store = Store(tmp_path)
    ids = [asked.trial_id for asked in read_run(folder).asked]
    before = summaries(store, ids)
    failed = next(s.trial_id for s in before.values() if s.status == "FAILED")
    spec = store.record(failed).spec
    with store.claim(spec) as claim:
        claim.publish(make_record(spec, select=scored(0.9), test=scored(0.8)))
    after = summaries(store, ids)
    assert after[failed].status == "COMPLETE" and after[failed].objective("class_mean") == 0.9
    (tmp_path / "index.sqlite").write_text("nonsense")
    assert summaries(store, ids) == after == summaries(store, ids)
    (tmp_path / "index.sqlite").unlink()
    assert summaries(store, ids) == after


def test_a_summary_is_its_record(folder, tmp_path):
    store = Store(tmp_path)
    for trial_id, summary in summaries(store, [a.trial_id for a in read_run(folder).asked]).items():
        record = store.record(trial_id)
        assert (summary.status, summary.epochs_run) == (record.status, record.epochs_run)
        assert summary.objective("micro") == record.objective("micro")
        assert summary.device_s == record.cost.device_s
        if record.test is not None:
            assert summary.groups == list(record.test.groups)
            for group in summary.groups:
                assert summary.score("test", "groups", group) == record.test.groups[group]
                assert summary.score("test", "distance", group) == record.test.distance[group]


def different_scores(start):
    """Scores no two of which are equal."""
    values = (start + n / 100 for n in itertools.count())
    by_group = {name: {g: next(values) for g in ("head", "medium", "tail")} for name in BY_GROUP}
    overall = {name: next(values) for name in OVERALL}
    return SplitMetrics(**overall, **by_group, per_class=(), class_counts=(), loss=1.0)


def test_a_summary_finds_every_score_and_cost_of_its_record_by_name(tmp_path):
    store, spec = Store(tmp_path), resolve(TINY, Runtime())
    costs = {name: 7 + index for index, name in enumerate(COSTS)}
    splits = {"select": different_scores(0.1), "test": different_scores(0.5)}
    with store.claim(spec) as claim:
        claim.publish(make_record(spec, **splits, cost=Cost(**costs)))
    (summary,) = summaries(store, [spec.trial_id]).values()
    (cached,) = summaries(store, [spec.trial_id]).values()
    assert cached == summary
    assert {name: summary.cost(name) for name in COSTS} == costs
    for part, scores in splits.items():
        assert {name: summary.score(part, name) for name in OVERALL} == scores.model_dump(
            include=set(OVERALL)
        )
        for name in BY_GROUP:
            found = {group: summary.score(part, name, group) for group in summary.groups}
            assert found == getattr(scores, name)
        assert summary.score(part, "groups", "no such group") is None


def test_a_summary_has_no_scores_of_a_split_that_was_not_scored(tmp_path):
    store, spec = Store(tmp_path), resolve(TINY, Runtime())
    with store.claim(spec) as claim:
        claim.publish(make_record(spec, select=scored(0.5), test=None, status="PRUNED"))
    (summary,) = summaries(store, [spec.trial_id]).values()
    assert summary.score("select", "micro") == 0.5
    assert summary.score("test", "micro") is None
    assert summary.score("test", "groups", "head") is None


@pytest.mark.slow
def test_a_run_becomes_tables_and_a_study_of_optunas(folder, tmp_path):
    files = {name: tmp_path / f"trials.{name}" for name in ("csv", "parquet")}
    url = f"sqlite:///{tmp_path}/o.db"
    arguments = [part for name, path in files.items() for part in (f"--{name}", path)]
    result = harness("export", "tiny", "--out", tmp_path, *arguments, "--optuna", url)
    assert result.exit_code == 0, result.output
    csv, parquet = pd.read_csv(files["csv"]), pd.read_parquet(files["parquet"])
    assert list(csv["status"]) == ["COMPLETE", "COMPLETE", "FAILED", "MISSING"]
    assert csv["test_class_mean"].tolist()[:2] == [30.0, 50.0]
    assert list(parquet.columns) == list(csv.columns)
    study = optuna.load_study(study_name="tiny", storage=url)
    assert study.best_params == {"positions": "mlp1", "alpha": 2.0}
    # The units and the columns are those of the table.
    best = csv[csv["trial_id"] == study.best_trial.user_attrs["trial_id"]].iloc[0]
    assert study.best_value == 60.0 == best["select_class_mean"]
    attributes = study.best_trial.user_attrs
    assert set(attributes) <= set(csv.columns)
    assert {"data": "synth-rs", "backbone": "vit_pico"}.items() <= attributes.items()
    for name, value in attributes.items():
        assert best[name] == (pytest.approx(value) if isinstance(value, float) else value)
    assert json.loads(best["test_by_class"]) == {str(n): 50.0 for n in range(15)}
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    again = harness("export", "tiny", "--out", tmp_path, "--optuna", url)
    assert again.exit_code == 2 and "already has a study" in again.output


def test_a_run_becomes_curves(folder, tmp_path):
    trial = read_run(folder).asked[0].trial_id
    row = {
        "epoch": 0,
        "lr": 0.1,
        "train_loss": 1.0,
        "select": {"micro": 0.5, "loss": 0.25, "groups": {"head": 1}},
    }
    history = Path(tmp_path / "trials" / trial / "history.jsonl")
    history.write_text(json.dumps(row) + "\n")
    result = harness("export", "tiny", "--out", tmp_path, "--tensorboard", tmp_path / "tb")
    assert result.exit_code == 0, result.output
    (events,) = (tmp_path / "tb").glob("*/events*")
    assert events.parent.name == "positions=mlp1,alpha=1.0,seed=0"
    found = curves(events)
    assert found.items() >= {"train_loss": 1.0, "lr": 0.1, "select/loss": 0.25}.items()
    assert found.items() >= {"select/micro": 50.0, "select/head": 100.0}.items()
    record = Store(tmp_path).record(trial)
    assert found["test/micro"] == pytest.approx(100 * record.test.micro, abs=1e-4)
    assert found["trainable_params"] == record.trainable_params


def curves(events):
    """The last value of each curve in a file of events."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = events.read_bytes(), {}
    while data:
        size = int.from_bytes(data[:8], "little")
        for value in Event.FromString(data[12 : 12 + size]).summary.value:
            found[value.tag] = round(value.simple_value, 6)
        data = data[16 + size :]
    return found


def test_a_table_can_be_printed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = harness("export", "tiny", "--csv", tmp_path / "t.csv", "--out", tmp_path)
    assert written.exit_code == 0
    again = harness("export", "tiny", "--csv", tmp_path / "t.csv", "--out", tmp_path)
    assert again.exit_code == 0
    for flag in ("--csv", "--parquet"):
        (tmp_path / "notes").write_text("mine")
        refused = harness("export", "tiny", flag, tmp_path / "notes", "--out", tmp_path)
        assert refused.exit_code == 2 and "holds something other than trials" in refused.stderr
        assert (tmp_path / "notes").read_text() == "mine"
    printed = harness("export", "tiny", "--csv", "-", "--out", tmp_path)
    assert printed.exit_code == 0 and printed.stdout == (tmp_path / "t.csv").read_text()
    assert not (tmp_path / "-").exists()


def test_what_does_not_fit_the_source_is_refused(folder, tmp_path):
    for flags, words in (
        (["tiny", "--csv", "-", "--parquet", "x"], "--csv - prints the table alone"),
        (["tiny", "--parquet", "-"], "--parquet -: it cannot be printed"),
        (["abc", "--best", "x"], "--best is for a run, and 'abc' is none"),
        (["tiny"], "Nothing to export: give --csv or"),
        (["abc", "--csv", "x"], "--csv is for a run, and 'abc' is none"),
        (["tiny", "--optuna", "nonsense"], "--optuna nonsense cannot be used"),
        (["tiny", "--optuna", "sqlite:////nodir/x.db"], "unable to open database file.\n"),
        (["tiny", "--csv", "x", "--data-root", "x"], "--data-root is for the modules of a trial"),
        (["tiny", "--csv", "x", "--backbone", "x"], "--backbone is for the modules of a trial"),
    ):
        result = harness("export", *flags, "--out", tmp_path)
        assert result.exit_code == 2 and words in result.output, result.output
