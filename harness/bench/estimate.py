"""What studies would cost on this machine, from one short timing.

Owns: the estimate of `harness list studies`. Must not know: stores, and what has been run already.
"""

from __future__ import annotations

from harness.comparison.request import BUDGET, REPEATS_LIVE, names_of
from harness.model.backbones import dims
from harness.runner.cost import count_params, probe_seconds
from harness.runner.prepare import prepare
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest, TrialSpec
from harness.study.study import Study


def trial_count(study: Study) -> int:
    """Trials of a study: of its cells, or of the searches that it compares."""
    if study.searches is not None:
        return len(names_of(study.searches, [])) * REPEATS_LIVE * int(BUDGET)
    return len(study.cells()) * len(study.seeds) if study.trains else 0


class Estimate:
    """Times one trial of `reference` for a moment, and scales it to others on the same data.

    Scaled by the images that pass forward and backward: a backward pass goes down to the lowest
    adapted block and costs there what the forward pass does, and a method that learns strengths
    adds a step of its own to every `inner_steps`. What the modules themselves cost is left out, so
    that many sites take up to a third longer than said.
    """

    def __init__(self, reference: TrialRequest, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reference = resolve(reference, runtime)
        parts = prepare(self._reference, runtime).split
        known = round(len(parts.train) / self._reference.data.train_share)
        if self._reference.data.selected_on == "val":
            known += len(parts.select)
        self._classes, self._images, self._tested = len(parts.train_counts), known, len(parts.test)
        self._unit = probe_seconds(self._reference, runtime) / self._work(self._reference)

    def device_s(self, study: Study) -> float | None:
        """Device seconds of every trial of a study; None on another backbone or other data."""
        known = self._reference
        total, cells = 0.0, list(study.cell_requests()) if study.trains else []
        for _, request in cells:
            if request.data.name != known.data.name:
                return None  # and its files need not be there
            spec = resolve(request, self._runtime)
            if spec.backbone != known.backbone:
                return None
            total += self._work(spec)
        return self._unit * total / max(1, len(cells)) * trial_count(study)

    def _work(self, spec: TrialSpec) -> float:
        """Epochs, each weighted by how far its images travel; arbitrary units."""
        blocks = dims(spec.backbone).num_blocks
        lowest = min((site.block for site, _ in spec.placement.items()), default=0)
        backward = (blocks - lowest) / blocks if count_params(spec).trainable_params else 0.0
        held_out = scored = spec.data.val_fraction
        if spec.data.selected_on != "val":
            beside = self._tested
            if spec.data.selected_on == "dev":
                beside = self._classes * spec.data.dev_per_class
            held_out, scored = 0.0, beside / self._images
        trained = (1 - held_out) * spec.data.train_share
        work = spec.recipe.epochs * (trained * (1 + backward) + scored)
        steps = spec.options.get("inner_steps")
        return work * (1 + 1 / steps) if isinstance(steps, int) else work
