"""Methods against each other: rates, sites that are alike, and what inference costs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from support.fake_trials import Fake, cells, written
from support.records import make_record, publish
from support.runs import scored

from harness.comparison.methods import FURTHER, compare_methods, compared_methods
from harness.comparison.methods import RATES as METHOD_RATES
from harness.errors import UserError
from harness.reports.files.write import write_report
from harness.reports.numbers.comparison import front, load_arms
from harness.reports.text.comparison import choosing, comparison_content
from harness.runner.runtime import Runtime
from harness.spec import LINEAR_POSITIONS, Placement
from harness.store.comparisons import Comparison
from harness.store.store import Store

# Methods.


def methods(store, fake, names="lora,bitfit,vpt_shallow", seeds=(0, 1)):
    return compare_methods(
        compared_methods(names),
        study=cells(),
        seeds=seeds,
        run=fake,
        store=store,
        runtime=Runtime(),
    )


def rated(spec):
    """Best at twice the recipe's rate, for BitFit at an eighth of it, for full fine-tuning beyond
    what all arms try, for the probe beyond all that may be tried; MetaPEFT above all."""
    share = {"bitfit": 1 / 8, "full": 1 / 512, "linear_probe": 1e-9}
    wanted = 0.01 * share.get(spec.method, 2.0)
    base = 0.7 if spec.method == "metapeft" else 0.6
    return base - 0.1 * abs(np.log2(spec.recipe.lr / wanted)) / 8 + 0.01 * spec.seed


@pytest.mark.slow
def test_every_method_chooses_its_rate_from_as_many(tmp_path):
    store = Store(tmp_path)
    compared = methods(store, Fake(store, rated))
    assert [arm.name for arm in compared.arms] == [
        "lora, q+v (× 2)",
        "lora, all positions (× 2)",
        "lora with MetaPEFT (× 2)",
        "bitfit (× 0.125)",
        "vpt_shallow (× 2)",
        "lora, α = 4, all linear maps (× 2)",
        "lora, α = 4, all linear maps, one run",
    ]
    assert {len(arm.trials) for arm in compared.arms} == {2}
    *tuned, one_run = compared.arms
    assert {len(arm.charged) for arm in tuned} == {2 * len(METHOD_RATES)}
    assert one_run.charged == one_run.trials
    for arm, rate in ((tuned[-1], 0.02), (one_run, 0.01)):
        standing = store.record(arm.trials[0]).spec
        assert standing.placement == Placement.of(LINEAR_POSITIONS, range(12), 4.0)
        assert standing.recipe.lr == rate
    meta = store.record(compared.arms[2].trials[0]).spec
    everywhere = store.record(compared.arms[1].trials[0]).spec
    assert meta.options["base"] == "lora" and len(meta.placement) == len(everywhere.placement) == 72
    folder = written(compared, store)
    arms = load_arms(folder)
    runs = arms.table.set_index("arm")["runs_per_seed"]
    assert runs["bitfit (× 0.125)"] == pytest.approx(len(METHOD_RATES))  # in single runs
    assert runs["lora with MetaPEFT (× 2)"] == pytest.approx(1.5 * len(METHOD_RATES))
    better = arms.table.set_index("arm")["minus_first"]
    assert better["lora with MetaPEFT (× 2)"] == pytest.approx(10)
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    papers = text[text.index("Paper, Table 4, DOTA") :]
    assert "| LoRA + MetaPEFT" in papers and "93.9" in papers  # its head classes, as printed
    assert "Time of the first arm" not in text  # the unit is the first arm itself


def test_rates_go_on_where_the_best_is_at_an_end_and_are_charged(tmp_path):
    store = Store(tmp_path)
    fake = Fake(store, rated)
    compared = methods(store, fake, "lora,full,linear_probe")
    arms = {arm.name: arm for arm in compared.arms}
    full = arms["full (× 0.00195)"]  # 1/512, found after 1/128, and left after 1/2048
    assert len(full.charged) == 2 * (len(METHOD_RATES) + 3)
    probe = arms["linear_probe (× 0.000122)"]
    assert len(probe.charged) == 2 * (len(METHOD_RATES) + FURTHER)
    assert [note for note in compared.notes if "end of the range" in note] == [
        "linear_probe: × 0.000122 is the end of the range for 2 of 2 seeds; better rates may lie "
        "beyond."
    ]
    charged = {trial_id for arm in compared.arms for trial_id in arm.charged}
    assert len(fake.asked) == len(charged)  # an arm of one run is one of the tuned trials


def test_each_seed_chooses_its_rate_pays_for_what_it_tried_and_is_scored_by_its_choice(tmp_path):
    store = Store(tmp_path)

    def by_seed(spec):  # seed 0 is best at twice the rate, seed 1 beyond the low end
        wanted = {0: 2.0, 1: 1 / 128, 2: 1 / 2}[spec.seed]
        rate = spec.recipe.lr / 0.01
        if spec.seed == 2:  # two rates tie: the smaller one, tried first, is chosen
            return 0.6 if rate in (0.5, 2.0) else 0.3
        return 0.5 + 0.1 * spec.seed - 0.01 * abs(np.log2(rate / wanted))

    compared = methods(store, Fake(store, by_seed), "bitfit,linear_probe", seeds=(0, 1, 2))
    arm = compared.arms[0]
    assert arm.name == "bitfit (× 2, 0.00781, 0.5)" and compared.chosen == "per seed"
    rates = [store.record(trial_id).spec.recipe.lr / 0.01 for trial_id in arm.trials]
    assert rates == pytest.approx([2, 1 / 128, 1 / 2])
    charged = [store.record(trial_id).spec.seed for trial_id in arm.charged]
    assert [charged.count(seed) for seed in (0, 1, 2)] == [
        len(METHOD_RATES),
        len(METHOD_RATES) + 2,  # 1/128, and 1/512 to see that it is not better
        len(METHOD_RATES),
    ]
    folder = written(compared, store)
    row = load_arms(folder).table.iloc[0]
    assert row["class_mean"] == pytest.approx(100 * (0.5 + 0.6 + 0.6) / 3)
    assert row["runs_per_seed"] == pytest.approx(len(arm.charged) / 3)
    content = comparison_content(load_arms(folder), None)
    assert any("by each seed for itself" in note for note in content.notes)
    before = compared.model_dump(mode="json")
    del before["chosen"]  # as older versions wrote it: one choice for all seeds
    old = Comparison.model_validate_json(json.dumps(before))
    assert "by the seeds' mean class mean on validation" in choosing(old)


@pytest.mark.slow
def test_learned_strengths_are_judged_against_the_same_sites(tmp_path):
    store = Store(tmp_path)

    def mixed(spec):  # paired: 10 points for LoRA, and -1 or +1 by seed for AdaptFormer
        base = spec.options.get("base")
        change = {"adaptformer": -0.11 + 0.02 * spec.seed}.get(base, 0.0)
        return rated(spec) + change

    compared = methods(store, Fake(store, mixed), "lora,adaptformer,bitfit")
    folder = written(compared, store)
    pairs = load_arms(folder).pairs.set_index("learned")
    lora, adaptformer = "lora with MetaPEFT (× 2)", "adaptformer with MetaPEFT (× 2)"
    assert pairs.loc[lora, "plain"] == "lora, all positions (× 2)"
    assert pairs.loc[lora, "difference"] == pytest.approx(10)
    assert pairs.loc[adaptformer, "difference"] == pytest.approx(0, abs=1e-9)
    assert pairs.loc[adaptformer, "difference_ci"] == pytest.approx(12.7062, abs=1e-3)
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert f"Best on validation: {lora}, 70.5 ± 6.4 % on test." in text
    assert f"+10.00 ± 0.00 ({lora}), +0.00 ± 12.71 ({adaptformer}) points" in text
    assert f"a difference is shown for {lora}. By paired" in text


def test_all_methods_are_all_that_train(tmp_path):
    names = compared_methods("all")
    assert names[0] == "lora" and "metapeft" not in names
    assert {"linear_probe", "full", "vpt_deep", "adaptformer"} < set(names)
    assert compared_methods("bitfit,lora+adaptformer,lora") == [
        "lora",
        "bitfit",
        "lora+adaptformer",
    ]


def test_metapeft_by_name_is_over_its_own_base_alone(tmp_path):
    store = Store(tmp_path)
    compared = methods(store, Fake(store, rated), "metapeft,adaptformer,lora", seeds=(0,))
    learned = [arm.name for arm in compared.arms if "MetaPEFT" in arm.name]
    assert learned == ["lora with MetaPEFT (× 2)"]
    assert compared.pairs == (("lora with MetaPEFT (× 2)", "lora, all positions (× 2)"),)
    alone = methods(store, Fake(store, rated), "metapeft,bitfit", seeds=(0,))
    assert "lora with MetaPEFT (× 2)" in [arm.name for arm in alone.arms]
    assert not alone.pairs


def test_methods_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'lora'"):
        compared_methods("lora,lorra")


def test_one_method_is_nothing_to_compare(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(UserError, match="at least two"):
        methods(store, Fake(store, rated), names="lora")


@pytest.mark.slow
def test_inference_is_told_where_it_was_counted(tmp_path):
    store = Store(tmp_path)
    counts = {"bitfit": 1000, "vpt_shallow": 1050, "lora": 1000}

    class Counted(Fake):
        def publish(self, request, spec):
            cost = make_record(spec).cost.model_copy(
                update={"inference_flops": counts[spec.method]}
            )
            publish(self.store, spec, select=scored(0.5), test=scored(0.5), cost=cost)

    for name, kind in (("counted", Counted), ("old", Fake)):
        store = Store(tmp_path / name)
        compared = methods(store, kind(store, rated), names="bitfit,vpt_shallow", seeds=(0,))
        write_report(written(compared, store))
    text = (tmp_path / "counted/studies/cells/report/report.md").read_text()
    assert "| +5.0 % |" in text and "| +0.0 % |" in text
    page = (tmp_path / "counted/studies/cells/report/index.html").read_text()
    assert "data-kind=number class=number>inference</th>" in page
    assert "| - |" in (tmp_path / "old/studies/cells/report/report.md").read_text()


def test_the_front_is_what_no_arm_beats_in_both():
    arms = {"cheap": (1, 50), "worse": (2, 49), "better": (2, 55), "same": (3, 55), "best": (9, 60)}
    rows = [
        {"arm": arm, "runs_per_seed": cost, "class_mean": score}
        for arm, (cost, score) in arms.items()
    ]
    for order in (rows, rows[::-1]):
        assert front(pd.DataFrame(order)) == ["cheap", "better", "best"]
