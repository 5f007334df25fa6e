"""Trained modules as files for other tools.

Owns: the folders that `harness export` writes. Must not know: how trials are run or reported.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from harness.errors import UserError, saving
from harness.export.about import NAME, About, about
from harness.export.lora_config import by_module, sizes_alone, write_config
from harness.export.merged import export_merged as merged
from harness.export.readme import of_peft, of_weights
from harness.insertion.attachment import LowRank
from harness.insertion.method import attach
from harness.model.blocks import Backbone
from harness.spec import Site
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
    computes the same; if it were trained further, peft would train those zeros too. What is peft's
    own from the start (`hf:NAME`) is written by peft.

    Raises:
        UserError: the trial kept no weights, or its modules are not LoRA that peft can express.
    """
    return write_peft(about(record, store), load_file(_weights(record, store)), folder)


def write_peft(known: About, state: dict[str, Tensor], folder: Path) -> list[Path]:
    """As `export_peft`, of trained tensors `state`.

    Raises:
        UserError: the modules are not LoRA that peft can express.
    """
    spec = known.spec
    model = sizes_alone(spec.backbone)
    attachment = attach(model, spec)
    head = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    own = {k: v for k, v in state.items() if k.startswith("attachment.")}
    attachment.load_state_dict({k.removeprefix("attachment."): v for k, v in own.items()})
    saved = attachment.save_pretrained(folder)
    factors = None if saved else attachment.low_ranks()
    attachment.detach()  # before layers are named: what was attached may be one of them
    if saved is None:
        assert factors is not None
        saved = _written(factors, model, spec.backbone.name, folder)
    save_tensors(folder / "head.safetensors", head)
    return [*saved, folder / "head.safetensors", *_described(known, of_peft(known), folder)]


def _written(
    sites: dict[Site, LowRank], model: Backbone, backbone: str, folder: Path
) -> list[Path]:
    """Write low-rank matrices as LoRA of peft's."""
    modules = by_module(sites, model)
    tensors = {}
    for name, factors in modules.items():
        # A copy, because sites may share a factor, and safetensors writes no tensor twice.
        tensors[f"base_model.model.{name}.lora_A.weight"] = factors.down.detach().clone()
        tensors[f"base_model.model.{name}.lora_B.weight"] = factors.up.detach().contiguous()
    config = write_config(folder, modules, base=backbone, is_trained=True)
    save_tensors(folder / "adapter_model.safetensors", tensors)
    return [config, folder / "adapter_model.safetensors"]


def _described(known: About, readme: str, folder: Path) -> list[Path]:
    """What travels with the tensors."""
    write_atomically(folder / NAME, known.model_dump_json(indent=1))
    write_atomically(folder / "README.md", readme)
    return [folder / NAME, folder / "README.md"]


def _weights(record: TrialRecord, store: Store) -> Path:
    path = store.weights(record.trial_id)
    if not path.is_file():
        raise UserError(
            f"Trial {record.trial_id} kept no weights, as in a sweep; `harness export` trains it "
            "again for them."
        )
    return path
