"""Trainable parameters on the paper's backbones, and requests that no method or backbone fits."""

from __future__ import annotations

import pytest
import torch
from support.methods import setting

from harness.errors import UserError
from harness.model.backbones import dims
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, Placement, TrialRequest

# Counts on the paper's backbones: each method's formula evaluated by hand; those of Table S2 are
# among them. Those of the others are summed over the published widths of their stages.
B16 = BackboneSpec(name="vit_base_patch16_224", weights="random")
L16 = BackboneSpec(name="vit_large_patch16_224", weights="random")
SWIN = BackboneSpec(name="swin_tiny_patch4_window7_224", weights="random")
SWIN_WIDTHS = 2 * 96 + 2 * 192 + 6 * 384 + 2 * 768
CONVNEXT = BackboneSpec(name="convnext_tiny", weights="random")
CONVNEXT_WIDTHS = 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
DINOV3_B = BackboneSpec(name="vit_base_patch16_dinov3", weights="random")
DINOV3_H = BackboneSpec(name="vit_huge_plus_patch16_dinov3", weights="random")
EVA02_B = BackboneSpec(name="eva02_base_patch14_224", weights="random")
BEIT_B = BackboneSpec(name="beit_base_patch16_224", weights="random")
SIGLIP_SO = BackboneSpec(name="vit_so400m_patch14_siglip_224", weights="random")
COUNTS = [
    (DINOV3_B, "lora", {"rank": 4}, ["q", "v"], 147_456),
    (DINOV3_B, "bitfit", {}, None, 12 * (4 * 768 + 3072)),  # no biases of q, k and v
    (DINOV3_B, "vpt_deep", {}, None, 92_160),
    (DINOV3_H, "lora", {"rank": 4}, ["mlp1", "mlp2"], 32 * 2 * 4 * (1280 + 5120)),
    (EVA02_B, "lora", {"rank": 4}, ["q", "v"], 147_456),
    (EVA02_B, "lora", {"rank": 4}, ["mlp1"], 12 * 4 * (768 + 2048)),
    (EVA02_B, "bitfit", {}, None, 12 * (6 * 768 + 3 * 2048)),  # gate, values and their norm
    (BEIT_B, "bitfit", {}, None, 12 * (6 * 768 + 3072)),  # q and v have one, k has none
    (SIGLIP_SO, "lora", {"rank": 4}, ["mlp1"], 27 * 4 * (1152 + 4304)),
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
    """Those of `COUNTS`, without memory for their weights."""
    from harness.model.backbones import _build

    with torch.device("meta"):
        return {spec: _build(spec, pretrained=False) for spec in {row[0] for row in COUNTS}}


@pytest.mark.slow
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
        (TrialRequest(backbone=BEIT_B, method="vpt_deep"), "that tokens can join"),
        (TrialRequest(backbone=CONVNEXT, method="adapter"), "has dw, mlp1, mlp2, block only"),
        (TrialRequest(backbone=CONVNEXT, method="lora"), "default positions of 'lora'"),
        (TrialRequest(backbone=CONVNEXT, positions=("q",)), "Allowed: dw, mlp1, mlp2"),
        (TrialRequest(backbone=CONVNEXT, positions=("dw",), depth="last:19"), "18 blocks"),
        (TrialRequest(backbone=B16, positions=("dw",)), "Allowed: k, mlp1"),
        (
            TrialRequest(backbone=BackboneSpec(name="eva02_enormous_patch14_clip_224")),
            "Eva with EvaBlockPostNorm/EvaAttention/Mlp",
        ),
        (TrialRequest(backbone=BackboneSpec(name="vit_large_patch16_sapiens2")), "Eva with a k of"),
        (TrialRequest(backbone=BackboneSpec(name="vit_base_patch16_sapiens2")), "1024 x 768"),
        (TrialRequest(backbone=BackboneSpec(name="vit_bse_patch16_224")), "vit_base_patch16_224"),
    ],
)
def test_wrong_requests_are_refused_in_one_sentence(request_, words):
    with pytest.raises(UserError) as caught:
        resolve(request_, Runtime())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
