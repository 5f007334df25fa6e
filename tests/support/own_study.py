"""A study file that registers a method, a dataset and a backbone of its own."""

from __future__ import annotations

from support.processes import Fork, command_line

SCALING = """
from __future__ import annotations

import torch
from torch import nn

from harness.data.contract import DATASETS, DrawnDataset
from harness.datasets.synth_rs import SynthRS
from harness.insertion.attachment import Attachment, Delta
from harness.insertion.method import METHODS, PeftMethod
from harness.model.backbones import BACKBONES, EMBEDDED
from harness.model.own import OwnBackbone
from harness.spec import Frozen
from harness.study import Axis, Points
from harness.studies.depth_vs_position import study as base
from timm.models.vision_transformer import VisionTransformer


class Options(Frozen):
    factor: float = {factor}


class Scale(Delta):
    def __init__(self, width, factor):
        super().__init__()
        self.scale, self.factor = nn.Parameter(torch.zeros(width)), factor

    def forward(self, x, strength):
        return strength * self.factor * self.scale * x


@METHODS.register("{name}")
class Scaling(PeftMethod[Options]):
    Options = Options
    positions = ("attn", "ffn")
    default_positions = ("ffn",)
    additive = True
    summary = "scales each feature"

    def attach(self, model, placement, options, *, seed):
        attachment = Attachment(model)
        for site, alpha in placement.items():
            delta = Scale(model.num_features, options.factor)
            attachment.add_delta(site, delta, alpha, "sequential")
        return attachment

    def expected_params(self, dims, placement, options):
        return len(placement) * dims.width


@DATASETS.register("{name}-data")
class Small(DrawnDataset):
    Options = SynthRS.Options
    summary = "synth-rs again"
    load = staticmethod(SynthRS.load)


BACKBONES.add(
    "{name}_vit",
    OwnBackbone(
        build=lambda spec: VisionTransformer(**{{**EMBEDDED["vit_pico"], "depth": 2}}),
        summary="two blocks",
        input_size=32,
    ),
)


def study():
    values = {{"backbone": "{name}_vit", "backbone.weights": "random", "data": "{name}-data",
              "data.options": {{"test_per_class": 2}}, "data.val_fraction": 0.8,
              "recipe.epochs": 1}}
    return base().derive(
        name="own",
        base=base().base.with_values({{**values, "positions": None, "depth": "all",
                                       "options": {{}}, "alpha": 1.0}}, source="t"),
        axes=(Axis(field="method", values=("{name}", "bitfit"), label="method"),),
        views=(Points(rows="method", title="t"),),
        reference=None,
        seeds=(0,),
        smoke={{}},
    )
"""


def study_file(folder, name, factor=1.0, file="own.py"):
    path = folder / file
    path.write_text(SCALING.format(name=name, factor=factor))
    return path


def elsewhere(*command):
    """A command in a process of its own."""
    return Fork(command_line, list(map(str, command))).end()
