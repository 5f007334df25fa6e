"""Real images and a real backbone, where they are at hand; they are no part of the project."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from timm.layers import resample_abs_pos_embed

from harness.bench.agreement import agreement
from harness.data.pack import pack
from harness.data.packed import PackRequest, load_packed, pack_of
from harness.datasets.folder import MSTAR, RSSCN7, PresetOptions
from harness.errors import UserError
from harness.model.backbones import features
from harness.spec import DataSpec
from harness.training.evaluation import class_means

BESIDE = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("HARNESS_TEST_DATA", BESIDE))
pytestmark = pytest.mark.skipif(
    not (DATA / "rsscn7").is_dir(),
    reason="no real data: set HARNESS_TEST_DATA to a folder with rsscn7, mstar and weights",
)

SIZE = 96
PER_CLASS = 20
"""Training and test images of each class, where a network sees them."""


def counts(items):
    return [n for _, n in sorted(Counter(item.label for item in items).items())]


def test_counts_are_those_of_the_datas_readme():
    found = RSSCN7.listing(PresetOptions(), DATA / "rsscn7")
    assert counts(found.train) == [250] * 7 and counts(found.test) == [150] * 7
    found = MSTAR.listing(PresetOptions(), DATA)  # the folder above will do
    assert (len(found.train), len(found.test)) == (2747, 2425)
    assert (min(counts(found.train)), max(counts(found.train))) == (232, 299)
    assert (min(counts(found.test)), max(counts(found.test))) == (195, 274)


def test_the_wrong_folder_is_told_from_the_right_one():
    with pytest.raises(UserError, match=r"is not that of mstar: its classes are field, forest"):
        MSTAR.listing(PresetOptions(), DATA / "rsscn7")


def some_of(name, folder):
    """A root with a few of the images of each class and split, linked."""
    kept = Counter()
    with (DATA / name / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file)]
    folder.mkdir()
    with (folder / "split.csv").open("w") as file:
        file.write("path,label,split\n")
        for row in rows:
            key = (row["label"], row["split"])
            kept[key] += 1
            if kept[key] <= PER_CLASS:
                file.write(f"{row['path']},{row['label']},{row['split']}\n")
    for label in {row["label"] for row in rows}:
        (folder / label).symlink_to(DATA / name / label)
    return folder


def vit_tiny():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=SIZE)
    state = safetensors.torch.load_file(DATA / "weights" / "vit_tiny_patch16_224.safetensors")
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [SIZE // 16] * 2)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("name,kind", [("rsscn7", RSSCN7), ("mstar", MSTAR)])
def test_views_of_real_images_are_torchvisions(name, kind, size, tmp_path):
    """Until packs kept originals, crops of RSSCN7 differed by 5 levels and were 0.65 as sharp."""
    root = some_of(name, tmp_path / "data")
    listing = kind.listing(PresetOptions(), root)
    made = pack(listing, name=name, root=root, folder=tmp_path / "packs", size=size)
    assert made.info.reduced == 0
    found = agreement(made, listing, root, None, 0.08)
    assert found.crop_levels < 0.1 and found.sharpness == pytest.approx(1, abs=0.002)
    assert found.eval_levels < 0.01 and found.eval_most <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name,least", [("rsscn7", 0.5), ("mstar", 0.25)])
def test_class_means_of_a_real_backbone_tell_real_classes(name, least, tmp_path):
    """Of all images the README has 66.8 % and 47.7 % at this size; chance is 14 % and 10 %."""
    root = some_of(name, tmp_path / "data")
    options = PresetOptions()
    packs = str(tmp_path / "packs")
    asked = PackRequest(name, options.model_dump_json(), SIZE, str(root), packs)
    sha256 = pack_of(asked).sha256
    spec = DataSpec(name=name, options=options.model_dump(mode="json"), sha256=sha256)
    data = load_packed(spec, SIZE, packs)
    model = vit_tiny()
    means = class_means(model, data, data.train)
    with torch.inference_mode():
        images = (data.test.plain().float() / 255 - 0.5) / 0.5
        guesses = (features(model, images) @ means.T).argmax(dim=1)
    accuracy = float((guesses == data.test.labels).float().mean())
    assert accuracy > least
    assert len(data.train) == PER_CLASS * len(data.classes)
