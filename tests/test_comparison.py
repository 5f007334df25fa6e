"""Controls: which trials they are, what they cost, and that the words follow from the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from support.cli import harness
from support.fake_trials import META, Fake, cells, controls, score, written
from support.few import SET
from support.records import TINY, publish
from support.runs import path, scored, texts, write_trajectory

from harness.comparison.controls import RATES, Controls
from harness.errors import UserError
from harness.insertion.placements import read_placement
from harness.reports.files.write import write_report
from harness.reports.numbers.comparison import load_arms
from harness.reports.numbers.gamma import block_map, describe, load_learned, normalised_entropy
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import LINEAR_POSITIONS, Placement
from harness.store.comparisons import Arm, Comparison
from harness.store.store import Store
from harness.study.axes import Axis

HALVES = {"weakest": ("11.q", "11.mlp1"), "gradient-norm": ("10.mlp1", "11.mlp1")}
"""Of the strengths that `Fake` gives to what was learned, and of the norms that it gives."""


def test_arms_share_seeds_and_differ_as_named(tmp_path):
    store = Store(tmp_path)
    fake = Fake(store, score)
    comparison = controls(store, fake)
    specs = {
        arm.name: [store.record(trial_id).spec for trial_id in arm.trials]
        for arm in comparison.arms
    }
    assert list(specs) == [
        "metapeft, one shot",
        "lora, α = 1, all 4 sites",
        "lora, α = 1, q+v",
        "lora, α = 4, all linear maps",
        "metapeft (single-level), one shot",
        "metapeft (γ per position), one shot",
        "metapeft (γ per block group), one shot",
        "lora, α = 1, all 4 sites, lr tuned (× 2)",
        "metapeft, lr tuned (× 0.5)",
        "lora, α = 4, all linear maps, lr tuned (× 2)",
        "lora, learned γ, retrained",
        "lora, strongest half of the sites, retrained",
        "lora, weakest half of the sites, retrained",
        "lora, random half of the sites, retrained",
        "lora, uniform α = mean of γ",
        "lora, γ shuffled over the sites",
        "lora, random γ of the same spread",
        "lora, gradient-norm half of the sites, retrained",
    ]
    for arm in specs.values():
        assert [spec.seed for spec in arm] == [0, 1]
        assert len({(str(spec.data), str(spec.backbone)) for spec in arm}) == 1
    sites = ["10.q", "10.mlp1", "11.q", "11.mlp1"]
    same = specs["lora, α = 1, all 4 sites"][0]
    assert same.placement.root == dict.fromkeys(sites, 1.0) and same.method == "lora"
    learned = dict(zip(sites, (2.0, 1.0, 0.5, 0.1), strict=True))
    assert specs["lora, learned γ, retrained"][0].placement.root == learned
    assert specs["lora, strongest half of the sites, retrained"][0].placement.root == {
        "10.q": 2.0,
        "10.mlp1": 1.0,
    }
    uniform = specs["lora, uniform α = mean of γ"][0].placement.root
    assert uniform == pytest.approx(dict.fromkeys(sites, 0.9))
    for spec in specs["lora, γ shuffled over the sites"]:
        values = list(spec.placement.root.values())
        assert sorted(values) == [0.1, 0.5, 1.0, 2.0]
    drawn = [
        list(spec.placement.root.values()) for spec in specs["lora, random γ of the same spread"]
    ]
    assert drawn[0] != drawn[1] and np.min(drawn) > 0
    # All halves are as strong together as the strongest one.
    for each, sites_of in HALVES.items():
        halves = [
            spec.placement.root for spec in specs[f"lora, {each} half of the sites, retrained"]
        ]
        assert halves == [dict(zip(sites_of, (2.0, 1.0), strict=True))] * 2
    for spec in specs["lora, random half of the sites, retrained"]:
        assert sorted(spec.placement.root.values()) == [1.0, 2.0]
    (standing,) = {str(spec.placement) for spec in specs["lora, α = 4, all linear maps"]}
    assert standing == str(Placement.of(LINEAR_POSITIONS, range(12), 4.0))
    variants = {
        "single-level": {"variant": "single_level"},
        "γ per position": {"gamma_per": "position"},
        "γ per block group": {"gamma_per": "block_group"},
    }
    for words, options in variants.items():
        spec = specs[f"metapeft ({words}), one shot"][0]
        meta = specs["metapeft, one shot"][0]
        assert spec == meta.model_copy(update={"options": {**meta.options, **options}})
    assert specs["lora, α = 1, all 4 sites, lr tuned (× 2)"][0].recipe.lr == 0.02
    assert comparison.notes[0].startswith("metapeft, lr tuned: × 0.5 is the end of the range")
    assert len(fake.asked) == len({spec.trial_id for spec in fake.asked})
    assert "harness sweep --study cells --seeds 2" in comparison.notes[-1]


def test_the_best_cell_is_chosen_on_the_selection_score_and_pays_for_all_cells(tmp_path):
    store = Store(tmp_path)
    fake = Fake(store, score)
    requests = [request for _, request in cells().derive(seeds=(0, 1)).requests()]
    for request in requests:
        spec = resolve(request, Runtime())
        deep = len(spec.placement) == 3
        select, test = (0.7, 0.3) if deep else (0.6, 0.9)
        publish(store, spec, select=scored(select), test=scored(test))
    comparison = controls(store, fake)
    assert not any("not here" in note for note in comparison.notes)
    best = comparison.arms[-1]
    assert best.name == "best cell of cells (last:3)" and len(best.charged) == 4
    specs = [store.record(trial_id).spec for trial_id in best.trials]
    assert [(spec.seed, len(spec.placement)) for spec in specs] == [(0, 3), (1, 3)]
    folder = written(comparison, store)
    table = load_arms(folder).table.set_index("arm")
    assert table.loc[best.name, "class_mean"] == pytest.approx(30)


def test_a_cell_that_a_search_ended_early_is_no_cell_of_a_sweep(tmp_path):
    """Its score is one of a training that was not finished, and it was never tested."""
    store = Store(tmp_path)
    fake = Fake(store, score)
    for number, (_, request) in enumerate(cells().derive(seeds=(0, 1)).requests()):
        spec = resolve(request, Runtime())
        if number:
            publish(store, spec, select=scored(0.5), test=scored(0.5))
        else:
            publish(store, spec, status="PRUNED", select=scored(0.9))
    comparison = controls(store, fake)
    assert "not here" in comparison.notes[-1]
    assert not any(arm.name.startswith("best cell") for arm in comparison.arms)


def test_a_comparison_of_which_everything_diverged_says_so(tmp_path):
    store = Store(tmp_path)
    spec = resolve(TINY, Runtime())
    publish(store, spec, status="DIVERGED")
    arm = Arm(name="lora", trials=(spec.trial_id,), charged=(spec.trial_id,))
    made = Comparison(
        title="t",
        request=TINY,
        seeds=(0,),
        objective="class_mean",
        unit="lora",
        inner_steps=None,
        arms=(arm,),
        notes=(),
    )
    with pytest.raises(UserError, match="every trial diverged"):
        load_arms(written(made, store))


def test_each_seed_chooses_its_own_best_cell(tmp_path):
    store = Store(tmp_path)
    fake = Fake(store, score)
    scores = {(1, 0): (0.9, 0.2), (3, 0): (0.1, 0.8), (1, 1): (0.4, 0.3), (3, 1): (0.6, 0.5)}
    for _, request in cells().derive(seeds=(0, 1)).requests():
        spec = resolve(request, Runtime())
        select, test = scores[len(spec.placement), spec.seed]
        publish(store, spec, select=scored(select), test=scored(test))
    comparison = controls(store, fake)
    best = comparison.arms[-1]
    # By the mean over seeds, last:1 would be the choice of both: 0.65 against 0.35.
    assert best.name == "best cell of cells (last:1; last:3)" and len(best.charged) == 4
    table = load_arms(written(comparison, store)).table.set_index("arm")
    assert table.loc[best.name, "class_mean"] == pytest.approx((20 + 50) / 2)
    one, three = (store.record(trial_id).trainable_params for trial_id in best.trials)
    assert table.loc[best.name, "trainable_params"] == round((one + three) / 2)


@pytest.mark.slow
def test_the_sweep_stands_beside_what_was_learned(tmp_path):
    store = Store(tmp_path)
    positions = Axis(field="positions", values=("q", "mlp1"), label="position")
    study = cells().derive(
        axes=(positions, Axis(field="depth", values=("last:1", "last:2"), label="last blocks")),
        views=(),
    )
    scores = {("q", 1): (0.2, 0.4), ("q", 2): (0.4, 0.6), ("mlp1", 1): (0.3, 0.5)}
    for _, request in study.derive(seeds=(0, 1)).requests():
        spec = resolve(request, Runtime())
        place = request.positions[0], len(spec.placement)
        if place == ("mlp1", 2):
            publish(store, spec, status="DIVERGED")
        else:
            publish(store, spec, select=scored(0.5), test=scored(scores[place][spec.seed]))
    fake = Fake(store, score)
    comparison = Controls(
        META, seeds=(0, 1), study=study, run=fake, store=store, runtime=Runtime()
    ).compare()
    folder = written(comparison, store)
    swept = load_arms(folder).swept
    assert swept.index.tolist() == ["q", "mlp1"] and swept.columns.tolist() == ["last:1", "last:2"]
    np.testing.assert_allclose(swept, [[30, 50], [40, 100 / 15]])
    for trial_id in comparison.arms[0].trials:
        path_of = store.trials / trial_id
        rows = [{"outer_step": n, "10.q": 1.0 + n, "11.mlp1": 1.0} for n in range(2)]
        write_trajectory(path_of, rows)
    names = {path.name for path in write_report(folder)}
    assert {"gamma.png", "gamma_and_sweep.png", "gamma_and_sweep.svg"} <= names
    assert "(gamma_and_sweep.png)" in (folder.report / "report.md").read_text()
    assert "Learned beside swept" in (folder.report / "index.html").read_text()


def test_differences_are_paired_and_costs_are_whole(tmp_path):
    store = Store(tmp_path)
    comparison = controls(store, Fake(store, score))
    arms = load_arms(written(comparison, store))
    table = arms.table.set_index("arm")
    plain = table.loc["lora, α = 1, all 4 sites"]
    assert plain["class_mean"] == pytest.approx(50.5)
    assert plain["minus_first"] == pytest.approx(-10)
    assert plain["minus_first_ci"] == pytest.approx(0, abs=1e-9)  # the seeds' shift cancels
    assert plain["class_mean_ci"] == pytest.approx(12.7062 * 0.5, abs=1e-3)
    assert plain["runs_per_seed"] == pytest.approx(1)
    assert arms.time_ratio == pytest.approx(1.5)
    runs = table["runs_per_seed"]
    assert runs["lora, α = 1, all 4 sites, lr tuned (× 2)"] == pytest.approx(len(RATES))
    assert runs["metapeft, lr tuned (× 0.5)"] == pytest.approx(1.5 * len(RATES))
    assert runs["lora, learned γ, retrained"] == pytest.approx(1.5 + 1)
    assert table.loc["lora, learned γ, retrained", "runs_by_flops"] == pytest.approx(1.4 + 1)
    # The search that found the strengths, the pass that ranks the sites, and its own run.
    assert runs["lora, gradient-norm half of the sites, retrained"] == pytest.approx(1.5 + 0.1 + 1)
    assert runs["lora, random half of the sites, retrained"] == pytest.approx(1.5 + 1)
    assert runs["lora, α = 4, all linear maps"] == pytest.approx(1)
    assert runs["lora, α = 4, all linear maps, lr tuned (× 2)"] == pytest.approx(len(RATES))


@pytest.mark.slow
def test_the_report_says_better_worse_and_open(tmp_path):
    store = Store(tmp_path)

    def mixed(spec):
        if spec.method == "lora" and len(spec.placement) == 24:  # q+v
            return 0.62 - 0.01 * spec.seed
        if spec.method == "lora" and len(spec.placement) == 2:
            return 0.8 + 0.01 * spec.seed
        return score(spec)

    folder = written(controls(store, Fake(store, mixed)), store)
    names = {path.name for path in write_report(folder)}
    tables = {"arms.csv", "arms_by_seed.csv", "arms.tex"}
    figures = {f"{name}.{kind}" for name in ("arms", "pareto") for kind in ("png", "svg")}
    assert names == {*tables, *figures, "report.md", "index.html"}
    text = (folder.report / "report.md").read_text()
    (verdict,) = [line for line in text.splitlines() if line.startswith("By paired")]
    better, worse = verdict.split(" It is worse than ")
    assert "is better than" in better and "lora, α = 1, all 4 sites" in better
    kinds = ("strongest", "weakest", "random", "gradient-norm")
    halves = [f"lora, {kind} half of the sites, retrained" for kind in kinds]
    assert worse.startswith(f"{'; '.join(halves)}. It shows no difference")
    variants = ("single-level", "γ per position", "γ per block group")
    alike = [f"metapeft ({words}), one shot" for words in variants]
    assert verdict.endswith(
        f"difference from lora, α = 1, q+v; {'; '.join(alike)}; metapeft, lr tuned (× 0.5)."
    )
    assert "| 1.0 |" in text and "1.50 times" in text and "(1 + 1.5/K = 1.50)" in text


@pytest.mark.slow
def test_a_search_that_diverged_is_shown_and_derives_nothing(tmp_path):
    store = Store(tmp_path)
    comparison = controls(store, Fake(store, score, diverged=(1,)))
    assert any("A search diverged" in line for line in comparison.notes)
    assert not any("retrained" in arm.name for arm in comparison.arms)
    folder = written(comparison, store)
    first = load_arms(folder).table.iloc[0]
    assert first["diverged"] == 1 and first["class_mean"] == pytest.approx((60 + 100 / 15) / 2)
    write_report(folder)
    assert "(× 1 diverged)" in (folder.report / "report.md").read_text()


def test_the_released_variant_is_named_in_every_arm_of_its_own(tmp_path):
    store = Store(tmp_path)
    request = TINY.with_values(
        {"method": "metapeft", "positions": "q,v", "options.variant": "released"}, source="test"
    )
    found = Controls(
        request,
        seeds=(0,),
        study=cells(),
        run=Fake(store, score),
        store=store,
        runtime=Runtime(),
    ).compare()
    assert found.title == "metapeft (as released) on lora and its controls"
    assert found.arms[0].name == "metapeft (as released), one shot"


def test_controls_of_a_method_that_learns_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="learns no strengths"):
        Controls(
            TINY, seeds=(0,), study=cells(), run=None, store=Store(tmp_path), runtime=Runtime()
        )


def test_learned_strengths_by_hand(tmp_path):
    a = write_trajectory(tmp_path / "a", path(0.0, 1.0, 2.0, 3.0))
    b = write_trajectory(tmp_path / "b", path(0.05, 2.0, 1.0, 3.0))
    learned = load_learned([a, b])
    assert learned.final["strength"].tolist() == pytest.approx([0.025, 1.5, 1.5, 3.0])
    assert learned.final["start"].tolist() == [1, 1, 1, 1]
    assert learned.final["sd"][1] == pytest.approx(np.std([1, 2], ddof=1))
    end = block_map(learned, 1.0)
    assert end.index.tolist() == ["q", "mlp1"] and end.columns.tolist() == [0, 1]
    assert end.loc["mlp1"].tolist() == pytest.approx([1.5, 3.0])
    assert block_map(learned, 0.5).loc["q", 0] == pytest.approx((0.5 + 0.525) / 2)
    facts = describe(learned)
    assert facts["share_off"] == pytest.approx(2 / 8)
    assert facts["agreement"] == pytest.approx(0.8)  # ranks 1234 and 1324
    assert (facts["lowest"], facts["highest"]) == pytest.approx((0.025, 3.0))
    assert load_learned([a, tmp_path / "none"]) is None


def test_evenness():
    assert normalised_entropy(np.array([2.0, 2.0, 2.0])) == pytest.approx(1)
    assert normalised_entropy(np.array([5.0, 0.0, 0.0])) == pytest.approx(0)
    half = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    assert normalised_entropy(np.array([3.0, 1.0])) == pytest.approx(half)


def test_pictures_of_learned_strengths_say_what_they_show(tmp_path):
    from harness.reports.figures.comparison import gamma

    learned = load_learned([write_trajectory(tmp_path / "a", path(0.0, 1.0, 2.0, 3.0))])
    words = texts(gamma(learned, "Learned", "On what."))
    for word in (
        "Learned",
        "On what.",
        "start",
        "end",
        "outer step",
        "mlp1",
        "strength γ",
        "block",
    ):
        assert word in words


@pytest.mark.slow
def test_the_whole_comparison_on_the_command_line(tmp_path, trained_here, few_images):
    result = harness(
        *("train", "--method", "metapeft", "--base", "lora", "--sites", "q,mlp1"),
        *("--depth", "last:1", "--seeds", 2, "--controls", "--out", tmp_path),
        *("--set", "recipe.epochs=1", *SET),
    )
    assert result.exit_code == 0, result.output
    assert "\nChoice " in result.stdout and "\nNext       harness export " in result.stdout
    (folder,) = (tmp_path / "studies").iterdir()
    comparison = Comparison.model_validate_json((folder / "comparison.json").read_text())
    assert len(comparison.arms) == 18 and all(isinstance(arm, Arm) for arm in comparison.arms)
    file = tmp_path / "mean.json"
    derived = harness("derive", folder.name, "--rule", "as_is", "--file", file, "--out", tmp_path)
    assert derived.exit_code == 0, derived.output
    assert read_placement(file).trials == comparison.arms[0].trials
    names = {path.name for path in (folder / "report").iterdir()}
    assert {"gamma.png", "gamma.csv", "arms.png", "arms.csv", "report.md"} <= names
    table = (folder / "report" / "arms.csv").read_bytes()
    (folder / "report" / "arms.csv").unlink()
    assert harness("report", folder.name, "--out", tmp_path).exit_code == 0
    assert (folder / "report" / "arms.csv").read_bytes() == table
