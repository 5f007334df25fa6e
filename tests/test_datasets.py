"""What every registered dataset declares about itself."""

from __future__ import annotations

import inspect

import pytest

from harness.data.contract import DATASETS, Downloadable, DrawnDataset, FileDataset, OwnFormat
from harness.data.packed import file_dataset, is_on_disk, load_packed
from harness.errors import UserError
from harness.spec import DataSpec, Frozen


@pytest.mark.parametrize("name", DATASETS.names())
class TestEveryDataset:
    def test_is_on_disk_or_drawn(self, name):
        dataset = DATASETS.get(name)
        assert issubclass(dataset, FileDataset) != issubclass(dataset, DrawnDataset)
        assert is_on_disk(name) == issubclass(dataset, FileDataset)

    def test_has_all_that_its_kind_asks_for(self, name):
        # It is never instantiated, so Python itself would not notice.
        dataset = DATASETS.get(name)
        assert not inspect.isabstract(dataset)
        assert issubclass(dataset.Options, Frozen)
        assert dataset.Options() == dataset.Options.model_validate_json("{}")
        assert dataset.summary
        if is_on_disk(name):
            assert dataset.layout.startswith(f"{name}: ")

    def test_whatever_it_can_do_it_declares(self, name):
        dataset = DATASETS.get(name)
        for method, kind in (("read", OwnFormat), ("download", Downloadable)):
            assert hasattr(dataset, method) == issubclass(dataset, kind)


def test_a_drawn_dataset_is_not_looked_for_on_disk():
    with pytest.raises(UserError, match="synth-rs is drawn, not read from files"):
        file_dataset("synth-rs")
    with pytest.raises(UserError, match="synth-rs is drawn, not read from files"):
        load_packed(DataSpec(name="synth-rs", sha256="0"), 32, "packs")
    with pytest.raises(UserError, match=r"Unknown dataset 'synthrs'. Did you mean 'synth-rs'"):
        file_dataset("synthrs")
