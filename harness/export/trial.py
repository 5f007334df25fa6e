"""Trained modules as files for other tools.

Owns: the folders that `harness export` writes. Must not know: how trials are run or reported.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.errors import UserError, saving
from harness.export.about import NAME, About, about
from harness.export.merged import export_merged as merged
from harness.export.readme import of_peft, of_weights
from harness.insertion.attachment import LowRank
from harness.insertion.method import get_method
from harness.insertion.placements import PlacementFile
from harness.model.backbones import load_backbone
from harness.model.blocks import Backbone, columns_at, is_passed_by, layer_at, layer_name
from harness.spec import BackboneSpec, Site
from harness.store.files import save_tensors, write_atomically
from harness.store.records import TrialRecord
from harness.store.store import Store


def export_weights(record: TrialRecord, store: Store, folder: Path) -> list[Path]:
    """Write the trained tensors, PEFT and head, with all that is needed to use them (`About`).

    Raises:
        UserError: the trial kept no weights, or its images are not packed here.
        NotSavedError: the folder cannot be written.
    """
    source, known = _weights(record, store), about(record, store)
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / "weights.safetensors")
    return [folder / "weights.safetensors", *_described(known, of_weights(known), folder)]


def export_merged(
    record: TrialRecord, store: Store, folder: Path, weights: Path | None = None
) -> list[Path]:
    """Write a timm checkpoint with the trained modules merged into it (`export.merged`).

    Raises:
        UserError: as `export_weights`, or what was trained cannot be merged.
    """
    return merged(about(record, store), load_file(_weights(record, store)), folder, weights)


def export_peft(record: TrialRecord, store: Store, folder: Path) -> list[Path]:
    """Write trained LoRA as a Hugging Face peft adapter of the timm model, and the head beside it.

    peft adapts a whole `nn.Linear`, and timm fuses q, k and v into one. So the LoRAs at q, k and v
    of a block become one on `attn.qkv`, of summed rank, with zeros where they do not meet. It
    computes the same; if it were trained further, peft would train those zeros too.

    Raises:
        UserError: the trial kept no weights, or its modules are not LoRA that peft can express.
    """
    state, known = load_file(_weights(record, store)), about(record, store)
    spec = record.spec
    model = _like(spec.backbone)
    method = get_method(spec.method)
    options = method.parse_options(spec.options)
    attachment = method.attach(model, spec.placement, options, seed=spec.seed)
    head = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    own = {k: v for k, v in state.items() if k.startswith("attachment.")}
    attachment.load_state_dict({k.removeprefix("attachment."): v for k, v in own.items()})
    sites = attachment.low_ranks()
    attachment.detach()
    modules = _by_module(sites, model)
    tensors = {}
    for name, factors in modules.items():
        # A copy, because sites may share a factor, and safetensors writes no tensor twice.
        tensors[f"base_model.model.{name}.lora_A.weight"] = factors.down.detach().clone()
        tensors[f"base_model.model.{name}.lora_B.weight"] = factors.up.detach().contiguous()
    config = _write_config(folder, spec.backbone.name, modules)
    save_tensors(folder / "adapter_model.safetensors", tensors)
    save_tensors(folder / "head.safetensors", head)
    written = [config, folder / "adapter_model.safetensors", folder / "head.safetensors"]
    return [*written, *_described(known, of_peft(known), folder)]


def _described(known: About, readme: str, folder: Path) -> list[Path]:
    """What travels with the tensors."""
    write_atomically(folder / NAME, known.model_dump_json(indent=1))
    write_atomically(folder / "README.md", readme)
    return [folder / NAME, folder / "README.md"]


def export_lora_config(file: PlacementFile, folder: Path) -> list[Path]:
    """Write a fixed placement as a peft `LoraConfig`, to be trained there with the same scales.

    Raises:
        UserError: a site at q, k or v, which peft cannot adapt separately, or modules that are not
            LoRA.
    """
    model = _like(file.backbone)
    apart = [str(site) for site, _ in file.placement.items() if not _is_whole(site, model)]
    if apart:
        raise UserError(
            f"peft cannot place LoRA at {', '.join(apart[:3])}{' ...' if apart[3:] else ''}: timm "
            "fuses them with others, as in attn.qkv, which peft adapts as a whole. Leave these "
            "sites out."
        )
    method = get_method(file.method)
    attachment = method.attach(model, file.placement, method.parse_options(file.options), seed=0)
    factors = attachment.low_ranks()
    trained = sum(p.numel() for p in attachment.parameters())
    if trained != sum(part.down.numel() + part.up.numel() for part in factors.values()):
        raise UserError(f"peft cannot train {file.method}: its sites share tensors; LoRA's do not.")
    return [_write_config(folder, file.backbone.name, _by_module(factors, model))]


def _like(spec: BackboneSpec) -> Backbone:
    """A backbone of these sizes; an export does not depend on its weights."""
    anything = spec.model_copy(update={"weights": "random", "frozen": "fp32"})
    return load_backbone(anything, torch.device("cpu"))


def _weights(record: TrialRecord, store: Store) -> Path:
    path = store.weights(record.trial_id)
    if not path.is_file():
        raise UserError(
            f"Trial {record.trial_id} kept no weights, as in a sweep; `harness export` trains it "
            "again for them."
        )
    return path


def _by_module(sites: dict[Site, LowRank], model: Backbone) -> dict[str, LowRank]:
    """One pair of factors per timm module."""
    groups: dict[str, dict[Site, LowRank]] = {}
    for site, factors in sites.items():
        if factors.form == "sequential":
            raise UserError(f"peft cannot express LoRA on the output of its layer (site {site}).")
        if not isinstance(layer_at(model, site), nn.Linear):
            raise UserError(f"peft LoRA needs a linear layer; the one at {site} is not.")
        if is_passed_by(model, site):
            raise UserError(
                f"peft cannot adapt {layer_name(model, site)} (site {site}): timm takes the weight "
                "of this layer, which has biases of q and v beside it, without calling the layer."
            )
        groups.setdefault(layer_name(model, site), {})[site] = factors
    return {name: _joined(group, model) for name, group in groups.items()}


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


def _write_config(folder: Path, backbone: str, modules: dict[str, LowRank]) -> Path:
    """peft scales by alpha / rank, both looked up by the module's name."""
    ranks = {name: len(factors.down) for name, factors in modules.items()}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": backbone,
        "target_modules": list(ranks),
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": ranks,
        "alpha_pattern": {name: f.scale * ranks[name] for name, f in modules.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "adapter_config.json", json.dumps(config, indent=1))
    return folder / "adapter_config.json"
