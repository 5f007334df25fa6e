"""What a pack costs is said, it serves all recipes that it can, and packs of old are not read."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from support.cli import harness
from support.images import listed, packed, picture, two_splits
from torchvision.transforms import v2

from harness.bench.throughput import Speed, _Files
from harness.data.listing import Item
from harness.data.pack_format import open_pack, verify


def large(root, height=150, width=200):
    """Two training images and a test image of each of two classes, larger than views of 16 px."""
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed = 10 * label + number + 100 * (split == "test")
                picture(seed, height, width).save(root / split / name / f"{number}.png")
    return root


def test_the_command_that_packs_says_what_it_costs(tmp_path):
    root, out = large(tmp_path / "data"), tmp_path / "out"
    args = ["data", "pack", "folder", "--data-root", root, "--size", 16, "--out", out]
    made = harness(*args)
    assert made.exit_code == 0, made.output
    (folder,) = out.glob("packs/folder-16px-*")
    # 2 x 2 copies of 56 x 56 pixels' area for crops; 4 + 2 of 18 x 24 that are tested.
    crops, tested = 4 * 48 * 65 * 3, 6 * 18 * 24 * 3
    assert (folder / "pixels.bin").stat().st_size == crops + tested
    said = (
        "6 images, 44.2 KiB (36.6 KiB for training crops, 0 of 4 training images at their own "
        "size; 7.6 KiB for test views)"
    )
    assert f"{folder}: {said}, sha256" in made.stdout
    assert f"Packed folder for views of 16 px: {said}." in made.stderr
    less = harness(*args, "--set", "recipe.crop_scale_min=0.7")
    assert less.exit_code == 0 and len(list(out.glob("packs/folder-16px-*"))) == 2
    assert min(file.stat().st_size for file in out.glob("packs/*/pixels.bin")) == (
        4 * 17 * 23 * 3 + tested
    )


@pytest.mark.slow
def test_a_trial_packs_what_its_own_recipe_needs(tmp_path):
    root, out = large(tmp_path / "data", 300, 400), tmp_path / "out"
    for share, count in (("0.9", 1), ("0.65", 1), ("0.08", 2), ("0.1", 2)):
        ran = harness(
            *("train", "--method", "linear_probe", "--set", "data=folder", "--workers", 1),
            *("--set", f"recipe.crop_scale_min={share}", "--set", "recipe.epochs=1"),
            *("--data-root", root, "--out", out),
        )
        assert ran.exit_code == 0, ran.output
        assert len(list(out.glob("packs/folder-*px-*"))) == count, share


def test_images_that_are_kept_as_they_are_have_one_pack_for_all_recipes(tmp_path, capfd):
    root, packs = large(tmp_path / "data", 36, 36), tmp_path / "packs"
    first = packed(root, packs, scale=0.64)
    assert first.info.reduced == 4  # to 20 x 20 and 18 x 18; at 0.16 a copy is 40 x 40
    second = packed(root, packs, scale=0.16)
    assert second.info.reduced == 0 and second.folder != first.folder
    stamp = (second.folder / "pack.json").stat().st_mtime_ns
    for scale in (0.08, 0.16):
        again = packed(root, packs, scale=scale)
        assert again.folder == second.folder
        assert (again.folder / "pack.json").stat().st_mtime_ns == stamp
    assert len(list(packs.glob("folder-16px-*"))) == 2


def test_a_pack_of_small_images_is_what_it_was_before_there_were_second_copies(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                seed = number + 10 * label + 100 * (split == "test")
                picture(seed, 12, 14).save(tmp_path / split / name / f"{number}.png")
    made = packed(tmp_path, tmp_path / "packs")
    pixels = [
        np.asarray(Image.open(tmp_path / item.path)).ravel()
        for part in (listed(tmp_path).train, listed(tmp_path).test)
        for item in part
    ]
    np.testing.assert_array_equal(made.pixels, np.concatenate(pixels))
    # As computed by 3aa9a2e, the last commit whose packs had one copy of every image.
    assert made.info.sha256 == "8e00a5f002706f986a6be39e96abab1e2d71ef74ae7f24bbe664096c765421bc"


def as_of_old(made, folder):
    """A pack's folder in the layout of format 1, with one copy of each image."""
    folder.mkdir()
    info = json.loads((made.folder / "pack.json").read_text())
    for field in ("format", "size", "scale", "reduced"):
        del info[field]
    (folder / "pack.json").write_text(json.dumps({**info, "side": 18}))
    index = vars(made.index)
    old = {name: array for name, array in index.items() if not name.startswith("eval_")}
    np.savez(folder / "index.npz", **old)
    (folder / "pixels.bin").write_bytes((made.folder / "pixels.bin").read_bytes())


@pytest.fixture
def beside_an_old_pack(tmp_path):
    """Data root, `--out`, a folder with a pack of format 1, and the name of its present pack."""
    root, out = two_splits(tmp_path / "data"), tmp_path / "out"
    made = packed(root, tmp_path / "elsewhere")
    (out / "packs").mkdir(parents=True)
    old = out / "packs" / f"folder-18-{made.info.sha256[:16]}"
    as_of_old(made, old)
    return root, out, old, made.folder.name


def test_an_old_pack_is_made_anew_and_named(beside_an_old_pack):
    root, out, old, name = beside_an_old_pack
    before = {file: file.read_bytes() for file in old.iterdir()}
    ran = harness("data", "pack", "folder", "--data-root", root, "--size", 16, "--out", out)
    assert ran.exit_code == 0, ran.output
    assert verify(out / "packs" / name)
    assert f"not read any more and may be deleted from {out}/packs: {old.name}" in ran.stderr
    assert {file: file.read_bytes() for file in old.iterdir()} == before
    check = harness("data", "check", "folder", "--data-root", root, "--out", out)
    assert check.exit_code == 0 and "No problem found" in check.output


def test_an_old_pack_under_a_new_name_is_refused_in_one_sentence(beside_an_old_pack):
    root, out, old, name = beside_an_old_pack
    os.rename(old, out / "packs" / name)
    ran = harness("data", "pack", "folder", "--data-root", root, "--size", 16, "--out", out)
    assert ran.exit_code == 2 and ran.stderr.count("\n") == 1
    assert re.search(r"pack.json was written by another version: delete it\.", ran.stderr)


def test_a_pack_of_a_newer_format_is_refused_and_kept(tmp_path):
    root, out = two_splits(tmp_path / "data"), tmp_path / "out"
    made = packed(root, out / "packs")
    info = json.loads((made.folder / "pack.json").read_text())
    (made.folder / "pack.json").write_text(json.dumps({**info, "format": 3}))
    ran = harness("data", "pack", "folder", "--data-root", root, "--size", 16, "--out", out)
    assert ran.exit_code == 2 and "another version" in ran.stderr
    assert (made.folder / "pixels.bin").stat().st_size == len(made.pixels)


def test_bench_compares_equal_views(tmp_path, monkeypatch):
    asked = []

    def measure(spec, packs, items, root, size, recipe):
        asked.append((spec.sha256, len(items), size, recipe.crop_scale_min))
        return Speed(loader=100, packed=250)

    monkeypatch.setattr("harness.bench.throughput.measure", measure)
    root, out = large(tmp_path / "data"), tmp_path / "out"
    args = ["data", "bench", "folder", "--data-root", root, "--size", 16, "--out", out]
    ran = harness(*args, "--set", "recipe.crop_scale_min=0.3")
    assert ran.exit_code == 0, ran.output
    assert "Ratio: 2.5" in ran.stdout and "Pack: 6 images" in ran.stdout
    found = re.search(
        r"on the files, 4 boxes: crops differ by ([\d.]+) of 255 levels on average and are "
        r"([\d.]+) times as sharp; test views differ by ([\d.]+), at most (\d+)\.",
        " ".join(ran.stdout.split()),
    )
    assert found, ran.stdout
    crops, sharp, tested, most = map(float, found.groups())
    assert crops < 3 and 0.9 < sharp < 1.1 and tested < 0.3 and most <= 1
    (folder,) = out.glob("packs/folder-16px-*")
    info = open_pack(folder).info
    assert info.scale == 0.16 and asked == [(info.sha256, 4, 16, 0.3)]


def test_the_loader_that_a_bench_compares_with_crops_as_the_recipe_says(tmp_path):
    picture(0, 64, 64).save(tmp_path / "x.png")
    files = _Files(tmp_path, [Item("x.png", 0)], 16, 1.0)
    view = files[0].int()  # a share of 1 is the whole image
    whole = v2.functional.resize(Image.open(tmp_path / "x.png"), [16, 16], antialias=True)
    whole = v2.functional.pil_to_tensor(whole).int()
    assert min((view - each).abs().max() for each in (whole, whole.flip(2))) <= 1
    torch.manual_seed(0)
    small = _Files(tmp_path, [Item("x.png", 0)], 16, 0.08)[0].int()
    assert min((small - each).abs().max() for each in (whole, whole.flip(2))) > 10


def test_a_bench_of_chosen_bands_is_refused(tmp_path):
    root = large(tmp_path / "data")
    args = ["data", "bench", "folder", "--data-root", root, "--out", tmp_path / "out"]
    ran = harness(*args, "--set", "data.options.bands=[0,1]")
    assert ran.exit_code == 2 and "leave out data.options.bands" in ran.stderr
