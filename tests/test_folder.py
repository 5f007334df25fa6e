"""Forms of a folder of images, and long tails made of it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.images import dataset, first_of, listed, packed, picture, tree, two_splits

from harness.data.contract import options_of
from harness.data.listing import Item, MissingData
from harness.data.long_tail import LongTail, kept, tail_counts, with_tail_file
from harness.datasets.folder import FolderOptions
from harness.errors import UserError
from harness.metrics import OVERALL


def test_long_tails_are_the_formulas_and_never_more_than_there_is():
    exp = tail_counts(LongTail(imbalance=100), [500] * 100)
    assert exp.tolist() == [int(500 * 0.01 ** (c / 99)) for c in range(100)]
    assert exp.sum() == 10847 and (exp[0], exp[-1]) == (500, 5)
    pareto = tail_counts(LongTail(imbalance=50, tail="pareto"), [250] * 7)
    assert (pareto[0], pareto[-1]) == (250, 5) and (np.diff(pareto) < 0).all()
    assert pareto[1] == int(250 * 2 ** (-np.log(50) / np.log(7)))
    assert tail_counts(LongTail(imbalance=2), [100, 3, 100]).tolist() == [100, 3, 50]
    assert tail_counts(LongTail(), [7, 9]).tolist() == [7, 9]
    with pytest.raises(UserError, match="exp or pareto"):
        tail_counts(LongTail(imbalance=2, tail="counts.csv"), [7, 9])


def test_a_longer_tail_keeps_a_part_of_a_shorter_ones_images():
    labels = np.repeat(np.arange(3), 50)
    few, many = (kept(labels, np.array([50, n, n // 2]), seed=0) for n in (10, 30))
    assert np.bincount(labels[few]).tolist() == [50, 10, 5]
    assert set(few) < set(many)
    assert set(few) != set(kept(labels, np.array([50, 10, 5]), seed=1))


def test_tails_are_chosen_among_packed_images_and_groups_follow(tmp_path):
    root, packs = two_splits(tmp_path / "data", {"a": 12, "b": 12, "c": 12}), tmp_path / "packs"
    whole = dataset(root, packs)
    tailed = dataset(root, packs, imbalance=4.0, head_above=10, tail_below=4)
    assert torch.bincount(tailed.train.labels).tolist() == [12, 6, 3]
    assert tailed.groups == {"head": (0,), "medium": (1,), "tail": (2,)}
    assert len(tailed.test) == len(whole.test)
    assert len(list(packs.glob("folder-16px-*"))) == 1


def test_a_tail_from_a_file(tmp_path):
    root = two_splits(tmp_path / "data")
    (root / "counts.csv").write_text("class,count\nb,2\n")
    options = FolderOptions(tail="counts.csv")
    listing = with_tail_file(listed(root, tail="counts.csv"), options, root)
    assert [item.label for item in listing.train] == [0] * 6 + [1] * 2
    assert listing.notes == ("counts.csv has no count of class 'a': all images are kept.",)
    for content, words in (
        ("class,count\nb,9\n", "line 2: b has 4 training images"),
        ("class,count\nx,1\n", "Unknown class 'x'"),
        ("klass,count\nb,1\n", "no column 'class'"),
        ("class,count\nb,²\n", "a number from 1 to that, not '²'"),
        ("class,count\nb,2\na,1\nb,3\n", "line 4: class 'b' is named twice"),
    ):
        (root / "counts.csv").write_text(content)
        with pytest.raises(UserError, match=words):
            with_tail_file(listed(root), options, root)


def test_a_tail_file_that_cannot_be_read_is_named(tmp_path):
    root = two_splits(tmp_path / "data")
    (root / "broken.csv").write_text("class,count\nb," + "1" * 200_000)
    for name, words in (
        ("train", "train cannot be read: Is a directory"),
        ("broken.csv/counts.csv", "cannot be read: Not a directory"),
        ("broken.csv", r"broken\.csv cannot be read: field larger than"),
        ("none.csv", r"none\.csv does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            with_tail_file(listed(root), FolderOptions(tail=name), root)
    with pytest.raises(UserError, match="train cannot be read: Is a directory"):
        listed(root, classes="train")


@pytest.mark.parametrize(
    "given,words",
    [
        ({"tail": "pareto"}, "tail=pareto has no effect without"),
        ({"tail": "pareto", "dev_per_class": 2}, "tail=pareto has no effect without"),
        ({"tail_seed": 3}, "tail_seed=3 has no effect where neither"),
        ({"imbalance": None, "tail": "exp", "tail_seed": 0}, None),
        ({"tail": "counts.csv", "tail_seed": 3}, None),
        ({"dev_per_class": 2, "tail_seed": 3}, None),
        ({"groups": "groups.csv", "grouped_by": "thirds"}, "no effect beside a file of groups"),
        ({"groups": "groups.csv", "head_above": 3}, "no effect beside a file of groups"),
        ({"groups": "groups.csv", "tail_below": 3}, "no effect beside a file of groups"),
        ({"bands": []}, r"bands=\[\] names no band"),
    ],
)
def test_what_would_have_no_effect_is_refused(given, words):
    if words is None:
        options_of("folder", given)
        return
    with pytest.raises(UserError, match=words):
        options_of("folder", given)


def write_list(root, rows, name="split.csv"):
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])


def test_a_list_says_what_is_what(tmp_path):
    tree(tmp_path, {"x": 4, "y": 3})
    rows = [("x/0.png", 10, "train"), ("y/0.png", 9, "train"), ("x/1.png", 10, "test")]
    write_list(tmp_path, [*rows, ("y/1.png", 9, "val"), ("x/0.png", 10, "train")])
    listing = listed(tmp_path)
    assert listing.classes == ("9", "10")
    assert listing.train[:2] == (Item("x/0.png", 1), Item("y/0.png", 0))
    assert listing.test == (Item("x/1.png", 1),)
    assert ["left out" in note or "another line" in note for note in listing.notes] == [True] * 3
    table = pa.table(
        {
            "path": ["x/0.png", "y/0.png", "x/1.png"],
            "label": ["p", "q", "p"],
            "split": ["train", "train", "test"],
        }
    )
    pq.write_table(table, tmp_path / "other.parquet")
    assert listed(tmp_path, list="other.parquet").classes == ("p", "q")


FINE = [("x/0.png", "x", "train"), ("x/1.png", "y", "train"), ("x/2.png", "x", "test")]


@pytest.mark.parametrize(
    "rows,options,words",
    [
        ([("x/0.png", "x", "trian")], {}, "line 2: Unknown split 'trian'. Did you mean 'train'"),
        (
            [("x/0.png", "q", "train")],
            {"classes": "names.txt"},
            "line 2: label 'q' is not in names",
        ),
        ([("x/0.png", "", "train")], {}, "line 2: write a value"),
        ([("x/0.png", "x", "train")], {}, "no test image"),
        ([("x/0.png", "x", ""), ("x/1.png", "x", "test")], {}, "line 2: no split is named"),
        ([("x/0.png", "x", "train"), ("x/1.png", "y", "test")], {}, "'y' has no training image"),
        ([("x/0.png", "x", "train")], {"classes": "none.txt"}, r"none\.txt names no class"),
        (
            FINE,
            {"test_fraction": 0.5},
            "=0.5 has no effect .* that of split.csv, line 2 is",
        ),
        (FINE, {"split_seed": 5}, "split_seed=5 has no effect where the splits are named"),
    ],
)
def test_mistakes_in_a_list_name_the_line(tmp_path, rows, options, words):
    tree(tmp_path, {"x": 4})
    (tmp_path / "names.txt").write_text("x\n")
    (tmp_path / "none.txt").write_text("\n")
    write_list(tmp_path, rows)
    with pytest.raises(UserError, match=words):
        listed(tmp_path, **options)


def test_a_listed_file_that_is_not_there_is_named(tmp_path):
    tree(tmp_path / "data", {"x": 2, "y": 1})
    rows = [("x/0.png", "x", "train"), ("y/0.png", "y", "train"), ("x/9.png", "x", "test")]
    write_list(tmp_path / "data", rows)
    with pytest.raises(UserError, match=r"x/9.png: there is no such file"):
        packed(tmp_path / "data", tmp_path / "packs")


def test_trees_with_and_without_splits(tmp_path):
    root = two_splits(tmp_path / "one")
    (root / "train/a/notes.txt").write_text("no image")
    listing = listed(root)
    assert listing.classes == ("a", "b")
    assert (len(listing.train), len(listing.test)) == (10, 6)
    assert "1 files in train/a are no images" in listing.notes[0]
    os.rename(root / "test", root / "val")
    assert len(listed(root).test) == 6
    drawn = listed(tree(tmp_path / "two", {"b": 10, "a": 5, "only": 1}))
    assert drawn.classes == ("a", "b", "only")
    assert np.bincount([item.label for item in drawn.test]).tolist() == [1, 2]
    assert sum(item.label == 2 for item in drawn.train) == 1
    other = listed(tmp_path / "two", split_seed=1)
    assert set(other.test) != set(drawn.test)


def test_an_empty_root_is_refused(tmp_path):
    with pytest.raises(MissingData, match="data check folder"):
        listed(tmp_path)


def test_names_that_are_not_utf_8(tmp_path):
    root = tree(tmp_path / "data", {"a": 5, "b": 5})
    os.rename(root / "a/0.png", os.path.join(os.fsencode(root), b"a/caf\xe9.png"))
    os.rename(root / "b", os.path.join(os.fsencode(root), b"b\xe9"))
    found = packed(root, tmp_path / "packs")
    assert len(found.index.labels) == 10
    assert found.info.classes == ("a", "b\\xe9")
    with open(os.path.join(os.fsencode(root), b"a/caf\xe9.png"), "wb"):
        pass
    with pytest.raises(UserError, match=r"caf\\xe9.png: the file is empty"):
        packed(root, tmp_path / "packs")


def encoded(seed):
    file = io.BytesIO()
    picture(seed).save(file, "png")
    return file.getvalue()


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_webdataset_shards(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for part, name in enumerate(("train-0.tar", "train-1.tar", "test-0.tar")):
        with tarfile.open(root / name, "w") as tar:
            for number in range(4):
                add(tar, f"{number}.png", encoded(10 * part + number))
                label = json.dumps({"label": number % 2}) if part else str(number % 2)
                add(tar, f"{number}.{'json' if part else 'cls'}", label.encode())
    listing = listed(root)
    assert listing.classes == ("0", "1") and (len(listing.train), len(listing.test)) == (8, 4)
    assert listing.train[0] == Item("train-0.tar::0.png", 0)
    found = packed(root, tmp_path / "packs", size=64)
    np.testing.assert_array_equal(first_of(found), np.asarray(picture(0)))
    with tarfile.open(root / "train-2.tar", "w") as tar:
        add(tar, "7.png", encoded(7))
    with pytest.raises(UserError, match=r"train-2.tar: 7.png has neither .cls nor .json"):
        listed(root)


SAMPLES = [("0.png", b"0"), ("0.cls", b"a"), ("1.png", b"1"), ("1.cls", b"b")]
SAMPLES += [("2.png", b"2"), ("2.cls", b"a"), ("3.png", b"3"), ("3.cls", b"b")]


@pytest.mark.parametrize(
    "members,words",
    [
        ([], r"s\.tar names no image"),
        ([("0.v1.png", b"0"), ("0.v1.cls", b"a")], "no dot in NAME"),
        ([*SAMPLES, ("0.jpg", b"0")], "0.png and 0.jpg are two images of one sample"),
        ([*SAMPLES, ("0.cls", b"b")], "two files called 0.cls"),
        ([*SAMPLES, ("0.json", b'{"label": "b"}')], "0.cls says 'a' and 0.json says 'b'"),
        ([*SAMPLES, ("0.json", b'{"label": "a"}')], None),
        ([("0.json", b'{"caption": "x"}'), *SAMPLES, ("1.json", b"{}")], None),
        ([*SAMPLES, ("9.cls", b"b")], "1 labels in shards are of no image"),
        (
            [*SAMPLES, ("4.png", b"4"), ("4.json", b'{"label": "a", "cls": 0}')],
            "1 samples have another value beside the field 'label'",
        ),
    ],
)
def test_two_answers_in_a_shard_are_refused_or_said(tmp_path, members, words):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, content in members:
            add(tar, name, content)
    try:
        found = listed(tmp_path)
    except UserError as error:
        assert words and re.search(words, str(error))
        return
    assert found.classes == ("a", "b")
    labels = {item.path: item.label for item in (*found.train, *found.test)}
    assert [labels[f"s.tar::{n}.png"] for n in range(4)] == [0, 1, 0, 1]
    said = [note for note in found.notes if "drawn for testing" not in note]
    assert bool(said) == bool(words) and re.search(words or "", " ".join(said))


def write_arrow(table, file):
    """As `save_to_disk` does, in batches of 2 rows, with the leftovers of a `map` beside it."""
    file.parent.mkdir(parents=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (file.parent / "cache-0123456789abcdef.arrow").write_bytes(b"of a map")
    (file.parent / "state.json").write_text('{"_data_files": [{"filename": "' + file.name + '"}]}')


HUGGING_FACE = {
    "hub": (
        "data/{}-00000-of-00001.parquet",
        lambda table, file: pq.write_table(table, file, row_group_size=2),
    ),
    "save_to_disk": ("{}/data-00000-of-00001.arrow", write_arrow),
}


@pytest.mark.parametrize("form", HUGGING_FACE)
def test_a_hugging_face_folder(form, tmp_path):
    name, write = HUGGING_FACE[form]
    root = tmp_path / "data"
    (root / "data").mkdir(parents=True)
    features = {
        "image": {"_type": "Image"},
        "target": {"_type": "ClassLabel", "names": ["cat", "ant"]},
    }
    for part, split_name in enumerate(("train", "test")):
        rows = [{"bytes": encoded(10 * part + i), "path": None} for i in range(5)]
        table = pa.table({"image": rows, "target": [0, 1, 0, 1, 1]})
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        write(table.replace_schema_metadata(meta), root / name.format(split_name))
    listing = listed(root)
    assert listing.classes == ("cat", "ant")  # in the file's order
    assert [item.label for item in listing.train] == [0, 1, 0, 1, 1]
    found = packed(root, tmp_path / "packs", size=64)
    start, (height, width) = found.index.offsets[4], found.index.sizes[4]
    pixels = found.pixels[start : start + height * width * 3].reshape(height, width, 3)
    np.testing.assert_array_equal(pixels, np.asarray(picture(4)))
    broken = root / name.format("zzz")
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"no table")
    with pytest.raises(UserError, match=f"{broken.name} cannot be read as a table"):
        listed(root)


def test_classes_and_groups_from_files(tmp_path):
    root = two_splits(tmp_path / "data")
    (root / "names.txt").write_text("b\na\n")
    (root / "groups.csv").write_text("class,group\na,common\nb,rare\n")
    listing = listed(root, classes="names.txt", groups="groups.csv")
    assert listing.classes == ("b", "a") and listing.groups == {"common": (1,), "rare": (0,)}
    (root / "groups.csv").write_text("class,group\na,common\n")
    with pytest.raises(UserError, match="class 'b' is in 0 groups"):
        listed(root, groups="groups.csv")


@pytest.mark.parametrize("name", [*OVERALL, "class mean", "loss", "test", "select", "runs"])
def test_a_group_is_not_called_as_a_column_of_results(tmp_path, name):
    root = two_splits(tmp_path / "data")
    (root / "groups.csv").write_text(f"class,group\na,common\nb,{name}\n")
    with pytest.raises(UserError, match=f"line 3 calls a group '{name}', as a column"):
        listed(root, groups="groups.csv")
