"""The paper's printed averages by each rule, and what a trial is estimated to cost."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.cli import harness
from support.runs import study

from harness.bench.estimate import Estimate
from harness.catalogue.studies import load_study
from harness.reports.numbers.paper_check import (
    best_rules,
    check,
    clashes,
    compare,
    exceptions,
    mixture,
)
from harness.runner.cost import probe_seconds
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.study.axes import Axis

# The paper's averages


def test_each_table_has_its_rule_and_no_rule_fits_all():
    checked = check()
    assert mixture(checked) == {
        "flat mean": ["Table 1", "Table 4", "Table S4", "Table S5"],
        "class mean": ["Table 2", "Table 3"],
        "group mean": ["Table 6", "Table S1"],
        "mean of class means": ["Table S3", "Table S6"],
    }
    best = best_rules(checked)
    assert best["Table 3", "drop"] == ["loss of average, percent of the best"]
    assert best["Table 6", "drop"] == ["change of tail, points"]
    tails = {table for table, of in best if of == "tail"}
    assert tails == {"Table 1", "Table 4", "Table S3", "Table S4", "Table S5"}


def test_the_printed_numbers_that_no_rule_gives_are_those_found_by_hand():
    found = [
        (each.table, each.row, each.of, each.printed, str(each.computed), each.verdict)
        for each in exceptions(check())
    ]
    assert found == [
        ("Table 1", "ATTN", "tail", "74.9", "74.95", "half"),
        ("Table 2", "out", "average", "92.3", "92.36", "truncated"),
        ("Table 3", "blocks:9-11", "average", "89.0", "89.06", "truncated"),
    ]


def test_rules_that_were_not_used_miss_by_what_the_facts_say():
    values = {(each.table, each.row, each.rule): float(each.computed) for each in check()}
    wanted = {"k": 90.77, "q": 91.5, "v": 92.9, "out": 92.57, "mlp1": 93.6, "mlp2": 92.83}
    for position, value in wanted.items():
        assert values["Table 2", position, "group mean"] == pytest.approx(value, abs=0.005)
    assert values["Table 4", "LoRA", "mean of group means"] == pytest.approx(74.47, abs=0.005)
    gained = values["Table 4", "LoRA + MetaPEFT", "mean of group means"]
    assert gained == pytest.approx(75.63, abs=0.005)
    assert values["Table S6", "LoRA", "mean of class means"] == pytest.approx(66.51, abs=0.005)


def test_same_cells_with_other_averages_or_names_are_found():
    found = set(clashes())
    assert ("all", "Table S3 mlp1 (70.5)", "Table S5 MLP1 (69.60)") in found
    assert ("all", "Table S3 mlp2 (70.4)", "Table S5 MLP2 (69.51)") in found
    assert sum(clash.dataset == "all" for clash in found) == 2
    for dataset in ("iNaturalist2018", "Places-LT"):  # the exchanged names of Table 1
        assert (dataset, "Table 1 ATTN", "Table S5 MLP1 + MLP2") in found
        assert (dataset, "Table 1 FFN", "Table S4 Q + K + V + Out") in found
    assert ("CIFAR100-IR100", "Table 1 ATTN + FFN", "Table S5 MLP2") in found


@pytest.mark.parametrize(
    "value,printed,verdict",
    [
        ("92.34", "92.3", "rounded"),
        ("92.25", "92.3", "rounded"),
        ("92.35", "92.3", "half"),
        ("92.36", "92.3", "truncated"),
        ("92.41", "92.3", "differs"),
        ("92.24", "92.3", "differs"),
        ("69.595", "69.60", "rounded"),
        ("0.4", "0", "rounded"),
    ],
)
def test_verdicts(value, printed, verdict):
    assert compare(Decimal(value), printed) == verdict


def test_the_check_is_a_command():
    result = harness("report", "--paper")
    assert result.exit_code == 0, result.output
    assert "No single rule gives all averages: flat mean in Table 1, Table 4" in result.output
    assert "92.3 is 92.36" in result.output and "Table S3 mlp1 (70.5)" in result.output
    for args in (["report"], ["report", "x", "--paper"]):
        refused = harness(*args)
        assert refused.exit_code == 2 and "--paper" in refused.stderr


# Estimates


def test_costs_are_scaled_from_one_timing(monkeypatch):
    monkeypatch.setattr("harness.bench.estimate.probe_seconds", lambda spec, runtime: 10.0)
    base = load_study("depth_vs_position").base
    estimate = Estimate(base.with_values({"positions": "mlp1"}, source="test"), Runtime())

    def seconds(values, **changes):
        return estimate.device_s(
            study(
                base=base.with_values(values, source="test"),
                axes=(Axis(field="positions", values=("q",), label="p"),),
                views=(),
                reference=None,
                **{"seeds": (0,), **changes},
            )
        )

    assert seconds({}) == pytest.approx(10)
    assert seconds({}, seeds=(0, 1, 2)) == pytest.approx(30)
    assert seconds({"recipe.epochs": 5}) == pytest.approx(5)
    # Of 10 images 8 are trained on and 2 scored: 8 · 2 + 2 passes against 8 · (1 + 1/12) + 2.
    assert seconds({"depth": "last:1"}) == pytest.approx(10 * (8 * 13 / 12 + 2) / 18)
    learned = {"method": "metapeft", "options": {"inner_steps": 2}}
    assert seconds(learned) == pytest.approx(15)
    # Beside 911 images, all trained on, 5 of each of 15 classes, or the test's 1,200, are scored.
    dev = seconds({"data.options.dev_per_class": 5})
    assert dev == pytest.approx(10 * (2 + 75 / 911) / 1.8)
    assert seconds({"data.select_on": "test"}) == pytest.approx(10 * (2 + 1200 / 911) / 1.8)
    assert seconds({"backbone.name": "vit_small_patch16_224"}) is None
    assert estimate.device_s(load_study("module_size")) == 0


@pytest.mark.slow
def test_a_timing_scores_as_many_images_as_a_trial_does_for_those_it_trains_on(monkeypatch):
    splits = []

    class Unrun:
        def __init__(self, classifier, dataset, split, recipe, **kwargs):
            splits.append(split)

        def run(self, log):
            pass

    monkeypatch.setattr("harness.runner.cost.TrainingLoop", Unrun)
    base = load_study("depth_vs_position").base.with_values(
        {"recipe.batch_size": 32, "recipe.epochs": 5}, source="test"
    )
    probe_seconds(resolve(base, Runtime()), Runtime())
    part = splits[-1]
    assert len(part.train) == 6 * 32
    # Of synth-rs 20 % of 911 images are scored in every epoch, and 1,200 once in five of them.
    assert len(part.select) / len(part.train) == pytest.approx(0.2 / 0.8, rel=0.05)
    assert len(part.test) / len(part.train) == pytest.approx(1200 / 5 / (0.8 * 911), rel=0.05)
