"""Images on disk: from the command line to a trial's identity."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from support.cli import harness
from support.images import SIZE, dataset, picture, tree, two_splits

from harness.cli.terminal import TERMINAL
from harness.data.dataset import split
from harness.data.packed import forget_packs
from harness.driver.request import PlaceRequest
from harness.driver.setup import make_runtime
from harness.runner.prepare import dataset_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import DataSpec, TrialRequest
from harness.spec.base import identity


def on_disk(root, out, **values):
    runtime = Runtime(data_root=str(root), packs=str(out / "packs"))
    request = TrialRequest().with_values({"data": "folder", **values}, source="test")
    return resolve(request, runtime)


def test_a_trials_name_knows_the_pixels_and_not_where_they_lie(tmp_path):
    one = two_splits(tmp_path / "one")
    other = two_splits(tmp_path / "other")
    spec = on_disk(one, tmp_path)
    assert on_disk(other, tmp_path / "elsewhere").trial_id == spec.trial_id
    picture(5).save(other / "test/a/0.png")
    forget_packs()
    assert on_disk(other, tmp_path / "elsewhere").trial_id != spec.trial_id
    assert on_disk(one, tmp_path, **{"data.options.imbalance": 2.0}).data.sha256 == spec.data.sha256


def test_drawn_data_keeps_the_names_of_its_trials():
    spec = resolve(TrialRequest(seed=3), Runtime())
    assert "sha256" not in identity(spec)["data"]
    named = spec.model_copy(update={"data": spec.data.model_copy(update={"sha256": "0"})})
    assert named.trial_id != spec.trial_id
    assert named.over_seeds([3, 4])[0].trial_id == named.trial_id


def test_a_class_of_one_is_trained_on_and_one_without_test_images_is_named(tmp_path, capfd):
    root = two_splits(tmp_path / "data", {"a": 9, "b": 1, "c": 5}, {"a": 2, "b": 1})
    data = dataset(root, tmp_path / "packs", TERMINAL)
    assert "Without a test image, so left out of test averages: c" in capfd.readouterr().err
    parts = split(data, DataSpec(), seed=0)
    assert parts.train_counts.tolist() == [7, 1, 4]
    assert 1 not in parts.select.labels


def test_another_dataset_or_backbone_starts_with_options_of_its_own():
    base = TrialRequest(data=DataSpec(options={"test_per_class": 4}, val_fraction=0.3))
    changed = base.with_values({"data": "folder", "data.options.imbalance": 10.0}, source="t")
    assert changed.data == DataSpec(name="folder", options={"imbalance": 10.0}, val_fraction=0.3)
    assert base.with_values({"data.name": "folder"}, source="t").data.options == {}
    assert base.with_values({"data": "synth-rs"}, source="t").data == base.data
    sized = base.with_values({"backbone.img_size": 96}, source="t")
    assert sized.with_values({"backbone": "deit_tiny_patch16_224"}, source="t").backbone == (
        base.backbone.model_copy(update={"name": "deit_tiny_patch16_224"})
    )


def test_check_counts_and_names_what_is_wrong(tmp_path):
    root = two_splits(tmp_path / "data")
    args = ["data", "check", "folder", "--data-root", root, "--out", tmp_path / "out"]
    fine = harness(*args)
    assert fine.exit_code == 0 and "No problem found." in fine.output
    assert fine.stdout.splitlines()[1].split() == ["a", "tail", "6", "6", "3"]
    border = harness(*args, "--set", "data.options.border_mask=10")
    assert border.exit_code == 1 and "border_mask=10 leaves nothing" in border.output
    assert harness(*args, "--set", "data.options.border_mask=9").exit_code == 0
    (root / "train/b/0.png").write_bytes(b"")
    picture(1000).save(root / "train/a/5.png")  # that of test/a/0.png
    picture(1).save(root / "train/b/2.bmp")  # that of train/a/1.png, in another format
    wrong = harness(*args, "--set", "data.options.imbalance=2")
    assert wrong.exit_code == 1
    text = " ".join(wrong.output.split())
    for words in (
        "1 image (train/b/0.png (the file is empty)) that cannot be read",
        "1 image (train/a/5.png = test/a/0.png) in train and in test",
        "1 image (train/a/1.png = train/b/2.bmp) more than once in one split",
        "1 image (train/a/1.png = train/b/2.bmp) under several labels",
    ):
        assert words in text, text


def test_check_of_a_folder_in_which_everything_is_odd(tmp_path):
    root = two_splits(tmp_path / "data", {"a": 5, "b": 4, "one": 1, "untested": 3})
    tree(root / "test", {"one": 1}, start=2000)
    odd = root / "train/a"
    picture(3000, 200, 200).save(odd / "cut.jpg")
    (odd / "cut.jpg").write_bytes((odd / "cut.jpg").read_bytes()[:1500])
    (odd / "void.jpg").write_bytes(b"")
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(odd / "16.png")
    picture(3001).convert("P", palette=Image.Palette.ADAPTIVE).save(odd / "palette.png")
    picture(3002).convert("CMYK").save(odd / "cmyk.jpg")
    picture(3003).save(os.path.join(os.fsencode(odd), b"caf\xe9.png"))
    os.rename(root / "train/b", os.path.join(os.fsencode(root), b"train/b\xe9"))
    os.rename(root / "test/b", os.path.join(os.fsencode(root), b"test/b\xe9"))
    args = ["data", "check", "folder", "--data-root", root, "--out", tmp_path / "out"]
    found = harness(*args)
    assert found.exit_code == 1
    assert [line.split()[::2] for line in found.stdout.splitlines()[1:5]] == [
        ["a", "11", "3"],
        ["b\\xe9", "4", "3"],
        ["one", "1", "1"],
        ["untested", "3", "0"],
    ]
    # How many bytes are left of the truncated file is PIL's affair.
    text = re.sub(r" \(\d+ bytes not processed\)", "", found.stdout)
    assert [line for line in text.splitlines() if line.startswith(("Note", "Problem"))] == [
        "Note: 1 class (one) with one training image, which is never chosen on.",
        "Problem: 1 class (untested) without a test image.",
        "Problem: 2 images (train/a/cut.jpg (image file is truncated), "
        "train/a/void.jpg (the file is empty)) that cannot be read.",
    ]
    (root / "names.txt").write_text("a\none\nuntested\n")
    wrong = harness(*args, "--set", "data.options.classes=names.txt")
    assert wrong.exit_code == 2 and wrong.stderr.count("\n") == 1
    assert "label 'b\\udce9' is not in names.txt" in wrong.stderr


def test_check_without_files_says_what_belongs_there(tmp_path):
    told = harness("data", "check", "rsscn7")
    assert told.exit_code == 0 and "split.csv" in told.output and "RSSCN7" in told.output
    absent = harness("data", "check", "rsscn7", "--data-root", tmp_path)
    assert absent.exit_code == 2 and "There is no split.csv in" in absent.stderr
    assert "put into --data-root" in absent.stdout
    assert harness("data", "check", "synth-rs").exit_code == 2


def test_check_sees_a_pack_that_was_damaged(tmp_path):
    root, out = two_splits(tmp_path / "data"), tmp_path / "out"
    made = harness("data", "pack", "folder", "--data-root", root, "--size", SIZE, "--out", out)
    assert made.exit_code == 0 and "16 images" in made.output
    (file,) = out.glob("packs/*/pixels.bin")
    file.write_bytes(bytes(len(file.read_bytes())))
    seen = harness("data", "check", "folder", "--data-root", root, "--out", out)
    assert seen.exit_code == 1 and "has changed since it was written" in seen.output


@pytest.mark.slow
def test_a_sweep_on_a_folder_from_pack_to_report(tmp_path):
    root = two_splits(tmp_path / "data", {"a": 12, "b": 8}, {"a": 4, "b": 4})
    args = ["sweep", "--study", "depth_vs_position", "--smoke", "--set", "data=folder"]
    args += ["--set", "recipe.batch_size=8", "--workers", 1, "--out", tmp_path / "out"]
    lost = harness(*args)
    assert lost.exit_code == 2
    assert "--data-root" in lost.stderr and "harness data check folder" in lost.stderr
    first = harness(*args, "--budget", 1, "--data-root", root)
    assert first.exit_code == 0, first.output
    (record,) = (tmp_path / "out").glob("trials/*/record.json")
    found = json.loads(record.read_text())
    assert found["status"] == "COMPLETE" and found["test"]["class_counts"] == [4, 4]
    again = harness(*args, "--budget", 1, "--data-root", root)
    assert "1 done" in again.output


@pytest.mark.parametrize("is_dry", [False, True])
def test_every_command_of_a_process_looks_at_the_files_anew(tmp_path, is_dry):
    root = two_splits(tmp_path / "data")
    place = PlaceRequest(out=str(tmp_path), data_root=str(root), device="cpu", is_dry=is_dry)
    request = TrialRequest().with_values({"data": "folder"}, source="test")

    def seen():
        runtime = make_runtime(place)
        spec = resolve(request, runtime)
        return spec.data.sha256, dataset_of(spec, runtime.packs).train.labels.tolist()

    before = seen()
    assert seen() == before
    picture(5).save(root / "train/a/more.png")
    (sha256, labels), (old_sha256, old_labels) = seen(), before
    assert is_dry or sha256 != old_sha256
    assert len(labels) == len(old_labels) + 1
