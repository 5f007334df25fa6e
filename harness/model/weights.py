"""Local checkpoints: reading them safely, and fitting other key layouts to a timm model.

Owns: file formats, layouts of keys, what may be missing or left over. Must not know: which model a
trial asks for, sites, data.

A file is safetensors or one of torch, which is read without executing what it may hold. Where the
image tower lies in it is found by its patch embedding, so any wrapping (`teacher`, `module.`,
`backbone.`, `visual.`) will do. timm's own filter of the model's family then renames the keys and
resamples position embeddings to the model's input size.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv, convnext, swin_transformer, vision_transformer
from torch import Tensor, nn

from harness.errors import UserError

WRAPPERS = ("teacher", "student", "state_dict", "model", "module", "encoder", "backbone")
"""Keys under which training scripts keep the weights beside other things, the preferred first."""

NOT_FROZEN = ("head.", "fc.", "fc_norm.", "head_dist.", "classifier.", "decoder", "mask_token")
"""Prefixes of keys of what comes after or beside the features: left out silently."""

OTHER_STEMS = ("conv1.weight", "downsample_layers.0.0.weight")
"""The first convolution as CLIP and as ConvNeXt's authors call it."""

RGB = 3

MOST_LISTED = 3
"""Tensors that a message names."""


def sha256_of(path: Path) -> str:
    """Hash of a weights file; one that has not changed is hashed once per process.

    Raises:
        UserError: there is no such file.
    """
    try:
        state = path.stat()
        return _sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"Weights {path} cannot be read: {error.strerror}.") from error


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, as it is in the file.

    Raises:
        UserError: no such file, a format that is not known, or one that would have to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK" or start[:1] == b"\x80":  # torch's zip archive, or its older pickle
            # MAE and DINO keep their command line beside the weights.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = safetensors.torch.load_file(path)
    except OSError as error:
        raise UserError(f"Weights {path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise UserError(
            f"Weights {path} are neither safetensors nor a file of torch.save: convert them."
        ) from error
    except Exception as error:  # what is not a checkpoint can break its reader anywhere
        raise UserError(
            f"Weights {path} are refused: they are broken, or hold more than tensors and would "
            "have to run code to be read; save their state_dict as safetensors."
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"Weights {path} hold a {type(content).__name__}, not named tensors.")
    return dict(content)


def load_into(model: nn.Module, path: Path) -> list[str]:
    """Load a checkpoint into a timm model, and return the names of tensors it had no place for.

    Heads, decoders and mask tokens are left out. The first convolution is adapted to the model's
    number of bands by timm's rule: repeated, and scaled so that a sum over bands stays.

    Raises:
        UserError: the file cannot be read, is of another model, or lacks a tensor of this one.
    """
    own = model.state_dict()
    stem = next(name for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    stem = f"{stem}.weight"
    state, first = _image_tower(read_checkpoint(path), path, stem)
    state[first] = _for_bands(state[first], own[stem].shape[1], path)
    _check_shapes(state, {first: own[stem]}, path)
    if "class_embedding" in state:  # timm's filter knows CLIP by the prefix of its image tower
        state = {f"visual.{name}": tensor for name, tensor in state.items()}
    try:
        state = _filter_of(model)(state, model)
    except (AssertionError, AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Weights {path} are of another model: timm cannot fit them ({error})."
        ) from error
    _check_shapes(state, own, path)
    missing = [name for name in own if name not in state]
    if missing:
        raise UserError(
            f"Weights {path} are of another model: {len(missing)} of the {len(own)} tensors of "
            f"this backbone are not there ({_first(missing)})."
        )
    model.load_state_dict({name: state[name] for name in own})
    return [name for name in state if name not in own and not name.startswith(NOT_FROZEN)]


def left_over(names: list[str], path: Path) -> str:
    """One line on the tensors that `load_into` returned."""
    return f"Weights {path}: tensors not used: {len(names)} ({_first(names)})."


def _first(names: list[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def _image_tower(content: dict[str, Any], path: Path, stem: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of the image tower, named from its root on, and the first convolution's name.

    `stem` is timm's name for that. Of several towers, a teacher's is taken.

    Raises:
        UserError: there are no tensors, or none that is known to be a first convolution.
    """
    while not any(isinstance(value, Tensor) for value in content.values()):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            raise UserError(
                f"Weights {path} hold no tensors at their top, nor under one of "
                f"{', '.join(WRAPPERS)}: save the state_dict alone."
            )
        content = dict(inner[0])
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    for first in (stem, *OTHER_STEMS):
        found = [name for name in state if name == first or name.endswith(f".{first}")]
        roots = [name.removesuffix(first) for name in found]
        if roots:
            root = min(roots, key=lambda each: ("teacher" not in each, len(each)))
            return {k.removeprefix(root): v for k, v in state.items() if k.startswith(root)}, first
    raise UserError(
        f"Weights {path} hold no {stem} under any prefix, so their layout is not known; they begin "
        f"with {_first(list(state))}."
    )


def _for_bands(weight: Tensor, bands: int, path: Path) -> Tensor:
    """The first convolution `[d, c, h, w]`, adapted to images with this many bands."""
    given = weight.shape[1] if weight.ndim == 4 else bands
    if given == bands:
        return weight
    if given != RGB:
        raise UserError(
            f"Weights {path} are for images of {given} bands: set backbone.in_chans={given}."
        )
    adapted: Tensor = adapt_input_conv(bands, weight)
    return adapted


def _check_shapes(state: dict[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise UserError(
                f"Weights {path} are of another model: {name} is {list(state[name].shape)} there "
                f"and {list(tensor.shape)} in this backbone."
            )


def _filter_of(model: nn.Module) -> Callable[[Any, Any], dict[str, Tensor]]:
    """What timm does to checkpoints of the model's family when it downloads them."""
    if isinstance(model, swin_transformer.SwinTransformer):
        family: Any = swin_transformer
    elif isinstance(model, convnext.ConvNeXt):
        family = convnext
    elif isinstance(model, vision_transformer.VisionTransformer):
        family = vision_transformer
    else:
        return lambda state, _: state  # a model of one's own: its keys are as it names them
    known: Callable[[Any, Any], dict[str, Tensor]] = family.checkpoint_filter_fn
    return known
