"""torchvision's, torchgeo's and VTAB-1k's sets, on miniatures in their original layouts."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.listings import listing, write
from torchvision import datasets as official
from torchvision.datasets import ImageFolder

from harness.data.check import check
from harness.data.contract import DATASETS
from harness.data.listing import MissingData
from harness.errors import UserError
from harness.spec import validated
from harness.testing import DatasetContract


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def dtd(root):
    """Ten images of each of two textures, in the lists of partitions 1 and 2."""
    for label, name in enumerate(("banded", "woven")):
        for number in range(10):
            picture(root / f"dtd/dtd/images/{name}/{name}_{number}.jpg", 100 * label + number)
    for partition in (1, 2):
        for part, rows in (("train", range(4)), ("val", range(4, 7)), ("test", range(7, 10))):
            rows = [(row + partition) % 10 for row in rows]
            lines = [f"{name}/{name}_{row}.jpg" for name in ("banded", "woven") for row in rows]
            write(root / f"dtd/dtd/labels/{part}{partition}.txt", "\n".join(lines))
    return root


def sun397(root):
    """A set without a split, whose class walks its folders in no order."""
    write(root / "SUN397/ClassName.txt", "/a/abbey\n/z/zoo\n")
    for place in ("a/abbey", "z/zoo"):
        for number in range(6):
            picture(root / f"SUN397/{place}/sun_{number}.jpg", len(place) * 100 + number)
    return root


def mnist(root):
    """Images and labels in the format of the original files, gray."""
    for part, count, seed in (("train", 12, 0), ("t10k", 6, 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 3
        folder = root / "MNIST/raw"
        folder.mkdir(parents=True, exist_ok=True)
        head = struct.pack(">iiii", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">ii", 2049, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return root


def cifar10(root, monkeypatch):
    """Two pickled batches, whose checksums are told to the class."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    contents = {"batches.meta": {"label_names": ["plane", "car"]}}
    for seed, name in enumerate(("data_batch_1", "test_batch")):
        data = np.random.default_rng(seed).integers(0, 256, (8, 3072), dtype=np.uint8)
        contents[name] = {"data": data, "labels": [0, 1] * 4}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    meta = {**official.CIFAR10.meta, "md5": sums["batches.meta"]}
    monkeypatch.setattr(official.CIFAR10, "meta", meta)
    monkeypatch.setattr(official.CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(official.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    return root


def vtab(root, val=(6, 7)):
    """Eight training images of each of 10 classes, a quarter of them val, and two to test."""
    lists = {"train800.txt": [], "val200.txt": [], "train800val200.txt": [], "test.txt": []}
    for label in range(10):
        for number in range(10):
            part = "test" if number > 7 else "train"
            line = f"images/{part}/{label}_{number}.png {label}"
            picture(root / "svhn" / line.split()[0], 10 * label + number)
            if part == "test":
                lists["test.txt"].append(line)
            else:
                lists["train800val200.txt"].append(line)
                lists["val200.txt" if number in val else "train800.txt"].append(line)
    for name, lines in lists.items():
        write(root / "svhn" / name, "\n".join(lines))
    return root


class TestDTD(DatasetContract):
    dataset = "torchvision:DTD"

    @pytest.fixture
    def data_root(self, tmp_path):
        return dtd(tmp_path / "data")


class TestSUN397(DatasetContract):
    dataset = "torchvision:SUN397"

    @pytest.fixture
    def data_root(self, tmp_path):
        return sun397(tmp_path / "data")


class TestCIFAR10(DatasetContract):
    dataset = "torchvision:CIFAR10"

    @pytest.fixture
    def data_root(self, tmp_path, monkeypatch):
        return cifar10(tmp_path / "data", monkeypatch)


class TestMNIST(DatasetContract):
    dataset = "torchvision:MNIST"

    @pytest.fixture
    def data_root(self, tmp_path):
        return mnist(tmp_path / "data")


class TestVTAB(DatasetContract):
    dataset = "vtab1k:svhn"

    @pytest.fixture
    def data_root(self, tmp_path):
        return vtab(tmp_path / "data")


def test_official_parts_are_taken_and_said(tmp_path):
    root = dtd(tmp_path)
    first = listing("torchvision:DTD", root)
    assert first.classes == ("banded", "woven")
    assert (len(first.train), len(first.test)) == (8, 6)
    assert "train: split='train', val: split='val', test: split='test'" in first.notes[0]
    assert "6 images of val are left out." in first.notes
    both = listing("torchvision:DTD", root, with_val=True)
    assert len(both.train) == 14 and set(first.train) < set(both.train)
    other = listing("torchvision:DTD", root, partition=2)
    assert {item.path for item in other.test} != {item.path for item in first.test}
    with pytest.raises(UserError, match="with_val"):
        validated(DATASETS.get("torchvision:CIFAR10").Options, {"with_val": True}, source="data")


def test_a_set_without_a_split_is_parted_by_class_and_says_so(tmp_path):
    found = listing("torchvision:SUN397", sun397(tmp_path), test_fraction=0.5)
    assert sorted(item.label for item in found.test) == [0, 0, 0, 1, 1, 1]
    assert found.notes == ("No split is official: 6 images are drawn for testing.",)
    assert [item.path for item in found.train] == sorted(item.path for item in found.train)


def test_pixels_of_arrays_are_the_librarys(tmp_path, monkeypatch):
    root = cifar10(tmp_path, monkeypatch)
    found, kind = listing("torchvision:CIFAR10", root), DATASETS.get("torchvision:CIFAR10")
    for part, items in ((True, found.train), (False, found.test)):
        theirs = official.CIFAR10(str(root), train=part)
        assert [item.label for item in items] == theirs.targets
        for row, item in enumerate(items):
            assert np.array_equal(kind.read(root, item.path), theirs.data[row])


def test_missing_files_are_named_in_one_sentence(tmp_path):
    for name, needed in (
        ("torchvision:Flowers102", "flowers-102/jpg"),
        ("torchgeo:UCMerced", "uc_merced-train.txt"),
    ):
        with pytest.raises(MissingData) as caught:
            listing(name, tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / needed} is missing: ") and "\n" not in message
    assert not list(tmp_path.iterdir()), "a library has made a folder"
    write(tmp_path / "flowers-102/setid.mat", "x")
    (tmp_path / "flowers-102/jpg").mkdir()
    with pytest.raises(MissingData, match="torchvision cannot read Flowers102 in"):
        listing("torchvision:Flowers102", tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torchvision:CocoDetection", r"one class each \(detection\)"),
        ("torchvision:UCF101", r"\(video\)"),
        ("torchvision:CelebA", "many attributes"),
        ("torchvision:ImageFolder", "is data=folder here"),
        ("torchgeo:BigEarthNet", "several labels"),
        ("torchvision:flowers102", "Did you mean 'torchvision:Flowers102'"),
        ("vtab1k:svnh", "Did you mean 'vtab1k:svhn'"),
    ],
)
def test_what_is_no_classification_set_is_refused_with_the_reason(name, sentence):
    with pytest.raises(UserError, match=sentence):
        DATASETS.get(name)


def test_every_set_of_torchvision_is_known_or_refused():
    known = {name.partition(":")[2] for name in (*DATASETS.names(), *DATASETS._refused)}
    assert set(official.__all__) - known == {"VisionDataset", "wrap_dataset_for_transforms_v2"}


# torchgeo, in its place a module with its classes' interface


def with_torchgeo(monkeypatch):
    class UCMerced(ImageFolder):
        def __init__(self, root, split):
            with open(f"{root}/uc_merced-{split}.txt") as file:
                names = set(file.read().split())
            super().__init__(
                f"{root}/UCMerced_LandUse/Images",
                is_valid_file=lambda path: path.rpartition("/")[2] in names,
            )

    package, module = ModuleType("torchgeo"), ModuleType("torchgeo.datasets")
    package.__spec__ = module.__spec__ = object()
    module.UCMerced = UCMerced
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", module)


def ucmerced(root):
    for part, rows in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        names = [f"{name}{row}.tif" for name in ("beach", "river") for row in rows]
        write(root / f"uc_merced-{part}.txt", "\n".join(names))
        for seed, name in enumerate(names):
            picture(root / f"UCMerced_LandUse/Images/{name[:-5]}/{name}", 50 * rows[0] + seed)
    return root


class TestUCMerced(DatasetContract):
    dataset = "torchgeo:UCMerced"

    @pytest.fixture
    def data_root(self, tmp_path, monkeypatch):
        with_torchgeo(monkeypatch)
        return ucmerced(tmp_path / "data")


def test_without_torchgeo_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"peft-hpo-harness\[geo\]"):
        listing("torchgeo:UCMerced", ucmerced(tmp_path))


def test_eurosat_of_torchgeo_is_read_by_the_bands_that_make_rgb():
    kind = DATASETS.get("torchgeo:EuroSAT")
    assert kind.row.bands == (3, 2, 1) and "B04, B03, B02" in kind.summary


# VTAB-1k


def test_the_check_says_what_is_often_got_wrong_about_vtab(tmp_path):
    kind = DATASETS.get("vtab1k:svhn")
    found = check(kind, "vtab1k:svhn", kind.Options(), vtab(tmp_path), tmp_path / "packs")
    notes = " ".join(found.listing.notes)
    assert found.problems == ()
    assert "train800.txt has 60 images, VTAB-1k's 800." in notes
    assert "test.txt has 20 images, VTAB-1k's 26,032." in notes
    assert "mean and std 0.5" in notes and "stratified part of the training" in notes
    assert "is not a stratified part" not in notes and "augment=none" not in notes
    assert len(listing("vtab1k:svhn", tmp_path, train="train800").train) == 60


def test_a_val_list_that_misses_classes_is_said(tmp_path):
    root = vtab(tmp_path)
    lines = (root / "svhn/train800val200.txt").read_text().split("\n")
    write(root / "svhn/val200.txt", "\n".join(lines[:20]))
    write(root / "svhn/train800.txt", "\n".join(lines[20:]))
    notes = " ".join(listing("vtab1k:svhn", root).notes)
    assert "val200.txt is not a stratified part of train800val200.txt: 10 of 10 classes" in notes


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("val200.txt", "images/train/0_0.png 0", "is in train800.txt and in val200.txt"),
        ("test.txt", "images/train/0_0.png 0", "is in train800val200.txt and in test.txt"),
        ("train800val200.txt", "images/test/0_9.png 0", "is not train800.txt and val200.txt"),
        ("test.txt", "images/test/0_9.png 10", "label 10 is outside 0 to 9"),
    ],
)
def test_lists_of_vtab_that_contradict_each_other_are_refused(file, line, sentence, tmp_path):
    place = vtab(tmp_path) / "svhn" / file
    place.write_text(f"{place.read_text()}\n{line}")
    with pytest.raises(UserError, match=sentence):
        listing("vtab1k:svhn", tmp_path)
