"""Every tuner of Hugging Face peft keeps the contract on timm's ViT, DeiT-3 and DINOv3.

Minutes of work: marked `integration`, so that neither `make check` nor `make test` runs it.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from support.few import FEW
from support.methods import setting

from harness.baselines.hf.tuners import TUNERS
from harness.model.backbones import features
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec
from harness.store.store import Store
from harness.testing import MethodContract
from harness.testing.made import made_images
from harness.testing.methods import MethodCase

pytestmark = [pytest.mark.slow, pytest.mark.integration]

BACKBONES = {
    "ViT-Ti": BackboneSpec(name="vit_tiny_patch16_224", weights="random", img_size=32),
    "DeiT-3 S": BackboneSpec(name="deit3_small_patch16_224", weights="random", img_size=32),
    "DINOv3 S": BackboneSpec(name="vit_small_patch16_dinov3", weights="random", img_size=32),
}
STARTS = {"boft": "nearly", "hra": "nearly", "fourierft": False}
"""Tuners that do not start at zero: to rounding, or by their own initial values."""
OPTIONS = {"vera": {"rank": 16}, "randlora": {"rank": 64}, "fourierft": {"n_frequency": 64}}
"""Smaller than peft's defaults, which the layers of a small ViT need not have."""


class OneEpoch(MethodContract):
    """The contract with a trial of one epoch, on few images and in the last two blocks."""

    def test_a_trial_is_complete_and_the_same_again(self, case, tmp_path, few_images):
        values = {
            "method": case.method,
            "options": dict(case.options),
            "backbone": case.backbone,
            "positions": None,
            "depth": "last:2",
        }
        spec = resolve(FEW.model_copy(update=values), Runtime())
        found = run_trial(spec, Runtime(), Store(tmp_path / "store"))
        assert found.status == "COMPLETE", found.error
        assert found.epochs_run == 1 and found.trainable_params == found.expected_params


class TestEveryTuner(OneEpoch):
    @pytest.fixture(
        params=itertools.product([tuner.name for tuner in TUNERS], BACKBONES),
        ids=lambda pair: f"{pair[0]} on {pair[1]}",
    )
    def case(self, request):
        name, backbone = request.param
        return MethodCase(
            method=f"hf:{name}",
            options=OPTIONS.get(name, {}),
            backbone=BACKBONES[backbone],
            starts_at_zero=STARTS.get(name, True),
        )


class TestMetaPEFTOverEveryTuner(OneEpoch):
    @pytest.fixture(
        params=itertools.product([tuner.name for tuner in TUNERS], BACKBONES),
        ids=lambda pair: f"{pair[0]} on {pair[1]}",
    )
    def case(self, request):
        name, backbone = request.param
        return MethodCase(
            method="metapeft",
            options={"base": f"hf:{name}", "base_options": OPTIONS.get(name, {})},
            backbone=BACKBONES[backbone],
            starts_at_zero=STARTS.get(name, True),
        )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lora_is_this_packages_where_both_see_the_same_layer(backbone):
    spec = BACKBONES[backbone]
    found = []
    for name in ("lora", "hf:lora"):
        places = {"positions": ["out", "mlp1", "mlp2"], "options": {"rank": 4}, "alpha": 3.0}
        method, placement, options = setting(name, spec, blocks=[2, 11], **places)
        model = MethodCase(method=name, backbone=spec).model()
        found.append((model, method.attach(model, placement, options, seed=0)))
    (ours, own), (theirs, peft) = found
    for key, delta in own.deltas.items():
        rng = torch.Generator().manual_seed(len(key))
        delta.up.data.add_(0.05 * torch.randn(delta.up.shape, generator=rng))
        tuned = peft.deltas[key].tuned
        tuned.lora_A["default"].weight.data.copy_(delta.down)
        tuned.lora_B["default"].weight.data.copy_(delta.up)
    x = made_images(spec)
    one, two = features(ours, x), features(theirs, x)
    assert float((one - two).abs().max() / one.abs().max()) < 1e-6
    frozen = features(MethodCase(method="lora", backbone=spec).model(), x)
    # DINOv3's branches start at a hundred-thousandth, by their layer scale: little is added.
    assert not torch.equal(one, frozen)
