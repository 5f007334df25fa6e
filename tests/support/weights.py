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


LAYOUTS = {
    "timm": lambda state: state,
    "timm with its head": lambda state: {**state, "head.weight": torch.ones(5, 64)},
    "DDP": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "encoder": lambda state: {"model": {f"model.encoder.{k}": v for k, v in state.items()}},
    "MAE": as_mae,
    "DINO": as_dino,
    "a flat pair": as_flat_pair,
}
