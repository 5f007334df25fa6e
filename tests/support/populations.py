"""Population-based training, on an objective in closed form: no training."""

from __future__ import annotations

import math

from harness.search.base import Decision
from harness.search.population import PopulationSearch
from harness.study.axes import Axis
from harness.study.space import SearchSpace
from support.searches import outcome, study, task

ALPHAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


PBT = study(
    axes=(
        Axis(field="positions", values=("mlp1", "q", "v"), label="position"),
        Axis(field="alpha", values=ALPHAS, label="alpha"),
    )
)


def population(log, size=8, made=PBT, epochs=8):
    started = task(SearchSpace(made, 12), log, "1", epochs=epochs)
    return PopulationSearch(started, size)


def pauses(made, spec, epoch):
    decision = made.report(spec.trial_id, epoch, 0.1)
    assert decision in (Decision.GO_ON, Decision.PAUSE)  # it may always be asked for again
    return decision is Decision.PAUSE


def live(made, most=None, fate=lambda spec: None, shift=0.0):
    """Train members of 8 epochs as an engine would; (trial, epochs) in order of their ends."""
    ends = []
    while (most is None or len(ends) < most) and (asked := made.ask(1)):
        (spec,) = asked
        until = next((e for e in range(1, 8) if pauses(made, spec, e)), 8)
        alpha = [spec.options["values"]["alpha"], *(c.placement.root["0.q"] for c in spec.changes)]
        worth = shift + 0.5 - 0.05 * abs(math.log2(alpha[-1]))
        status = fate(spec) or ("COMPLETE" if until == 8 else "PRUNED")
        objective = None if status == "FAILED" else worth
        cost = dict(epochs=until, device_s=2.0 * until, flops=10 * until)
        made.tell(outcome(spec, status=status, objective=objective, **cost))
        ends.append((spec.trial_id, until))
    return ends
