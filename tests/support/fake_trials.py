"""Records of trials that were not run, for comparisons."""

from __future__ import annotations

from harness.comparison.controls import Controls
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import Placement
from harness.store.run_folder import RunFolder
from harness.store.runs import write_comparison
from harness.study.axes import Axis
from harness.study.figures import Points
from harness.study.study import Study
from support.records import TINY, make_record, publish
from support.runs import scored

META = TINY.with_values(
    {"method": "metapeft", "positions": "q,mlp1", "depth": "last:2"}, source="test"
)


class Fake:
    """Publishes made records: the score depends on the request, never on training."""

    def __init__(self, store, score, diverged=()):
        self.store, self.score, self.diverged, self.asked = store, score, diverged, []

    def __call__(self, requests):
        records = []
        for request in requests:
            spec = resolve(request, Runtime())
            if self.store.record(spec.trial_id) is None:
                self.asked.append(spec)
                self.publish(request, spec)
            records.append(self.store.record(spec.trial_id))
        return records

    def publish(self, request, spec):
        value = self.score(spec)
        seconds = 3.0 if spec.method == "metapeft" else 2.0
        flops = 7 if spec.method == "metapeft" else 5
        learned = None
        if spec.method == "metapeft":
            values = (2.0, 1.0, 0.5, 0.1)
            if spec.options["variant"] == "gradient_norm":  # one pass, other sites
                values, seconds, flops = (1.0, 4.0, 2.0, 3.0), 0.2, 1
            learned = Placement(dict(zip(spec.placement.root, values, strict=False)))
        cost = make_record(spec).cost.model_copy(update={"device_s": seconds, "flops": flops})
        if spec.seed in self.diverged and spec.method == "metapeft":
            publish(self.store, spec, status="DIVERGED", cost=cost)
            return
        publish(
            self.store, spec, select=scored(value), test=scored(value), cost=cost, learned=learned
        )


def cells():
    return Study(
        name="cells",
        question="?",
        paper="none",
        base=TINY,
        axes=(Axis(field="depth", values=("last:1", "last:3"), label="depth"),),
        views=(Points(rows="depth", title="t"),),
        fixed="",
    )


def controls(store, fake, seeds=(0, 1)):
    return Controls(
        META, seeds=seeds, study=cells(), run=fake, store=store, runtime=Runtime()
    ).compare()


def written(comparison, store):
    folder = RunFolder.of(store, "cells")
    folder.path.mkdir(parents=True)
    write_comparison(folder, comparison, {})
    return folder


def score(spec):
    """MetaPEFT 0.6, the double rate best for LoRA, a little of the seed everywhere."""
    base = 0.6 if spec.method == "metapeft" else 0.5
    if spec.method == "lora" and spec.recipe.lr == 0.02:
        base = 0.55
    return base + 0.01 * spec.seed
