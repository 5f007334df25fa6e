"""Listings of the named datasets, on miniatures with the true folders and annotation formats."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from support.listings import group_sizes, listing, write

from harness.data.contract import DATASETS
from harness.data.listing import Item, MissingData
from harness.errors import UserError

NAMES = ("cifar100_lt", "dota", "eurosat", "fusrs", "inat2018", "places_lt")


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
