"""Backbones of one's own: a vision transformer that timm does not have, with its blocks and sites.

Owns: what such a backbone must be, and the check that a model is that. Must not know: PEFT methods,
which backbones there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from harness.errors import UserError, code_of
from harness.model.blocks import KINDS, QKV, Backbone, Kind, checked, paths_of, share_a_layer
from harness.spec import BackboneSpec, Position

NEEDED = ("blocks", "num_features", "patch_embed", "forward_features", "forward_head")


@dataclass(frozen=True, kw_only=True)
class OwnBackbone:
    """A backbone under a name of its own, as an entry point in the group `harness.backbones`.

    The model that `build` makes is one of timm's classes that are supported, or an `nn.Module` in
    which one sequence of tokens `[n, t, d]` runs through all blocks, under timm's names:

    - `blocks`: the blocks in order, each called with the tokens and nothing else;
    - `num_features`: d;
    - `patch_embed.patch_size`: height and width of a patch in pixels; the first `nn.Conv2d` of the
      model reads the images;
    - `forward_features(images [n, c, h, w])`: the tokens after the last norm;
    - `forward_head(tokens, pre_logits=True)`: pooled features `[n, d]`.

    Blocks are timm's `Block`, or of a class for which `kinds` says where positions are.
    """

    build: Callable[[BackboneSpec], nn.Module]
    """Makes the network for `spec.in_chans` bands and, if `spec.img_size` is set, that size. Its
    random weights may depend on torch's own seed alone, which is set before the call."""
    summary: str
    """One line for `harness list backbones`."""
    input_size: int
    """Side of its square images in pixels, where the spec names none."""
    weights: Path | None = None
    """File of its pretrained weights; None: `--weights` must name one, or weights are random. Its
    hash is part of a trial's identity, its path is not."""
    kinds: Mapping[type[nn.Module], Kind] = field(default_factory=dict)
    """Where the positions are in blocks of its own classes. q, k and v must be a layer each, or
    three equal slices of one layer's output, in this order; each branch ends in a module of its
    own."""

    def make(self, spec: BackboneSpec) -> Backbone:
        """Build the network and check it.

        Raises:
            UserError: it is not what this contract says; names what is missing.
        """
        for block, kind in self.kinds.items():
            if KINDS.setdefault(block, kind) != kind:
                raise UserError(
                    f"Backbone {spec.name!r} says of {block.__name__} what another one says "
                    "otherwise: give its blocks a class of their own."
                )
        with code_of(f"Backbone {spec.name!r}", "build"):
            model: object = self.build(spec)
        if not isinstance(model, nn.Module):
            raise UserError(
                f"Backbone {spec.name!r} builds {type(model).__name__}, not an nn.Module."
            )
        return checked(model, spec.name) if isinstance(model, Backbone) else _own(model, spec)


def _own(model: nn.Module, spec: BackboneSpec) -> Backbone:
    """The model, if it is as `OwnBackbone` says.

    Raises:
        UserError: it is not.
    """
    found = f"Backbone {spec.name!r} is a {type(model).__name__}"
    missing = [name for name in NEEDED if not hasattr(model, name)]
    if missing:
        raise UserError(f"{found} without {', '.join(missing)} (see `OwnBackbone`).")
    stem = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    if stem is None or stem.in_channels != spec.in_chans:
        raise UserError(f"{found} whose first convolution does not read {spec.in_chans} bands.")
    width = getattr(model, "num_features")  # noqa: B009, of a class that is not known
    blocks = getattr(model, "blocks")  # noqa: B009
    for number, block in enumerate(blocks):
        kind = KINDS.get(type(block))
        if kind is None:
            raise UserError(
                f"{found} with blocks of class {type(block).__name__}, of which `kinds` says "
                "nothing."
            )
        modules, layers = dict(block.named_modules()), paths_of(block)
        paths: dict[Position, str | tuple[str, str]] = {**layers, **kind.branches}
        for position, path in paths.items():
            for each in (path,) if isinstance(path, str) else path:
                if each not in modules:
                    raise UserError(f"{found} without {each} (for {position}) in block {number}.")
        wanted = f"3 x {width}: q, k and v are slices of one layer"
        gives = 3 * width
        if not share_a_layer(layers):
            wanted, gives = f"{width}: q, k and v have a layer each", width
        for position, name in layers.items():
            layer = modules[name]
            if not isinstance(layer, nn.Linear):
                raise UserError(f"{found} whose {name} in block {number} is no nn.Linear.")
            if position in QKV and layer.out_features != gives:
                raise UserError(
                    f"{found} whose {name} in block {number} gives {layer.out_features} features, "
                    f"not {wanted}."
                )
    return model
