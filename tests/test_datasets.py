"""Every registered dataset keeps the contract, as far as there are files of it."""

from __future__ import annotations

import pytest
from support.images import two_splits

from harness.data.contract import DATASETS, file_dataset
from harness.data.packed import load_packed
from harness.errors import UserError
from harness.spec import DataSpec
from harness.testing import DatasetContract, DatasetDeclaration

SHIPPED = [
    name for name, kind in DATASETS.working().items() if kind.__module__.startswith("harness.")
]


class TestEveryDataset(DatasetDeclaration):
    @pytest.fixture(params=SHIPPED)
    def name(self, request):
        return request.param


class TestSynthRS(DatasetContract):
    dataset = "synth-rs"
    options = {"test_per_class": 4}  # noqa: RUF012


class TestFolder(DatasetContract):
    dataset = "folder"

    @pytest.fixture
    def data_root(self, tmp_path):
        return two_splits(tmp_path / "data")


def test_a_drawn_dataset_is_not_looked_for_on_disk():
    with pytest.raises(UserError, match="synth-rs is drawn, not read from files"):
        file_dataset("synth-rs")
    with pytest.raises(UserError, match="synth-rs is drawn, not read from files"):
        load_packed(DataSpec(name="synth-rs", sha256="0"), 32, "packs")
    with pytest.raises(UserError, match=r"Unknown dataset 'synthrs'. Did you mean 'synth-rs'"):
        file_dataset("synthrs")
