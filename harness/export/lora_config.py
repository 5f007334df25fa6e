"""Placements as peft's `LoraConfig`, by the names of timm's layers or of those of transformers.

Owns: which layer of theirs a site is, and how ranks and scales are written. Must not know: trained
weights, how trials are run or reported.

peft scales by `lora_alpha / r`. It looks both up by the layer's name, in `rank_pattern` and
`alpha_pattern`, whose keys are regular expressions for the end of that name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.errors import UserError, unknown
from harness.insertion.attachment import LowRank
from harness.insertion.method import attach, get_method
from harness.insertion.placements import PlacementFile
from harness.model.backbones import load_backbone
from harness.model.blocks import (
    Backbone,
    blocks_of,
    columns_at,
    is_passed_by,
    layer_at,
    layer_name,
)
from harness.spec import BackboneSpec, Position, Site, TrialSpec
from harness.store.files import make_folder, write_atomically

Names = Literal["timm", "vit", "dinov3_vit", "siglip_vision_model"]
"""timm's, or those of a `model_type` of transformers."""

LORA = "adapter_config.json"


class _Layout(NamedTuple):
    """How a model of transformers calls the layers of its blocks, in regular expressions."""

    of: type[nn.Module]
    """What timm has in its place."""
    mlps: tuple[type[nn.Module], ...]
    before: str
    """What may stand before a block: the name that another model has for the image tower."""
    block: str
    """With the block's number as {}."""
    layers: dict[Position, str]


LAYOUTS: dict[str, _Layout] = {
    # transformers 4: `encoder.layer.0.attention.attention.query`; 5: `layers.0.attention.q_proj`
    "vit": _Layout(
        of=VisionTransformer,
        mlps=(Mlp,),
        before=r"(.*\.)?",
        block=r"(encoder\.layer|layers)\.{}\.",
        layers={
            "q": r"attention\.(attention\.query|q_proj)",
            "k": r"attention\.(attention\.key|k_proj)",
            "v": r"attention\.(attention\.value|v_proj)",
            "out": r"attention\.(output\.dense|o_proj)",
            "mlp1": r"(intermediate\.dense|mlp\.fc1)",
            "mlp2": r"(output\.dense|mlp\.fc2)",
        },
    ),
    # `layer.0.` in transformers 4, `model.layer.0.` in 5
    "dinov3_vit": _Layout(
        of=Eva,
        mlps=(Mlp, GluMlp, SwiGLU),
        before=r"(.*\.)?",
        block=r"layer\.{}\.",
        layers={
            "q": r"attention\.q_proj",
            "k": r"attention\.k_proj",
            "v": r"attention\.v_proj",
            "out": r"attention\.o_proj",
            "mlp1": r"mlp\.up_proj",  # also in a gated MLP, where it gives what the gate multiplies
            "mlp2": r"mlp\.down_proj",
        },
    ),
    # The text tower of a whole SigLIP has layers of the same names, so what is before them counts.
    "siglip_vision_model": _Layout(
        of=VisionTransformer,
        mlps=(Mlp,),
        before=r"(.*\bvision_model\.)?",
        block=r"encoder\.layers\.{}\.",
        layers={
            "q": r"self_attn\.q_proj",
            "k": r"self_attn\.k_proj",
            "v": r"self_attn\.v_proj",
            "out": r"self_attn\.out_proj",
            "mlp1": r"mlp\.fc1",
            "mlp2": r"mlp\.fc2",
        },
    ),
}
"""Of the releases 4.56 and 5 of transformers."""


def export_lora_config(file: PlacementFile, folder: Path, names: Names = "timm") -> list[Path]:
    """Write a fixed placement as a peft `LoraConfig`, to be trained there with the same scales.

    Raises:
        UserError: modules that are not LoRA; by timm's names, a site at q, k or v, which peft
            cannot adapt separately there; by others, a backbone or a site that they have not.
    """
    if names not in get_args(Names):
        raise unknown("value of --names:", names, get_args(Names))
    model = sizes_alone(file.backbone)
    if names == "timm":
        _refuse_fused(file, model)
    else:
        _refuse_others(file, model, names)
    method = get_method(file.method)
    attachment = method.attach(model, file.placement, method.parse_options(file.options), seed=0)
    factors = attachment.low_ranks()
    trained = sum(p.numel() for p in attachment.parameters())
    if trained != sum(part.down.numel() + part.up.numel() for part in factors.values()):
        raise UserError(f"peft cannot train {file.method}: its sites share tensors; LoRA's do not.")
    attachment.detach()  # before layers are named: what was attached may be one of them
    dropout = float(str(file.options.get("dropout", 0.0)))
    if names == "timm":
        by_name = by_module(factors, model)
        path = write_config(
            folder, by_name, base=file.backbone.name, dropout=dropout, is_trained=False
        )
        return [path]
    layout = LAYOUTS[names]
    by_name = {_pattern(site, layout): part for site, part in _parallel(factors, model).items()}
    target = f"{layout.before}({'|'.join(by_name)})"
    return [write_config(folder, by_name, target=target, dropout=dropout, is_trained=False)]


def lora_config(spec: TrialSpec) -> dict[str, Any]:
    """A trial's LoRA, of one strength and rank, as the fields of a peft `LoraConfig`, to be trained
    there from the start.

    q, k and v that timm fuses into one layer share a LoRA of their summed rank there, which can
    become all that the three can, and more. Strengths are the same.

    Raises:
        UserError: its modules are not LoRA that peft can express, or differ in strength or rank.
    """
    model = sizes_alone(spec.backbone)
    attachment = attach(model, spec)
    factors = attachment.low_ranks()
    attachment.detach()
    kinds = {(len(part.down), part.scale) for part in factors.values()}
    if len(kinds) != 1:
        raise UserError("A short LoraConfig is of one rank and one strength, and these differ.")
    [(rank, scale)] = kinds
    names: dict[str, list[str]] = {"blocks": [], "layers": []}
    joined: dict[str, int] = {}
    for name, group in _grouped(factors, model).items():
        block, layer = re.fullmatch(r"(.*\.\d+)\.(.*)", name).groups()  # type: ignore[union-attr]
        names["blocks"].append(re.escape(block))
        names["layers"].append(re.escape(layer))
        if len(group) > 1:
            joined[layer] = len(group) * rank
    either = ["|".join(dict.fromkeys(each)) for each in names.values()]
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": spec.backbone.name,
        "target_modules": f"({either[0]})\\.({either[1]})",
        "r": rank,
        "lora_alpha": scale * rank,
        "rank_pattern": joined,
        "alpha_pattern": {layer: scale * summed for layer, summed in joined.items()},
        "lora_dropout": float(str(spec.options.get("dropout", 0.0))),
        "bias": "none",
        "inference_mode": False,
    }


def sizes_alone(spec: BackboneSpec) -> Backbone:
    """A backbone of these sizes; an export does not depend on its weights."""
    anything = spec.model_copy(update={"weights": "random", "frozen": "fp32"})
    return load_backbone(anything, torch.device("cpu"))


def _refuse_fused(file: PlacementFile, model: Backbone) -> None:
    apart = [str(site) for site, _ in file.placement.items() if not _is_whole(site, model)]
    if apart:
        others = " or ".join(f"`--names {name}`" for name in _fitting(model))
        instead = f"; transformers has them apart: {others}." if others else "."
        raise UserError(
            f"peft cannot place LoRA at {_some(apart)}: timm "
            "fuses them with others, as in attn.qkv, which peft adapts as a whole. Leave these "
            f"sites out{instead}"
        )


def _refuse_others(file: PlacementFile, model: Backbone, names: str) -> None:
    known = _fitting(model)
    if names not in known:
        raise UserError(
            f"--names {names}: backbone {file.backbone.name} is no such model; for it there are "
            f"the names {', '.join(['timm', *known])}."
        )
    there = LAYOUTS[names].layers
    lacking = [str(site) for site, _ in file.placement.items() if site.position not in there]
    if lacking:
        raise UserError(f"--names {names}: it has no layer at {_some(lacking)}.")


def _fitting(model: Backbone) -> list[str]:
    """The models of transformers that have the same layers."""
    mlp = getattr(blocks_of(model)[0][1], "mlp", None)
    return [
        name for name, it in LAYOUTS.items() if isinstance(model, it.of) and type(mlp) in it.mlps
    ]


def _some(sites: list[str]) -> str:
    return f"{', '.join(sites[:3])}{' ...' if sites[3:] else ''}"


def _pattern(site: Site, layout: _Layout) -> str:
    return layout.block.format(site.block) + layout.layers[site.position]


def _parallel(sites: dict[Site, LowRank], model: Backbone) -> dict[Site, LowRank]:
    """The same, where all are what peft's LoRA is: beside a linear layer, of its input."""
    for site, factors in sites.items():
        if factors.form == "sequential":
            raise UserError(f"peft cannot express LoRA on the output of its layer (site {site}).")
        if not isinstance(layer_at(model, site), nn.Linear):
            raise UserError(f"peft LoRA needs a linear layer; the one at {site} is not.")
    return sites


def by_module(sites: dict[Site, LowRank], model: Backbone) -> dict[str, LowRank]:
    """One pair of factors per timm module.

    Raises:
        UserError: peft's LoRA cannot stand at one of the sites.
    """
    return {name: _joined(group, model) for name, group in _grouped(sites, model).items()}


def _grouped(sites: dict[Site, LowRank], model: Backbone) -> dict[str, dict[Site, LowRank]]:
    """The sites of every timm module, as `by_module`."""
    groups: dict[str, dict[Site, LowRank]] = {}
    for site, factors in _parallel(sites, model).items():
        if is_passed_by(model, site):
            raise UserError(
                f"peft cannot adapt {layer_name(model, site)} (site {site}): timm takes the weight "
                "of this layer, which has biases of q and v beside it, without calling the layer."
            )
        groups.setdefault(layer_name(model, site), {})[site] = factors
    return groups


def _is_whole(site: Site, model: Backbone) -> bool:
    """Whether a site has all columns of its layer's output."""
    start, stop = columns_at(model, site)
    return stop - start == len(layer_at(model, site).weight)


def _joined(group: dict[Site, LowRank], model: Backbone) -> LowRank:
    (first, factors), *more = group.items()
    if _is_whole(first, model):
        assert not more
        return factors
    downs: list[Tensor] = []
    ups: list[Tensor] = []
    for site, part in group.items():
        start, stop = columns_at(model, site)
        up = torch.zeros(len(layer_at(model, site).weight), len(part.down))
        up[start:stop] = part.scale * part.up.detach()
        downs.append(part.down.detach())
        ups.append(up)
    return LowRank(torch.cat(downs), torch.cat(ups, dim=1), 1.0, "parallel")


def write_config(
    folder: Path,
    modules: dict[str, LowRank],
    *,
    base: str | None = None,
    target: str | None = None,
    dropout: float = 0.0,
    is_trained: bool,
) -> Path:
    """Write a `LoraConfig` of layers by their names, or by the ends of them.

    `target` are the layers as peft's `target_modules` has them; None: exactly these names. One
    that is not trained yet is of a model to be trained, where peft would otherwise freeze it.

    Raises:
        NotSavedError: the folder cannot be written.
    """
    ranks = {name: len(factors.down) for name, factors in modules.items()}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "target_modules": list(ranks) if target is None else target,
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": ranks,
        "alpha_pattern": {name: f.scale * ranks[name] for name, f in modules.items()},
        "lora_dropout": dropout,
        "bias": "none",
        "inference_mode": is_trained,
    }
    make_folder(folder)
    write_atomically(folder / LORA, json.dumps(config, indent=1))
    return folder / LORA
