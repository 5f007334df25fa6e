"""`inat2018`: iNaturalist 2018, from the official annotation files.

torchvision's INaturalist reads folders only: it has no split between train and val for 2018, and
numbers classes by folder, not by species name; it can download the images. Owns: the annotation
files and the order of classes. Must not know: packs, models.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from harness.data.contract import DATASETS, Downloadable
from harness.data.listing import Item, Listing
from harness.data.long_tail import count_groups
from harness.datasets.reading import NoOptions, absent, in_folders, required
from harness.errors import UserError

IMAGES = "train_val2018"
OTHERS = {IMAGES: "2018"}
"""What torchvision calls the folder of images."""


@DATASETS.register("inat2018")
class INat2018(Downloadable):
    """437,513 training and 24,426 validation images of 8,142 species.

    The validation set is the test set. Labels are the ranks of the sorted species names, as in the
    released code.
    """

    Options: ClassVar = NoOptions
    summary: ClassVar = "iNaturalist 2018, imbalance 500, 8142 species (on disk)"
    layout: ClassVar = """\
inat2018: get iNaturalist 2018 from https://github.com/visipedia/inat_comp/tree/master/2018
  train2018.json
  val2018.json       used as the test set
  categories.json    the species' names, which were hidden at first
  train_val2018/     the archive of images, unpacked"""

    @staticmethod
    def listing(options: NoOptions, root: Path) -> Listing:
        """One item per annotation, in the files' order; groups by the training counts."""
        train_file, val_file = (
            required(root / f"{name}2018.json", INat2018.layout) for name in ("train", "val")
        )
        train_json = _read(train_file)
        species = _species(root, train_file, train_json)
        classes = tuple(sorted(set(species.values())))
        rank = {name: label for label, name in enumerate(classes)}
        labels = {category: rank[name] for category, name in species.items()}
        train, test = (
            in_folders(root, _items(file, content, labels), INat2018.layout, OTHERS)
            for file, content in ((train_file, train_json), (val_file, _read(val_file)))
        )
        counts = Counter(item.label for item in train)
        return Listing(
            classes=classes,
            train=train,
            test=test,
            groups=count_groups(counts[label] for label in range(len(classes))),
        )

    @staticmethod
    def download(_options: NoOptions, root: Path) -> None:
        """Have torchvision fetch the images, 120 GB, if there are none.

        Raises:
            MissingData: the annotations are not there; they have to be fetched by hand, before.
        """
        from torchvision.datasets import INaturalist

        for name in ("train", "val"):
            required(root / f"{name}2018.json", INat2018.layout)
        if not (root / IMAGES).is_dir():
            INaturalist(str(root), version="2018", download=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); get it again.") from error


def _species(root: Path, train_file: Path, train_json: Any) -> dict[int, str]:
    """Category id -> name, from `categories.json`, or else from the training file."""
    path = root / "categories.json"
    listed = {"categories": _read(path)} if path.is_file() else train_json
    source = path if path.is_file() else train_file
    try:
        species = {int(entry["id"]): str(entry["name"]) for entry in listed["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} lists no categories with id and name; get it again.") from error
    # The training file was published with names hidden, for the competition.
    if all(name.isdecimal() for name in species.values()):
        raise absent(path, INat2018.layout, "is missing, and train2018.json hides the names")
    return species


def _items(path: Path, content: Any, labels: dict[int, int]) -> tuple[Item, ...]:
    items = []
    try:
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        notes = content["annotations"]
        pairs = [(int(note["image_id"]), int(note["category_id"])) for note in notes]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} lacks images or annotations as iNaturalist writes them; get it again."
        ) from error
    for number, (image, category) in enumerate(pairs):
        if category not in labels:
            raise UserError(
                f"{path}, annotation {number}: category {category} is not in the list of "
                "categories; get both files of the same year."
            )
        if image not in files:
            raise UserError(
                f"{path}, annotation {number}: there is no image {image}; get it again."
            )
        items.append(Item(path=files[image], label=labels[category]))
    return tuple(items)
