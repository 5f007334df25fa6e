"""Every method on every backbone family: one conformance matrix, then exact references."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import BACKBONES, fits
from torch.nn.functional import gelu, layer_norm, linear, softmax

from harness.errors import UserError
from harness.insertion.method import METHODS, get_method
from harness.model.backbones import dims, features, load_backbone
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, Placement, Site, TrialRequest

COMBINATIONS = ("lora+adaptformer", "adapter+adaptformer", "lora+bottleneck")
WRAPPED = (
    "metapeft:lotr",
    "metapeft:adapter",
    "metapeft:adaptformer",
    "metapeft:lora+adapter+adaptformer",
)
ALL = [*METHODS.names(), *COMBINATIONS, *WRAPPED]
DEVICES = [
    pytest.param("cpu", "fp32"),
    pytest.param("cuda", "fp32", marks=pytest.mark.gpu),
    pytest.param("cuda", "bf16", marks=pytest.mark.gpu),
]


def setting(name, spec, *, blocks=None, positions=None, alpha=2.0, options=None):
    """A method with a placement on all its positions, in all blocks unless said otherwise.

    `a:b` is method a over the base b.
    """
    name, _, base = name.partition(":")
    method = get_method(name)
    parsed = method.parse_options({**({"base": base} if base else {}), **(options or {})})
    blocks = range(dims(spec).num_blocks) if blocks is None else blocks
    positions = positions or method.positions_on(dims(spec), parsed)
    placement = Placement.of(positions, blocks, alpha)
    return method, placement, parsed


def images(spec, n=3, seed=1):
    size = spec.img_size or 32
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("device,precision", DEVICES)
@pytest.mark.parametrize("name,backbone", [(n, b) for n in ALL for b in BACKBONES if fits(n, b)])
def test_conformance(name, backbone, device, precision, backbones):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec, shared = backbones[backbone]
    model = copy.deepcopy(shared).to(device)
    x = images(spec).to(device)
    y = torch.tensor([0, 1, 2], device=device)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    frozen = features(model, x)
    method, placement, options = setting(name, spec)

    attachment = method.attach(model, placement, options, seed=0)
    peft = dict(attachment.named_parameters())
    assert sum(p.numel() for p in peft.values()) == method.expected_params(
        dims(spec), placement, options
    )
    assert set(attachment.state_dict()) == set(peft)
    started = features(model, x)
    if name.startswith("vpt"):
        assert not torch.equal(started, frozen)
    else:
        assert torch.equal(started, frozen)

    head = torch.nn.Linear(frozen.shape[1], 3, device=device)
    trainable = [*peft.values(), *head.parameters()]
    optimiser = torch.optim.SGD(trainable, lr=0.05, momentum=0.9)
    for _ in range(3):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(head(features(model, x)), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert math.isfinite(loss.item())
    optimiser.zero_grad()
    fill(attachment)  # away from zero, where half of each module has no gradient yet
    head(features(model, x)).square().sum().backward()
    assert [k for k, p in peft.items() if not p.grad.abs().max() > 0] == []

    attachment.detach()
    after = model.state_dict()
    assert set(after) == set(before)
    for key, value in before.items():
        assert torch.equal(after[key], value), key
    assert torch.equal(features(model, x), frozen)


def test_initial_values_depend_on_seed_and_site_alone(backbones):
    spec, model = backbones["vit_pico"]

    def start(name, blocks, positions, seed):
        method, placement, options = setting(name, spec, blocks=blocks, positions=positions)
        attachment = method.attach(model, placement, options, seed=seed)
        attachment.detach()
        return {k.split("deltas.")[1]: v for k, v in attachment.state_dict().items()}

    alone = start("lora", [3], ["q"], 0)
    wider = start("lora", range(12), ["q", "k", "mlp1"], 0)
    combined = start("lora+adaptformer", [3], ["q", "ffn"], 0)
    other = start("lora", [3], ["q"], 1)
    assert torch.equal(alone["3:q.down"], wider["3:q.down"])
    assert torch.equal(alone["3:q.down"], combined["3:q.down"])
    assert not torch.equal(alone["3:q.down"], other["3:q.down"])
    assert not torch.equal(wider["3:q.down"], wider["4:q.down"])


# Counts on the paper's backbones: each method's formula evaluated by hand; those of Table S2 are
# among them. Those of the others are summed over the published widths of their stages.
B16 = BackboneSpec(name="vit_base_patch16_224", weights="random")
L16 = BackboneSpec(name="vit_large_patch16_224", weights="random")
SWIN = BackboneSpec(name="swin_tiny_patch4_window7_224", weights="random")
SWIN_WIDTHS = 2 * 96 + 2 * 192 + 6 * 384 + 2 * 768
CONVNEXT = BackboneSpec(name="convnext_tiny", weights="random")
CONVNEXT_WIDTHS = 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
COUNTS = [
    (B16, "vpt_shallow", {}, None, 7_680),
    (B16, "vpt_deep", {}, None, 92_160),
    (B16, "bitfit", {}, None, 101_376),
    (L16, "bitfit", {}, None, 270_336),
    (SWIN, "lora", {"rank": 4}, ["q", "v"], 2 * 8 * SWIN_WIDTHS),
    (SWIN, "lora", {"rank": 4}, ["mlp1"], 4 * 5 * SWIN_WIDTHS),
    (SWIN, "adapter", {"rank": 4}, ["ffn"], 12 * 4 + 11 * SWIN_WIDTHS),
    (SWIN, "bitfit", {}, None, 11 * SWIN_WIDTHS),
    (SWIN, "lotr", {"rank": 4}, ["q"], 8 * (96 + 192 + 384 + 768) + 12 * 16),
    (CONVNEXT, "lora", {"rank": 4}, ["dw"], 8 * CONVNEXT_WIDTHS),
    (CONVNEXT, "lora", {"rank": 4}, ["mlp1", "mlp2"], 2 * 4 * 5 * CONVNEXT_WIDTHS),
    (CONVNEXT, "bottleneck", {"rank": 4}, ["dw"], 18 * 4 + 11 * CONVNEXT_WIDTHS),
    (CONVNEXT, "bitfit", {}, None, 7 * CONVNEXT_WIDTHS),
    (CONVNEXT, "metapeft", {}, None, 4 * 12 * CONVNEXT_WIDTHS + 3 * 18),
    (B16, "lora", {"rank": 4}, ["q", "v"], 147_456),
    (B16, "lora", {"rank": 8}, ["q", "v"], 294_912),
    (B16, "lora", {"rank": 256}, ["q", "v"], 9_437_184),
    (L16, "lora", {"rank": 4}, ["q", "v"], 393_216),
    (B16, "lora", {"rank": 4}, ["out"], 73_728),
    (B16, "lora", {"rank": 4}, ["mlp1"], 184_320),
    (B16, "lora", {"rank": 4}, ["q", "k", "v", "out"], 294_912),
    (B16, "lora", {"rank": 4}, ["mlp1", "mlp2"], 368_640),
    (B16, "lora", {"rank": 4}, ["q", "k", "v", "out", "mlp1", "mlp2"], 663_552),
    (B16, "adapter", {"rank": 4}, ["ffn"], 101_424),
    (B16, "adapter", {"rank": 8}, ["ffn"], 175_200),
    (B16, "adapter", {"rank": 256}, ["ffn"], 4_749_312),
    (L16, "adapter", {"rank": 4}, ["ffn"], 24 * (3 * 1024 + 4 * 2049)),
    (B16, "adaptformer", {"rank": 4}, ["ffn"], 101_436),
    (B16, "lotr", {"rank": 4}, ["q", "v"], 2 * 4 * 2 * 768 + 24 * 16),
    (B16, "lotr", {"rank": 4}, ["mlp1"], 4 * 5 * 768 + 12 * 16),
    (B16, "metapeft", {}, None, 663_552 + 72),
    (B16, "metapeft", {"base": "adapter"}, ["ffn"], 101_424 + 12),
    (B16, "full", {}, None, 85_798_656),
    (B16, "linear_probe", {}, None, 0),
]


@pytest.fixture(scope="module")
def paper_backbones():
    """ViT-B/16, ViT-L/16, Swin-T and ConvNeXt-T without memory for their weights."""
    from harness.model.backbones import _build

    with torch.device("meta"):
        return {spec: _build(spec, pretrained=False) for spec in (B16, L16, SWIN, CONVNEXT)}


@pytest.mark.parametrize("spec,name,options,positions,count", COUNTS)
def test_parameter_counts(spec, name, options, positions, count, paper_backbones):
    method, placement, parsed = setting(name, spec, positions=positions, options=options)
    assert method.expected_params(dims(spec), placement, parsed) == count
    attachment = method.attach(paper_backbones[spec], placement, parsed, seed=0)
    attachment.detach()
    assert sum(p.numel() for p in attachment.parameters()) == count


def test_combination_explains_table_s2():
    method, placement, options = setting("lora+adaptformer", B16, positions=["q", "v", "ffn"])
    assert method.expected_params(dims(B16), placement, options) == 248_892


# References in float64.


def double(spec):
    return load_backbone(spec, torch.device("cpu")).double()


def fill(attachment, seed=7):
    """Give every PEFT tensor a random value, so that nothing is hidden by a zero start."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in attachment.named_parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data.copy_(0.2 * noise)
        if name.endswith("down.bias"):
            parameter.data += 3  # a ReLU that is off for every token would pass no gradient


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


def reference(model, x, *, linear_delta=None, sub_block=None):
    """Features of a plain ViT, written out unfused from its equations.

    `linear_delta(site, x, y)` gets a linear map's input and output, `sub_block(site, x, y)` the
    residual stream entering a branch and the branch's result; both return the new output.
    """
    linear_delta = linear_delta or (lambda site, x, y: y)
    sub_block = sub_block or (lambda site, x, y: y)
    x = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for index, block in enumerate(model.blocks):
        attn, d = block.attn, x.shape[-1]

        def at(position, layer, value, rows=slice(None), index=index):
            bias = layer.bias[rows] if layer.bias is not None else None
            y = linear(value, layer.weight[rows], bias)
            return linear_delta(Site(index, position), value, y)

        h = layer_norm(x, (d,), block.norm1.weight, block.norm1.bias, block.norm1.eps)
        q, k, v = (
            at(p, attn.qkv, h, slice(i * d, i * d + d)).unflatten(-1, (attn.num_heads, -1))
            for i, p in enumerate("qkv")
        )
        scores = torch.einsum("nqhc,nkhc->nhqk", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("nhqk,nkhc->nqhc", softmax(scores, dim=-1), v).flatten(2)
        branch = block.ls1(at("out", attn.proj, mixed))
        x = x + sub_block(Site(index, "attn"), x, branch)
        h = layer_norm(x, (d,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
        branch = block.ls2(at("mlp2", block.mlp.fc2, gelu(at("mlp1", block.mlp.fc1, h))))
        x = x + sub_block(Site(index, "ffn"), x, branch)
    return model.norm(x)[:, 0]


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
@pytest.mark.parametrize("name", ["adapter", "adaptformer"])
def test_bottlenecks_equal_their_equations(name, position):
    spec = BACKBONES["DINOv2-S-reg"]  # LayerScale shows on which side of it the module joins
    model = double(spec)
    method, placement, options = setting(name, spec, positions=[position], alpha=0.5)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.double())

    def join(site, x, y):
        if site.position != position:
            return y
        module = attachment.deltas[f"{site.block}:{position}"]
        if name == "adapter":
            return y + 0.5 * bottleneck(module, y)
        return y + 0.5 * module.gain * bottleneck(module, x)

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


def test_lora_inits_have_their_bounds(backbones):
    spec, model = backbones["ViT-S/16"]
    for init, bound in (("standard", 1 / math.sqrt(384)), ("released", 1 / math.sqrt(4))):
        method, placement, options = setting("lora", spec, positions=["q"], options={"init": init})
        attachment = method.attach(model, placement, options, seed=0)
        attachment.detach()
        drawn = torch.cat([d.down.detach().flatten() for d in attachment.deltas.values()])
        assert 0.98 * bound < drawn.abs().max() <= bound
        assert drawn.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    "name,options",
    [("lora", {}), ("lora", {"out_input": "output"}), ("lotr", {}), ("metapeft", {})],
)
def test_merge_keeps_the_output(name, options):
    spec = BACKBONES["vit_pico"]
    model = double(spec)
    method, placement, parsed = setting(name, spec, options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    fill(attachment.double())
    x = images(spec).double()
    attached = features(model, x)
    merged = attachment.merge()
    assert not merged.blocks[0].mlp.fc1._forward_hooks
    assert torch.allclose(features(merged, x), attached, rtol=1e-9)
    assert not torch.allclose(features(double(spec), x), attached, rtol=1e-2)


def test_only_lora_merges(backbones):
    spec, model = backbones["vit_pico"]
    for name in ("adapter", "bitfit", "lora+adaptformer"):
        method, placement, options = setting(name, spec)
        attachment = method.attach(model, placement, options, seed=0)
        with pytest.raises(UserError, match="merge"):
            attachment.merge()
        attachment.detach()


def test_deep_prompts_replace_those_of_the_block_before(backbones):
    spec, model = backbones["vit_pico"]
    method, placement, options = setting("vpt_deep", spec, blocks=[2, 3, 7])
    seen = []
    handles = [
        b.attn.register_forward_hook(lambda m, a, y: seen.append(a[0].shape[1]))
        for b in model.blocks
    ]
    attachment = method.attach(model, placement, options, seed=0)
    features(model, images(spec))
    attachment.detach()
    for handle in handles:
        handle.remove()
    assert seen == [17, 17, *[27] * 10]


@pytest.mark.parametrize(
    "request_,words",
    [
        (TrialRequest(method="lroa"), "Did you mean 'lora'"),
        (TrialRequest(method="lora", positions=("ffn",)), "mlp1"),
        (TrialRequest(method="adapter", positions=("q",)), "attn, ffn"),
        (TrialRequest(method="vpt_deep", alpha=2.0), "no alpha"),
        (TrialRequest(method="full", depth="last:2"), "no sites"),
        (TrialRequest(method="lora+bitfit"), "cannot be combined"),
        (TrialRequest(method="lora+metapeft"), "give it the sum as its base"),
        (TrialRequest(method="metapeft", options={"base": "bitfit"}), "options.base"),
        (TrialRequest(method="metapeft", options={"base": "metapeft"}), "options.base"),
        (TrialRequest(method="metapeft", options={"base_options": {"rnk": 1}}), "rank"),
        (TrialRequest(method="metapeft", options={"hypergradient": "neumann"}), "neumann:T"),
        (TrialRequest(method="metapeft", options={"ratio": 0.6}), "ratio"),
        (TrialRequest(method="metapeft", alpha=0.0), "softplus"),
        (TrialRequest(method="metapeft", positions=("ffn",)), "mlp1"),
        (TrialRequest(method="metapeft", options={"variant": "released", "l2": 0.1}), "options.l2"),
        (
            TrialRequest(method="metapeft", options={"variant": "released"}, positions=("out",)),
            "q, v",
        ),
        (TrialRequest(placement=Placement({"12.q": 1.0})), "12 blocks"),
        (TrialRequest(method="adapter", placement=Placement({"0.q": 1.0})), "attn, ffn"),
        (TrialRequest(method="full", placement=Placement({"0.q": 1.0})), "no sites"),
        (TrialRequest(method="lora", depth="last:13"), "12 blocks"),
        (TrialRequest(method="lora", options={"rnk": 4}), "rank"),
        (TrialRequest(method="lora+adaptformer", positions=("q",)), "adaptformer"),
        (TrialRequest(backbone=BackboneSpec(name="swinv2_tiny_window8_256")), "supported"),
        (TrialRequest(backbone=SWIN, method="vpt_shallow"), "no sequence"),
        (TrialRequest(backbone=CONVNEXT, method="vpt_deep"), "no sequence"),
        (TrialRequest(backbone=CONVNEXT, method="adapter"), "has dw, mlp1, mlp2, block only"),
        (TrialRequest(backbone=CONVNEXT, method="lora"), "default positions of 'lora'"),
        (TrialRequest(backbone=CONVNEXT, positions=("q",)), "Allowed: dw, mlp1, mlp2"),
        (TrialRequest(backbone=CONVNEXT, positions=("dw",), depth="last:19"), "18 blocks"),
        (TrialRequest(backbone=B16, positions=("dw",)), "Allowed: k, mlp1"),
        (TrialRequest(backbone=BackboneSpec(name="vit_giant_patch14_dinov2")), "GluMlp"),
        (TrialRequest(backbone=BackboneSpec(name="vit_bse_patch16_224")), "vit_base_patch16_224"),
    ],
)
def test_wrong_requests_are_refused_in_one_sentence(request_, words):
    with pytest.raises(UserError) as caught:
        resolve(request_, Runtime())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
