"""Fitting weights from a file to a timm model.

Owns: layouts of keys but transformers', numbers of bands, what may be missing or left over. Must
not know: file formats, where models come from, sites, data.

timm's own filter of the model's family renames the keys of the image tower that was found in the
file, and resamples position embeddings to the model's input size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timm.models import adapt_input_conv, beit, convnext, eva, swin_transformer, vision_transformer
from torch import Tensor, nn

from harness.errors import UserError
from harness.model.transformers_keys import TRANSFORMERS_STEMS, as_their_authors
from harness.model.weight_files import (
    Misfit,
    first_of,
    image_tower,
    read_checkpoint,
    refuse_values,
)

NOT_FROZEN = ("head.", "fc.", "fc_norm.", "head_dist.", "classifier.", "decoder", "mask_token")
"""Prefixes of keys of what comes after or beside the features: left out silently."""

RGB = 3


class Fitted(NamedTuple):
    """What of a file a model did not take."""

    unused: list[str]
    """Tensors of the image tower that the model has no place for."""
    tower: str = ""
    """Of several image towers, the prefix of the one that was taken."""
    others: Sequence[str] = ()
    """Those of the other ones."""

    def words(self, path: Path) -> list[str]:
        """A line on each, for the file's path."""
        lines = []
        if self.others:
            lines.append(
                f"Weights {path} hold several image towers: {self.tower or 'the outermost'} is "
                f"used, not {first_of(self.others)}."
            )
        if self.unused:
            unused = f"{len(self.unused)} ({first_of(self.unused)})"
            lines.append(f"Weights {path}: tensors not used: {unused}.")
        return lines


def load_into(model: nn.Module, path: Path, backbone: str) -> Fitted:
    """Load a checkpoint into a timm model, and return what of it was not used.

    Heads, decoders and mask tokens are left out. The first convolution is adapted to the model's
    number of bands by timm's rule: repeated, and scaled so that a sum over bands stays. `backbone`
    is what messages call the model.

    Raises:
        UserError: the file cannot be read, is of another model, lacks a tensor of this one, or
            holds values that cannot be weights.
    """
    own = model.state_dict()
    stem = next(name for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    content = read_checkpoint(path)
    try:
        tower = image_tower(content, path, f"{stem}.weight")
        state = _renamed(tower.state, tower.first, own[f"{stem}.weight"], model, path)
        _check(state, own)
    except Misfit as misfit:
        raise UserError(
            f"Weights {path} do not fit backbone {backbone!r}: {misfit}. Name the backbone that "
            "they are of with --set backbone=NAME (see `harness list backbones`), or other weights."
        ) from misfit
    refuse_values(state, own, path)
    model.load_state_dict({name: state[name] for name in own})
    unused = [name for name in state if name not in own and not name.startswith(NOT_FROZEN)]
    return Fitted(unused, tower.root, tower.others)


def _renamed(
    state: dict[str, Tensor], first: str, stem: Tensor, model: nn.Module, path: Path
) -> dict[str, Tensor]:
    """The tensors of an image tower under the names and in the shapes that the model has.

    `first` is the name of its first convolution, and `stem` the model's.

    Raises:
        Misfit: that cannot be done.
        UserError: they are for images of so many bands that they cannot be adapted.
    """
    state = {**state, first: _for_bands(state[first], stem.shape[1], path)}
    _check(state, {first: stem})
    if first in TRANSFORMERS_STEMS:
        state = as_their_authors(state)
    _refuse_lost_biases(state, model)
    if "class_embedding" in state:  # timm's filter knows CLIP by the prefix of its image tower
        state = {f"visual.{name}": tensor for name, tensor in state.items()}
    try:
        with contextlib.redirect_stdout(None):  # it prints what it leaves out of DINOv3's files
            return _filter_of(model)(state, model)
    except Exception as error:  # it takes what it renames to be of its family
        raise Misfit(f"timm cannot fit them ({error})") from error


def _refuse_lost_biases(state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raises `Misfit` if q or v have a bias for which the model has no place.

    timm has DINOv3 with and without such biases, which are zero in the files of most sizes, and
    leaves them out silently. That of k is masked in DINOv3, so it means nothing.
    """
    own = model.state_dict()
    for name, bias in state.items():
        layer, _, end = name.rpartition("qkv.bias")
        places = (name, f"{layer}q_bias")
        if not end and f"{layer}qkv.weight" in own and not any(each in own for each in places):
            q, _, v = bias.chunk(3)
            if bool(q.any()) or bool(v.any()):
                raise Misfit(
                    f"{name} is not zero, and it has no such bias; the one whose name ends in "
                    "_qkvb has"
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


def _check(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises `Misfit` unless all of the model's own tensors are there, in their shapes."""
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise Misfit(
                f"{name} is {list(state[name].shape)} there and {list(tensor.shape)} in it"
            )
    missing = [name for name in own if name not in state]
    if missing:
        raise Misfit(
            f"{len(missing)} of its {len(own)} tensors are not there ({first_of(missing)})"
        )


def _filter_of(model: nn.Module) -> Callable[[Any, Any], dict[str, Tensor]]:
    """What timm does to checkpoints of the model's family when it downloads them."""
    families: dict[type[nn.Module], Any] = {
        swin_transformer.SwinTransformer: swin_transformer,
        convnext.ConvNeXt: convnext,
        eva.Eva: eva,
        beit.Beit: beit,
        vision_transformer.VisionTransformer: vision_transformer,
    }
    family = next((module for kind, module in families.items() if isinstance(model, kind)), None)
    if family is None:
        return lambda state, _: state  # a model of one's own: its keys are as it names them
    known: Callable[[Any, Any], dict[str, Tensor]] = family.checkpoint_filter_fn
    return known
