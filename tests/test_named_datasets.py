"""Listings of the named datasets, on miniatures with the true folders and annotation formats."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from harness.data.contract import DATASETS
from harness.data.listing import Item, MissingData
from harness.data.pack import pack
from harness.errors import UserError
from harness.spec import validated

NAMES = ("cifar100_lt", "dota", "eurosat", "fusrs", "inat2018", "places_lt")


def listing(name, root, **options):
    dataset = DATASETS.get(name)
    return dataset.listing(validated(dataset.Options, options, source=f"data {name}"), root)


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def group_sizes(found):
    return {name: len(members) for name, members in found.groups.items()}


@pytest.mark.parametrize("name", NAMES)
def test_of_an_empty_root_it_is_said_what_to_get_and_where_to_put_it(name, tmp_path):
    dataset = DATASETS.get(name)
    assert dataset.summary
    assert dataset.layout.startswith(f"{name}: get ")
    page = re.search(r"https?://\S+", dataset.layout).group()
    with pytest.raises(MissingData) as caught:
        listing(name, tmp_path)
    message = str(caught.value)
    path = message.partition(" is missing: get ")[0]
    assert path.removeprefix(f"{tmp_path}/").split("/")[0] in dataset.layout
    assert page in message
    assert message.endswith(f"see `harness data check {name}`.")
    assert "\n" not in message


# Folders of classes, `folder`'s as well: one rule for what does not belong there

TREES = {
    "folder": ({}, ("train/ship", "train/bridge", "test/ship", "test/bridge")),
    "dota": ({"objects": "crops"}, ("train/ship", "train/bridge", "val/ship", "val/bridge")),
    "eurosat": ({}, ("EuroSAT_RGB/River", "EuroSAT_RGB/Forest")),
}


def write_tree(root, name):
    options, folders = TREES[name]
    for folder in folders:
        for stem in ("a", "b", "c"):
            write(root / folder / f"{stem}.png")
    return options, root / folders[0]


def paths(found):
    return sorted(item.path for item in (*found.train, *found.test))


@pytest.mark.parametrize("name", TREES)
def test_what_is_hidden_in_a_tree_is_passed_over_and_the_rest_is_counted(name, tmp_path):
    options, place = write_tree(tmp_path, name)
    clean = listing(name, tmp_path, **options)
    hidden = (".ipynb_checkpoints/a-checkpoint.png", "._a.png", "../.Trash/x.png")
    for path in (*hidden, "__MACOSX/._a.png", "../__MACOSX/ship/._a.png", "../.DS_Store"):
        write(place / path)
    assert listing(name, tmp_path, **options) == clean
    write(place / "Thumbs.db")
    write(place / "more/D.JPEG")
    write(place.parent / "stray.png")
    found = listing(name, tmp_path, **options)
    inside, around = (path.relative_to(tmp_path).as_posix() for path in (place, place.parent))
    assert paths(found) == sorted([*paths(clean), f"{inside}/more/D.JPEG"])
    assert f"1 files in {inside} are no images by their name." in found.notes
    assert f"1 images in {around}/ lie in no class folder and are left out." in found.notes


@pytest.mark.parametrize("name", TREES)
def test_an_empty_class_folder_and_a_misleading_file_name_are_refused(name, tmp_path):
    options, place = write_tree(tmp_path, name)
    inside = place.relative_to(tmp_path).as_posix()
    (place / "a.png").rename(place / "a::1.png")
    with pytest.raises(UserError, match=f"Rename {inside}/a::1.png"):
        listing(name, tmp_path, **options)
    shutil.rmtree(place)
    write(place / ".hidden.png")
    with pytest.raises(UserError, match=f"Class folder {inside} has no image: put some in"):
        listing(name, tmp_path, **options)


# CIFAR-100-LT


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
        found, name="cifar", root=tmp_path, folder=tmp_path / "p", side=32, read=dataset.read
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


# Places-LT


def write_places(root, train_counts, newline="\n"):
    train = [
        f"data_256/{'ab'[c % 2]}/place_{c}/outdoor/{n:08}.jpg {c}"
        for c, count in enumerate(train_counts)
        for n in range(count)
    ]
    test = [f"val_256/Places365_val_{c:08}.jpg {c}" for c in range(365)]
    write(root / "Places_LT_train.txt", newline.join(train) + newline)
    write(root / "Places_LT_test.txt", newline + newline.join(test) + newline * 3)
    for folder in ("data_256", "val_256"):
        (root / folder).mkdir()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_places_lists_names_and_groups(tmp_path, newline):
    counts = [101, 100, 100, 20, 19, 1] + [2] * 359
    write_places(tmp_path, counts, newline)
    found = listing("places_lt", tmp_path)
    assert found.train[101] == Item("data_256/b/place_1/outdoor/00000000.jpg", 1)
    assert found.test[364] == Item("val_256/Places365_val_00000364.jpg", 364)
    assert len(found.classes) == 365
    assert found.classes[:2] == ("place_0/outdoor", "place_1/outdoor")
    assert found.groups["head"] == (0,)
    assert found.groups["medium"] == (1, 2, 3)
    assert group_sizes(found) == {"head": 1, "medium": 3, "tail": 361}


def test_places_in_folders_without_names_are_named_by_label(tmp_path):
    write_places(tmp_path, [1] * 365)
    path = tmp_path / "Places_LT_train.txt"
    path.write_text("\n".join(f"data_256/all/{c}.jpg {c}" for c in range(365)))
    assert listing("places_lt", tmp_path).classes[364] == "364"


@pytest.mark.parametrize(
    "line, reason",
    [
        ("data_256/x.jpg 365", "label 365 is outside 0 to 364"),
        ("data_256/x.jpg -1", "label -1 is outside"),
        ("data_256/x.jpg", "write a path and a label"),
        ("data_256/x.jpg airfield", "write a path and a label"),
    ],
)
def test_a_wrong_line_is_named_with_its_file_and_number(line, reason, tmp_path):
    write_places(tmp_path, [1] * 365)
    path = tmp_path / "Places_LT_train.txt"
    path.write_text(f"data_256/a/b/0.jpg 0\n\n{line}\n")
    with pytest.raises(UserError, match=reason) as caught:
        listing("places_lt", tmp_path)
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_a_listed_path_may_hold_spaces_and_bytes_that_are_not_utf8(tmp_path):
    write_places(tmp_path, [1] * 365)
    path = tmp_path / "Places_LT_train.txt"
    path.write_bytes(b"\xef\xbb\xbfdata_256/a/b/a b\xe9.jpg\t7 \n")
    assert listing("places_lt", tmp_path).train == (Item("data_256/a/b/a b\udce9.jpg", 7),)


def test_places_lists_without_images_are_missing_data(tmp_path):
    write_places(tmp_path, [1] * 365)
    (tmp_path / "val_256").rmdir()
    with pytest.raises(MissingData, match="val_256 is missing: get Places365"):
        listing("places_lt", tmp_path)


# iNaturalist 2018


def write_inat(root, train=None, categories=True):
    """Ids neither start at 0 nor follow the names; annotations do not follow the images."""
    species = [
        {"id": 4, "name": "Zea mays", "supercategory": "Plantae"},
        {"id": 9, "name": "Abies alba", "supercategory": "Plantae"},
        {"id": 2, "name": "Lynx lynx", "supercategory": "Mammalia"},
    ]
    hidden = [{**entry, "name": str(entry["id"])} for entry in species]
    images = [
        {"id": 70, "file_name": "train_val2018/Plantae/4/a.jpg", "width": 8, "height": 8},
        {"id": 71, "file_name": "train_val2018/Plantae/9/b.jpg", "width": 8, "height": 8},
        {"id": 72, "file_name": "train_val2018/Mammalia/2/c.jpg", "width": 8, "height": 8},
    ]
    notes = [
        {"id": 1, "image_id": 72, "category_id": 2},
        {"id": 2, "image_id": 70, "category_id": 4},
        {"id": 3, "image_id": 71, "category_id": 9},
    ]
    content = {"info": {}, "images": images, "annotations": notes, "categories": hidden}
    write(root / "train2018.json", json.dumps({**content, **(train or {})}))
    val = {**content, "annotations": notes[:1], "images": images[2:]}
    write(root / "val2018.json", json.dumps(val))
    if categories:
        write(root / "categories.json", json.dumps(species))
    (root / "train_val2018").mkdir()


def test_inat_labels_are_ranks_of_species_names(tmp_path):
    write_inat(tmp_path)
    found = listing("inat2018", tmp_path)
    assert found.classes == ("Abies alba", "Lynx lynx", "Zea mays")
    assert found.train == (
        Item("train_val2018/Mammalia/2/c.jpg", 1),
        Item("train_val2018/Plantae/4/a.jpg", 2),
        Item("train_val2018/Plantae/9/b.jpg", 0),
    )
    assert found.test == (Item("train_val2018/Mammalia/2/c.jpg", 1),)
    assert found.groups == {"tail": (0, 1, 2)}


def test_inat_names_may_stand_in_the_training_file(tmp_path):
    named = [{"id": 4, "name": "B"}, {"id": 9, "name": "C"}, {"id": 2, "name": "A"}]
    write_inat(tmp_path, train={"categories": named}, categories=False)
    assert [item.label for item in listing("inat2018", tmp_path).train] == [0, 1, 2]


def test_inat_hidden_names_ask_for_the_file_with_the_names(tmp_path):
    write_inat(tmp_path, categories=False)
    with pytest.raises(MissingData, match=r"categories.json is missing, and train2018.json hides"):
        listing("inat2018", tmp_path)


@pytest.mark.parametrize(
    "train, reason",
    [
        (
            {"annotations": [{"image_id": 70, "category_id": 5}]},
            "train2018.json, annotation 0: category 5 is not in the list",
        ),
        (
            {"annotations": [{"image_id": 99, "category_id": 4}]},
            "train2018.json, annotation 0: there is no image 99",
        ),
        ({"annotations": [{"category_id": 4}]}, "train2018.json lacks images or annotations"),
        ({"images": None}, "train2018.json lacks images or annotations"),
    ],
)
def test_inat_annotations_that_do_not_fit_are_named(train, reason, tmp_path):
    write_inat(tmp_path, train=train)
    with pytest.raises(UserError, match=reason):
        listing("inat2018", tmp_path)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("val2018.json", '{"images": [', "val2018.json is not JSON"),
        ("categories.json", '[{"id": 4}]', "categories.json lists no categories"),
    ],
)
def test_inat_broken_files_are_named(name, content, reason, tmp_path):
    write_inat(tmp_path)
    write(tmp_path / name, content)
    with pytest.raises(UserError, match=reason):
        listing("inat2018", tmp_path)


# DOTA

OBB = [
    "imagesource:GoogleEarth",
    "gsd:0.146343590398",
    "10.0 20.0 30.0 10.0 35.5 18.2 15.0 28.0 small-vehicle 0",
    "",
    "-4.0 -2.0 6.0 -2.0 6.0 9.0 -4.0 9.0 ship 1",
    "90.0 40.0 104.0 40.0 104.0 66.0 90.0 66.0 harbor 0",
    "50.0 50.0 50.0 50.0 50.0 50.0 50.0 50.0 plane",
]


def write_dota(root, lines=OBB, newline="\n", folder="labelTxt"):
    for split in ("train", "val"):
        base = root / split
        (base / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 60)).save(base / "images" / "P0001.png")
        labels = base / "labelTxt-v1.0" / folder.format(split)
        write(labels / "P0001.txt", newline.join(lines) + newline)
    Image.new("RGB", (100, 60)).save(root / "train" / "images" / "P0000.png")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_dota_objects_with_upright_boxes_that_may_leave_the_image(tmp_path, newline):
    write_dota(tmp_path, newline=newline)
    found = listing("dota", tmp_path)
    path = "train/images/P0001.png"
    assert found.train == (
        Item(path, found.classes.index("small-vehicle"), (10, 10, 36, 28)),
        Item(path, found.classes.index("ship"), (-4, -2, 6, 9)),
        Item(path, found.classes.index("harbor"), (90, 40, 104, 66)),
        Item(path, found.classes.index("plane"), (50, 50, 51, 51)),
    )
    assert {item.path for item in found.test} == {"val/images/P0001.png"}
    assert found.notes[0] == "1 of 4 objects in train are marked difficult and kept"


def test_dota_objects_are_cut_at_the_borders_of_their_image(tmp_path):
    write_dota(tmp_path)
    packed = pack(
        listing("dota", tmp_path), name="dota", root=tmp_path, folder=tmp_path / "p", side=64
    )
    assert not packed.info.bad
    # Height and width: of the second only 6 x 9, of the third only 10 x 20 lie inside 100 x 60.
    assert packed.index.original[:4].tolist() == [[18, 26], [9, 6], [20, 10], [1, 1]]


def test_dota_without_difficult_objects(tmp_path):
    write_dota(tmp_path)
    found = listing("dota", tmp_path, difficult="drop")
    names = [found.classes[item.label] for item in found.train]
    assert names == ["small-vehicle", "harbor", "plane"]
    assert len(found.test) == 3
    assert found.notes[1] == "1 of 4 objects in val are marked difficult and left out"


def test_dota_horizontal_boxes_are_read_from_their_own_folder(tmp_path):
    write_dota(tmp_path)
    line = "1 2 5 2 5 8 1 8 bridge 0"
    write_dota(tmp_path, [line], folder="{}set_reclabelTxt")
    found = listing("dota", tmp_path, objects="hbb")
    assert found.train == (Item("train/images/P0001.png", 2, (1, 2, 5, 8)),)
    assert found.test == (Item("val/images/P0001.png", 2, (1, 2, 5, 8)),)
    assert len(listing("dota", tmp_path).train) == 4


def test_dota_classes_and_groups_are_those_of_the_paper(tmp_path):
    write_dota(tmp_path)
    found = listing("dota", tmp_path)
    # Training counts of the public labels, in class order; the groups' only gaps are here.
    counts = [415, 515, 2047, 325, 5983, 630, 16969, 8055, 399, 28068, 26126, 326, 5029, 1736, 2367]
    assert sum(counts) == 98_990
    assert found.classes == tuple(sorted(found.classes))
    assert set(found.groups["head"]) == {c for c, n in enumerate(counts) if n > 10_000}
    assert set(found.groups["tail"]) == {c for c, n in enumerate(counts) if n < 1_000}
    assert group_sizes(found) == {"head": 3, "medium": 6, "tail": 6}
    assert len(set(sum(found.groups.values(), ()))) == 15


@pytest.mark.parametrize(
    "line, reason",
    [
        ("1 2 5 2 5 8 1 8 container-crane 0", "'container-crane' is not one of DOTA-v1.0's 15"),
        ("1 2 5 2 5 8 1 ship 0", "write x1 y1"),
        ("1 2 5 2 5 8 1 8 ship 2", "write x1 y1"),
        ("1 2 5 2 5 8 1 8 ship 0 0", "write x1 y1"),
        ("nan 2 5 2 5 8 1 8 ship 0", "write x1 y1"),
        ("P0001", "write x1 y1"),
    ],
)
def test_dota_wrong_lines_are_named(line, reason, tmp_path):
    write_dota(tmp_path, [*OBB[:2], line])
    with pytest.raises(UserError, match=reason) as caught:
        listing("dota", tmp_path)
    file = tmp_path / "train" / "labelTxt-v1.0" / "labelTxt" / "P0001.txt"
    assert str(caught.value).startswith(f"{file}, line 3: ")


def test_dota_with_a_part_of_its_images_says_which_is_missing(tmp_path):
    write_dota(tmp_path)
    (tmp_path / "val" / "images" / "P0001.png").unlink()
    with pytest.raises(MissingData, match=r"val/images/P0001.png is missing .*three parts"):
        listing("dota", tmp_path)


def write_crops(root):
    for split, name in (("train", "P0_1_2_30_40"), ("train", "P0_-1_0_9_9"), ("val", "P1_1_2_3_4")):
        folder = root / split / ("ship" if "30" in name else "bridge")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(folder / f"{name}.png")
        write(folder / "Thumbs.db")


def test_dota_ready_made_crops_are_read_by_folder(tmp_path):
    write_crops(tmp_path)
    found = listing("dota", tmp_path, objects="crops")
    assert found.train == (
        Item("train/bridge/P0_-1_0_9_9.png", 2),
        Item("train/ship/P0_1_2_30_40.png", 9),
    )
    assert found.test == (Item("val/bridge/P1_1_2_3_4.png", 2),)
    assert group_sizes(found) == {"head": 3, "medium": 6, "tail": 6}


def test_dota_crops_know_no_difficulty_and_no_other_class(tmp_path):
    write_crops(tmp_path)
    with pytest.raises(UserError, match="difficult=drop needs DOTA's label files"):
        listing("dota", tmp_path, objects="crops", difficult="drop")
    (tmp_path / "val" / "bridge").rename(tmp_path / "val" / "ships")
    with pytest.raises(UserError, match=r"val: 'ships'. Did you mean 'ship'"):
        listing("dota", tmp_path, objects="crops")


# FUSRS


def write_fusrs(root, folder="FUSRSv25", newline="\n"):
    """`a` is listed 57 times, `b` is in train and test."""
    train = ["img/a.png 0"] * 57 + ["img/b.png 0", "img/c.png 1", "img/d.png 2", "img/e.png 3"]
    test = ["img/b.png 0", "img/f.png 2", "./img/f.png 2", "img/g.png 3"]
    write(root / folder / "train.txt", newline.join(train))
    write(root / folder / "test.txt", newline.join(test) + newline)
    (root / "img").mkdir(exist_ok=True)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_fusrs_lists_are_used_as_they_are_and_their_faults_noted(tmp_path, newline):
    write_fusrs(tmp_path, newline=newline)
    found = listing("fusrs", tmp_path)
    assert found.classes == ("cargo", "fishing", "tanker", "dredger")
    assert found.groups == {"head": (0, 1), "tail": (2, 3)}
    assert (len(found.train), len(found.test)) == (61, 4)
    assert found.notes == (
        "train lists 5 paths in 61 lines; 'img/a.png' is there 57 times",
        "test lists 3 paths in 4 lines; 'img/f.png' is there 2 times",
        "1 paths are in train and in test",
    )


def test_fusrs_dedupe_keeps_one_of_each_path_and_no_test_path_in_train(tmp_path):
    write_fusrs(tmp_path)
    found = listing("fusrs", tmp_path, dedupe=True)
    assert [item.path for item in found.train] == [f"img/{x}.png" for x in "acde"]
    assert [item.path for item in found.test] == [f"img/{x}.png" for x in "bfg"]
    assert found.notes[-1] == "dedupe left out 57 lines of train and 1 of test"
    assert "1 paths are in train and in test" in found.notes


def test_fusrs_of_either_version_has_its_own_lists_classes_and_groups(tmp_path):
    write_fusrs(tmp_path, "FUSRSv17")
    with pytest.raises(MissingData, match=r"FUSRSv25/train.txt is missing"):
        listing("fusrs", tmp_path)
    path = tmp_path / "FUSRSv17" / "train.txt"
    path.write_text("img/a.png 1\nimg/b.png 4\n")
    found = listing("fusrs", tmp_path, version="v1.7")
    assert [found.classes[item.label] for item in found.train] == ["other", "dredger"]
    assert group_sizes(found) == {"head": 3, "tail": 2}
    write(tmp_path / "FUSRSv25" / "train.txt", path.read_text())
    write(tmp_path / "FUSRSv25" / "test.txt", "img/a.png 1")
    with pytest.raises(UserError, match=r"FUSRSv25/train.txt, line 2: label 4 is outside 0 to 3"):
        listing("fusrs", tmp_path)


def test_fusrs_path_with_two_labels_is_noted(tmp_path):
    write_fusrs(tmp_path)
    write(tmp_path / "FUSRSv25" / "test.txt", "img/f.png 2\nimg/f.png 3\n")
    assert "test gives 1 paths a second label" in listing("fusrs", tmp_path).notes


# EuroSAT

LAND_USES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)


def tiff_of_13_bands(value, side=2):
    """A little-endian, uncompressed TIFF of one strip, bands side by side, 16 bits each."""
    pixels = struct.pack("<13H", *(value + b for b in range(13))) * side * side
    short, long = 3, 4
    tags = [
        (256, short, 1, side),
        (257, short, 1, side),
        (258, short, 13, 8 + len(pixels)),
        (259, short, 1, 1),
        (262, short, 1, 1),
        (273, long, 1, 8),
        (277, short, 1, 13),
        (278, short, 1, side),
        (279, long, 1, len(pixels)),
        (284, short, 1, 1),
    ]
    bits = struct.pack("<13H", *[16] * 13)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    start = 8 + len(pixels) + len(bits)
    return struct.pack("<2sHI", b"II", 42, start) + pixels + bits + directory + b"\0\0\0\0"


def write_eurosat(root, folder, ending, per_class=10):
    for name in LAND_USES:
        (root / folder / name).mkdir(parents=True)
        for n in range(1, per_class + 1):
            path = root / folder / name / f"{name}_{n}.{ending}"
            if ending == "tif":
                path.write_bytes(tiff_of_13_bands(n))
            else:
                Image.new("RGB", (4, 4), (n, 0, 0)).save(path)


@pytest.mark.parametrize("folder", ["EuroSAT_RGB", "2750"])
def test_eurosat_rgb_has_a_fixed_fifth_of_each_class_for_testing(tmp_path, folder):
    write_eurosat(tmp_path, folder, "jpg")
    found = listing("eurosat", tmp_path)
    assert found.classes == LAND_USES
    assert found.bands is None
    assert found.groups is None
    assert Counter(item.label for item in found.train) == dict.fromkeys(range(10), 8)
    assert Counter(item.label for item in found.test) == dict.fromkeys(range(10), 2)
    assert len({item.path for item in (*found.train, *found.test)}) == 100
    assert all(f"/{LAND_USES[i.label]}/" in i.path for i in (*found.train, *found.test))
    assert found == listing("eurosat", tmp_path)
    assert found.test != listing("eurosat", tmp_path, split_seed=1).test
    # Pinned, because a trial's identity holds the seed and not the images.
    expected = [f"{folder}/AnnualCrop/AnnualCrop_{n}.jpg" for n in (10, 7)]
    assert [item.path for item in found.test[:2]] == expected


def test_eurosat_bands_are_those_of_the_files_in_the_order_asked_for(tmp_path):
    write_eurosat(tmp_path, "EuroSAT_MS", "tif")
    write_eurosat(tmp_path, "EuroSAT_RGB", "jpg")
    assert listing("eurosat", tmp_path, kind="ms").bands == tuple(range(13))
    found = listing("eurosat", tmp_path, kind="ms", bands="B04,B03,B02,B8A")
    assert found.bands == (3, 2, 1, 12)
    assert found.test[0].path.startswith("EuroSAT_MS/AnnualCrop/AnnualCrop_")
    rgb = listing("eurosat", tmp_path)
    renamed = [i.path.replace("_MS/", "_RGB/").replace(".tif", ".jpg") for i in found.test]
    assert renamed == [item.path for item in rgb.test]


def test_eurosat_files_of_13_bands_are_packed(tmp_path):
    pytest.importorskip("tifffile")
    write_eurosat(tmp_path, "EuroSAT_MS", "tif")
    found = listing("eurosat", tmp_path, kind="ms", bands="B04,B8A")
    packed = pack(found, name="eurosat", root=tmp_path, folder=tmp_path / "p", side=64)
    assert not packed.info.bad and packed.info.channels == 2
    low, high = np.array(packed.info.scaling.low), np.array(packed.info.scaling.high)
    np.testing.assert_allclose([low[1] - low[0], high[1] - high[0]], 12 - 3)
    number = int(found.train[0].path.removesuffix(".tif").rpartition("_")[2])
    share = (number + np.array([3, 12]) - low) / (high - low)
    expected = np.rint(share.clip(0, 1) * 255)
    np.testing.assert_array_equal(packed.pixels[:8].reshape(4, 2), [expected] * 4)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"kind": "ms", "bands": "B04,B99"}, "Unknown band 'B99'"),
        ({"kind": "ms", "bands": "B04,B04"}, "B04 is there twice"),
        ({"bands": "B04"}, "only kind=ms has bands"),
        ({"imbalance": 0.5}, "imbalance"),
    ],
)
def test_eurosat_options_that_cannot_be_are_refused(options, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        listing("eurosat", tmp_path, **options)


def test_eurosat_of_one_kind_is_not_the_other(tmp_path):
    write_eurosat(tmp_path, "EuroSAT_RGB", "jpg", per_class=1)
    with pytest.raises(MissingData, match="EuroSAT_MS is missing"):
        listing("eurosat", tmp_path, kind="ms")
    for image in (tmp_path / "EuroSAT_RGB").rglob("*.jpg"):
        image.unlink()
    with pytest.raises(MissingData, match="EuroSAT_RGB holds no image"):
        listing("eurosat", tmp_path)
