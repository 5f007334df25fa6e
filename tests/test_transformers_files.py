"""Weights in the files that Hugging Face transformers writes: the same outputs as there."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from support.backbones import BACKBONES, small
from support.weights import CPU, images, of_file
from timm.models import eva, vision_transformer

from harness.errors import UserError
from harness.model.backbones import features, load_backbone, try_weights

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 16,
    "hidden_act": "gelu",
}
VIT = small(vision_transformer.vit_base_patch16_224)
DINOV3 = BACKBONES["DINOv3"]
SIGLIP = BACKBONES["SigLIP"]
GATED = small(eva.vit_small_plus_patch16_dinov3, init_values=0.1)


def patches(output):
    """DINOv3 as timm pools it: the mean over patches, without class and register tokens."""
    return output.last_hidden_state[:, 5:].mean(dim=1)


def first(output):
    return output.last_hidden_state[:, 0]


def pooled(output):
    return output.pooler_output


VIT_SIZES = {**SIZES, "intermediate_size": 192}
SAME_EPSILON = {**VIT_SIZES, "layer_norm_eps": 1e-6}
"""As timm has it; transformers' own 1e-12 gives other numbers from the fifth digit on."""
DINOV3_SIZES = {**VIT_SIZES, "num_register_tokens": 4, "layerscale_value": 0.5}
NO_BIASES = {"query_bias": False, "value_bias": False}
GATE = {"use_gated_mlp": True, "hidden_act": "silu"}
SIGLIP_SIZES = {**VIT_SIZES, "vision_use_head": True}
CASES = {
    "ViT": (VIT, "ViTConfig", "ViTModel", SAME_EPSILON, first),
    "ViT with a head": (VIT, "ViTConfig", "ViTForImageClassification", SAME_EPSILON, first),
    "DINOv3": (DINOV3, "DINOv3ViTConfig", "DINOv3ViTModel", {**DINOV3_SIZES, **NO_BIASES}, patches),
    "DINOv3, zero biases": (DINOV3, "DINOv3ViTConfig", "DINOv3ViTModel", DINOV3_SIZES, patches),
    "DINOv3, gated": (
        GATED,
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        {**DINOV3_SIZES, **NO_BIASES, **GATE},
        patches,
    ),
    "DINOv3, gated, biases": (
        BACKBONES["DINOv3, gated, biases"],
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        {**DINOV3_SIZES, **GATE},
        patches,
    ),
    "SigLIP": (
        SIGLIP,
        "SiglipVisionConfig",
        "SiglipVisionModel",
        SIGLIP_SIZES,
        pooled,
    ),
}


def written(name, folder):
    """A model of random weights, which has written them into the folder; and their file."""
    _, config, model, sizes, *_ = CASES[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():
        for path, parameter in made.named_parameters():
            if not (name == "DINOv3, zero biases" and path.endswith("_proj.bias")):
                parameter += 0.1 * torch.randn(parameter.shape)
    made.save_pretrained(folder)
    return made, folder / "model.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_file_of_transformers_gives_its_outputs(name, tmp_path):
    spec, pool = CASES[name][0], CASES[name][4]
    theirs, path = written(name, tmp_path)
    x = images(32)
    with torch.no_grad():
        output = getattr(theirs, "vit", theirs)(x)
        found = features(load_backbone(of_file(spec), CPU, path), x)
    wanted = pool(output)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5), (found - wanted).abs().max()
    assert found.std() > 0.1
    assert try_weights(of_file(spec), path).words(path) == []


@pytest.mark.slow
def test_the_image_tower_of_a_file_with_two_is_taken(tmp_path):
    theirs, path = written("SigLIP", tmp_path)
    state = {f"vision_model.{name}": value for name, value in theirs.state_dict().items()}
    text = {"text_model.embeddings.position_embedding.weight": torch.ones(7, 48)}
    safetensors.torch.save_file({**state, **text, "logit_scale": torch.ones(1)}, path)
    with torch.no_grad():
        found = features(load_backbone(of_file(SIGLIP), CPU, path), images(32))
        assert torch.allclose(found, theirs(images(32)).pooler_output, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_biases_for_which_a_backbone_has_no_place_are_not_lost(tmp_path):
    _, path = written("DINOv3, gated, biases", tmp_path)
    with pytest.raises(UserError, match=r"qkv\.bias is not zero.*_qkvb"):
        load_backbone(of_file(GATED), CPU, path)


@pytest.mark.slow
def test_a_file_of_another_size_is_refused(tmp_path):
    _, path = written("ViT", tmp_path)
    with pytest.raises(UserError, match="do not fit backbone"):
        load_backbone(of_file(DINOV3), CPU, path)
