"""Frozen weights in bf16 and int8."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from support.methods import fill, setting
from support.weights import CPU, images

from harness.errors import UserError
from harness.model.backbones import features, load_backbone
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, TrialRequest


def stored(frozen):
    return BackboneSpec(name="vit_small_patch16_224", weights="random", img_size=32, frozen=frozen)


def frozen_bytes(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_patch16_224", "swin_small_blocks", "convnext_atto"])
def test_bf16_storage_halves_memory_and_keeps_features(name):
    full = BackboneSpec(name=name, weights="random", img_size=64)
    half = full.model_copy(update={"frozen": "bf16"})
    models = [load_backbone(spec, CPU) for spec in (full, half)]
    want, got = (features(model, images(64)) for model in models)
    assert got.dtype == torch.float32
    error = (got - want).norm() / want.norm()
    assert 0 < error < 0.02  # 2^-8 each time a product is rounded
    share = frozen_bytes(models[1]) / frozen_bytes(models[0])
    assert 0.5 < share < 0.56  # the narrow Swin has many biases


def test_weights_in_bf16_are_neither_trained_nor_merged_into():
    spec = stored("bf16")
    model = load_backbone(spec, CPU)
    method, placement, options = setting("full", spec)
    with pytest.raises(UserError, match=r"backbone\.frozen=fp32"):
        method.attach(model, placement, options, seed=0)
    assert not any(p.requires_grad for p in model.parameters())
    method, placement, options = setting("lora", spec)
    attachment = method.attach(model, placement, options, seed=0)
    assert {p.dtype for p in attachment.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="frozen=fp32"):
        attachment.merge()


def test_int8_without_torchao_is_refused_before_anything_runs():
    if importlib.util.find_spec("torchao"):
        pytest.skip("torchao is installed")
    with pytest.raises(UserError, match="torchao"):
        resolve(TrialRequest(backbone=stored("int8")), Runtime())


def test_int8_storage_keeps_features_and_passes_gradients():
    pytest.importorskip("torchao")
    want = features(load_backbone(stored("fp32"), CPU), images(32))
    model = load_backbone(stored("int8"), CPU)
    weight = model.blocks[0].mlp.fc1.weight
    exact = load_backbone(stored("fp32"), CPU).blocks[0].mlp.fc1.weight
    step = exact.abs().amax(dim=1, keepdim=True) / 127
    assert ((weight.dequantize() - exact).abs() <= 0.51 * step).all()
    got = features(model, images(32))
    assert 0 < (got - want).norm() / want.norm() < 0.05
    method, placement, options = setting("lora", stored("int8"))
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment)
    features(model, images(32)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in attachment.parameters())
    attachment.detach()
    assert torch.equal(features(model, images(32)), got)
