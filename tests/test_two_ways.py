"""Folders, lists and labels that can be read in two ways are refused, or said."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cli import harness
from support.images import listed, tree

from harness.data.decode import image_column
from harness.errors import UserError

FORMS = ("NFC", "NFD")
THREE = {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize(
    "train,test",
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("TRAIN", "val"),
        ("train", "Valid"),
        ("train", "dev"),
    ],
)
def test_splits_are_known_by_their_other_names(tmp_path, train, test):
    tree(tmp_path / train, THREE)
    tree(tmp_path / test, THREE, start=90)
    found = listed(tmp_path)
    assert found.classes == ("a", "b", "c") and len(found.train) == len(found.test) == 12
    assert {item.path.split("/")[0] for item in found.test} == {test}


@pytest.mark.parametrize(
    "folders,words",
    [
        (["train", "Train", "test"], "both of train"),
        (["train", "test", "extra"], "beside extra"),
        (["test", "a", "b"], "beside a, b"),
        (["train"], "no folder test or val"),
        (["Test", "val"], "no folder train"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(tmp_path, folders, words):
    for number, name in enumerate(folders):
        tree(tmp_path / name, THREE, start=20 * number)
    with pytest.raises(UserError, match=words):
        listed(tmp_path)


def test_a_folder_around_the_classes_is_named(tmp_path):
    tree(tmp_path / "my_images", THREE)
    with pytest.raises(UserError, match=r"single class, 'my_images'; if its folders a, b, c"):
        listed(tmp_path)
    tree(tmp_path / "parted" / "train" / "all", THREE)
    tree(tmp_path / "parted" / "test" / "all", THREE, start=50)
    with pytest.raises(UserError, match="give all as the data root"):
        listed(tmp_path / "parted")


def test_one_class_is_refused(tmp_path):
    with pytest.raises(UserError, match="single class, 'a'; classifying needs two"):
        listed(tree(tmp_path, {"a": 5}))


@pytest.mark.parametrize("left", ["images.tar", "meta.parquet", "old/state.arrow"])
def test_a_file_of_images_beside_class_folders_is_refused(tmp_path, left):
    tree(tmp_path, THREE)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_bytes(b"")
    with pytest.raises(UserError, match=f"There are {left} and class folders a, b, c"):
        listed(tmp_path)


def test_folders_of_one_name_in_several_classes_are_said(tmp_path):
    for year in ("2023", "2024"):
        tree(tmp_path / year, THREE)
    found = listed(tmp_path)
    assert found.classes == ("2023", "2024")
    assert "several classes have a, b, c: if those are the classes" in " ".join(found.notes)
    tree(tmp_path, {"2024": 1})
    assert "if those are the classes" not in " ".join(listed(tmp_path).notes)


def test_files_beside_class_folders_that_are_not_read_are_said(tmp_path):
    tree(tmp_path, THREE)
    for name in ("a.zip", "labels.csv", ".hidden", "names.txt"):
        (tmp_path / name).write_text("a\nb\nc\n")
    note = "Class folders are read, and not what lies beside them: a.zip, labels.csv."
    assert note in listed(tmp_path, classes="names.txt").notes


def test_images_beside_those_of_a_list_are_said(tmp_path):
    csv(tmp_path, f"path,label,split\n{ROWS}b/1.png,b,val\n")
    note = "2 images beside those in split.csv are not in it, and are left out."
    assert note in listed(tmp_path).notes


@pytest.mark.parametrize(
    "link,target", [("a/loop", "a"), ("a/loop", "."), ("loop", "."), ("a/b", "b")]
)
def test_a_link_into_a_folder_around_it_is_not_followed(tmp_path, link, target):
    tree(tmp_path / "d", {"a": 3, "b": 3})
    (tmp_path / "d" / link).symlink_to(tmp_path / "d" / target)
    (tmp_path / "d" / "b" / "back").symlink_to(tmp_path / "d" / "b")
    found = listed(tmp_path / "d")
    assert found.classes == ("a", "b")
    assert len(found.train) + len(found.test) == (9 if target == "b" else 6)


def csv(root, text, encoding="utf-8"):
    tree(root, {"a": 3, "b": 3})
    (root / "split.csv").write_bytes(text.encode(encoding))
    return root


ROWS = "a/0.png,a,train\nb/0.png,b,train\na/1.png,a,test\n"


@pytest.mark.parametrize("header", ["path,label,split", "path, label, split", "Path,LABEL,Split"])
def test_blanks_and_case_of_a_header_do_not_count(tmp_path, header):
    assert len(listed(csv(tmp_path, f"{header}\n{ROWS}")).train) == 2


@pytest.mark.parametrize(
    "text,encoding,words",
    [
        ("path;label;split\na/0.png;a;train\n", "utf-8", "has ';' where commas belong"),
        ("path\tlabel\na/0.png\ta\n", "utf-8", "where commas belong"),
        (f"path,label,split\n{ROWS}", "utf-16", "UTF-16"),
        ("file,class\na/0.png,a\n", "utf-8", "reads 'file,class'"),
        ("path,label,split\na/0.png,a,train\nb/0.png,,train\n", "utf-8", "line 3"),
        ("path,label,split\n", "utf-8", r"split\.csv names no image: write"),
        ("path,label,split\na/0.png,a,val\n", "utf-8", "names no image of train or test"),
        ("path,label,Label\na/0.png,a,b\n", "utf-8", "two columns called 'label'"),
        (f"path,label,split,split\n{ROWS}", "utf-8", "two columns called 'split'"),
        ('path,label\na/0.png,a\nb/0.png,"b\na/1.png,a"\n', "utf-8", "line 3: a field goes on"),
        ('path,label\r\na/0.png,a,"\r\nb/0.png,b\r\n', "utf-8", "line 2: a field goes on"),
    ],
)
def test_what_was_read_of_a_list_is_said(tmp_path, text, encoding, words):
    with pytest.raises(UserError, match=words):
        listed(csv(tmp_path, text, encoding))


@pytest.mark.parametrize(
    "row,words",
    [
        ("a/0.png,b,train", r"line 5: 'a/0\.png' has the label 'b', and by line 2 'a': leave one"),
        ("./a/0.png,b,train", r"line 5: '\./a/0\.png' has the label 'b', and by line 2 'a'"),
        ("a//0.png,a,test", r"line 5: 'a//0\.png' has the split 'test', and by line 2 'train'"),
        ("a/0.png,a,val", "has the split 'val', and by line 2 'train': leave one of these lines"),
        ("a/0.png,a,", "has the split 'none', and by line 2 'train'"),
    ],
)
def test_two_lines_that_contradict_each_other_are_refused(tmp_path, row, words):
    with pytest.raises(UserError, match=words):
        listed(csv(tmp_path, f"path,label,split\n{ROWS}{row}\n"))


def test_two_lines_of_one_image_are_said_however_its_path_is_written(tmp_path):
    found = listed(csv(tmp_path, f"path,label,split\n{ROWS}./a/0.png,a,train\n"))
    assert "1 lines of split.csv name a path that another line names too." in found.notes
    assert [item.path for item in found.train] == ["a/0.png", "b/0.png", "./a/0.png"]


PATHS = ["a/0.png", "b/0.png"]


@pytest.mark.parametrize(
    "columns,words",
    [
        ([("path", ["a/0.png", None]), ("label", ["a", "b"])], "line 2: write a value for path"),
        ([("path", [0, 1]), ("label", ["a", "b"])], "line 1: path 0 is no text"),
        (
            [("path", [{"a": "0"}] * 2), ("label", ["a", "b"])],
            r"line 1: path {'a': '0'} is no text",
        ),
        ([("path", PATHS), ("label", [["a"], ["b"]])], r"line 1: label \['a'\] names no class"),
        ([("path", PATHS), ("label", [0.0, float("nan")])], "line 2: label nan names no class"),
        ([("path", PATHS), ("label", [0.0, 0.5])], "line 2: label 0.5 names no class"),
        ([("path", PATHS), ("label", ["a", "b"]), ("split", [0, 1])], "line 1: Unknown split '0'"),
        ([("path", PATHS), ("label", ["a", "b"]), ("split", [False] * 2)], "Unknown split 'False'"),
        ([("path", PATHS), ("label", ["a", "b"]), ("label", ["b", "a"])], "'label' as the name of"),
        ([("path", pa.array([], "string")), ("label", pa.array([], "string"))], "names no image"),
    ],
)
def test_mistakes_in_a_list_in_parquet_are_named(tmp_path, columns, words):
    tree(tmp_path, {"a": 3, "b": 3})
    names, values = zip(*columns, strict=True)
    table = pa.Table.from_arrays([pa.array(column) for column in values], names=list(names))
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(UserError, match=words) as refused:
        listed(tmp_path, list="list.parquet")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], [False, True], ["²", "①"]])
def test_numbers_are_names_of_classes_too(tmp_path, labels):
    tree(tmp_path, {"a": 1, "b": 1})
    table = pa.table({"path": PATHS * 2, "label": labels * 2, "split": ["", None, None, ""]})
    pq.write_table(table, tmp_path / "list.parquet")
    assert listed(tmp_path, list="list.parquet").classes == tuple(map(str, labels))


def test_classes_that_differ_in_blanks_are_refused_and_in_case_are_said(tmp_path):
    tree(tmp_path, {"a": 4, "b": 4})
    rows = "a/0.png,cat,train\na/1.png,cat ,train\nb/0.png,dog,test\n"
    with pytest.raises(UserError, match="'cat' and 'cat ' differ in blanks alone"):
        listed(csv(tmp_path / "blanks", f"path,label,split\n{rows}"))
    twice = tree(tmp_path / "accents", {unicodedata.normalize(form, "é"): 4 for form in FORMS})
    with pytest.raises(UserError, match="accents are written alone, composed or decomposed"):
        listed(twice)
    found = listed(tree(tmp_path / "case", {"Cat": 5, "cat": 5}))
    assert found.classes == ("Cat", "cat")
    assert any("'Cat' and 'cat' differ in case alone" in note for note in found.notes)


@pytest.mark.parametrize("one,other", [("1", "01"), ("1", "1.0"), ("-2", "-2."), ("7", "+7")])
def test_classes_that_are_one_number_are_refused(tmp_path, one, other):
    with pytest.raises(UserError, match="are one number in 2 spellings: write one of them") as told:
        listed(tree(tmp_path, {"0": 4, one: 4, other: 4}))
    assert repr(one) in str(told.value) and repr(other) in str(told.value)


def test_parts_of_a_number_are_kept_apart(tmp_path):
    names = ("1", "1.1", "1.10", "01a", "10")
    assert len(listed(tree(tmp_path, dict.fromkeys(names, 4))).classes) == len(names)


def shard(file, numbers):
    """Samples `NUMBER.png` of class `NUMBER % 2`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number in numbers:
            label = str(number % 2).encode()
            for suffix, content in ((".png", b"pixels"), (".cls", label)):
                info = tarfile.TarInfo(f"{number}{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "train,test",
    [
        ("imagenet-train-000000.tar", "imagenet-test-000000.tar"),
        ("x_Training.tar", "x.testing.0.tar"),
        ("x-train/0.tar", "x-test/0.tar"),
        ("my-test-x/x-train-0.tar", "my-test-x/0.tar"),
        ("x-train-0.tar", "x-val-0.tar"),
    ],
)
def test_a_split_is_known_within_the_name_of_a_shard(tmp_path, train, test):
    shard(tmp_path / train, range(6))
    shard(tmp_path / test, range(4))
    found = listed(tmp_path)
    assert [item.path for item in found.train] == [f"{train}::{n}.png" for n in range(6)]
    assert [item.path for item in found.test] == [f"{test}::{n}.png" for n in range(4)]


def test_a_shard_of_two_splits_by_its_name_is_refused(tmp_path):
    shard(tmp_path / "x-train-0.tar", range(4))
    shard(tmp_path / "x-train-test-0.tar", range(4))
    with pytest.raises(UserError, match=r"test-0\.tar' names the splits 'train' and 'test'"):
        listed(tmp_path)
    (tmp_path / "x-train-test-0.tar").rename(tmp_path / "x-latest-0.tar")
    with pytest.raises(UserError, match="no split is named, while others"):
        listed(tmp_path)


def hugging_face(file, images, classes, rows=6):
    """A table with these columns of images, and of class labels of which each is another."""
    names = {name: [f"{name}{n}" for n in range(2)] for name in classes}
    features = {name: {"_type": "ClassLabel", "names": names[name]} for name in classes}
    columns = {name: [{"bytes": name.encode(), "path": None}] * rows for name in images}
    table = pa.table({**columns, **{name: [n % 2 for n in range(rows)] for name in classes}})
    features["dropped"] = {"_type": "ClassLabel", "names": ["a column that was taken out"]}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), file)


@pytest.mark.parametrize(
    "images,classes,words",
    [
        (["mask", "scan"], ["label"], "several image columns, mask, scan: leave one, or call the"),
        (["img"], ["coarse", "fine"], "several label columns, coarse, fine: leave one, or call"),
    ],
)
def test_several_columns_that_may_be_meant_are_refused(tmp_path, images, classes, words):
    hugging_face(tmp_path / "train-0.parquet", images, classes)
    with pytest.raises(UserError, match=words):
        listed(tmp_path)


def test_of_several_columns_those_of_the_usual_names_are_used(tmp_path):
    for name, rows in (("train", 6), ("test", 4)):
        hugging_face(tmp_path / f"{name}-0.parquet", ["mask", "image"], ["coarse", "label"], rows)
    assert listed(tmp_path).classes == ("label0", "label1")
    assert image_column(tmp_path / "train-0.parquet") == "image"


def test_images_of_validation_that_are_left_out_of_tables_are_said(tmp_path):
    for name, rows in (("train", 6), ("validation", 3), ("test", 4)):
        hugging_face(tmp_path / f"{name}-0.parquet", ["image"], ["label"], rows)
    found = listed(tmp_path)
    assert (len(found.train), len(found.test)) == (6, 4)
    words = "3 images of the split val are left out: what is chosen on is drawn from train."
    assert words in found.notes
    (tmp_path / "test-0.parquet").unlink()
    assert len(listed(tmp_path).test) == 3 and words not in listed(tmp_path).notes


def test_every_suffix_of_a_jpeg_counts(tmp_path):
    tree(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "0.jfif")
    assert sum(
        item.path.endswith(".jfif") for item in (*listed(tmp_path).train, *listed(tmp_path).test)
    )


def test_what_is_left_out_is_said_by_the_command_that_trains(tmp_path):
    tree(tmp_path / "d", {"a": 30, "b": 30})
    (tmp_path / "d" / "a" / "notes.doc").write_text("x")
    words = [
        "sweep",
        "--study",
        "depth_vs_position",
        "--smoke",
        "--dry-run",
        "--set",
        "data=folder",
    ]
    result = harness(*words, "--data-root", tmp_path / "d", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert "folder: 1 files in a are no images by their name." in result.stderr


@pytest.mark.slow
def test_a_group_without_a_validation_image_has_no_score_there(tmp_path):
    tree(tmp_path / "d" / "train", {"a": 60, "b": 1, "c": 1})
    tree(tmp_path / "d" / "test", {"a": 4, "b": 4, "c": 4}, start=90)
    words = ["train", "--method", "linear_probe", "--workers", 1, "--set", "data=folder"]
    words += ["--set", "recipe.epochs=1", "--data-root", tmp_path / "d", "--out", tmp_path / "o"]
    for _ in range(2):  # trained, and from the store
        result = harness(*words)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        at = next(place for place, line in enumerate(lines) if "medium" in line)
        header, validation, test = lines[at : at + 3]
        assert header.split()[2:4] == ["medium", "tail"]
        assert validation.split()[2] == "-" and test.split()[2] != "-"
