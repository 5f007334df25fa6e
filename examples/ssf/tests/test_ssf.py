"""SSF keeps the contract of a method, with either start, and is its equation."""

import torch

from harness.insertion.method import METHODS
from harness.model.backbones import features, load_backbone
from harness.spec import BackboneSpec, Placement
from harness.testing import MethodContract


class TestSSF(MethodContract):
    method = "ssf"


class TestSSFAsReleased(MethodContract):
    method = "ssf"
    options = {"init": "released"}  # noqa: RUF012
    starts_at_zero = False


class TestSSFOnConvNeXt(MethodContract):
    """There it can also join the depthwise convolutions."""

    method = "ssf"
    backbone = BackboneSpec(name="convnext_atto", weights="random", img_size=32)
    test_a_trial_is_complete_and_the_same_again = None  # the default positions are those of a ViT


def test_it_is_a_scale_and_a_shift_of_the_layer():
    spec = BackboneSpec(name="vit_pico", weights="random")
    model, plain = (load_backbone(spec, torch.device("cpu")).double() for _ in range(2))
    method = METHODS.get("ssf")()
    placement = Placement.of(("mlp1",), [3], 1.0)
    attachment = method.attach(model, placement, method.parse_options({}), seed=0).double()
    delta = attachment.deltas["3:mlp1"]
    torch.nn.init.normal_(delta.scale)
    torch.nn.init.normal_(delta.shift)
    layer = plain.blocks[3].mlp.fc1
    layer.weight.mul_(1 + delta.scale.detach()[:, None])
    layer.bias.mul_(1 + delta.scale.detach()).add_(delta.shift.detach())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(features(model, images), features(plain, images), rtol=1e-9)
