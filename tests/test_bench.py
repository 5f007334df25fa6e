"""What the harness is timed against does the same, and tables say what was measured."""

from __future__ import annotations

import csv

import pytest
import torch
from support.backbones import BACKBONES
from support.cli import harness
from support.methods import double, fill, images, setting

from harness.bench import plain, scaling, stores
from harness.bench.train import CASES, Case, Setting, measure
from harness.model.backbones import features
from harness.spec import LINEAR_POSITIONS, BackboneSpec, Recipe

PICO = BACKBONES["vit_pico"]
SMALL = Setting(
    backbone=BackboneSpec(weights="random"),
    recipe=Recipe(epochs=1, batch_size=4, precision="fp32"),
    device=torch.device("cpu"),
    batches=2,
    rounds=1,
)


@pytest.mark.parametrize("positions", [("q", "v"), ("mlp1",), LINEAR_POSITIONS], ids=str)
def test_lora_by_hand_is_lora(positions):
    model = double(PICO)
    method, placement, options = setting("lora", PICO, positions=positions, alpha=plain.ALPHA)
    changed = plain.by_hand(model, placement).double()
    attachment = method.attach(model, placement, options, seed=0).double()
    fill(attachment)
    for name, module in changed.named_modules():
        if not isinstance(module, plain.ByHand):
            continue
        block, layer = name.split(".")[1], name.partition(".")[2].partition(".")[2]
        at = {"attn.proj": "out", "mlp.fc1": "mlp1", "mlp.fc2": "mlp2"}
        sites = [at[layer]] if module.thirds is None else [plain.QKV[i] for i in module.thirds]
        for place, position in enumerate(sites):
            delta = attachment.deltas[f"{block}:{position}"]
            module.down[place].weight.data.copy_(delta.down)
            module.up[place].weight.data.copy_(delta.up)
    x = images(PICO).double()
    torch.testing.assert_close(features(changed, x), features(model, x), rtol=1e-9, atol=1e-12)
    trained = sum(p.numel() for p in changed.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in attachment.parameters())


@pytest.mark.slow
def test_every_way_is_measured_and_the_harness_keeps_no_more():
    pytest.importorskip("peft")
    rows = {row.way: row for row in measure(Case("q+v", "lora", ("q", "v")), SMALL)}
    assert set(rows) == {"harness", "plain", "peft"}
    assert all(row.images_per_s > 0 and row.over_plain > 0 for row in rows.values())
    assert rows["plain"].over_plain == 1 and rows["harness"].flops_per_s > 0
    assert 0 < rows["harness"].saved_mib <= 1.01 * min(r.saved_mib for r in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.method != "lora"], ids=lambda c: c.name)
def test_other_methods_are_timed_beside_a_plain_loop(case):
    ways = [row.way for row in measure(case, SMALL)]
    assert ways == ["harness", "plain"]


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path):
    few = ["--rounds", 1, "--out", tmp_path, "--device", "cpu", "--set", "backbone=vit_pico"]
    few += ["--set", "backbone.weights=random", "--set", "recipe.batch_size=[2, 4]"]
    result = harness("bench", "train", "--case", "mlp1, last:1", *few)
    assert result.exit_code == 0, result.output
    with (tmp_path / "bench" / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["batch"] for row in rows} == {"2", "4"}
    assert {"harness", "plain"} <= {row["way"] for row in rows}
    assert all(row["device"] and row["torch"] and row["git"] for row in rows)
    assert "step / plain" in result.output


def test_a_case_that_does_not_exist_is_refused():
    result = harness("bench", "train", "--case", "q+w")
    assert result.exit_code == 2 and "Did you mean 'q+v'" in result.stderr


@pytest.mark.parametrize(
    "command,field,said",
    [
        ("train", "method=adapter", "--set method: made-up images are trained on"),
        ("train", "recipe=deit", "recipe.optimiser=adamw: the loop that is timed beside is plain"),
        ("scaling", "recipe.warmup_epochs=1", "recipe.warmup_epochs=1: the loop that is timed"),
        ("scaling", "recipe.batch_size=[2, 4]", "bench scaling takes one value of a field"),
    ],
)
def test_what_a_plain_loop_would_not_do_is_refused(command, field, said):
    result = harness("bench", command, "--set", field, "--device", "cpu")
    assert result.exit_code == 2 and said in result.stderr


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "BATCHES", (2, 4))
    monkeypatch.setattr(scaling, "TRIALS", 2)
    monkeypatch.setattr(scaling, "SIZES", (10,))
    monkeypatch.setattr("harness.cli.bench.BATCHES", 1)
    given = ["--set", "backbone=vit_pico", "--set", "backbone.weights=random"]
    given += ["--set", "recipe.batch_size=2", "--device", "cpu"]
    result = harness("bench", "scaling", "--trials", 10, "--rounds", 1, *given, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    with (tmp_path / "bench" / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["panel"], row["line"]) for row in rows}
    assert ("blocks adapted", "harness") in found and ("batch", "plain") in found
    assert ("trials in one process", "a trial") in found
    assert {line for panel, line in found if panel == "trials in the store"} == {
        "first look",
        "plan",
        "status",
        "report",
    }
    assert (tmp_path / "bench" / "scaling.png").stat().st_size > 10_000


def test_a_made_up_store_is_one_that_has_finished(tmp_path):
    """So that what is timed on it is what a user waits for."""
    from harness.driver.plan import make_plan
    from harness.runner.runtime import Runtime
    from harness.store.store import Store

    study = stores.big_study(1).derive(seeds=(0,))
    study = study.derive(axes=(study.axes[2],), views=())
    store = Store(tmp_path)
    count = stores.fill(store, study)
    plan = make_plan(study, store=store, run_name="big", runtime=Runtime())
    assert count == len(plan.done) == 14 and not plan.to_run
