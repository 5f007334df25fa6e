"""Weights of small backbones, in the layouts of the files that people publish."""

from __future__ import annotations

import argparse

import torch

from harness.model.backbones import features, load_backbone

CPU = torch.device("cpu")


def random_state(spec, seed=3):
    """A state dict of a backbone with values that no construction gives."""
    rng = torch.Generator().manual_seed(seed)
    state = load_backbone(spec, CPU).state_dict()
    return {k: 0.1 * torch.randn(v.shape, generator=rng) for k, v in state.items()}


def of_file(spec):
    return spec.model_copy(update={"weights": "file"})


def images(size, bands=3):
    return torch.randn(2, bands, size, size, generator=torch.Generator().manual_seed(0))


def expected(spec, state, x):
    model = load_backbone(spec, CPU)
    model.load_state_dict(state)
    return features(model, x)


def as_mae(state):
    rest = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 5, 8)}
    rest["decoder_blocks.0.norm1.weight"] = torch.ones(8)
    return {"model": {**state, **rest}, "args": argparse.Namespace(lr=1.0), "epoch": 3}


def as_dino(state):
    other = {f"module.backbone.{k}": torch.zeros_like(v) for k, v in state.items()}
    teacher = {f"backbone.{k}": v for k, v in state.items()}
    return {"student": other, "teacher": {**teacher, "head.mlp.0.weight": torch.ones(2, 2)}}


def as_flat_pair(state):
    """A teacher and a student in one flat state dict."""
    student = {f"student.{k}": torch.zeros_like(v) for k, v in state.items()}
    return {"state_dict": {**student, **{f"teacher.{k}": v for k, v in state.items()}}}


def as_released_ema(state):
    """What timm's training script keeps: weights and their moving average, which is not taken."""
    other = {k: torch.zeros_like(v) for k, v in state.items()}
    return {"epoch": 3, "state_dict_ema": other, "state_dict": state, "version": 2}


def by_modules(state):
    """A dictionary for every module, instead of dotted names."""
    nested = {}
    for name, value in state.items():
        *modules, last = name.split(".")
        inner = nested
        for module in modules:
            inner = inner.setdefault(module, {})
        inner[last] = value
    return nested


LAYOUTS = {
    "timm": lambda state: state,
    "timm with its head": lambda state: {**state, "head.weight": torch.ones(5, 64)},
    "DDP": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "encoder": lambda state: {"model": {f"model.encoder.{k}": v for k, v in state.items()}},
    "MAE": as_mae,
    "DINO": as_dino,
    "a flat pair": as_flat_pair,
    "a tensor beside": lambda state: {"best_acc1": torch.tensor(71.0), "state_dict": state},
    "model_state_dict": lambda state: {"step": 7, "model_state_dict": state},
    "EMA alone": lambda state: {"state_dict_ema": state},
    "EMA": as_released_ema,
    "deep": lambda state: {"net": {"deep": [{"vision": {f"tower.{k}": state[k] for k in state}}]}},
    "by modules": lambda state: {"params": by_modules(state)},
}
TWO_TOWERS = ("DINO", "a flat pair", "EMA")
"""Layouts that hold two, of which one is zeros."""
