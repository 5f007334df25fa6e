"""From learned strengths to a configuration, and out of the harness: rules, files, peft."""

from __future__ import annotations

import json
import math
import shlex

import pytest
import torch
from safetensors.torch import load_file
from support.cli import harness
from support.methods import images
from support.records import TINY, publish

from harness.errors import UserError
from harness.export.lora_config import export_lora_config
from harness.export.trial import export_peft, export_weights
from harness.insertion.placements import PlacementFile, derive, read_placement
from harness.model.backbones import features, load_backbone
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, Placement, TrialRequest
from harness.store.store import Store

LEARNED = Placement({"0.q": 0.2, "0.mlp1": 1.8, "1.q": 0.6, "1.mlp1": 1.0})
OTHER = Placement({"0.q": 0.4, "0.mlp1": 1.4, "1.q": 0.2, "1.mlp1": 1.2})


def test_a_placement_gives_no_strength_to_a_method_without_one():
    plain, strong = (
        TrialRequest(method="bitfit", placement=Placement({"0.block": each})) for each in (1.0, 4.0)
    )
    assert resolve(plain, Runtime()).placement == plain.placement
    with pytest.raises(UserError, match="method 'bitfit' has no alpha, so each must be 1"):
        resolve(strong, Runtime())


@pytest.mark.parametrize(
    "rule,value,wanted",
    [
        ("as_is", None, {"0.q": 0.3, "0.mlp1": 1.6, "1.q": 0.4, "1.mlp1": 1.1}),
        ("threshold", None, {"0.mlp1": 1.6, "1.mlp1": 1.1}),
        ("threshold", 0.35, {"0.mlp1": 1.6, "1.q": 0.4, "1.mlp1": 1.1}),
        ("topk", 1, {"0.mlp1": 1.6}),
        ("topk", None, {"0.mlp1": 1.6, "1.mlp1": 1.1}),
        ("bottomk", None, {"0.q": 0.3, "1.q": 0.4}),
        ("bottomk", 3, {"0.q": 0.3, "1.q": 0.4, "1.mlp1": 1.1}),
    ],
)
def test_rules_by_hand(rule, value, wanted):
    got = derive([LEARNED, OTHER], rule, value)
    assert list(got.root) == list(wanted)
    assert got.root == pytest.approx(wanted)


def test_random_sites_are_those_of_the_seed():
    drawn = [derive([LEARNED, OTHER], "random", None, seed=seed) for seed in range(30)]
    assert drawn[3] == derive([LEARNED, OTHER], "random", None, seed=3)
    assert {len(each) for each in drawn} == {2}
    as_is = derive([LEARNED, OTHER], "as_is", None).root
    assert all(each.root.items() <= as_is.items() for each in drawn)
    assert len({tuple(each.root) for each in drawn}) == 6  # all pairs of four sites


def test_what_only_ranks_the_sites_leaves_their_strengths():
    given = Placement(dict.fromkeys(LEARNED.root, 4.0))
    assert derive([LEARNED], "topk", 1, strengths=given).root == {"0.mlp1": 4.0}


@pytest.mark.parametrize(
    "learned,rule,value,words",
    [
        ([LEARNED], "threshold", 9.0, "the largest has 1.8"),
        ([LEARNED], "topk", 5, "1 to 4"),
        ([LEARNED], "topk", 0, "1 to 4"),
        ([LEARNED], "topk", 1.5, "topk keeps a whole number of sites"),
        ([LEARNED], "random", math.nan, "random takes a finite number"),
        ([LEARNED], "threshold", math.inf, "threshold takes a finite number"),
        ([LEARNED], "as_is", 0.5, "as_is keeps every site; leave it out"),
        ([LEARNED, Placement({"0.q": 1.0})], "as_is", None, "different sites"),
        ([Placement({"0.q": 1.0, "1.q": 1.0})], "topk", None, "0.q and 1.q have the same strength"),
    ],
)
def test_rules_that_leave_nothing_are_refused(learned, rule, value, words):
    with pytest.raises(UserError, match=words):
        derive(learned, rule, value)


def placement_file(placement):
    return PlacementFile(
        placement=placement,
        method="lora",
        options={},
        backbone=BackboneSpec(),
        rule="as_is",
        value=None,
        trials=("0",),
    )


def trained(tmp_path, **values):
    request = TINY.with_values({"depth": "last:3", **values}, source="test")
    request = request.with_values({"recipe.lr": 0.5, "alpha": 2.0}, source="test")
    store = Store(tmp_path)
    record = run_trial(resolve(request, Runtime()), Runtime(keep_weights=True), store)
    assert record.status == "COMPLETE"
    return record, store


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "lotr", "metapeft"])
def test_peft_computes_what_was_trained(tmp_path, method):
    """Through peft's own loader, with q, k and v inside the fused qkv."""
    from peft import PeftModel

    from harness.insertion.method import get_method

    record, store = trained(
        tmp_path, method=method, positions="q,v,out,mlp1,mlp2", options={}, depth="all"
    )
    folder = tmp_path / "adapter"
    written = export_peft(record, store, folder)
    assert {path.name for path in written} == {path.name for path in folder.iterdir()}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["rank_pattern"]["blocks.11.attn.qkv"] == 8
    assert config["rank_pattern"]["blocks.1.mlp.fc1"] == 4
    x = images(record.spec.backbone)
    model = load_backbone(record.spec.backbone, torch.device("cpu"))
    frozen = features(model, x)
    peft = PeftModel.from_pretrained(model, str(folder))
    got = features(peft.base_model.model, x)

    plain = load_backbone(record.spec.backbone, torch.device("cpu"))
    chosen = get_method(method)
    options = chosen.parse_options(record.spec.options)
    attachment = chosen.attach(plain, record.spec.placement, options, seed=9)
    state = load_file(tmp_path / "trials" / record.trial_id / "weights.safetensors")
    own = {k[11:]: v for k, v in state.items() if k.startswith("attachment.")}
    attachment.load_state_dict(own)
    with torch.no_grad():
        wanted = features(plain, x)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, frozen, rtol=1e-2, atol=1e-3)
    assert load_file(folder / "head.safetensors")["weight"].shape == (15, 64)


@pytest.mark.slow
def test_what_peft_cannot_express_is_said(tmp_path):
    sequential, store = trained(
        tmp_path, method="lora", positions="out", options={"out_input": "output"}
    )
    with pytest.raises(UserError, match="output of its layer"):
        export_peft(sequential, store, tmp_path / "a")
    adapter, store = trained(tmp_path, method="adapter", positions="ffn")
    with pytest.raises(UserError, match="Only low-rank"):
        export_peft(adapter, store, tmp_path / "b")
    with pytest.raises(UserError, match=r"0\.q, 1\.q: timm fuses"):
        export_lora_config(placement_file(LEARNED), tmp_path / "c")
    shared = placement_file(Placement({"1.mlp1": 2.0, "2.mlp1": 1.0}))
    with pytest.raises(UserError, match="lotr: its sites share tensors"):
        export_lora_config(shared.model_copy(update={"method": "lotr"}), tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


@pytest.mark.slow
def test_a_placement_becomes_a_lora_config_with_the_same_scales(tmp_path):
    from peft import LoraConfig, get_peft_model

    placement = Placement({"1.mlp1": 2.0, "11.mlp1": 1.0, "3.out": 0.5})
    export_lora_config(placement_file(placement), tmp_path)
    model = load_backbone(BackboneSpec(weights="random"), torch.device("cpu"))
    model = get_peft_model(model, LoraConfig.from_pretrained(str(tmp_path)))
    scales = {
        name.removeprefix("base_model.model."): module.scaling["default"]
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert scales == pytest.approx(
        {"blocks.1.mlp.fc1": 0.5, "blocks.11.mlp.fc1": 0.25, "blocks.3.attn.proj": 0.125}
    )


@pytest.mark.slow
def test_weights_come_with_what_is_needed_to_use_them(tmp_path):
    record, store = trained(tmp_path, method="metapeft", options={})
    export_weights(record, store, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "adapter.json").read_text())
    assert content["spec"]["method"] == "metapeft"
    assert content["learned"] == record.learned.root
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    assert tensors["attachment.raw"].dtype == torch.float64
    spec = resolve(TINY, Runtime())
    publish(store, spec)
    with pytest.raises(UserError, match="kept no weights"):
        export_weights(store.record(spec.trial_id), store, tmp_path / "none")


@pytest.mark.slow
def test_search_then_retrain_on_the_command_line(tmp_path, trained_here):
    few = ["--set", "recipe.epochs=1", "--set", "data.options.test_per_class=4"]
    few += ["--set", "data.val_fraction=0.8"]
    common = ["--out", tmp_path, "--depth", "last:2", *few]
    searched = harness("train", "--method", "metapeft", "--sites", "q,mlp1", *common)
    assert searched.exit_code == 0, searched.output
    trial = searched.stdout.split()[0]
    assert {"gamma.csv", "gamma.png", "gamma.svg", "trajectory.csv", "weights.safetensors"} <= {
        path.name for path in (tmp_path / "trials" / trial).iterdir()
    }
    file = tmp_path / "placement.json"
    done = harness(
        "derive", trial, "--rule", "topk", "--value", 3, "--file", file, "--out", tmp_path
    )
    assert done.exit_code == 0 and "3 of 4 sites" in done.output
    written = PlacementFile.model_validate_json(file.read_text())
    assert written.trials == (trial,) and written == read_placement(file)
    assert (written.method, written.options["rank"]) == ("lora", 4)
    words = shlex.split(done.output.splitlines()[-1].removeprefix("Next: "))
    assert words[:6] == ["harness", "train", "--study", "depth_vs_position", "--method", "lora"]
    retrained = harness(*words[1:])
    assert retrained.exit_code == 0, retrained.output
    spec, learnt = (Store(tmp_path).record(i).spec for i in (retrained.stdout.split()[0], trial))
    assert (spec.data, spec.recipe, spec.backbone) == (learnt.data, learnt.recipe, learnt.backbone)
    record = Store(tmp_path).record(retrained.stdout.split()[0])
    assert record.spec.placement == written.placement
    exported = harness("export", trial, "--peft", tmp_path / "peft", "--out", tmp_path)
    assert exported.exit_code == 0 and "adapter_config.json" in exported.output


@pytest.mark.slow
def test_the_gradient_norm_becomes_a_placement_at_the_strengths_it_was_taken_at(tmp_path):
    common = ["--out", tmp_path, "--depth", "last:2", "--sites", "q,mlp1", "--alpha", 2]
    common += ["--set", "data.options.test_per_class=4"]
    ranked = harness(
        "train", "--method", "metapeft", "--set", "options.variant=gradient_norm", *common
    )
    assert ranked.exit_code == 0, ranked.output
    record = Store(tmp_path).record(ranked.stdout.split()[0])
    norms = record.learned.root
    assert record.epochs_run == 1 and len(norms) == 4 and min(norms.values()) > 0
    assert record.cost.images_backward == 728 and "metapeft (gradient norm)" in ranked.stdout
    file = tmp_path / "half.json"
    done = harness("derive", record.trial_id, "--rule", "topk", "--file", file, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    largest = sorted(norms, key=norms.get)[2:]
    assert read_placement(file).placement == Placement(dict.fromkeys(largest, 2.0))


@pytest.mark.parametrize(
    "args,words",
    [
        (["derive", "0123", "--rule", "as_is", "--file", "x.json"], "Unknown trial '0123'"),
        (["export", "0123", "--peft", "x"], "Unknown trial '0123'"),
        (["export", "0123"], "give --weights or --peft"),
        (["export", "none.json", "--peft", "x"], "none.json cannot be read"),
        (["export", "none.json", "--weights", "x"], "no weights"),
        (["train", "--method", "lora", "--sites", "none.json"], "none.json cannot be read"),
        (["train", "--method", "lora", "--base", "lora"], "--base is for"),
        (["train", "--method", "metapeft", "--base", "vpt_deep"], "options.base"),
        (["train", "--method", "lora", "--controls"], "learns no strengths"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(tmp_path, args, words):
    result = harness(*args, "--out", tmp_path)
    assert result.exit_code == 2, result.output
    assert words in result.stderr and result.stderr.strip().count("\n") == 0


def test_a_derived_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"placement": {"0.q": 1.0}}')
    with pytest.raises(UserError, match=r"p\.json"):
        read_placement(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"p\.json"):
        read_placement(path)


def test_a_placement_takes_the_place_of_no_other_file(tmp_path):
    other = tmp_path / "package.json"
    other.write_text('{"name": "mine"}')
    words = ("derive", "0123", "--rule", "as_is", "--out", tmp_path, "--file")
    for file, said in ((other, "holds something other than a placement"), ("p.txt", "by .json")):
        result = harness(*words, file)
        assert result.exit_code == 2 and said in result.stderr
    assert other.read_text() == '{"name": "mine"}'


def test_only_seeds_of_one_configuration_are_averaged(tmp_path):
    """And a trial that is named twice counts once."""
    store, file = Store(tmp_path), tmp_path / "p.json"
    request = TINY.with_values({"method": "metapeft", "positions": ["q", "mlp1"]}, source="t")
    changes = {"seed": 1}, {"recipe.lr": 0.5}
    specs = [resolve(request.with_values(each, source="t"), Runtime()) for each in ({}, *changes)]
    sites = list(specs[0].placement.root)
    for spec, strengths in zip(specs, ((1.0, 2.0), (4.0, 8.0), (1.0, 2.0)), strict=True):
        publish(store, spec, learned=Placement(dict(zip(sites, strengths, strict=True))))
    first, second, other = (spec.trial_id for spec in specs)
    words = ("--rule", "as_is", "--file", file, "--out", tmp_path)
    assert harness("derive", first, first, second, *words).exit_code == 0
    assert [*read_placement(file).placement.root.values()] == [2.5, 5.0]
    result = harness("derive", first, other, *words)
    assert result.exit_code == 2
    assert f"Trials {first} and {other} differ in recipe.lr (0.01, 0.5)" in result.stderr


def test_learned_nothing_cannot_be_derived(tmp_path):
    spec = resolve(TINY, Runtime())
    publish(Store(tmp_path), spec)
    result = harness(
        "derive", spec.trial_id, "--rule", "as_is", "--file", tmp_path / "x.json", "--out", tmp_path
    )
    assert result.exit_code == 2 and "learned no strengths" in result.stderr
