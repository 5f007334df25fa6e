"""The optimiser that a recipe asks for, its groups of one rate each, and its schedule.

Owns: which tensor is trained at which rate. Must not know: the loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from timm.models import group_parameters
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from harness.errors import UserError
from harness.model.blocks import blocks_of
from harness.spec import Recipe
from harness.training.classifier import Classifier


def make_optimiser(
    classifier: Classifier, parameters: Mapping[str, nn.Parameter], recipe: Recipe
) -> torch.optim.Optimizer:
    """An optimiser of these parameters; the first group is at the recipe's whole rate."""
    device = next(iter(parameters.values())).device
    groups = [
        {"params": tensors, "lr": recipe.first_rate * factor}
        for factor, tensors in by_factor(classifier, parameters, recipe).items()
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=is_fused(device))
    return torch.optim.SGD(
        groups,
        lr=recipe.first_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=is_fused(device),
    )


def is_fused(device: torch.device) -> bool:
    """Whether an optimiser's step is one kernel for all tensors: on a GPU, where each has a price.

    With one, fp16's check for overflow needs no answer from the GPU either.
    """
    return device.type == "cuda"


def by_factor(
    classifier: Classifier, parameters: Mapping[str, nn.Parameter], recipe: Recipe
) -> dict[float, list[nn.Parameter]]:
    """Parameters by what the recipe's rate is multiplied by, in their order; 1 comes first.

    Raises:
        UserError: a tensor is in no layer of the backbone, and so has no rate by layers, or the
            backbone does not say which layers it has.
    """
    own = classifier.attachment.rate_factors()
    above = _layers_above(classifier) if recipe.layer_decay < 1 else {}
    found: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in parameters.items():
        factor = own.get(parameter, 1.0)
        if above and not name.startswith("head."):
            if parameter not in above:
                raise UserError(f"recipe.layer_decay: {name} belongs to no single layer.")
            factor *= recipe.layer_decay ** above[parameter]
        found.setdefault(factor, []).append(parameter)
    return {factor: tensors for factor, tensors in found.items() if tensors}


def _layers_above(classifier: Classifier) -> dict[nn.Parameter, int]:
    """How many layers are above that of each trained tensor, the head among them.

    Layers are timm's: the stem, and every block; the last norm counts as the last block.
    """
    backbone = classifier.backbone
    if not hasattr(backbone, "group_matcher"):
        raise UserError(
            f"recipe.layer_decay: a {type(backbone).__name__} has no method group_matcher, which "
            "says of timm's models what their layers are: give the backbone one, or leave it at 1."
        )
    layers = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    of_blocks = {
        name: next(layer for each, layer in layers.items() if each.startswith(f"{name}."))
        for name, _ in blocks_of(backbone)
    }
    top, layers = max(of_blocks.values()) + 1, {**layers, **of_blocks}
    places = classifier.attachment.places()
    return {tensor: max(top - layers[place], 0) for tensor, place in places.items()}


def make_schedule(recipe: Recipe, optimiser: torch.optim.Optimizer) -> LRScheduler:
    """The rate of every epoch. A warm-up's epochs come before those of the schedule."""
    if recipe.schedule == "cosine" and not recipe.warmup_epochs:
        return CosineAnnealingLR(optimiser, T_max=recipe.epochs)
    return LambdaLR(optimiser, lambda epoch: rate_at(recipe, epoch))


def rate_at(recipe: Recipe, epoch: int) -> float:
    """The rate of an epoch (from 0) as a share of the first one after the warm-up."""
    after = epoch - recipe.warmup_epochs
    if after < 0:
        return (epoch + 1) / (recipe.warmup_epochs + 1)
    if recipe.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * after / (recipe.epochs - recipe.warmup_epochs))) / 2
