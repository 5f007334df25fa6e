"""A trained classifier as one timm checkpoint: what was trained is merged into the weights.

Owns: what can be merged, and the head under timm's names. Must not know: how trials are run.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness.errors import UserError
from harness.export.about import About, timm_config
from harness.export.predict import classifier_of
from harness.export.readme import of_merged
from harness.model.backbones import as_in_timm, dims
from harness.store.files import make_folder, save_tensors, write_atomically


def export_merged(
    known: About, state: dict[str, Tensor], folder: Path, weights: Path | None = None
) -> list[Path]:
    """Write `model.safetensors` and `config.json`, which timm loads from `local-dir:FOLDER`.

    `state` are the trained tensors, `weights` the file of the backbone's, where it has one. A
    cosine head becomes a linear one on features of unit length.

    Raises:
        UserError: what was trained cannot be merged, or timm has no such backbone.
    """
    spec = known.spec
    with torch.device("meta"):
        target, arguments = as_in_timm(spec.backbone, len(known.classes))
    if not isinstance(target.get_classifier(), nn.Module):
        raise UserError(
            f"--merged: timm's {spec.backbone.name} has two heads, and the trial trained one: use "
            "`harness export` without --merged."
        )
    classifier = classifier_of(known, state, torch.device("cpu"), weights)
    attachment = classifier.attachment
    with torch.no_grad():
        # Without modules of its own, what a method trained stands in the model already.
        if len(attachment.replaced) or not list(attachment.parameters()):
            model: nn.Module = attachment.model
        else:
            model = attachment.merge()
        tensors = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
        name = next(n for n, m in target.named_modules() if m is target.get_classifier())
        weight = classifier.head.get_parameter("weight").detach()
        if known.head.type == "cosine":
            assert known.head.scale is not None
            tensors[f"{name}.weight"] = known.head.scale * normalize(weight, dim=1)
            tensors[f"{name}.bias"] = torch.zeros(len(weight))
        else:
            tensors[f"{name}.weight"] = weight.clone()
            tensors[f"{name}.bias"] = classifier.head.get_parameter("bias").detach().clone()
    if tensors.keys() != target.state_dict().keys():
        raise UserError(f"timm's {spec.backbone.name} has other tensors than the trained one.")
    make_folder(folder)
    config = timm_config(known, arguments.pop("model_name"), dims(spec.backbone).width)
    config["model_args"] = arguments
    save_tensors(folder / "model.safetensors", tensors)
    write_atomically(folder / "config.json", json.dumps(config, indent=1))
    write_atomically(folder / "README.md", of_merged(known))
    return [folder / name for name in ("model.safetensors", "config.json", "README.md")]
