"""Tuners of Hugging Face peft: what they compute is what peft computes, and what they refuse."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from support.backbones import BACKBONES
from support.methods import fill, images, setting
from support.records import TINY

from harness.baselines.hf.tuners import TUNERS, factors
from harness.errors import UserError
from harness.insertion.hooks import Several
from harness.insertion.method import METHODS, get_method
from harness.model.backbones import features, load_backbone
from harness.model.cut import cuts_of
from harness.model.heads import make_head
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, Recipe
from harness.store.store import Store
from harness.training.classifier import Classifier
from harness.training.evaluation import flops_of, flops_per_image

NAMES = [f"hf:{tuner.name}" for tuner in TUNERS]
CPU = torch.device("cpu")
PICO = BackboneSpec(name="vit_pico", weights="random")
GATED = BACKBONES["DINOv2, gated"]


def attached(name, model=None, **rest):
    """A model with a method in blocks 2 and 11, its tensors filled, and the attachment."""
    model = load_backbone(PICO, CPU) if model is None else model
    method, placement, options = setting(name, PICO, **{"blocks": [2, 11], **rest})
    attachment = method.attach(model, placement, options, seed=0)
    for parameter in attachment.parameters():
        rng = torch.Generator().manual_seed(7)
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return model, attachment


def loaded(folder):
    """The features of images by a plain timm model into which peft has loaded an adapter."""
    from peft import PeftModel

    peft = PeftModel.from_pretrained(load_backbone(PICO, CPU), str(folder))
    with torch.no_grad():
        return features(peft.base_model.model, images(PICO))


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_peft_computes_after_its_own_saving(tmp_path, name):
    model, attachment = attached(name, alpha=1.0)
    with torch.no_grad():
        wanted = features(model, images(PICO))
        attachment.save_pretrained(tmp_path)
        attachment.detach()
        frozen = features(model, images(PICO))
    assert torch.allclose(loaded(tmp_path), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(frozen, wanted, rtol=1e-2, atol=1e-3)


def test_strengths_are_saved_where_peft_has_a_setting_for_them(tmp_path):
    for name, alphas in {
        "hf:lora": (0.5, 3.0),
        "hf:lokr": (0.5, 3.0),
        "hf:adalora": (2.0, 2.0),
        "hf:fourierft": (2.0, 2.0),
    }.items():
        model, attachment = attached(name)
        placement = dict(zip(attachment.strengths, alphas * 4, strict=True))
        attachment.set_strengths(placement)
        attachment.save_pretrained(tmp_path / name)
        with torch.no_grad():
            wanted = features(model, images(PICO))
        assert torch.allclose(loaded(tmp_path / name), wanted, rtol=1e-4, atol=1e-5), name
    for name, alphas in {"hf:dora": (2.0, 2.0), "hf:adalora": (0.5, 3.0)}.items():
        _, attachment = attached(name)
        attachment.set_strengths(dict(zip(attachment.strengths, alphas * 4, strict=True)))
        with pytest.raises(UserError, match=f"no setting for a strength .* of {name}"):
            attachment.save_pretrained(tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_lora_is_this_packages_where_both_see_the_same_layer():
    places = {"positions": ["out", "mlp1", "mlp2"], "options": {"rank": 4}, "alpha": 3.0}
    ours, own = attached("lora", **places)
    theirs, peft = attached("hf:lora", **places)
    for key, delta in own.deltas.items():
        tuned = peft.deltas[key].tuned
        tuned.lora_A["default"].weight.data.copy_(delta.down)
        tuned.lora_B["default"].weight.data.copy_(delta.up)
    with torch.no_grad():
        one, two = features(ours, images(PICO)), features(theirs, images(PICO))
    assert torch.allclose(one, two, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(one, features(load_backbone(PICO, CPU), images(PICO)), rtol=1e-2)


def test_defaults_are_those_of_peft():
    import peft

    for tuner in TUNERS:
        needed = {"total_step": 1} if tuner.name == "adalora" else {}
        config = getattr(peft, tuner.config)(**needed)
        for name, option in tuner.options.items():
            assert getattr(config, option.peft or name) == option.default, (tuner.name, name)
        assert all(hasattr(config, name) for name in tuner.settings)
        assert tuner.scale is None or hasattr(config, tuner.scale)
    from peft.tuners.lokr.layer import factorization

    for size in (1, 7, 48, 127, 384, 1152):
        for near in (-1, 4, 5, 16):
            assert factors(size, near) == factorization(size, near)


@pytest.mark.parametrize(
    "name,passes",
    [("lora", 0), ("dora", 0), ("adalora", 0), ("loha", 0), ("vera", 0), ("oft", 1), ("boft", 1)],
)
def test_the_frozen_layer_is_computed_again_only_where_the_input_is_changed(name, passes):
    model, attachment = attached(f"hf:{name}", positions=["mlp1"])
    counts = []
    for change in attachment.deltas.values():
        change.frozen.layer.register_forward_hook(lambda *_: counts.append(1))
    features(model, images(PICO))
    assert len(counts) == passes * len(attachment.deltas)


@pytest.mark.parametrize("name", ["hf:hra", "hf:boft"])
def test_a_start_by_inverse_pairs_is_the_frozen_model_to_rounding(name):
    model = load_backbone(PICO, CPU)
    frozen = features(model, images(PICO))
    method, placement, options = setting(name, PICO)
    method.attach(model, placement, options, seed=0)
    assert torch.allclose(features(model, images(PICO)), frozen, rtol=1e-4, atol=1e-5)


def test_fourierft_starts_at_zero_when_asked_to():
    model = load_backbone(PICO, CPU)
    frozen = features(model, images(PICO))
    method, placement, options = setting("hf:fourierft", PICO, options={"init_weights": True})
    method.attach(model, placement, options, seed=0)
    assert torch.equal(features(model, images(PICO)), frozen)


@pytest.mark.parametrize("other", ["lora", "hf:oft"])
def test_several_methods_at_one_layer_add_up(other):
    """Each reads what the frozen layer gives, whichever joins first."""
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    frozen = load_backbone(PICO, CPU).blocks[2].attn.qkv
    positions = ["q"] if other == "lora" else ["qkv"]
    with torch.no_grad():
        wanted = -frozen(x)
        for name, where in (("hf:dora", ["qkv"]), (other, positions)):
            model, _ = attached(name, positions=where, alpha=2.0)
            wanted = wanted + model.blocks[2].attn.qkv(x)
        for order in ((0, 1), (1, 0)):
            model = None
            parts = [("hf:dora", ["qkv"]), (other, positions)]
            for index in order:
                name, where = parts[index]
                model, _ = attached(name, model, positions=where, alpha=2.0)
            assert torch.allclose(model.blocks[2].attn.qkv(x), wanted, atol=1e-5)


def test_a_sum_with_another_method_is_a_method():
    request = TINY.with_values(
        {
            "method": "hf:ia3+adapter",
            "positions": "mlp2,ffn",
            "options": {"adapter": {"rank": 2}},
            "depth": "all",
        },
        source="test",
    )
    spec = resolve(request, Runtime())
    method = get_method(spec.method)
    model = load_backbone(PICO, CPU)
    attachment = method.attach(model, spec.placement, method.parse_options(spec.options), seed=0)
    assert {key.split(".")[1] for key in attachment.state_dict()} == {"hf:ia3", "adapter"}


@pytest.mark.parametrize("name", NAMES)
def test_metapeft_learns_its_strengths(name):
    model = load_backbone(PICO, CPU)
    method, placement, options = setting(f"metapeft:{name}", PICO, blocks=[2, 11], alpha=0.5)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.base)
    features(model, images(PICO)).square().sum().backward()
    assert torch.isfinite(attachment.raw.grad).all() and bool((attachment.raw.grad != 0).all())


@pytest.mark.parametrize(
    "method,options", [("hf:adalora", {}), ("metapeft", {"base": "hf:adalora"})]
)
def test_adalora_moves_its_ranks_while_it_trains(tmp_path, method, options):
    sizes = {"init_r": 4, "target_r": 2}
    nested = {"base_options": sizes} if options else sizes
    request = TINY.with_values(
        {
            "method": method,
            "options": {**options, **nested},
            "positions": "mlp1",
            "depth": "last:2",
            "recipe.batch_size": 32,
        },
        source="test",
    )
    spec = resolve(request, Runtime())
    record = run_trial(spec, Runtime(keep_weights=True), Store(tmp_path))
    assert record.status == "COMPLETE", record.error
    from safetensors.torch import load_file

    state = load_file(Store(tmp_path).weights(record.trial_id))
    left = [int((value != 0).sum()) for key, value in state.items() if ".lora_E." in key]
    assert len(left) == 2 and sum(left) == 2 * sizes["target_r"]


def test_hooks_of_method_and_base_are_both_called():
    method, placement, options = setting("metapeft:hf:adalora", PICO, blocks=[11])
    model = load_backbone(PICO, CPU)
    attachment = method.attach(model, placement, options, seed=0)
    hook = attachment.training_hook()
    assert isinstance(hook, Several) and not hook.resumable
    attachment.detach()
    method, placement, options = setting("metapeft:hf:lora", PICO, blocks=[11])
    attachment = method.attach(model, placement, options, seed=0)
    assert not isinstance(attachment.training_hook(), Several)


@pytest.mark.parametrize("name", ["hf:lora", "hf:dora", "hf:hra"])
def test_flops_are_those_of_images_and_of_passes(name):
    """Products of weights count once for a pass, not once for an image."""
    model, attachment = attached(name, positions=["mlp1"])
    classifier = Classifier(model, attachment, make_head(Recipe(), torch.randn(15, 64), seed=0))
    pixels = images(PICO)
    flops = flops_of(classifier, pixels[:1])
    forward, backward = flops_per_image(classifier, pixels)
    assert (flops.of(3, 1), flops.of_backward(3, 1)) == (forward, backward)
    assert bool(flops.forward_once) == (name != "hf:lora")


def test_the_frozen_prefix_ends_at_the_lowest_site():
    model = load_backbone(PICO, CPU)
    cuts = cuts_of(model, images(PICO)[:1])
    _, attachment = attached("hf:dora", model, blocks=[5, 9])
    assert cuts.unchanged(model) == 5
    attachment.detach()
    assert cuts.unchanged(model) == cuts.last


@pytest.mark.parametrize(
    "values,message",
    [
        ({"options.init_lora_weights": "pissa_niter_4"}, "rewrites the frozen weights"),
        ({"options.init_lora_weights": "eva"}, "gaussian"),
        ({"options.lora_alpha": 4}, "lora_alpha"),
        ({"method": "hf:hra", "options.rank": 3}, "even number"),
        ({"method": "hf:oft", "options.oft_block_size": 5}, "does not divide the 64 inputs"),
        ({"method": "hf:boft", "options.boft_block_size": 5}, "does not divide the 64 inputs"),
        ({"method": "hf:adalora", "options.target_r": 12}, "below init_r=12"),
        ({"method": "hf:adalora", "options.tinit": 0.5, "options.tfinal": 0.5}, "leave no steps"),
        ({"method": "hf:miss", "options.rank": 65}, "more than the 64 inputs"),
        ({"method": "hf:lokr", "options.decompose_factor": 0}, "write -1"),
        ({"method": "hf:fourierft", "options.n_frequency": 50000}, "weights of 11.qkv"),
        ({"positions": "q"}, "Allowed: mlp1, mlp2, out, qkv"),
        ({"backbone.name": "convnext_atto", "backbone.weights": "random"}, "maps of channels"),
        ({"backbone": GATED.model_dump(), "positions": "mlp1"}, "mlp1 is mlp.fc1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(values, message):
    plain = {"method": "hf:lora", "positions": "qkv", "depth": "last:1"}
    if "convnext" in values.get("backbone.name", ""):
        plain["positions"] = "mlp1"
    request = TINY.model_copy(update={"positions": None})
    with pytest.raises(UserError, match=message):
        resolve(request.with_values({**plain, **values}, source="test"), Runtime())


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hf:vera.*pip install 'peft-hpo-harness\[hf\]'"):
        get_method("hf:vera").parse_options({})
    assert get_method("lora").parse_options({}).rank == 4


def test_weights_in_fewer_bits_are_refused():
    model = load_backbone(PICO.model_copy(update={"frozen": "bf16"}), CPU)
    with pytest.raises(UserError, match="frozen=fp32"):
        attached("hf:dora", model)
    attached("hf:ln_tuning", model)  # norms stay in fp32


def test_initial_values_leave_torchs_own_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    attached("hf:loha")
    assert torch.equal(torch.rand(3), wanted)


def test_they_are_compared_where_they_are_named():
    from harness.comparison.methods import compared_methods

    assert not [name for name in compared_methods("all") if name.startswith("hf:")]
    assert compared_methods("hf:ia3,lora") == ["lora", "hf:ia3"]
    assert set(NAMES) == {name for name in METHODS.names() if name.startswith("hf:")}
