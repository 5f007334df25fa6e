"""`few-rs`: the embedded benchmark with fewer images, for tests that train in their own process."""

from __future__ import annotations

from unittest import mock

from harness.data.contract import DrawnDataset
from harness.datasets import synth_rs
from support.records import TINY

MOST = 16
"""Training images of a class."""


class FewRS(DrawnDataset):
    """Registered by the fixture `few_images`."""

    Options = synth_rs.SynthRSOptions
    summary = "synth-rs with at most 16 training images of a class"

    @staticmethod
    def load(options):
        few = {name: min(count, MOST) for name, count in synth_rs.TRAIN_COUNTS.items()}
        with mock.patch.object(synth_rs, "TRAIN_COUNTS", few):
            return synth_rs.SynthRS.load(options)


VALUES = {"data": "few-rs", "data.options.test_per_class": 4, "data.val_fraction": 0.5}
FEW = TINY.with_values(VALUES, source="test")
"""Half as many train as of `TINY`, and an eighth as many choose."""
SET = [word for field, value in VALUES.items() for word in ("--set", f"{field}={value}")]
"""The same on the command line."""
