"""Swin and ConvNeXt: backbones whose blocks stand in stages."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES
from support.methods import double, fill, setting
from support.weights import CPU, images, of_file, random_state

from harness.errors import UserError
from harness.model.backbones import dims, features, input_size, load_backbone
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, TrialRequest


class Beside(torch.nn.Module):
    """A layer with B·A of what it reads added to some of what it gives, over maps or tokens."""

    def __init__(self, layer, down, up, scale, rows):
        super().__init__()
        self.layer, self.update, self.rows = layer, scale * up @ down, rows

    def forward(self, x):
        y = self.layer(x).clone()
        if isinstance(self.layer, torch.nn.Conv2d):
            return y + torch.einsum("oc,nchw->nohw", self.update, x)
        y[..., self.rows] += torch.einsum("oc,...c->...o", self.update, x)
        return y


SITES = [
    ("Swin", "q", 3, "layers.1.blocks.1.attn", "qkv", slice(0, 32)),
    ("Swin", "v", 3, "layers.1.blocks.1.attn", "qkv", slice(64, 96)),
    ("Swin", "out", 10, "layers.3.blocks.0.attn", "proj", slice(None)),
    ("Swin", "mlp2", 4, "layers.2.blocks.0.mlp", "fc2", slice(None)),
    ("ConvNeXt-A", "dw", 5, "stages.2.blocks.1", "conv_dw", slice(None)),
    ("ConvNeXt-A", "mlp1", 2, "stages.1.blocks.0.mlp", "fc1", slice(None)),
    ("ConvNeXt-V2-A", "dw", 0, "stages.0.blocks.0", "conv_dw", slice(None)),
    ("ConvNeXt-V2-A", "mlp2", 11, "stages.3.blocks.1.mlp", "fc2", slice(None)),
]


def visible(spec):
    """A backbone whose blocks do more than their initial LayerScale of 1e-6 lets through."""
    model = double(spec)
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            parameter.data.fill_(0.5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("backbone,position,block,path,leaf,rows", SITES)
def test_lora_beside_a_layer_of_swin_and_convnext(backbone, position, block, path, leaf, rows):
    spec = BACKBONES[backbone]
    ours, theirs = visible(spec), visible(spec)
    method, placement, options = setting(
        "lora", spec, blocks=[block], positions=[position], alpha=3.0
    )
    attachment = method.attach(ours, placement, options, seed=0)
    fill(attachment.double())
    delta = attachment.deltas[f"{block}:{position}"]
    parent = theirs.get_submodule(path)
    setattr(parent, leaf, Beside(getattr(parent, leaf), delta.down, delta.up, 3.0 / 4, rows))
    x = images(spec.img_size).double()
    got, wanted = features(ours, x), features(theirs, x)
    assert torch.allclose(got, wanted, rtol=1e-9)
    own = torch.autograd.grad(got.square().sum(), delta.down)[0]
    assert torch.allclose(own, torch.autograd.grad(wanted.square().sum(), delta.down)[0], rtol=1e-7)
    attachment.detach()
    assert not torch.allclose(features(ours, x), got, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("position", ["attn", "ffn"])
def test_adapters_join_the_branches_of_swin(position):
    spec = BACKBONES["Swin"]
    ours, theirs = visible(spec), visible(spec)
    method, placement, options = setting(
        "adaptformer", spec, blocks=[3], positions=[position], alpha=0.5
    )
    attachment = method.attach(ours, placement, options, seed=0)
    fill(attachment.double())
    delta = attachment.deltas[f"3:{position}"]
    block = theirs.layers[1].blocks[1]

    def forward(x):
        for name, branch in (("attn", block._attn), ("ffn", None)):
            norm = block.norm1 if name == "attn" else block.norm2
            y = branch(norm(x)) if branch else block.mlp(norm(x).flatten(1, 2)).view(x.shape)
            x = x + y + (delta(x, 0.5) if name == position else 0)
        return x

    block.forward = forward
    x = images(spec.img_size).double()
    assert torch.allclose(features(ours, x), features(theirs, x), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone,positions",
    [("Swin", ["q", "v", "out", "mlp1"]), ("ConvNeXt-A", ["mlp1", "mlp2"])],
)
def test_lora_merges_into_stages(backbone, positions):
    spec = BACKBONES[backbone]
    model = visible(spec)
    method, placement, options = setting("lora", spec, positions=positions)
    attachment = method.attach(model, placement, options, seed=0)
    fill(attachment.double())
    x = images(spec.img_size).double()
    attached = features(model, x)
    assert torch.allclose(features(attachment.merge(), x), attached, rtol=1e-9)
    assert not torch.allclose(features(visible(spec), x), attached, rtol=1e-2)


@pytest.mark.slow
def test_a_depthwise_convolution_takes_no_merge(backbones):
    spec, model = backbones["ConvNeXt-A"]
    method, placement, options = setting("lora", spec, positions=["dw", "mlp1"])
    attachment = method.attach(model, placement, options, seed=0)
    before = model.stages[0].blocks[0].mlp.fc1.weight.clone()
    with pytest.raises(UserError, match="dw"):
        attachment.merge()
    attachment.detach()
    assert torch.equal(model.stages[0].blocks[0].mlp.fc1.weight, before)


def test_depth_counts_blocks_through_all_stages():
    request = TrialRequest(backbone=BACKBONES["Swin"], positions=("mlp1",), depth="last:3")
    sizes = dims(request.backbone)
    placement = resolve(request, Runtime()).placement
    assert list(placement.root) == ["9.mlp1", "10.mlp1", "11.mlp1"]
    assert [sizes.linear_io(site) for site, _ in placement.items()] == [
        (64, 256),
        (128, 512),
        (128, 512),
    ]


@pytest.mark.parametrize(
    "spec,size",
    [
        (BackboneSpec(), 32),
        (BackboneSpec(name="vit_tiny_local", img_size=96), 96),
        (BackboneSpec(name="convnext_tiny"), 224),
        (BackboneSpec(name="convnext_tiny", img_size=96), 96),
        (BackboneSpec(name="swin_tiny_patch4_window7_224"), 224),
    ],
)
def test_a_backbone_says_which_images_it_takes(spec, size):
    assert input_size(spec) == size


@pytest.mark.parametrize("backbone", ["Swin", "ConvNeXt-V2-A"])
def test_weights_of_stages_are_read_from_files(backbone, tmp_path):
    spec = BACKBONES[backbone]
    state = random_state(spec)
    path = tmp_path / "w.pth"
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path)
    model = load_backbone(of_file(spec), CPU, path)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
