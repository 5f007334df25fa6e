"""What a trial will cost, before it runs: seconds, FLOPs, parameters.

Owns: these estimates. Must not know: budgets, studies, actual costs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from harness.data.dataset import ImageSet, normalised, one_of
from harness.insertion.method import get_method
from harness.model.backbones import dims
from harness.runner.prepare import attached, fix_arithmetic, prepare
from harness.runner.runtime import Runtime
from harness.spec import TrialSpec
from harness.store.records import Counted
from harness.training.clock import Stopwatch
from harness.training.evaluation import flops_of, passes_over
from harness.training.train import TrainingLoop

PROBE_BATCHES = 6
"""Enough for a method's own steps between the trainer's to show in an estimate."""


def probe_seconds(spec: TrialSpec, runtime: Runtime) -> float:
    """Estimate a trial's device seconds from a few batches of it, after as many to warm up.

    The same share of every split is trained on and scored as in one of its epochs, on average.
    """
    fix_arithmetic()
    whole, epochs = prepare(spec, runtime).split, spec.recipe.epochs
    share = min(1.0, PROBE_BATCHES * spec.recipe.batch_size / len(whole.train))
    select = _some(whole.select, share * spec.recipe.scored(epochs) / epochs)
    small = replace(
        whole,
        train=_some(whole.train, share),
        select=select,
        test=select if whole.test is whole.select else _some(whole.test, share / epochs),
    )
    recipe = spec.recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    with attached(spec, runtime) as (classifier, prepared):
        seconds = 0.0
        for _ in range(2):
            watch = Stopwatch(torch.device(runtime.device))
            data = prepared.dataset
            TrainingLoop(classifier, data, small, recipe, seed=spec.seed).run(lambda row: None)
            _, seconds = watch.spent
    return seconds * epochs / share


def _some(images: ImageSet, share: float) -> ImageSet:
    """So many images from all over the set, which may be in the order of the classes."""
    count = math.ceil(share * len(images))
    index = torch.linspace(0, len(images) - 1, count, device=images.labels.device).long()
    return images.subset(index)


def count_params(spec: TrialSpec) -> Counted:
    """The trainable parameters of a trial by its method's formula; nothing is loaded."""
    method, sizes = get_method(spec.method), dims(spec.backbone)
    options = method.parse_options(spec.options)
    return Counted(method.expected_params(sizes, spec.placement, options), sizes.width)


def full_run_flops(spec: TrialSpec, runtime: Runtime) -> int:
    """FLOPs of a trial that runs to its end, without its test and the method's own steps."""
    fix_arithmetic()
    with attached(spec, runtime) as (classifier, prepared):
        parts = prepared.split
        sample = normalised(one_of(parts.train), prepared.dataset)
        flops = flops_of(classifier, sample)
    epochs = spec.recipe.epochs
    trained = epochs * len(parts.train)
    steps = epochs * math.ceil(len(parts.train) / spec.recipe.batch_size)
    times = spec.recipe.scored(epochs)
    scored = flops.of(times * len(parts.select), times * passes_over(parts.select))
    return flops.of(trained, steps) + flops.of_backward(trained, steps) + scored
