"""Shared pieces: small backbones on random weights, and everything on one thread."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES

from harness.model.backbones import load_backbone

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbones():
    """name -> (spec, frozen model); shared, because attaching must leave no trace."""
    cpu = torch.device("cpu")
    return {name: (spec, load_backbone(spec, cpu)) for name, spec in BACKBONES.items()}
