"""What trials are timed against: LoRA and a training loop as one writes them by hand, and peft.

Owns: these stand-ins. Must not know: hooks, attachments, the trainer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.data.dataset import Images, crop_flip
from harness.errors import UserError
from harness.model.blocks import QKV, Backbone, layer_name
from harness.spec import Placement, Position, Recipe, Site
from harness.training.arithmetic import autocast

RANK = 4
ALPHA = 4.0


class ByHand(nn.Module):
    """A frozen linear map with LoRA at some thirds of its output, or at all of it."""

    def __init__(self, layer: nn.Linear, thirds: Sequence[int] | None) -> None:
        super().__init__()
        self.layer, self.thirds = layer, thirds
        count, width = 1 if thirds is None else len(thirds), layer.out_features
        width = width if thirds is None else width // 3
        device = layer.weight.device
        down = [nn.Linear(layer.in_features, RANK, bias=False) for _ in range(count)]
        up = [nn.Linear(RANK, width, bias=False) for _ in range(count)]
        self.down, self.up = nn.ModuleList(down).to(device), nn.ModuleList(up).to(device)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        deltas = [up(down(x)) * (ALPHA / RANK) for down, up in zip(self.down, self.up, strict=True)]
        if self.thirds is None:
            whole: Tensor = output + deltas[0]
            return whole
        parts = list(output.chunk(3, dim=-1))
        for third, delta in zip(self.thirds, deltas, strict=True):
            parts[third] = parts[third] + delta
        return torch.cat(parts, dim=-1)


def by_hand(model: Backbone, placement: Placement) -> Backbone:
    """A copy of a backbone with LoRA by hand at these sites."""
    changed = copy.deepcopy(model)
    layers: dict[str, list[Position]] = {}
    for site, _ in placement.items():
        layers.setdefault(layer_name(model, site), []).append(site.position)
    for name, positions in layers.items():
        path, _, leaf = name.rpartition(".")
        layer = changed.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        thirds = [QKV.index(p) for p in positions] if positions[0] in QKV else None
        setattr(changed.get_submodule(path), leaf, ByHand(layer, thirds))
    return changed


def by_peft(model: Backbone, placement: Placement) -> Backbone | None:
    """The same by Hugging Face's peft, one LoRA on the whole of q, k and v; None without it."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        return None
    names = sorted({layer_name(model, Site(s.block, s.position)) for s, _ in placement.items()})
    config = LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=names)
    wrapped: Backbone = get_peft_model(copy.deepcopy(model), config).base_model.model
    return wrapped


FIELDS = ("batch_size", "lr", "momentum", "weight_decay", "tau", "crop_scale_min", "precision")
"""Of a recipe: those that `epoch` trains by."""


def refuse_recipe(recipe: Recipe) -> None:
    """Whether `epoch` trains as a recipe does, so that its time can be compared.

    Raises:
        UserError: another field than `FIELDS` is not at its default.
    """
    usual = Recipe()
    for field in Recipe.model_fields:
        if field not in FIELDS and getattr(recipe, field) != getattr(usual, field):
            raise UserError(
                f"recipe.{field}={getattr(recipe, field)}: the loop that is timed beside is plain "
                f"SGD on crops for one epoch, so only {', '.join(FIELDS)} can be set."
            )


def epoch(
    logits: Callable[[Tensor], Tensor],
    trained: Sequence[nn.Parameter],
    images: Images,
    counts: Tensor,
    recipe: Recipe,
    *,
    mean: Tensor,
    std: Tensor,
) -> float:
    """One epoch of SGD on crops, with logit adjustment, as a short script has it; its mean loss.

    `mean` and `std` `[1, c, 1, 1]` are of pixels in 0..255.
    """
    device = images.labels.device
    optimiser = torch.optim.SGD(
        trained,
        lr=recipe.lr * math.sqrt(recipe.batch_size / 128),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    shift = recipe.tau * (counts / counts.sum()).log()
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros((), device=device)
    for index in torch.randperm(len(images), generator=rng).split(recipe.batch_size):
        batch = images.subset(index.to(device))
        pixels = crop_flip(batch.pixels, recipe.crop_scale_min, rng)
        with autocast(recipe, device):
            scores = logits((pixels - mean) / std)
        loss = cross_entropy(scores.float() + shift, batch.labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(index)
    return float(total) / len(images)
