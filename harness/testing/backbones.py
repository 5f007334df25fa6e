"""What every backbone must keep, one of timm's or a user's.

Owns: these tests. Must not know: any method but the two that reach every kind of site.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from harness.insertion.attachment import Attachment, Delta, Strength
from harness.insertion.method import METHODS
from harness.model.backbones import backbone_info, dims, features, input_size, load_backbone
from harness.model.blocks import blocks_of, branch_at, layer_at
from harness.spec import BackboneSpec, Placement, Site
from harness.testing.made import CPU, fill, frozen_backbone, made_images

BRANCHES = ("attn", "ffn")
NO_LAYER = ("block", *BRANCHES)


class Seen(Delta):
    """Adds zero, and keeps the number of features of whatever it is called with."""

    def __init__(self, d_out: int) -> None:
        super().__init__()
        self.d_out = d_out
        self.widths: list[int] = []

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        self.widths.append(x.shape[-1])
        return torch.nn.functional.linear(x, x.new_zeros(self.d_out, x.shape[-1]))


class BackboneContract:
    """Set `backbone`, with random weights."""

    backbone: BackboneSpec

    @pytest.fixture
    def spec(self) -> BackboneSpec:
        return self.backbone

    def test_it_is_known_without_its_weights(self, spec: BackboneSpec) -> None:
        model, info = frozen_backbone(spec), backbone_info(spec, None)
        assert (info.name, info.sha256, info.input_size) == (spec.name, None, input_size(spec))
        assert info.dims == dims(spec)
        assert info.dims.num_blocks == len(blocks_of(model))
        assert info.dims.num_params == sum(p.numel() for p in model.parameters())
        assert (spec.img_size or info.input_size) == info.input_size

    def test_it_is_frozen_and_gives_a_row_of_features_per_image(self, spec: BackboneSpec) -> None:
        model, x = frozen_backbone(spec), made_images(spec)
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        found = features(model, x)
        assert found.shape == (len(x), dims(spec).width)
        assert torch.isfinite(found).all()
        assert torch.equal(features(model, x), found), "dropout, or another chance, is on"
        assert torch.allclose(features(model, x[:1]), found[:1], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found[0], found[1], rtol=1e-3)

    def test_random_weights_are_the_same_everywhere(self, spec: BackboneSpec) -> None:
        torch.manual_seed(1)
        one = load_backbone(spec, CPU).state_dict()
        torch.manual_seed(2)
        two = load_backbone(spec, CPU).state_dict()
        assert all(torch.equal(two[name], value) for name, value in one.items())

    def test_its_weights_are_read_from_a_file(self, spec: BackboneSpec, tmp_path: Path) -> None:
        if spec.frozen != "fp32":
            return  # its tensors are converted after they have been read
        rng = torch.Generator().manual_seed(3)
        state = {
            name: 0.1 * torch.randn(value.shape, generator=rng)
            if value.is_floating_point()
            else value
            for name, value in frozen_backbone(spec).state_dict().items()
        }
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(state, path)
        given = spec.model_copy(update={"weights": "file"})
        found = load_backbone(given, CPU, path).state_dict()
        assert all(torch.equal(found[name], value) for name, value in state.items())
        assert backbone_info(given, path).sha256 is not None

    def test_every_site_is_there(self, spec: BackboneSpec) -> None:
        model, sizes = frozen_backbone(spec), dims(spec)
        for block in range(sizes.num_blocks):
            for position in sizes.positions:
                if position in BRANCHES:
                    branch_at(model, Site(block, position))
                elif position not in NO_LAYER:
                    layer = layer_at(model, Site(block, position))
                    assert layer.weight.numel() > 0

    def test_a_pass_calls_what_joins_at_a_site_once(self, spec: BackboneSpec) -> None:
        """At all sites at once. A model may compute from a layer's weight without calling it."""
        sizes, x = dims(spec), made_images(spec)
        model = copy.deepcopy(frozen_backbone(spec))
        frozen = features(model, x)
        attachment = Attachment(model)
        sites = {
            site: Seen(sizes.linear_io(site)[1])
            for block in range(sizes.num_blocks)
            for position in sizes.positions
            if (site := Site(block, position)).position != "block"
        }
        for site, seen in sites.items():
            attachment.add_delta(site, seen, 1.0, "parallel")
        assert torch.equal(features(model, x), frozen)
        for site, seen in sites.items():
            assert seen.widths == [sizes.linear_io(site)[0]], f"{site} is not called once"
        attachment.detach()
        assert torch.equal(features(model, x), frozen)
        assert all(len(seen.widths) == 1 for seen in sites.values())

    def test_what_joins_at_a_position_reaches_the_features(self, spec: BackboneSpec) -> None:
        """At every position, in the first and in the last block but one."""
        sizes, x = dims(spec), made_images(spec)
        shared = frozen_backbone(spec)
        frozen = features(shared, x)
        for position in sizes.positions:
            if position == "block":
                continue
            name = "adapter" if position in BRANCHES else "lora"
            method = METHODS.get(name)()
            for block in {0, max(0, sizes.num_blocks - 2)}:
                placement = Placement.of((position,), [block], 50.0)
                model = copy.deepcopy(shared)
                attachment = method.attach(model, placement, method.parse_options({}), seed=0)
                assert torch.equal(features(model, x), frozen)
                fill(attachment)
                assert not torch.equal(features(model, x), frozen), f"{block}.{position}"
                attachment.detach()
                assert torch.equal(features(model, x), frozen)

    def test_prompts_can_join_its_sequence(self, spec: BackboneSpec) -> None:
        if not dims(spec).is_sequence:
            return
        method, x = METHODS.get("vpt_deep")(), made_images(spec)
        model = copy.deepcopy(frozen_backbone(spec))
        frozen = features(model, x)
        placement = Placement.of(("block",), range(dims(spec).num_blocks), 1.0)
        method.attach(model, placement, method.parse_options({}), seed=0)
        with_prompts = features(model, x)
        assert with_prompts.shape == frozen.shape and not torch.equal(with_prompts, frozen)
