"""Methods against independent references, in float64: Hugging Face's peft, and their equations."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES
from support.methods import double, fill, images, reference, setting
from torch.nn.functional import layer_norm, linear

from harness.model.backbones import features


@pytest.mark.slow
@pytest.mark.parametrize(
    "position,module", [("out", "attn.proj"), ("mlp1", "mlp.fc1"), ("mlp2", "mlp.fc2")]
)
def test_lora_equals_hugging_face_peft(position, module):
    from peft import LoraConfig, get_peft_model

    spec = BACKBONES["vit_pico"]
    ours, theirs = double(spec), double(spec)
    method, placement, options = setting("lora", spec, positions=[position], alpha=8.0)
    attachment = method.attach(ours, placement, options, seed=0)
    fill(attachment.double())
    wrapped = get_peft_model(theirs, LoraConfig(r=4, lora_alpha=8, target_modules=[module]))
    layers = {n: m for n, m in wrapped.named_modules() if hasattr(m, "lora_A")}
    assert len(layers) == 12
    for name, layer in layers.items():
        block = name.split("blocks.")[1].split(".")[0]
        delta = attachment.deltas[f"{block}:{position}"]
        layer.lora_A["default"].weight.data.copy_(delta.down)
        layer.lora_B["default"].weight.data.copy_(delta.up)
    x = images(spec).double().requires_grad_()
    z = x.detach().clone().requires_grad_()
    a, b = features(ours, x), features(wrapped.base_model.model, z)
    a.square().sum().backward()
    b.square().sum().backward()
    assert torch.allclose(a, b, rtol=1e-6, atol=0)
    assert torch.allclose(x.grad, z.grad, rtol=1e-6, atol=1e-12)
    for name, layer in layers.items():
        delta = attachment.deltas[f"{name.split('blocks.')[1].split('.')[0]}:{position}"]
        assert torch.allclose(delta.down.grad, layer.lora_A["default"].weight.grad, rtol=1e-6)
        assert torch.allclose(delta.up.grad, layer.lora_B["default"].weight.grad, rtol=1e-6)


@pytest.mark.parametrize("backbone", ["vit_pico", "DINOv2-S-reg", "DeiT-3-S"])
@pytest.mark.parametrize("position", ["q", "k", "v", "out", "mlp1", "mlp2"])
def test_lora_equals_unfused_reference(backbone, position):
    spec = BACKBONES[backbone]
    model = double(spec)
    method, placement, options = setting("lora", spec, positions=[position], alpha=3.0)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.double())

    def delta(site, x, y):
        if site.position != position:
            return y
        module = attachment.deltas[f"{site.block}:{position}"]
        return y + 3.0 / 4 * (x @ module.down.T) @ module.up.T

    x = images(spec).double()
    got = features(model, x)
    (grad,) = torch.autograd.grad(got.square().sum(), attachment.deltas[f"2:{position}"].down)
    attachment.detach()
    wanted = reference(model, x, linear_delta=delta)
    (wanted_grad,) = torch.autograd.grad(
        wanted.square().sum(), attachment.deltas[f"2:{position}"].down
    )
    assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-12)
    assert torch.allclose(grad, wanted_grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("position", ["q", "v", "out", "mlp1", "mlp2"])
def test_lotr_equals_unfused_reference(position):
    spec = BACKBONES["vit_pico"]
    model = double(spec)
    method, placement, options = setting("lotr", spec, positions=[position], alpha=3.0)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.double())
    a, b = attachment.shared[position].down, attachment.shared[position].up

    def delta(site, x, y):
        if site.position != position:
            return y
        core = attachment.deltas[f"{site.block}:{position}"].core
        return y + 3.0 / 4 * torch.einsum("ntd,rd,sr,os->nto", x, a, core, b)

    x = images(spec).double()
    got = features(model, x)
    grads = torch.autograd.grad(got.square().sum(), [a, attachment.deltas[f"2:{position}"].core])
    attachment.detach()
    wanted = reference(model, x, linear_delta=delta)
    wanted_grads = torch.autograd.grad(
        wanted.square().sum(), [a, attachment.deltas[f"2:{position}"].core]
    )
    assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-12)
    for ours, theirs in zip(grads, wanted_grads, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def bottleneck(module, x):
    h = layer_norm(x, (x.shape[-1],), module.norm.weight, module.norm.bias, 1e-5)
    return linear(
        torch.relu(linear(h, module.down.weight, module.down.bias)),
        module.up.weight,
        module.up.bias,
    )


@pytest.mark.parametrize("position", ["attn", "ffn"])
@pytest.mark.parametrize(
    "name,options,scale",
    [
        ("adapter", {}, lambda gain: 0.5),
        ("adaptformer", {}, lambda gain: gain),
        ("adaptformer", {"scale": "alpha_times_gain"}, lambda gain: 0.5 * gain),
        ("adaptformer", {"scale": "alpha"}, lambda gain: 0.5),
    ],
)
def test_bottlenecks_equal_their_equations(name, options, scale, position):
    spec = BACKBONES["DINOv2-S-reg"]  # LayerScale shows on which side of it the module joins
    model = double(spec)
    method, placement, parsed = setting(
        name, spec, positions=[position], alpha=0.5, options=options
    )
    attachment = method.attach(model, placement, parsed, seed=0)
    fill(attachment.double())

    def join(site, x, y):
        if site.position != position:
            return y
        module = attachment.deltas[f"{site.block}:{position}"]
        return y + scale(module.gain) * bottleneck(module, y if name == "adapter" else x)

    x = images(spec).double()
    got = features(model, x)
    attachment.detach()
    assert torch.allclose(got, reference(model, x, sub_block=join), rtol=1e-9)


def test_linear_bottleneck_equals_its_equation():
    spec = BACKBONES["vit_pico"]
    model = double(spec)
    options = {"scale": "alpha_over_r"}
    method, placement, parsed = setting("bottleneck", spec, positions=["mlp2"], options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    fill(attachment.double())

    def delta(site, x, y):
        if site.position != "mlp2":
            return y
        return y + 2.0 / 4 * bottleneck(attachment.deltas[f"{site.block}:mlp2"], x)

    x = images(spec).double()
    got = features(model, x)
    attachment.detach()
    assert torch.allclose(got, reference(model, x, linear_delta=delta), rtol=1e-9)


def test_released_out_reads_the_projections_result():
    spec = BACKBONES["vit_pico"]
    model = double(spec)
    method, placement, options = setting(
        "lora", spec, positions=["out"], options={"out_input": "output", "scale": "alpha"}
    )
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.double())

    def delta(site, x, y):
        if site.position != "out":
            return y
        module = attachment.deltas[f"{site.block}:out"]
        return y + 2.0 * (y @ module.down.T) @ module.up.T

    x = images(spec).double()
    got = features(model, x)
    attachment.detach()
    assert torch.allclose(got, reference(model, x, linear_delta=delta), rtol=1e-9)
