"""What every dataset must keep.

Owns: these tests. Must not know: any dataset by name.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import pytest
import torch
from pydantic import JsonValue

from harness.data.contract import (
    DATASETS,
    AnyDataset,
    Downloadable,
    DrawnDataset,
    FileDataset,
    OwnFormat,
    is_drawn,
)
from harness.data.dataset import Dataset, split
from harness.data.dev_set import DevSet
from harness.data.listing import MissingData
from harness.data.packed import PackRequest, load_packed, pack_of
from harness.errors import UserError
from harness.spec import DataSpec, Frozen, validated

SIZE = 32
"""Views of images on disk, in pixels."""


class DatasetDeclaration:
    """What can be checked without a dataset's files. Set `dataset`."""

    dataset: str

    @pytest.fixture
    def name(self) -> str:
        return self.dataset

    @pytest.fixture
    def kind(self, name: str) -> AnyDataset:
        return DATASETS.get(name)

    def test_it_is_on_disk_or_drawn(self, name: str, kind: AnyDataset) -> None:
        assert issubclass(kind, FileDataset) != issubclass(kind, DrawnDataset)
        assert is_drawn(name) != issubclass(kind, FileDataset)

    def test_it_has_all_that_its_kind_asks_for(self, name: str, kind: AnyDataset) -> None:
        # It is never instantiated, so Python itself would not notice.
        assert not inspect.isabstract(kind)
        assert issubclass(kind.Options, Frozen)
        assert kind.Options() == kind.Options.model_validate_json("{}")
        assert kind.summary and "\n" not in kind.summary
        if issubclass(kind, FileDataset):
            assert kind.layout.startswith(f"{name}: ")

    def test_whatever_it_can_do_it_declares(self, kind: AnyDataset) -> None:
        for method, base in (("read", OwnFormat), ("download", Downloadable)):
            assert hasattr(kind, method) == issubclass(kind, base)

    def test_an_unknown_option_is_refused_by_name(self, name: str, kind: AnyDataset) -> None:
        with pytest.raises(UserError, match="no_such_option"):
            validated(kind.Options, {"no_such_option": 1}, source=f"data {name}")


class DatasetContract(DatasetDeclaration):
    """Set `dataset` and, for one on disk, override the fixture `data_root`."""

    options: ClassVar[Mapping[str, JsonValue]] = {}

    @pytest.fixture
    def data_root(self, tmp_path: Path) -> Path | None:
        """A folder with a miniature of the dataset's files; None for one that is drawn."""
        return None

    @pytest.fixture
    def spec(self, name: str, kind: AnyDataset, data_root: Path | None, tmp_path: Path) -> DataSpec:
        options = dict(self.options)
        if data_root is None:
            return DataSpec(name=name, options=options)
        parsed = validated(kind.Options, options, source=f"data {name}").model_dump_json()
        root, packs = str(data_root), str(tmp_path / "packs")
        sha256 = pack_of(PackRequest(name, parsed, SIZE, root, packs)).sha256
        return DataSpec(name=name, options=options, sha256=sha256)

    @pytest.fixture
    def loaded(self, spec: DataSpec, tmp_path: Path) -> Dataset:
        return _load(spec, tmp_path / "packs")

    def test_pixels_and_labels_are_what_is_said(self, loaded: Dataset) -> None:
        for images in (loaded.train, loaded.test):
            pixels, labels = images.plain(), images.labels
            assert pixels.dtype == torch.uint8 and pixels.ndim == 4
            assert labels.dtype == torch.int64 and labels.shape == (len(images),)
            assert len(pixels) == len(images) > 0
            assert int(labels.min()) >= 0 and int(labels.max()) < len(loaded.classes)
            assert pixels.shape[1] == len(loaded.mean) == len(loaded.std)
            assert len({str(each.tolist()) for each in pixels[:8]}) > 1, "all images are alike"

    def test_classes_are_named_once_and_groups_part_them(self, loaded: Dataset) -> None:
        assert len(set(loaded.classes)) == len(loaded.classes) > 1
        members = list(itertools.chain.from_iterable(loaded.groups.values()))
        assert sorted(members) == list(range(len(loaded.classes)))

    def test_every_class_can_be_trained_and_selected_on(
        self, loaded: Dataset, spec: DataSpec
    ) -> None:
        parts = split(loaded, spec, seed=0)
        held_out = len(loaded.train) - len(parts.train)
        assert held_out == (0 if spec.dev_per_class else len(parts.select))
        assert int(parts.train_counts.min()) > 0

    def test_it_is_the_same_at_every_call(
        self, loaded: Dataset, spec: DataSpec, tmp_path: Path
    ) -> None:
        torch.manual_seed(7)  # chance may come from the options' seed alone
        again = _load(spec, tmp_path / "packs")
        assert (again.classes, again.groups) == (loaded.classes, loaded.groups)
        for one, two in ((loaded.train, again.train), (loaded.test, again.test)):
            assert torch.equal(one.labels, two.labels) and torch.equal(one.plain(), two.plain())

    def test_a_dev_set_of_drawn_images_is_balanced_and_apart(
        self, kind: AnyDataset, spec: DataSpec, tmp_path: Path
    ) -> None:
        if not (issubclass(kind, DrawnDataset) and issubclass(kind.Options, DevSet)):
            return  # of images on disk it is drawn elsewhere
        options = {**spec.options, "dev_per_class": 2}
        loaded = _load(spec.model_copy(update={"options": options}), tmp_path / "packs")
        assert loaded.dev is not None
        assert torch.bincount(loaded.dev.labels).tolist() == [2] * len(loaded.classes)
        train, dev, test = (
            {each.numpy().tobytes() for each in images.plain()}
            for images in (loaded.train, loaded.dev, loaded.test)
        )
        assert not dev & train and not dev & test

    def test_its_listing_names_files_below_its_root(
        self, name: str, kind: AnyDataset, data_root: Path | None
    ) -> None:
        if data_root is None:
            return  # nothing of it is on disk
        assert issubclass(kind, FileDataset)
        options = validated(kind.Options, dict(self.options), source=f"data {name}")
        listing = kind.listing(options, data_root)
        assert kind.listing(options, data_root) == listing
        assert not set(listing.train) & set(listing.test), "an image is trained and tested on"
        for item in (*listing.train, *listing.test):
            file = PurePosixPath(item.path.partition("::")[0])
            assert not file.is_absolute() and ".." not in file.parts
            assert (data_root / file).is_file()
            assert 0 <= item.label < len(listing.classes)

    def test_files_that_are_not_there_are_said(
        self, name: str, kind: AnyDataset, data_root: Path | None, tmp_path: Path
    ) -> None:
        if data_root is None:
            return
        assert issubclass(kind, FileDataset)
        (tmp_path / "nothing").mkdir()
        options = validated(kind.Options, dict(self.options), source=f"data {name}")
        with pytest.raises(MissingData):
            kind.listing(options, tmp_path / "nothing")


def _load(spec: DataSpec, packs: Path) -> Dataset:
    kind = DATASETS.get(spec.name)
    if issubclass(kind, DrawnDataset):
        options = validated(kind.Options, dict(spec.options), source=f"data {spec.name}")
        return kind.load(options)
    return load_packed(spec, SIZE, str(packs))
