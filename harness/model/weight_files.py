"""Files of weights from anywhere: what is in them, read without running code.

Owns: file formats, finding an image tower at whatever depth a file has it, and refusing values
that cannot be weights. Must not know: which model they are for, timm, sites, data.

A file is safetensors or one of torch. Where the image tower lies in it is found by its first
convolution, so any wrapping (`teacher`, `module.`, `state_dict_ema`, `visual.`) will do.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from harness.errors import UserError
from harness.model.transformers_keys import TRANSFORMERS_STEMS

WRAPPERS = ("teacher", "student", "state_dict", "model", "module", "encoder", "backbone")
"""Keys under which training scripts keep the weights, the preferred first; any other comes last."""

OTHER_STEMS = ("conv1.weight", "downsample_layers.0.0.weight", *TRANSFORMERS_STEMS)
"""The first convolution as CLIP, as ConvNeXt's authors and as transformers call it."""

FOREIGN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page or XML, not weights: download the file again"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x89HDF", "HDF5: save the weights as safetensors"),
    (b"GGUF", "GGUF: save the weights as safetensors"),
)
"""How files that are often taken for weights begin, what they are and what to do."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What a weight may be stored as; integers and 8-bit floats mean nothing without their scales."""

DEEPEST = 32
"""Levels of a file that are searched; it may contain itself."""

MOST_LISTED = 3
"""Tensors that a message names."""


class Misfit(Exception):
    """A file is whole, but not of the model it was given for; the message says how one sees it."""


class Tower(NamedTuple):
    """The tensors of an image tower, named from its root on."""

    state: dict[str, Tensor]
    first: str
    """Name of the first convolution."""
    root: str
    """What all its names begin with in the file."""
    others: list[str]
    """The same of other towers in the file that were not taken."""


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
    except ValueError as error:  # of a name that no file can have
        raise UserError(f"Weights {str(path)!r} cannot be read: {error}.") from error


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, as it is in the file.

    Raises:
        UserError: no such file, a format that is not known, one that is cut off, or one that would
            have to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if start[:2] == b"PK" or start[:1] == b"\x80":  # torch's zip archive, or its older pickle
            content = _read_torch(path, is_zip=start[:1] == b"P")
        else:
            _refuse_foreign(path, start)
            content = safetensors.torch.load_file(path)
    except OSError as error:
        raise UserError(f"Weights {path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise UserError(
            f"Weights {path} are safetensors that are cut off or damaged ({error}): copy or "
            "download the file again."
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"Weights {path} hold a {type(content).__name__}, not named tensors.")
    return dict(content)


def _read_torch(path: Path, *, is_zip: bool) -> Any:
    if is_zip:
        _refuse_other_zips(path)
    try:
        # MAE and DINO keep their command line beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except EOFError as error:
        raise _cut_off(path) from error
    except Exception as error:  # what is not a checkpoint can break its reader anywhere
        raise UserError(
            f"Weights {path} are refused: they are broken, or hold more than tensors and would "
            "have to run code to be read; save their state_dict as safetensors."
        ) from error


def _cut_off(path: Path) -> UserError:
    return UserError(f"Weights {path} are cut off or damaged: copy or download the file again.")


def _refuse_other_zips(path: Path) -> None:
    """Raises `UserError` for a zip archive that is cut off or not one of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise _cut_off(path) from error
    if "data.pkl" not in names:
        raise UserError(
            f"Weights {path} are a zip archive, such as npz, but none of torch.save: save the "
            "weights as safetensors."
        )
    if "constants.pkl" in names:
        raise UserError(
            f"Weights {path} are a TorchScript program: save its state_dict as safetensors."
        )


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Raises `UserError` for what is not safetensors, with what it is."""
    if not start:
        raise UserError(f"Weights {path} are an empty file: copy or download it again.")
    for magic, what in FOREIGN:
        if start.lstrip().startswith(magic):
            raise UserError(f"Weights {path} are {what}.")
    if start[8:9] != b"{":  # safetensors: the length of a header, then the header, which is JSON
        raise UserError(
            f"Weights {path} are neither safetensors nor a file of torch.save: convert them."
        )


def image_tower(content: Mapping[str, Any], path: Path, stem: str) -> Tower:
    """The image tower of a checkpoint, wherever in it that lies.

    `stem` is timm's name of the first convolution. Of several towers, the least wrapped is taken,
    then what `WRAPPERS` prefers, then a teacher's.

    Raises:
        UserError: there are no tensors.
        Misfit: none of them is known to be a first convolution.
    """
    found = {
        ".".join((*levels, name)): (levels, value) for levels, name, value in _tensors(content)
    }
    if not found:
        raise UserError(
            f"Weights {path} hold no tensors at any level ({first_of(list(map(str, content)))}): "
            "save the state_dict alone."
        )
    for first in (stem, *OTHER_STEMS):
        roots = {
            name.removesuffix(first): levels
            for name, (levels, _) in found.items()
            if name == first or name.endswith(f".{first}")
        }
        if roots:
            root, *others = sorted(roots, key=lambda each: _preference(each, roots[each]))
            state = {k.removeprefix(root): v for k, (_, v) in found.items() if k.startswith(root)}
            return Tower(state, first, root.rstrip("."), [other.rstrip(".") for other in others])
    raise Misfit(f"they hold no {stem} under any prefix, but {first_of(list(found))}")


def _preference(root: str, levels: tuple[str, ...]) -> tuple[Any, ...]:
    """What to sort towers by: how they are wrapped, and then how they are called."""
    ranks = [WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS) for key in levels]
    return ranks, "teacher" not in root, len(root)


def _tensors(
    content: Mapping[Any, Any], levels: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, Tensor]]:
    """Every tensor below, with the keys of the levels it lies under and its name at the last."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield levels, str(key), value
        elif isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and len(levels) < DEEPEST:
            yield from _tensors(value, (*levels, str(key)))


def refuse_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Look at the tensors that a model, whose own these are, would take.

    Raises:
        UserError: one holds no numbers, whole numbers for real ones, or some that are not finite.
    """
    for name, tensor in own.items():
        value = state.get(name)
        if value is None or not tensor.is_floating_point():
            continue
        if value.is_meta or value.layout != torch.strided:
            raise UserError(f"Weights {path}: {name} is stored without its values: save it dense.")
        if value.dtype not in FLOATS:
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(
                f"Weights {path}: {name} is stored as {kind}, which means nothing without a scale: "
                "save the weights as floating-point numbers."
            )
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"Weights {path}: {name} holds values that are not finite; the file is damaged, or "
                "its training diverged."
            )


def first_of(names: Sequence[str]) -> str:
    """The beginning of a list of names, for a message."""
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")
