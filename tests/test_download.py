"""`harness data check --download`: which class of torchvision is called, and what is said if not.

No network: torchvision's classes are replaced by one that notes how it is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision.datasets
from click.testing import CliRunner
from PIL import Image

from harness.cli import main

RIVER, FOREST = "River", "Forest"


def check(*args):
    return CliRunner().invoke(main, ["data", "check", *(str(arg) for arg in args)])


def images(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)


def eurosat(root, folder="eurosat/2750"):
    """As torchvision unpacks it."""
    images(root / folder, *(f"{c}/{c}_{n}.jpg" for c in (RIVER, FOREST) for n in range(5)))


def places(root):
    """Lists of one class, as published."""
    (root / "Places_LT_train.txt").write_text("data_256/a/airfield/00000001.jpg 0\n")
    (root / "Places_LT_test.txt").write_text("val_256/Places365_val_00000001.jpg 0\n")


def places_images(root, split):
    images(
        root,
        "val_256/Places365_val_00000001.jpg"
        if split == "val"
        else "data_256_standard/a/airfield/00000001.jpg",
    )


def inat(root):
    note = {"images": [{"id": 1, "file_name": "train_val2018/Aves/3/a.jpg"}]}
    note |= {"annotations": [{"image_id": 1, "category_id": 3}]}
    note |= {"categories": [{"id": 3, "name": "Pica pica"}]}
    for name in ("train", "val"):
        (root / f"{name}2018.json").write_text(json.dumps(note))


@pytest.fixture
def called(monkeypatch):
    """Calls of torchvision's classes, of which those in `makes` make what they would unpack."""
    calls, makes = [], {}

    def stand_in(name):
        def call(root, **values):
            calls.append((name, root, values))
            makes.get(name, lambda root, **_: None)(Path(root), **values)

        return call

    for name in ("CIFAR100", "EuroSAT", "Places365", "INaturalist"):
        monkeypatch.setattr(torchvision.datasets, name, stand_in(name))
    return calls, makes


def test_eurosat_is_downloaded_into_the_root_and_checked(called, tmp_path):
    calls, makes = called
    makes["EuroSAT"] = lambda root, **_: eurosat(root)
    root = tmp_path / "new"
    plain = check("eurosat", "--data-root", root)
    assert plain.exit_code == 2 and calls == []
    done = check("eurosat", "--data-root", root, "--download", "--out", tmp_path)
    assert calls == [("EuroSAT", str(root), {"download": True})]
    assert ["River", "tail", "4", "4", "1"] in [line.split() for line in done.output.splitlines()]
    check("eurosat", "--data-root", root, "--download", "--out", tmp_path)
    assert len(calls) == 1


def test_cifar_is_downloaded_by_torchvision_which_verifies_what_is_there(called, tmp_path):
    calls, _ = called
    done = check("cifar100_lt", "--data-root", tmp_path, "--download")
    assert calls == [("CIFAR100", str(tmp_path), {"download": True})]
    assert "cifar-100-python/train is missing" in done.stderr


def test_images_of_places_are_downloaded_and_found_where_torchvision_puts_them(called, tmp_path):
    calls, makes = called
    makes["Places365"] = lambda root, split, **_: places_images(root, split)
    first = check("places_lt", "--data-root", tmp_path, "--download")
    assert first.exit_code == 2 and "Places_LT_train.txt is missing" in first.stderr
    assert calls == []
    places(tmp_path)
    done = check("places_lt", "--data-root", tmp_path, "--download", "--out", tmp_path)
    small = {"small": True, "download": True}
    assert calls == [
        ("Places365", str(tmp_path), {"split": "train-standard", **small}),
        ("Places365", str(tmp_path), {"split": "val", **small}),
    ]
    assert "cannot be read" not in done.output and "is missing" not in done.output
    assert ["all", "1", "1", "1"] in [line.split() for line in done.output.splitlines()]


def test_images_of_inaturalist_are_downloaded_and_found_where_torchvision_puts_them(
    called, tmp_path
):
    calls, makes = called
    makes["INaturalist"] = lambda root, **_: images(root, "2018/Aves/3/a.jpg")
    first = check("inat2018", "--data-root", tmp_path, "--download")
    assert first.exit_code == 2 and "train2018.json is missing" in first.stderr
    assert calls == []
    inat(tmp_path)
    done = check("inat2018", "--data-root", tmp_path, "--download", "--out", tmp_path)
    assert calls == [("INaturalist", str(tmp_path), {"version": "2018", "download": True})]
    assert "2018/Aves/3/a.jpg" in done.output and "cannot be read" not in done.output


@pytest.mark.parametrize(
    "name,prepare",
    [
        ("eurosat", lambda root: eurosat(root, "EuroSAT_RGB")),
        ("places_lt", lambda root: [places(root), *map(Path.mkdir, folders_of_places(root))]),
        ("inat2018", lambda root: [inat(root), (root / "train_val2018").mkdir()]),
    ],
)
def test_what_is_there_is_not_downloaded_again(name, prepare, called, tmp_path):
    prepare(tmp_path)
    check(name, "--data-root", tmp_path, "--download", "--out", tmp_path)
    assert called[0] == []


def folders_of_places(root):
    return root / "data_256", root / "val_256"


@pytest.mark.parametrize(
    "args,words",
    [
        (["fusrs"], "no loader to download fusrs with: get it by hand"),
        (["dota"], "no loader to download dota with"),
        (["folder"], "no loader to download folder with"),
        (["eurosat", "--set", "data.options.kind=ms"], "RGB images only: get EuroSAT_MS.zip"),
    ],
)
def test_what_torchvision_cannot_download_is_said_in_one_sentence(args, words, called, tmp_path):
    result = check(*args, "--data-root", tmp_path, "--download")
    assert result.exit_code == 2 and called[0] == []
    assert result.stderr.startswith("Error: ") and result.stderr.strip().count("\n") == 0
    assert words in result.stderr and f"`harness data check {args[0]}`" in result.stderr


def test_a_download_needs_a_root(called):
    result = check("eurosat", "--download")
    assert result.exit_code == 2 and "give --data-root" in result.stderr
    assert called[0] == []


@pytest.mark.parametrize(
    "error,reason",
    [
        (URLError("Name or service not known"), "(Name or service not known)"),
        (RuntimeError("File not found or corrupted."), "(File not found or corrupted.)"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_download_that_fails_is_one_sentence(error, reason, called, tmp_path):
    def fails(*_, **__):
        raise error

    called[1]["EuroSAT"] = fails
    result = check("eurosat", "--data-root", tmp_path, "--download")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: eurosat could not be downloaded into ")
    assert result.stderr.strip().count("\n") == 0 and reason in result.stderr
    assert "`harness data check eurosat`" in result.stderr
