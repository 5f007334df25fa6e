"""Small specs, records of trials that were not run, and a study of four cells."""

from __future__ import annotations

from harness.spec import (
    BackboneSpec,
    DataSpec,
    Placement,
    Recipe,
    TrialRequest,
    TrialSpec,
)
from harness.store.records import Cost, TrialRecord
from harness.study.axes import Axis
from harness.study.figures import View
from harness.study.study import Study


def make_spec(**changes):
    fields = dict(
        method="lora",
        options={"rank": 4, "scale": "alpha_over_r"},
        placement=Placement.of(["mlp1"], [10, 11], 4.0),
        backbone=BackboneSpec(weights="random"),
        data=DataSpec(options={"seed": 0, "test_per_class": 80}),
        recipe=Recipe(precision="fp32"),
        seed=0,
    )
    return TrialSpec(**{**fields, **changes})


TINY = TrialRequest(
    positions=("mlp1",),
    depth="last:1",
    backbone={"weights": "random"},
    data=DataSpec(options={"test_per_class": 4}, val_fraction=0.8),  # one image in five trains
    recipe=Recipe(epochs=1, batch_size=128, precision="fp32"),
)

WHOLE = TINY.model_copy(update={"data": DataSpec(options={"test_per_class": 4})})
"""With as many images held out as by default."""


def make_record(spec, status="COMPLETE", **changes):
    fields = dict(
        trial_id=spec.trial_id,
        spec=spec,
        status=status,
        select=None,
        test=None,
        num_classes=15,
        epochs_run=1,
        tested_epoch=None,
        expected_params=1,
        trainable_params=1,
        head_params=1,
        cost=Cost(
            wall_s=1.0,
            device_s=1.0,
            images_forward=1,
            images_backward=1,
            flops=1,
            peak_memory_mb=1.0,
        ),
        provenance={},
    )
    return TrialRecord(**{**fields, **changes})


def publish(store, spec, **changes):
    with store.claim(spec) as claim:
        claim.publish(make_record(spec, **changes))


def tiny_study(**changes):
    fields = dict(
        name="tiny",
        question="?",
        paper="none",
        base=TINY,
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="alpha", values=(1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="t"),),
        fixed="",
    )
    return Study(**{**fields, **changes})
