"""Where a forward pass can be cut: no bit changes, and what a method changed is seen."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES
from torch import nn

from harness.insertion.method import get_method
from harness.model.backbones import features, load_backbone
from harness.model.cut import IMAGES, advance, cuts_of, last_cut
from harness.spec import BackboneSpec, Placement
from harness.testing.made import fill, made_images

UNCUT = ["Swin", "ConvNeXt-A", "ConvNeXt-V2-A", "BEiT"]
PLAIN = [name for name in BACKBONES if name not in UNCUT]


@pytest.mark.parametrize("name", PLAIN)
def test_a_pass_in_two_parts_has_the_bits_of_a_whole_one(backbones, name):
    spec, model = backbones[name]
    images = made_images(spec, 5)
    cuts = cuts_of(model, images[:1])
    assert cuts is not None and cuts.last == last_cut(model) == len(model.blocks) + 1
    with torch.no_grad():
        whole = features(model, images)
        for cut in range(cuts.last + 1):
            x = advance(model, images, IMAGES, cut)
            assert x[0].numel() * 4 == cuts.image_bytes[cut]
            kept = torch.empty_strided(x.shape, x.stride()).copy_(x)
            assert torch.equal(advance(model, kept, cut, cuts.last), whole), cut


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_kept_first_part_changes_no_bit_of_a_gradient(backbones, dtype):
    """The first part without a graph and in another pass, as it is kept, and the rest trained."""
    spec, model = backbones["vit_pico"]
    images = made_images(spec, 4)
    method = get_method("lora")
    placement = Placement.of(("q", "mlp1"), [7, 9], 4.0)
    attachment = method.attach(model, placement, method.parse_options({}), seed=0)
    fill(attachment)
    found = []
    try:
        for cut in (IMAGES, 0, 4, 7):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                with torch.no_grad():
                    x = advance(model, images, IMAGES, cut).clone()
                result = advance(model, x, cut, last_cut(model))
            gradients = torch.autograd.grad(result.square().sum(), list(attachment.parameters()))
            found.append((result.detach(), *gradients))
    finally:
        attachment.detach()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("name", UNCUT)
def test_what_cannot_be_cut_is_said_to_be_so(backbones, name):
    spec, model = backbones[name]
    assert cuts_of(model, made_images(spec, 1)) is None


def own_block(model):
    class Odd(nn.Identity):
        pass

    model.norm_pre = Odd()


def checkpointed(model):
    model.set_grad_checkpointing()


def other_order(model):
    model.blocks = nn.Sequential(*model.blocks, nn.Identity())


@pytest.mark.parametrize("change", [own_block, checkpointed, other_order])
def test_a_vit_that_does_more_than_is_known_is_left_whole(change):
    spec = BackboneSpec(name="vit_pico", weights="random")
    model = load_backbone(spec, torch.device("cpu"))
    assert cuts_of(model, made_images(spec, 1)) is not None
    change(model)
    assert cuts_of(model, made_images(spec, 1)) is None


METHODS = {
    "linear_probe": (Placement({}), 13),
    "lora": (Placement.of(("v",), [9, 11], 1.0), 9),
    "lora+adapter": (Placement.of(("q", "ffn"), [3, 8], 1.0), 3),
    "adaptformer": (Placement.of(("ffn",), [5], 1.0), 5),
    "bitfit": (Placement.of(("block",), [10, 11], 1.0), 10),
    "vpt_deep": (Placement.of(("block",), [6, 7], 1.0), 6),
    "vpt_shallow": (Placement({}), 0),
    "metapeft": (Placement.of(("v",), [9, 11], 1.0), 0),
    "full": (Placement({}), IMAGES),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_first_block_that_a_method_changes_is_seen_on_the_model(backbones, name):
    spec, model = backbones["vit_pico"]
    placement, expected = METHODS[name]
    cuts = cuts_of(model, made_images(spec, 1))
    method = get_method(name)
    attachment = method.attach(model, placement, method.parse_options({}), seed=0)
    found = cuts.unchanged(model)
    attachment.detach()
    assert found == expected
    assert cuts.unchanged(model) == cuts.last


def hook_on_the_stem(model):
    model.patch_embed.register_forward_hook(lambda module, args, y: 2 * y)


def hook_on_all_blocks(model):
    model.blocks.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def weight_in_place(model):
    with torch.no_grad():
        model.blocks[4].mlp.fc1.weight.mul_(2)


def another_module(model):
    model.blocks[4].norm1 = nn.Identity()


def another_number(model):
    model.blocks[4].norm1.eps = 1.0


def another_forward(model):
    model.blocks[4].attn.forward = lambda x, **rest: x


def hook_on_the_norm(model):
    model.norm.register_forward_hook(lambda module, args, y: 2 * y)


CHANGES = {
    hook_on_the_stem: IMAGES,
    hook_on_all_blocks: IMAGES,
    weight_in_place: 4,
    another_module: 4,
    another_number: 4,
    another_forward: 4,
    hook_on_the_norm: 12,
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_model_is_seen(change):
    spec = BackboneSpec(name="vit_pico", weights="random")
    model = load_backbone(spec, torch.device("cpu"))
    cuts = cuts_of(model, made_images(spec, 1))
    before = [
        advance(model, made_images(spec), IMAGES, cut) for cut in (CHANGES[change], cuts.last)
    ]
    change(model)
    assert cuts.unchanged(model) == CHANGES[change]
    after = [advance(model, made_images(spec), IMAGES, cut) for cut in (CHANGES[change], cuts.last)]
    assert torch.equal(before[0], after[0])
    if change is not hook_on_all_blocks:  # which our own walk through the blocks does not call
        assert not torch.equal(before[1], after[1])
