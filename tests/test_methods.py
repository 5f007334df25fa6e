"""Every method on every backbone family, and what single methods promise."""

from __future__ import annotations

import math

import pytest
import torch
from support.backbones import BACKBONES, SMALL_FAMILIES, fits
from support.few import FEW
from support.methods import double, fill, images, over, setting

from harness.errors import UserError
from harness.insertion.method import METHODS
from harness.model.backbones import features
from harness.testing import MethodCase, MethodContract

COMBINATIONS = ("lora+adaptformer", "adapter+adaptformer", "lora+bottleneck")
WRAPPED = (
    "metapeft:lotr",
    "metapeft:adapter",
    "metapeft:adaptformer",
    "metapeft:lora+adapter+adaptformer",
)
SHIPPED = [
    name for name, method in METHODS.working().items() if method.__module__.startswith("harness.")
]
ALL = [*SHIPPED, *COMBINATIONS, *WRAPPED]
VARIANTS = {"rslora", "lora_plus"}
"""LoRA with other defaults, which no backbone can change."""
DEVICES = {
    "cpu": ("cpu", "fp32", ()),
    "cuda": ("cuda", "fp32", (pytest.mark.gpu,)),
    "cuda-bf16": ("cuda", "bf16", (pytest.mark.gpu,)),
}
LARGE = {"ViT-S/16", "DeiT-3-S", "DINOv2-S-reg", "CLIP"}
"""Backbones of 20 million weights."""
NEARLY = ("hf:hra", "hf:boft")
"""They begin with two steps that undo each other to rounding."""
PARTS_ALONE = (LARGE | SMALL_FAMILIES) - {"CLIP", "DINOv3, gated, biases"}
"""Backbones on which sums and learned strengths are not tried."""
ALWAYS = {"lora", "adaptformer", "vpt_deep"}
"""Methods that are tried on all the others every time."""


def case_of(name, backbone="vit_pico", **rest):
    """`a:b` is method a over the base b."""
    method, base = over(name)
    if method.startswith("hf:") and method != "hf:ln_tuning":
        rest = {"positions": ("qkv", "mlp2"), **rest}  # for the time it takes; (IA)3 differs there
    return MethodCase(
        method=method,
        options={"base": base} if base else {},
        backbone=BACKBONES[backbone],
        starts_at_zero="nearly" if name in NEARLY else not name.startswith(("vpt", "hf:fourier")),
        **rest,
    )


def matrix():
    """Every pair that fits, but for those that `TestEveryMethod` has.

    What a large or a new backbone changes of a sum, or under strengths that are learned, it changes
    of the parts, so those are tried on one of them.
    """
    for kind, (device, precision, marks) in DEVICES.items():
        for name in ALL:
            for backbone in BACKBONES:
                if not fits(name, backbone) or (kind, backbone) == ("cpu", "vit_pico"):
                    continue
                if name in VARIANTS or (name not in SHIPPED and backbone in PARTS_ALONE):
                    continue
                is_slow = name == "full" or backbone in LARGE or name not in ALWAYS
                slow = (pytest.mark.slow,) if kind == "cpu" and is_slow else ()
                case = (name, backbone, device, precision)
                yield pytest.param(case, id=f"{name}-{backbone}-{kind}", marks=(*marks, *slow))


@pytest.mark.usefixtures("few_images")
class TestEveryMethod(MethodContract):
    @pytest.fixture(autouse=True)
    def trials_on_few_images(self, monkeypatch):
        monkeypatch.setattr("harness.testing.methods.TINY", FEW)

    @pytest.fixture(params=ALL)
    def case(self, request):
        return case_of(request.param)

    test_a_trial_is_complete_and_the_same_again = pytest.mark.slow(
        MethodContract.test_a_trial_is_complete_and_the_same_again
    )


class TestEveryMethodOnEveryBackbone(MethodContract):
    """What a backbone or a device can change."""

    @pytest.fixture(params=matrix())
    def case(self, request):
        name, backbone, device, precision = request.param
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return case_of(name, backbone, device=device, precision=precision)

    test_it_says_what_it_is = None
    test_initial_values_depend_on_seed_and_site_alone = None
    test_strength_scales_what_it_adds = None
    test_a_trial_is_complete_and_the_same_again = None


@pytest.mark.slow
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


@pytest.mark.slow
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
