"""DINOv3, EVA-02, BEiT, SigLIP and gated MLPs: which layer a site is, and that hooks on it fire."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from support.backbones import BACKBONES, SMALL_FAMILIES, fits
from support.cli import harness
from support.methods import double, fill, images, setting
from support.weights import CPU, of_file, random_state

from harness.errors import UserError
from harness.export.lora_config import export_lora_config
from harness.export.trial import export_peft
from harness.insertion.method import METHODS
from harness.insertion.placements import PlacementFile
from harness.model.backbones import dims, features, input_size, load_backbone
from harness.model.cut import cuts_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, Placement
from harness.store.store import Store
from harness.testing.made import TINY, made_images, made_record
from harness.training.classifier import Classifier
from harness.training.evaluation import flops_per_image

FAMILIES = sorted(SMALL_FAMILIES)
PASSED_BY = ["BEiT", "DINOv3, gated, biases", "EVA-02, fused"]
"""Families that compute q, k and v from a layer's weight without calling the layer."""


def visible(spec):
    """In float64, with biases and scales that show."""
    model, rng = double(spec), torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data += 0.1 * noise
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_without_sites_features_have_the_bits_of_timms_own_pass(name):
    spec = BACKBONES[name]
    model, x = load_backbone(spec, CPU), made_images(spec)
    method, placement, options = setting("linear_probe", spec)
    method.attach(model, placement, options, seed=0)
    theirs = timm.create_model(spec.name, num_classes=0, img_size=spec.img_size).eval()
    theirs.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(features(model, x), theirs(x))


SITES = [
    ("EVA-02", "k", "attn.k_proj", slice(None)),
    ("EVA-02", "mlp1", "mlp.fc1_x", slice(None)),
    ("EVA-02, fused", "k", "attn.qkv", slice(48, 96)),
    ("EVA-02, fused", "mlp1", "mlp.fc1", slice(128, 256)),
    ("DINOv2, gated", "mlp1", "mlp.fc1", slice(128, 256)),
    ("DINOv3, gated, biases", "q", "attn.qkv", slice(0, 48)),
    ("DINOv3, gated, biases", "mlp2", "mlp.fc2", slice(None)),
    ("RoPE-ViT, mixed", "v", "attn.qkv", slice(96, 144)),
    ("BEiT", "v", "attn.qkv", slice(96, 144)),
    ("SigLIP", "out", "attn.proj", slice(None)),
]


@pytest.mark.parametrize("name,position,layer,rows", SITES)
def test_lora_is_a_change_of_these_rows_of_this_weight(name, position, layer, rows):
    """What hooks add is what timm's own pass computes with B·A in the weight."""
    spec = BACKBONES[name]
    model, plain = visible(spec), visible(spec)
    x = images(spec).double()
    method, placement, options = setting("lora", spec, blocks=[1], positions=[position], alpha=4.0)
    attachment = method.attach(model, placement, options, seed=0).double()
    assert torch.equal(features(model, x), features(plain, x))
    fill(attachment)
    delta = attachment.deltas[f"1:{position}"]
    plain.blocks[1].get_submodule(layer).weight.data[rows] += delta.up @ delta.down
    assert torch.allclose(features(model, x), features(plain, x), rtol=1e-9)
    before = model.blocks[1].get_submodule(layer).weight.clone()
    merged = attachment.merge()
    assert torch.allclose(features(merged, x), features(plain, x), rtol=1e-9)
    assert not torch.equal(before, merged.blocks[1].get_submodule(layer).weight)


@pytest.mark.parametrize("name", ["DINOv3, gated, biases", "EVA-02, fused", "DINOv2, gated"])
def test_the_gate_of_an_mlp_is_no_part_of_mlp1(name):
    spec = BACKBONES[name]
    model, gates, values = visible(spec), [], []
    mlp = model.blocks[0].mlp
    mlp.act.register_forward_hook(lambda m, args, y: gates.append(args[0]))
    mlp.fc2.register_forward_hook(lambda m, args, y: values.append(args[0]))
    method, placement, options = setting("lora", spec, blocks=[0], positions=["mlp1"])
    features(model, images(spec).double())
    fill(method.attach(model, placement, options, seed=0).double())
    features(model, images(spec).double())
    assert torch.equal(gates[0], gates[1]) and not torch.allclose(values[0], values[1])


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("name", PASSED_BY)
def test_biases_beside_a_layer_change_no_bit_where_it_is_called(name, dtype):
    """Nor anything of the model, afterwards."""
    spec = BACKBONES[name]
    model, x = visible(spec).float(), made_images(spec)
    attn = model.blocks[1].attn
    bias, names = attn.q_bias, set(model.state_dict())
    method, placement, options = setting("lora", spec, positions=["q", "v"])
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        frozen = features(model, x)
        attachment = method.attach(model, placement, options, seed=0)
        other = setting("bottleneck", spec, positions=["q"])
        beside = other[0].attach(model, other[1], other[2], seed=0)
        assert attn.q_bias is None and torch.equal(features(model, x), frozen)
        fill(attachment)
        assert not torch.equal(features(model, x), frozen)
        attachment.detach()
        beside.detach()
        assert attn.q_bias is bias and attn.qkv.bias is None and set(model.state_dict()) == names
        assert torch.equal(features(model, x), frozen)


def test_prompts_of_a_rotary_model_are_register_tokens():
    """Which are not rotated, and not pooled."""
    spec = BACKBONES["DINOv3"]
    model, x = visible(spec), images(spec).double()
    method, placement, options = setting("vpt_shallow", spec)
    attachment = method.attach(model, placement, options, seed=0)
    found = features(model, x)
    (prompts,) = attachment.prompts.values()
    attachment.detach()
    state = {**model.state_dict(), "reg_token": torch.cat([model.reg_token, prompts[None]], dim=1)}
    more = timm.create_model(spec.name, num_classes=0, img_size=spec.img_size, num_reg_tokens=14)
    more = more.double().eval()
    more.load_state_dict(state)
    assert torch.allclose(found, more(x), rtol=1e-9)
    assert not torch.allclose(found, features(model, x), rtol=1e-3)
    assert [block.attn.num_prefix_tokens for block in model.blocks] == [5, 5, 5]


@pytest.mark.parametrize("name", ["DINOv3, gated, biases", "RoPE-ViT, mixed"])
def test_the_first_block_of_a_rotary_model_that_a_method_changes_is_seen(name):
    spec = BACKBONES[name]
    model = load_backbone(spec, CPU)
    cuts = cuts_of(model, made_images(spec, 1))
    for method, positions in (("lora", ["v"]), ("bitfit", ["block"]), ("vpt_deep", ["block"])):
        chosen, placement, options = setting(method, spec, blocks=[1, 2], positions=positions)
        attachment = chosen.attach(model, placement, options, seed=0)
        assert cuts.unchanged(model) == 1, method
        attachment.detach()
        assert cuts.unchanged(model) == cuts.last, method


def test_flops_of_a_rotary_model_with_a_gated_mlp_are_those_of_its_products():
    spec = BACKBONES["DINOv3, gated, biases"]
    model = load_backbone(spec, CPU)
    method, placement, options = setting("lora", spec, positions=["v"])
    attachment = method.attach(model, placement, options, seed=0)
    head = torch.nn.Linear(48, 7)
    forward, _ = flops_per_image(Classifier(model, attachment, head), made_images(spec, 1))
    tokens, patches, d, hidden = 9, 4, 48, dims(spec).blocks[0].hidden
    block = tokens * (4 * d * d + 3 * d * hidden + 4 * (d + d)) + 2 * tokens**2 * d
    assert forward == 2 * (patches * 3 * 16 * 16 * d + 3 * block + 7 * d)


@pytest.mark.parametrize(
    "name,size,blocks,width,hidden",
    [
        ("vit_small_patch16_dinov3", 256, 12, 384, 1536),
        ("vit_base_patch16_dinov3", 256, 12, 768, 3072),
        ("vit_large_patch16_dinov3", 256, 24, 1024, 4096),
        ("vit_huge_plus_patch16_dinov3", 256, 32, 1280, 5120),
        ("eva02_base_patch14_224", 224, 12, 768, 2048),
        ("vit_base_patch16_siglip_224", 224, 12, 768, 3072),
        ("beit_base_patch16_224", 224, 12, 768, 3072),
    ],
)
def test_a_dry_run_says_where_sites_are_without_weights(
    tmp_path, monkeypatch, name, size, blocks, width, hidden
):
    create = timm.create_model

    def without_weights(*args, pretrained=False, **rest):
        assert not pretrained, "a dry run asks the hub"
        return create(*args, pretrained=pretrained, **rest)

    monkeypatch.setattr(timm, "create_model", without_weights)
    result = harness(
        *("train", "--method", "lora", "--sites", "q,mlp1,mlp2", "--set", f"backbone={name}"),
        *("--dry-run", "--out", tmp_path / "o"),
    )
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "o").exists()
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["mlp2", "mlp.fc2", str(hidden), "->", str(width), str(blocks)] in rows
    assert ["mlp1", dims(BackboneSpec(name=name)).layers["mlp1"]] in [row[:2] for row in rows]
    assert f"head on {width} features" in result.stdout
    assert input_size(BackboneSpec(name=name)) == size


def test_a_dry_run_is_of_one_configuration(tmp_path):
    words = ["train", "--method", "lora", "--dry-run", "--controls", "--out", tmp_path / "o"]
    result = harness(*words)
    assert result.exit_code == 2 and "leave --controls out" in result.stderr


def as_meta_releases(state, bias):
    """DINOv3's own names, of a model without biases of q, k and v."""
    renamed = {
        name.replace("reg_token", "storage_tokens").replace("gamma_", "ls"): value
        for name, value in state.items()
    }
    result = {re.sub(r"(ls[12])$", r"\1.gamma", name): value for name, value in renamed.items()}
    width = state["cls_token"].shape[-1]
    result["mask_token"] = torch.ones(1, width)
    result["rope_embed.periods"] = torch.ones(4)
    for block in range(3):
        result[f"blocks.{block}.attn.qkv.bias"] = bias * torch.ones(3 * width)
        result[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(3 * width)
    return result


def test_dinov3_files_of_its_authors_are_read(tmp_path, capsys):
    spec = BACKBONES["DINOv3"]
    state = random_state(spec)
    torch.save(as_meta_releases(state, 0.0), tmp_path / "w.pth")
    found = load_backbone(of_file(spec), CPU, tmp_path / "w.pth").state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert capsys.readouterr().out == ""
    torch.save(as_meta_releases(state, 0.1), tmp_path / "biases.pth")
    with pytest.raises(UserError, match=r"qkv\.bias is not zero.*_qkvb"):
        load_backbone(of_file(spec), CPU, tmp_path / "biases.pth")


def kept(tmp_path, name, positions):
    """A record of LoRA with random tensors at these positions, and its store."""
    spec = BACKBONES[name]
    words = {"backbone": spec, "method": "lora", "positions": positions, "depth": "all"}
    record = made_record(resolve(TINY.model_copy(update=words), Runtime()))
    method, placement, options = setting("lora", spec, positions=positions, alpha=1.0)
    model, store = load_backbone(spec, CPU), Store(tmp_path / "runs")
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment)
    state = {f"attachment.{k}": v for k, v in attachment.state_dict().items()}
    path = store.weights(record.trial_id)
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file({**state, "head.weight": torch.ones(15, 48)}, path)
    return record, store, model


@pytest.mark.slow
def test_peft_computes_the_same_where_q_k_and_v_are_layers_of_their_own(tmp_path):
    from peft import PeftModel

    record, store, model = kept(tmp_path, "EVA-02", ("q", "v", "mlp1"))
    export_peft(record, store, tmp_path / "a")
    x = made_images(BACKBONES["EVA-02"])
    plain = load_backbone(BACKBONES["EVA-02"], CPU)
    frozen = features(plain, x)
    theirs = features(PeftModel.from_pretrained(plain, str(tmp_path / "a")).base_model.model, x)
    assert torch.allclose(theirs, features(model, x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, frozen, rtol=1e-2, atol=1e-3)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"][:2] == ["blocks.0.attn.q_proj", "blocks.0.attn.v_proj"]


def test_peft_is_refused_where_timm_passes_a_layer_by(tmp_path):
    record, store, _ = kept(tmp_path, "BEiT", ("v",))
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv \(site 0\.v\)"):
        export_peft(record, store, tmp_path / "a")


@pytest.mark.parametrize("name,refused", [("EVA-02", ""), ("EVA-02, fused", "1.q, 1.mlp1")])
def test_a_configuration_of_peft_has_whole_layers_only(tmp_path, name, refused):
    file = PlacementFile(
        placement=Placement.of(("q", "mlp1", "mlp2"), [1], 2.0),
        method="lora",
        options={},
        backbone=BACKBONES[name],
        rule="as_is",
        value=None,
        trials=(),
    )
    if refused:
        with pytest.raises(UserError, match=f"LoRA at {refused}: "):
            export_lora_config(file, tmp_path)
        return
    config = json.loads(export_lora_config(file, tmp_path)[0].read_text())
    names = ("attn.q_proj", "mlp.fc1_x", "mlp.fc2")
    assert config["target_modules"] == [f"blocks.1.{each}" for each in names]


SHIPPED = [
    name
    for name, method in METHODS.working().items()
    if method.__module__.startswith("harness.") and method.in_all
]


def test_the_table_of_backbones_and_methods_says_what_is_tested():
    text = (Path(__file__).parent.parent / "docs" / "backbones.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    start = next(i for i, row in enumerate(rows) if row[0] == "family" and "lora" in row)
    columns = rows[start][1:]
    assert sorted(columns) == sorted(SHIPPED)
    table = {row[0]: row[1:] for row in rows[start + 1 : start + 1 + len(BACKBONES)]}
    assert table == {
        name: ["yes" if fits(method, name) else "–" for method in columns] for name in BACKBONES
    }
