"""`dota`: objects of DOTA-v1.0, cut out of its images, or from the archive of ready-made crops.

torchvision has no loader. Owns: DOTA's label files, class order and groups. Must not know: packs,
models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from harness.data.contract import DATASETS, FileDataset
from harness.data.listing import Item, Listing
from harness.datasets.reading import absent, known_class_folders, numbered_lines, required
from harness.errors import UserError
from harness.spec import Frozen

CLASSES = (
    "baseball-diamond",
    "basketball-court",
    "bridge",
    "ground-track-field",
    "harbor",
    "helicopter",
    "large-vehicle",
    "plane",
    "roundabout",
    "ship",
    "small-vehicle",
    "soccer-ball-field",
    "storage-tank",
    "swimming-pool",
    "tennis-court",
)
"""DOTA's class names, in DOTA's order."""

GROUPS = {
    "head": ("ship", "small-vehicle", "large-vehicle"),
    "medium": ("plane", "harbor", "storage-tank", "tennis-court", "bridge", "swimming-pool"),
    "tail": (
        "helicopter",
        "basketball-court",
        "baseball-diamond",
        "roundabout",
        "soccer-ball-field",
        "ground-track-field",
    ),
}
"""As the paper's released code names them, without thresholds on counts."""


HEADER = ("imagesource:", "gsd:")


class DotaOptions(Frozen):
    """Which labels are read, and whether objects marked difficult are used."""

    objects: Literal["obb", "hbb", "crops"] = "obb"
    """Oriented boxes, horizontal boxes, or ready-made crops."""
    difficult: Literal["keep", "drop"] = "keep"
    """The paper's counts include objects marked difficult."""


@DATASETS.register("dota")
class Dota(FileDataset):
    """98,990 training and 28,853 validation objects; the validation set is the test set."""

    Options: ClassVar = DotaOptions
    summary: ClassVar = "DOTA-v1.0 object crops, imbalance 86, 15 classes (on disk)"
    layout: ClassVar = """\
dota: get DOTA-v1.0, train and val, from https://captain-whu.github.io/DOTA/dataset.html
  train/images/*.png                                 all three parts of the archive
  train/labelTxt-v1.0/labelTxt/*.txt                 oriented boxes
  train/labelTxt-v1.0/trainset_reclabelTxt/*.txt     upright boxes, data.options.objects=hbb
  val/                                               the same, with valset_reclabelTxt
or the ready-made crops, dota.tar of https://www.doem1997.com/metapeft, data.options.objects=crops
  train/<class>/<image>_x1_y1_x2_y2.png
  val/<class>/"""

    @staticmethod
    def listing(options: DotaOptions, root: Path) -> Listing:
        """One item per object, in order of images and lines; boxes are the upright ones around."""
        if options.objects == "crops":
            if options.difficult == "drop":
                raise UserError("difficult=drop needs DOTA's label files; use objects=obb or hbb.")
            notes: list[str] = []
            parts = [
                known_class_folders(root, split, CLASSES, Dota.layout, notes)
                for split in ("train", "val")
            ]
        else:
            marked = [list(_objects(root, split, options.objects)) for split in ("train", "val")]
            keep = options.difficult == "keep"
            parts = [
                tuple(item for item, difficult in some if keep or not difficult) for some in marked
            ]
            notes = [
                f"{sum(difficult for _, difficult in some)} of {len(some)} objects in {split} are "
                f"marked difficult and {'kept' if keep else 'left out'}"
                for split, some in zip(("train", "val"), marked, strict=True)
            ]
        train, test = parts
        groups = {name: tuple(map(CLASSES.index, members)) for name, members in GROUPS.items()}
        return Listing(classes=CLASSES, train=train, test=test, groups=groups, notes=tuple(notes))


def _objects(root: Path, split: str, kind: str) -> Iterator[tuple[Item, bool]]:
    """Every labelled object of a split, with whether it is marked difficult."""
    images = required(root / split / "images", Dota.layout)
    folder = "labelTxt" if kind == "obb" else f"{split}set_reclabelTxt"
    labels = required(root / split / "labelTxt-v1.0" / folder, Dota.layout)
    there = set(os.listdir(images))
    files = sorted(labels.glob("*.txt"))
    if not files:
        raise absent(labels, Dota.layout, "holds no label file")
    for file in files:
        name = f"{file.stem}.png"
        if name not in there:
            problem = "is missing though it has labels (the images come in three parts)"
            raise absent(images / name, Dota.layout, problem)
        for place, line in numbered_lines(file):
            if not line.startswith(HEADER):
                label, box, difficult = _parsed(place, line)
                yield Item(path=f"{split}/images/{name}", label=label, box=box), difficult


def _parsed(place: str, line: str) -> tuple[int, tuple[int, int, int, int], bool]:
    """Read `x1 y1 ... x4 y4 category difficult`: class, box around the corners, and difficulty.

    The box may extend beyond the image, as some of DOTA's corners do; it is at least one pixel wide
    and high.
    """
    words = line.split()
    try:
        numbers = [float(word) for word in words[:8]]
        # Lines of early files end with the category.
        difficult = {"0": False, "1": True}[words[9] if len(words) == 10 else "0"]
    except (ValueError, KeyError):
        numbers, difficult = [], False
    if len(words) not in (9, 10) or len(numbers) != 8 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{place}: write x1 y1 ... x4 y4 category difficult, not {line!r}.")
    if words[8] not in CLASSES:
        raise UserError(
            f"{place}: {words[8]!r} is not one of DOTA-v1.0's 15 categories; get the labels "
            "of that version."
        )
    left, top = math.floor(min(numbers[::2])), math.floor(min(numbers[1::2]))
    right, bottom = math.ceil(max(numbers[::2])), math.ceil(max(numbers[1::2]))
    box = (left, top, max(right, left + 1), max(bottom, top + 1))
    return CLASSES.index(words[8]), box, difficult
