"""Packs: found again, made anew, whole or refused."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.images import first_of, listed, packed, picture, two_splits

from harness.cli.terminal import TERMINAL
from harness.data.listing import Item, Listing
from harness.data.pack import pack
from harness.data.pack_format import open_pack, verify
from harness.errors import UserError


def test_a_pack_holds_every_image_where_its_index_says(tmp_path):
    root = two_splits(tmp_path / "data")
    listing = listed(root)
    found = packed(root, tmp_path / "packs", size=64)
    items = [*listing.train, *listing.test]
    for row, item in enumerate(items):
        height, width = found.index.sizes[row]
        start = found.index.offsets[row]
        pixels = found.pixels[start : start + height * width * 3].reshape(height, width, 3)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(root / item.path)))
        assert found.index.labels[row] == item.label
    assert found.index.is_test.tolist() == [False] * 10 + [True] * 6
    train = np.stack([np.asarray(Image.open(root / item.path)) for item in listing.train]) / 255
    assert found.info.mean == pytest.approx(train.mean(axis=(0, 1, 2)))
    assert found.info.std == pytest.approx(train.std(axis=(0, 1, 2)))


def test_a_pack_is_found_again_and_made_anew_when_a_file_changes(tmp_path, capfd):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    first = packed(root, packs)
    stamp = (first.folder / "pack.json").stat().st_mtime_ns
    assert packed(root, packs).folder == first.folder
    assert (first.folder / "pack.json").stat().st_mtime_ns == stamp
    assert "changed" not in capfd.readouterr().err
    picture(77).save(root / "train/a/0.png")
    second = packed(root, packs, console=TERMINAL)
    assert second.info.sha256 != first.info.sha256
    assert "files of folder have changed" in capfd.readouterr().err
    os.utime(root / "train/a/0.png")  # the same bytes, at another time
    assert packed(root, packs).info.sha256 == second.info.sha256
    assert not list(packs.glob("*.part"))


def test_what_a_killed_process_left_is_no_pack(tmp_path):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    left = packs / "folder-16px-new.part"
    left.mkdir(parents=True)
    (left / "pack.json").write_text("{}")
    (left / "pixels.bin").write_bytes(b"half")
    found = packed(root, packs)
    assert verify(found.folder) and not left.exists()


def test_damage_is_noticed(tmp_path):
    found = packed(two_splits(tmp_path / "data"), tmp_path / "packs")
    assert verify(found.folder)
    file = found.folder / "pixels.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert not verify(found.folder)
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged: delete it"):
        open_pack(found.folder)


def test_a_bad_image_stops_or_is_left_out_and_known(tmp_path, capfd):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    whole = packed(root, packs)
    (root / "train/a/0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/a/0.png: the file is empty.*--on-bad-image skip"):
        packed(root, packs)
    assert not list(packs.glob("*.part"))
    rest = packed(root, packs, on_bad="skip", console=TERMINAL)
    assert rest.info.bad == {"train/a/0.png": "the file is empty"}
    assert "1 images of folder cannot be read" in capfd.readouterr().err
    assert len(rest.index.labels) == len(whole.index.labels) - 1
    assert rest.info.sha256 != whole.info.sha256
    stamp = (rest.folder / "pack.json").stat().st_mtime_ns
    assert packed(root, packs, on_bad="skip").folder == rest.folder
    assert (rest.folder / "pack.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="the file is empty"):
        packed(root, packs)


def test_boxes_are_cut_at_the_images_edge_and_refused_beyond_it(tmp_path):
    picture(0, 20, 24).save(tmp_path / "x.png")
    inside, edge = (4, 5, 10, 15), (-3, 15, 6, 40)
    items = (Item("x.png", 0, inside), Item("x.png", 1, edge))
    made = Listing(classes=("a", "b"), train=items, test=items)
    found = pack(made, name="boxes", root=tmp_path, folder=tmp_path / "packs", size=64)
    whole = np.asarray(picture(0, 20, 24))
    np.testing.assert_array_equal(first_of(found), whole[5:15, 4:10])
    assert found.index.sizes[1].tolist() == [5, 6]
    beyond = Listing(classes=("a",), train=(Item("x.png", 0, (30, 0, 40, 9)),), test=items)
    with pytest.raises(UserError, match=r"outside its 24 x 20 pixels"):
        pack(beyond, name="boxes", root=tmp_path, folder=tmp_path / "packs", size=64)


def test_a_dataset_may_read_a_format_of_its_own(tmp_path):
    np.save(tmp_path / "all.npy", np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3))
    items = tuple(Item(f"all.npy::{row}", row % 2) for row in range(4))
    listing = Listing(classes=("a", "b"), train=items[:2], test=items[2:])

    def read(root, path):
        file, _, row = path.partition("::")
        return np.load(root / file)[int(row)]

    def found():
        return pack(listing, name="own", root=tmp_path, folder=tmp_path / "p", size=9, read=read)

    first = found()
    assert first.pixels.tolist() == list(range(48))
    np.save(tmp_path / "all.npy", np.zeros((4, 2, 2, 3), dtype=np.uint8))
    assert found().info.sha256 != first.info.sha256


@pytest.mark.parametrize("times", ["the folder's", "a change's"])
def test_two_versions_alike_in_names_sizes_and_times_are_two_packs(tmp_path, monkeypatch, times):
    """Without the time of a change, a folder tells them apart; in one folder, this time."""
    one, other, packs = tmp_path / "one", tmp_path / "other", tmp_path / "packs"
    for root, level in ((one, 0), (other, 90)):
        for split, shift in (("train", 0), ("test", 50)):
            for name in "ab":
                path = root / split / name / "0.bmp"
                path.parent.mkdir(parents=True)
                Image.new("RGB", (16, 16), (level, shift, ord(name))).save(path)
                os.utime(path, (1e9, 1e9))
    if times == "the folder's":
        monkeypatch.setattr("harness.data.pack.os", SimpleNamespace(stat=Unchanging))
    first = packed(one, packs)
    if times == "a change's":
        one.rename(tmp_path / "before")
        other.rename(one)
        other = one
    second, again = packed(other, packs), packed(other, tmp_path / "elsewhere")
    assert second.info.sha256 == again.info.sha256 != first.info.sha256


class Unchanging:
    """What `os.stat` says on a file system that keeps no time of a change."""

    def __init__(self, path):
        found = path.stat()
        self.st_size, self.st_mtime_ns, self.st_ctime_ns = found.st_size, found.st_mtime_ns, 0


def test_the_same_images_elsewhere_are_the_same_pack_which_stays_open(tmp_path):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    first = packed(root, packs)
    path = first.folder / "pack.json"
    old = json.loads(path.read_text()) | {"files": "0" * 64}  # as an earlier version counted
    path.write_text(json.dumps(old))
    place = first.folder.stat().st_ino
    for moved in (root, shutil.copytree(root, tmp_path / "copy")):
        second = packed(moved, packs)
        assert second.folder == first.folder and second.info.sha256 == first.info.sha256
        assert second.folder.stat().st_ino == place and verify(second.folder)
    assert [each.name for each in packs.iterdir() if each.is_dir()] == [first.folder.name]
