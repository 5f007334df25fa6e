"""CIFAR-100-LT, on small files in the official format."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from support.listings import group_sizes, listing

from harness.data.contract import DATASETS
from harness.data.pack import pack
from harness.errors import UserError


class Python2Pickler(pickle._Pickler):
    """Strings and bytes as Python 2 wrote them in the official files."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    # numpy has moved since the files were made.
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_cifar(root, train, test):
    """Every pixel of channel k of the image in row r is (r + 80 k) mod 256."""
    folder = root / "cifar-100-python"
    for name, labels in (("train", train), ("test", test)):
        rows = np.arange(len(labels), dtype=np.uint8)
        channels = [np.repeat((rows + 80 * k)[:, None], 1024, axis=1) for k in range(3)]
        content = {
            "filenames": [f"{row}.png" for row in range(len(labels))],
            "fine_labels": list(labels),
            "coarse_labels": [0] * len(labels),
            "data": np.concatenate(channels, axis=1).astype(np.uint8),
        }
        write_pickle(folder / name, content)
    names = [f"class {c}" for c in range(100)]
    write_pickle(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["all"]})
    return folder


def shuffled_labels(per_class, seed):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(100), per_class)).tolist()


@pytest.fixture(scope="module")
def official_size(tmp_path_factory):
    """150 MB, which would else be kept for three runs."""
    root = tmp_path_factory.mktemp("cifar")
    train = shuffled_labels(500, seed=1)
    write_cifar(root, train, shuffled_labels(100, seed=2))
    yield root, train
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.parametrize("imbalance, total", [(10, 19_573), (50, 12_608), (100, 10_847)])
def test_cifar100_lt_keeps_the_images_of_the_published_rule(official_size, imbalance, total):
    root, labels = official_size
    found = listing("cifar100_lt", root, imbalance=imbalance)
    # The rule as it was published, on numpy's global generator.
    before = np.random.get_state()
    np.random.seed(0)
    expected = []
    for c in range(100):
        rows = np.where(np.array(labels) == c)[0]
        np.random.shuffle(rows)
        expected += rows[
            : int(500 * {10: 0.1, 50: 0.02, 100: 0.01}[imbalance] ** (c / 99))
        ].tolist()
    np.random.set_state(before)
    assert [item.path for item in found.train] == [f"cifar-100-python/train::{r}" for r in expected]
    assert [item.label for item in found.train] == [labels[r] for r in expected]
    counts = Counter(item.label for item in found.train)
    assert (len(found.train), counts[0], counts[99]) == (total, 500, 500 // imbalance)
    assert len(found.test) == 10_000
    assert group_sizes(found) == {"head": 35, "medium": 35, "tail": 30}


@pytest.mark.slow
def test_cifar_leaves_the_global_generator_alone(official_size):
    before = np.random.get_state()[1].tolist()
    listing("cifar100_lt", official_size[0])
    assert np.random.get_state()[1].tolist() == before


def test_cifar_images_are_rows_of_the_official_pickle(tmp_path):
    folder = write_cifar(tmp_path, shuffled_labels(2, seed=3), shuffled_labels(1, seed=4))
    # Python's own reader takes the miniature for a file of Python 2, as it does the official one.
    content = pickle.loads((folder / "train").read_bytes(), encoding="latin1")
    assert content["data"].shape == (200, 3072)
    found = listing("cifar100_lt", tmp_path)
    assert found.classes[:2] == ("class 0", "class 1")
    image = DATASETS.get("cifar100_lt").read(tmp_path, found.train[5].path)
    row = int(found.train[5].path.removeprefix("cifar-100-python/train::"))
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert image.reshape(-1, 3).max(0).tolist() == image.reshape(-1, 3).min(0).tolist()
    assert image[0, 0].tolist() == [row % 256, (row + 80) % 256, (row + 160) % 256]


def test_cifar_pixels_run_along_rows(tmp_path):
    folder = write_cifar(tmp_path, [0] * 2, [0])
    data = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)
    write_pickle(folder / "train", {"fine_labels": [0, 1], "data": data})
    image = DATASETS.get("cifar100_lt").read(tmp_path, "cifar-100-python/train::1")
    assert image[0, 1, 0] == data[1, 1]
    assert image[1, 0, 0] == data[1, 32]
    assert image[31, 31, 2] == data[1, 3071]


def test_cifar_images_are_packed_by_their_own_reader(tmp_path):
    write_cifar(tmp_path, shuffled_labels(2, seed=3), shuffled_labels(1, seed=4))
    dataset, found = DATASETS.get("cifar100_lt"), listing("cifar100_lt", tmp_path)
    packed = pack(
        found, name="cifar", root=tmp_path, folder=tmp_path / "p", size=32, read=dataset.read
    )
    assert not packed.info.bad
    assert packed.info.groups == found.groups
    assert packed.index.labels.tolist() == [item.label for item in (*found.train, *found.test)]
    start = packed.index.offsets[-1]
    last = packed.pixels[start : start + 3072].reshape(32, 32, 3)
    assert (last == dataset.read(tmp_path, found.test[-1].path)).all()


class Payload:
    def __init__(self, call, argument):
        self.result = call, (argument,)

    def __reduce__(self):
        return self.result


@pytest.mark.parametrize("name", ["train", "test", "meta"])
@pytest.mark.parametrize("call", [os.system, eval, open])
def test_a_pickle_with_a_payload_is_refused_and_not_run(name, call, tmp_path):
    folder = write_cifar(tmp_path, [0], [0])
    mark = tmp_path / "ran"
    argument = {os.system: f"touch {mark}", eval: f"open({str(mark)!r}, 'w')", open: str(folder)}
    content = {"fine_labels": [0], "data": Payload(call, argument[call])}
    (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError) as caught:
        listing("cifar100_lt", tmp_path)
    assert str(folder / name) in str(caught.value)
    assert f".{call.__name__}" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda content: content["fine_labels"].append(3), "labels do not fit"),
        (lambda content: content["fine_labels"].__setitem__(0, 100), "label 100 of row 0"),
        (lambda content: content.pop("data"), "no table of pixels"),
    ],
)
def test_another_cifar_file_is_refused_with_its_name(change, reason, tmp_path):
    folder = write_cifar(tmp_path, [0, 1], [0])
    content = {"fine_labels": [0, 1], "data": np.zeros((2, 3072), np.uint8)}
    change(content)
    write_pickle(folder / "train", content)
    with pytest.raises(UserError, match=reason) as caught:
        listing("cifar100_lt", tmp_path)
    assert str(folder / "train") in str(caught.value)


def test_a_cifar_file_that_ends_early_is_refused(tmp_path):
    folder = write_cifar(tmp_path, [0, 1], [0])
    (folder / "test").write_bytes((folder / "test").read_bytes()[:900])
    with pytest.raises(UserError, match="cifar-100-python/test is not the official"):
        listing("cifar100_lt", tmp_path)


def test_an_imbalance_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(UserError, match=r"'20'.*Allowed: 10, 100, 50"):
        listing("cifar100_lt", tmp_path, imbalance=20)
