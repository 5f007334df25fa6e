"""Ten methods, each trained for one epoch, one after another in one process and one store."""

from __future__ import annotations

import math

from support.few import FEW

from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.store.store import Store

TEN = (
    "linear_probe",
    "bitfit",
    "vpt_shallow",
    "vpt_deep",
    "adapter",
    "adaptformer",
    "bottleneck",
    "lora",
    "lotr",
    "metapeft",
)


def test_ten_methods_train_in_one_process(few_images, tmp_path):
    """The first, trained again after the others, has the same numbers: none leaves a trace."""
    base = FEW.with_values({"positions": None, "depth": "all"}, source="test")
    specs = [resolve(base.with_values({"method": m}, source="test"), Runtime()) for m in TEN]
    assert len({spec.trial_id for spec in specs}) == len(TEN)
    records = {s.method: run_trial(s, Runtime(), Store(tmp_path / "once")) for s in specs}
    for name, record in records.items():
        assert record.status == "COMPLETE", (name, record.error)
        assert record.trainable_params == record.expected_params, name
        assert math.isfinite(record.test.loss) and 0 <= record.test.class_mean <= 1, name
        assert record.cost.flops > 0, name
    probe = records["linear_probe"]
    assert probe.trainable_params == 0
    again = run_trial(specs[0], Runtime(), Store(tmp_path / "again"))
    assert (again.select, again.test) == (probe.select, probe.test)
