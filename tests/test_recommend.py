"""`recommend`: the order of trying, the budget, what is said of it, and how it does on tables."""

from __future__ import annotations

import re
import shlex

import pandas as pd
import pytest
import torch
from support.cli import harness as command
from support.few import SET, VALUES
from support.runs import scored
from support.untrained import train_nothing

import harness
from harness.catalogue.studies import load_study
from harness.driver.recommend import recommending
from harness.export.lora_config import lora_config
from harness.findings import recommended as judging
from harness.model.backbones import load_backbone
from harness.reports.numbers.images import over_images
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.recommend import RATE_TRIALS, RATES, Key, Steps, places_on
from harness.spec import LINEAR_POSITIONS, BackboneSpec
from harness.store import search_log
from harness.store.search_log import asks, read_log
from harness.testing import made

pytestmark = pytest.mark.usefixtures("few_images")

RUNS = (1.0, 0.75, 0.97, 0.96, 0.9)
STEPS = Steps(
    places=tuple({"where": name} for name in "abcde"),
    strengths=tuple({"recipe.lr": rate} for rate in RATES),
    runs=RUNS,
    start=5,
)


def followed(steps, score, budget, count_trials=False):
    """What a plan tries, wave by wave, where a trial scores `score(key)`."""
    told, left, waves = {}, budget, []
    while wave := steps.wave(told, left, count_trials):
        waves.append(wave)
        for key in wave:
            told[key] = score(key)
            left -= 1 if count_trials else steps.runs[key.place]
        assert left > -1e-6
    return waves


def peak(level, places=(0, 1, 2, 3, 4)):
    """Best at a level, and at the places in their order."""
    return lambda key: -abs(key.level - level) - 0.1 * places[key.place]


@pytest.mark.parametrize(
    "best,rates",
    [
        (5, [[5, 7, 3], [6]]),  # the best is between two: halfway to the better of them (a tie: up)
        (6, [[5, 7, 3], [6]]),
        (4, [[5, 7, 3], [4]]),
        (8, [[5, 7, 3], [9]]),  # the best is at the end of those tried: on in that direction
        (1, [[5, 7, 3], [1]]),
    ],
)
def test_rates_come_first_coarse_to_fine_then_places_at_the_best(best, rates):
    waves = followed(STEPS, peak(best), 4.0)
    assert waves == [[Key(0, level) for level in wave] for wave in rates]
    first, second, third, *_ = followed(STEPS, peak(best), 8.0)
    tried = [key.level for key in [*first, *second]]
    nearest = min(tried, key=lambda level: abs(level - best))
    assert third == [Key(place, nearest) for place in (1, 2, 3, 4)]


def test_a_training_begins_only_if_all_of_it_fits():
    assert followed(STEPS, peak(5), 1.2) == [[Key(0, 5)]]
    assert followed(STEPS, peak(5), 0.8) == [[Key(1, 5)]]  # the widest place does not fit
    assert followed(STEPS, peak(5), 0.5) == []
    last = followed(STEPS, peak(5), 5.0)[-1]
    assert last == [Key(1, 5)]  # 0.25 runs are left
    assert followed(STEPS, peak(5), 5, count_trials=True)[-1] == [Key(1, 5)]


def test_with_room_the_rate_is_tuned_again_at_the_best_place_and_then_it_ends():
    score = peak(5, places=(1, 2, 0, 3, 4))
    *_, places, finer, finest = followed(STEPS, score, 100.0)
    assert {key.place for key in places} == {1, 2, 3, 4}
    assert finer == [Key(2, 7), Key(2, 3)] and finest == [Key(2, 6), Key(2, 4)]


def test_never_the_same_twice_and_at_most_four_rates_before_other_places():
    for best in range(-3, 14):
        waves = followed(STEPS, peak(best), 100.0)
        keys = [key for wave in waves for key in wave]
        assert len(set(keys)) == len(keys)
        before = [key for key in keys[: keys.index(next(k for k in keys if k.place))]]
        assert len(before) == RATE_TRIALS
        assert keys and all(0 <= key.level < len(RATES) for key in keys)


def test_places_are_those_of_the_backbone():
    assert list(places_on(LINEAR_POSITIONS, 12)) == [
        "every linear map",
        "every linear map, last 6 blocks",
        "MLP",
        "attention",
        "Q+V",
    ]
    assert list(places_on(("dw", "mlp1", "mlp2"), 18)) == [
        "every linear map",
        "every linear map, last 9 blocks",
    ]


@pytest.fixture
def trained(monkeypatch):
    """Trainings end at once; the best by far is a quarter of the first rate, the MLP at the best
    rate is a little better. The ids of those that were trained."""
    ran = []

    def score(spec):
        ran.append(spec.trial_id)
        is_mlp = {site.position for site, _ in spec.placement.items()} == {"mlp1", "mlp2"}
        return (0.6 if spec.recipe.lr == 0.05 else 0.3) + 0.05 * is_mlp

    def finished(record, value):
        blocks = {site.block for site, _ in record.spec.placement.items()}
        full = len(blocks) == 12 and len(record.spec.placement) == 72
        cost = record.cost.model_copy(update={"flops": flops[0] if full else flops[1]})
        return record.model_copy(
            update={"select": scored(value), "test": scored(value - 0.1), "cost": cost}
        )

    flops = (1000, 800)
    monkeypatch.setattr(
        "harness.driver.recommend.full_run_flops",
        lambda spec, runtime: flops[0] if len(spec.placement) == 72 else flops[1],
    )

    train_nothing(monkeypatch, score, finished)
    return ran


def recommended(out, *words):
    return command("recommend", *SET, "--workers", 2, "--out", out, *words)


def test_the_answer_says_what_to_train_what_to_expect_and_what_was_left_out(tmp_path, trained):
    result = recommended(tmp_path, "--budget", "6runs")
    assert result.exit_code == 0, result.output
    said = dict(re.findall(r"^([A-Z]\w+(?: \w+)?)  +(.*)$", result.stdout, flags=re.MULTILINE))
    assert said["Choice"].startswith("LoRA of rank 4 at MLP (24 sites), α = 4, lr 0.05 (SGD")
    assert said["Expected"].startswith("55.0 % class mean on the test split of few-rs, 5")
    assert "over its 1,200 images" in said["Expected"] and "another seed" in said["Expected"]
    assert said["Cost"].startswith("6 trainings, 5.60 of 6 runs")
    assert "rate 0.0125 30.0 %, 0.05 60.0 %, 0.2 30.0 %, 0.8 30.0 %" in said["Why"]
    assert "at MLP, rate 0.05 65.0 %" in said["Why"]
    assert "for want of budget (0.40 runs left): attention (0.80), Q+V (0.80)" in said["Not tried"]
    assert "lowest" not in said.get("Caveat", "") and len(trained) == 6
    train = shlex.split(said["Train"])
    assert train[:2] == ["harness", "train"] and "mlp1,mlp2" in train
    again = command(*train[1:], "--workers", 1)
    assert again.exit_code == 0, again.output
    assert len(trained) == 7  # the same trial, once more for its tensors


def test_it_goes_on_where_it_was_and_with_a_larger_budget(tmp_path, trained):
    first = recommended(tmp_path, "--budget", "3runs")
    assert "highest that was tried" not in first.stdout and "lowest that was tried" in first.stdout
    again = recommended(tmp_path, "--budget", "3runs")
    assert again.stdout == first.stdout and len(trained) == 3
    larger = recommended(tmp_path, "--budget", 6)
    assert larger.exit_code == 0 and len(trained) == len(set(trained)) == 6
    assert "6 of 6 trainings" in larger.stdout
    log = next(tmp_path.glob("studies/*/search-0.jsonl"))
    whole = log.read_text()
    lines = whole.splitlines(keepends=True)
    for count in range(len(lines)):  # killed after any line
        log.write_text("".join(lines[:count]))
        assert recommended(tmp_path, "--budget", 6).stdout == larger.stdout
        assert [ask.trial_id for ask in asks(read_log(log))] == [
            ask.trial_id for ask in asks(_events(whole, tmp_path))
        ]
    assert len(trained) == 6


def test_a_wave_is_written_at_once(tmp_path, trained, monkeypatch):
    """A command that was killed in the midst of it would go on with another plan."""
    written = []
    append = search_log.append_line

    def noted(path, *rows, **how):
        written.append(sum("ask" in row for row in rows))
        append(path, *rows, **how)

    monkeypatch.setattr(search_log, "append_line", noted)
    recommended(tmp_path, "--budget", "3runs")
    assert written == [3, 0, 0, 0]


def _events(text, folder):
    path = folder / "whole.jsonl"
    path.write_text(text)
    return read_log(path)


@pytest.mark.parametrize("budget,trainings", [("5runs", 5), ("1000", 18), ("1000runs", 18)])
def test_a_dry_run_leaves_nothing(tmp_path, trained, monkeypatch, budget, trainings):
    """It pays for what the plan has: 5 places and 11 rates, no matter how large the budget is."""
    monkeypatch.setattr("harness.driver.run.probe_seconds", lambda spec, runtime: 60.0)
    result = recommended(tmp_path / "o", "--dry-run", "--budget", budget)
    assert result.exit_code == 0 and not (tmp_path / "o").exists() and not trained
    assert "the rates 0.2, 0.8, 0.05 and one more" in result.stdout
    assert f"Estimated cost: {trainings} min 00 s of cpu" in result.stdout


@pytest.mark.parametrize(
    "words,said",
    [
        (["--budget", "600s"], "--budget 600s: a plan is made in full runs or in trials"),
        (["--budget", "0.1runs"], "the cheapest is of 0.80 runs"),
        (["--set", "positions=q"], "--set positions: recommend has values of its own"),
        (["--set", "seed=3"], "--set seed"),
        (["--set", "data.select_on=test"], "data.select_on=test"),
        (["--data", "synth-rs"], "--set data=few-rs and --data synth-rs: give one of them"),
        (["--backbone", "vit_pcio"], "vit_pico"),
        (["--study", "several"], "several"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path, trained, words, said):
    result = recommended(tmp_path / "o", *words)
    assert result.exit_code == 2 and said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not trained and not (tmp_path / "o").exists()


def test_after_a_failure_nothing_is_chosen_and_the_same_command_tries_again(
    tmp_path, trained, monkeypatch
):
    record = made.made_record

    def failing(spec, status="COMPLETE", value=0.5):
        return record(spec, "FAILED", value).model_copy(update={"select": None, "test": None})

    monkeypatch.setattr(made, "made_record", failing)
    result = recommended(tmp_path, "--budget", 3)
    assert result.exit_code == 1 and "LoraConfig" not in result.stdout
    monkeypatch.setattr(made, "made_record", record)
    assert "LoraConfig" in recommended(tmp_path, "--budget", 3).stdout


def test_from_python_it_is_the_same(tmp_path, trained):
    settings = {name: value for name, value in VALUES.items()}
    found = harness.recommend(settings=settings, budget=3, out=tmp_path, workers=2)
    assert str(found) in recommended(tmp_path, "--budget", 3).stdout and len(trained) == 3
    assert found.trial_id in trained and found.test[1] < found.test[0] < found.test[2]
    assert found.lora_config["r"] == 4


@pytest.mark.parametrize("where", ["every linear map", "every linear map, last 6 blocks", "Q+V"])
def test_peft_adapts_the_same_layers_at_the_same_strength(where):
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    study, _ = recommending(load_study("depth_vs_position"), {"backbone.weights": "random"})
    request = study.base.with_values(study.axes[0].sets(where), source="test")
    spec = resolve(request, Runtime())
    model = load_backbone(BackboneSpec(weights="random"), torch.device("cpu"))
    tuned = get_peft_model(model, LoraConfig(**lora_config(spec)))
    layers = {name: m for name, m in tuned.named_modules() if isinstance(m, LoraLayer)}
    fused = dict.fromkeys(("q", "k", "v"), "qkv")
    ours = {(s.block, fused.get(s.position, s.position)) for s, _ in spec.placement.items()}
    assert len(layers) == len(ours)
    for name, layer in layers.items():
        joined = 8 if where == "Q+V" else 12
        assert layer.r["default"] == (joined if "qkv" in name else 4)
        assert layer.scaling["default"] == 1.0


def test_the_interval_is_of_the_number_of_test_images():
    few, many = over_images(scored(0.5, count=10)), over_images(scored(0.5, count=1000))
    assert few[0] < many[0] < 50 < many[1] < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * 100 * (0.25 / 15000) ** 0.5, rel=0.05)
    assert over_images(scored(1.0)) == (100.0, 100.0)


@pytest.mark.parametrize(
    "name",
    [
        "joint_space",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("synth_rs", "mstar", "aid")),
    ],
)
def test_the_gallery_says_of_a_table_what_is_computed_now(name):
    made_now = judging.judged(name, judging.table_named(name))
    kept = pd.read_csv(judging.FOLDER / "choices.csv")
    kept = kept[kept["table"] == name].reset_index(drop=True)[list(made_now)]
    pd.testing.assert_frame_equal(made_now, kept, atol=1e-3, check_dtype=False)
    assert (made_now["runs"] <= made_now["budget"] + 1e-6).all()
    assert (made_now["test"] <= made_now["best"]).all()
    report = (judging.FOLDER / "report.md").read_text()
    words = judging.section(name, made_now)
    assert words in report
