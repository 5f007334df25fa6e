"""A placement as a `LoraConfig` of transformers' models: there, LoRA is at its sites, as strong."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.backbones import BACKBONES
from support.cli import harness
from support.weights import CPU, images, of_file
from torch import nn

from harness.errors import NotSavedError, UserError
from harness.export.lora_config import LAYOUTS, export_lora_config, write_config
from harness.insertion.attachment import LowRank
from harness.insertion.method import get_method
from harness.insertion.placements import PlacementFile
from harness.model.backbones import features, load_backbone
from harness.model.transformers_keys import as_their_authors
from harness.spec import Placement

STRENGTHS = {"0.q": 2.0, "0.v": 0.5, "1.k": 3.0, "1.out": 1.0, "1.mlp1": 4.0, "2.mlp2": 8.0}
RANKS = {"mlp1": 3, "2.mlp2": 1}
SCALES = {"0.q": 1.0, "0.v": 0.25, "1.k": 1.5, "1.out": 0.5, "1.mlp1": 4 / 3, "2.mlp2": 8.0}
"""α / rank, where the rank is 2 unless it is in `RANKS`."""
OURS = {
    "attn.q": "q",
    "attn.k": "k",
    "attn.v": "v",
    "attn.proj": "out",
    **{"mlp.fc1": "mlp1", "mlp.w2": "mlp1", "mlp.fc2": "mlp2", "mlp.w3": "mlp2"},
}
"""What `transformers_keys` makes of a layer's name; w2 and w3 are DINOv3's, in a gated MLP."""
NAMES = {
    "ViT": "vit",
    "ViT with a head": "vit",
    "DINOv3": "dinov3_vit",
    "DINOv3, gated": "dinov3_vit",
    "DINOv3, gated, biases": "dinov3_vit",
    "SigLIP": "siglip_vision_model",
}


def placement_file(backbone, strengths=STRENGTHS, **values):
    given = {
        "placement": Placement(strengths),
        "method": "lora",
        "options": {
            "rank": 2,
            "rank_at": {k: r for k, r in RANKS.items() if strengths is STRENGTHS},
        },
        "backbone": backbone,
        "rule": "as_is",
        "value": None,
        "trials": ("0",),
    }
    return PlacementFile(**{**given, **values})


def adapted(model, folder):
    """The model in peft, by the config in the folder; peft warns of what matches no layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return get_peft_model(model, LoraConfig.from_pretrained(str(folder)))


def lora_layers(peft_model):
    """Name in the model -> LoRA of peft's."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in peft_model.named_modules()
        if hasattr(module, "lora_A")
    }


def site_of(name, is_gated=False):
    """By the names under which weights of transformers are read, q, k and v among them."""
    name = name.removeprefix("vit.").removeprefix("vision_model.")
    keys = {f"{name}.weight": torch.zeros(1)}
    if is_gated:
        keys["x.mlp.gate_proj.weight"] = torch.zeros(1)
    ours = next(key for key in as_their_authors(keys) if not key.startswith("x."))
    if name.endswith("q_proj") or name.endswith("query"):  # read as the first part of qkv
        ours = ours.replace(".qkv.", ".q.")
    _, block, layer = ours.removesuffix(".weight").split(".", 2)
    return f"{block}.{OURS[layer]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_lora_is_at_the_sites_and_computes_the_same(name, tmp_path):
    """Trained weights of timm's model, in transformers' under the config: the same features."""
    pytest.importorskip("transformers")
    from test_transformers_files import CASES, written

    spec, pool = CASES[name][0], CASES[name][4]
    theirs, path = written(name, tmp_path)
    export_lora_config(placement_file(spec), tmp_path / "config", NAMES[name])
    peft = adapted(theirs, tmp_path / "config")
    layers = lora_layers(peft)
    sites = {site_of(layer, "gated" in name): module for layer, module in layers.items()}
    assert {site: module.scaling["default"] for site, module in sites.items()} == pytest.approx(
        SCALES
    )
    ours = load_backbone(of_file(spec), CPU, path)
    x = images(32)
    frozen = features(ours, x)
    lora, file = get_method("lora"), placement_file(spec)
    attachment = lora.attach(ours, file.placement, lora.parse_options(file.options), seed=1)
    with torch.no_grad():
        for site, (_, up, _, _) in attachment.low_ranks().items():
            up.copy_(0.05 * torch.randn(up.shape))
            down = attachment.low_ranks()[site].down
            sites[str(site)].lora_A["default"].weight.copy_(down)
            sites[str(site)].lora_B["default"].weight.copy_(up)
        output = getattr(theirs, "vit", theirs)(x)
        found, wanted = features(ours, x), pool(output)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert (found - frozen).abs().max() > 0.01 * frozen.abs().max()
    trained = {n for n, p in peft.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(SCALES) and all("lora_" in each for each in trained)


class Layer(nn.Module):
    """Modules of these dotted names."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            *above, last = name.split(".")
            at = self
            for part in above:
                if not hasattr(at, part):
                    at.add_module(part, nn.Module())
                at = getattr(at, part)
            at.add_module(last, nn.Linear(48, 48))


RELEASE_4 = {
    "vit": (
        "vit.encoder.layer.{}.",
        {
            **{"q": "attention.attention.query", "k": "attention.attention.key"},
            **{"v": "attention.attention.value", "out": "attention.output.dense"},
            **{"mlp1": "intermediate.dense", "mlp2": "output.dense"},
        },
    ),
    "dinov3_vit": (
        "layer.{}.",
        {
            **{each: f"attention.{each}_proj" for each in "qkv"},
            **{"out": "attention.o_proj", "mlp1": "mlp.up_proj", "mlp2": "mlp.down_proj"},
        },
    ),
    "siglip_vision_model": (
        "vision_model.encoder.layers.{}.",
        {
            **{each: f"self_attn.{each}_proj" for each in "qkv"},
            **{"out": "self_attn.out_proj", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"},
        },
    ),
}
"""How transformers 4.57 names the layers of these models."""
BACKBONE_OF = {"vit": "SigLIP", "dinov3_vit": "DINOv3", "siglip_vision_model": "SigLIP"}


@pytest.mark.slow
@pytest.mark.parametrize("names", LAYOUTS)
def test_the_names_of_an_earlier_release_are_found(names, tmp_path):
    """Of 13 blocks, of which 1 and 11 end alike, and with another tower beside."""
    block, layers = RELEASE_4[names]
    whole = {f"{n}.{p}": block.format(n) + layer for n in range(13) for p, layer in layers.items()}
    others = [name.replace("vision_model", "text_model") for name in whole.values()]
    head = ["head.attention.out_proj", "head.mlp.fc1", "pooler.dense"]
    model = Layer([*whole.values(), *head, *(others if "siglip" in names else [])])
    file = placement_file(BACKBONES[BACKBONE_OF[names]])
    export_lora_config(file, tmp_path, names)
    found = {
        name: m.scaling["default"] for name, m in lora_layers(adapted(model, tmp_path)).items()
    }
    assert found == pytest.approx({whole[site]: scale for site, scale in SCALES.items()})


@pytest.mark.slow
def test_only_the_image_tower_of_a_whole_siglip_is_adapted(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
    sizes["intermediate_size"] = 192
    config = transformers.SiglipConfig(
        text_config={**sizes, "vocab_size": 40, "projection_size": 48},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    export_lora_config(placement_file(BACKBONES["SigLIP"]), tmp_path, "siglip_vision_model")
    layers = lora_layers(adapted(transformers.SiglipModel(config), tmp_path))
    assert all(name.startswith("vision_model.") for name in layers)
    assert {site_of(name) for name in layers} == set(STRENGTHS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone,names,strengths,words",
    [
        ("SigLIP", "dinov3_vit", {"0.q": 1.0}, "is no such model.* timm, vit, siglip_vision_model"),
        ("DINOv3", "vit", {"0.q": 1.0}, "the names timm, dinov3_vit"),
        ("DINOv2, gated", "vit", {"0.q": 1.0}, "the names timm"),
        ("Swin", "vit", {"0.q": 1.0}, "the names timm"),
        ("SigLIP", "vti", {"0.q": 1.0}, "Unknown value of --names: 'vti'. Did you mean 'vit'"),
        ("SigLIP", "timm", {"0.q": 1.0}, "`--names vit` or `--names siglip_vision_model`"),
        ("Swin", "timm", {"0.q": 1.0}, "Leave these sites out.$"),
    ],
)
def test_names_that_a_backbone_has_not_are_refused(tmp_path, backbone, names, strengths, words):
    file = placement_file(BACKBONES[backbone], strengths)
    with pytest.raises(UserError, match=words):
        export_lora_config(file, tmp_path / "config", names)
    assert not (tmp_path / "config").exists()


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    factors = LowRank(torch.ones(1, 2), torch.ones(2, 1), 1.0, "parallel")
    with pytest.raises(NotSavedError, match=r"Results cannot be saved: .*config: Not a directory"):
        write_config(tmp_path / "file" / "config", {"blocks.0.mlp.fc1": factors}, is_trained=False)


@pytest.mark.slow
def test_what_is_no_lora_beside_a_layer_is_refused_by_any_names(tmp_path):
    spec = BACKBONES["SigLIP"]
    after = placement_file(spec, {"0.out": 1.0}, options={"out_input": "output"})
    with pytest.raises(UserError, match="output of its layer"):
        export_lora_config(after, tmp_path, "vit")
    adapter = placement_file(spec, {"0.ffn": 1.0}, method="adapter", options={})
    with pytest.raises(UserError, match=r"no layer at 0\.ffn"):
        export_lora_config(adapter, tmp_path, "vit")


@pytest.mark.slow
def test_names_on_the_command_line(tmp_path):
    path = tmp_path / "placement.json"
    path.write_text(placement_file(BACKBONES["SigLIP"]).model_dump_json())
    common = ("--peft", tmp_path / "config", "--out", tmp_path)
    refused = harness("export", path, *common)
    assert refused.exit_code == 2 and "0.q, 0.v, 1.k: timm fuses" in refused.stderr
    done = harness("export", path, "--names", "siglip_vision_model", *common)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "config" / "adapter_config.json").read_text())
    assert config["rank_pattern"][r"encoder\.layers\.2\.mlp\.fc2"] == 1
    assert config["alpha_pattern"][r"encoder\.layers\.1\.self_attn\.k_proj"] == 3.0
    trial = harness("export", "0123", "--names", "vit", *common)
    assert trial.exit_code == 2 and "--names is for a placement" in trial.stderr
