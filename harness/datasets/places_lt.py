"""`places_lt`: the long-tailed subset of Places365, from its published lists.

torchvision's Places365 reads the full dataset's own lists only, and refuses others by checksum; it
can download the images. Owns: the lists, class names and folders. Must not know: packs, models.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

from harness.data.contract import DATASETS, Downloadable
from harness.data.listing import Item, Listing
from harness.data.long_tail import count_groups
from harness.datasets.reading import NoOptions, in_folders, labelled_paths, required

CLASSES = 365
LIST = "Places_LT_{}.txt"
OTHERS = {"data_256": "data_256_standard"}
"""What torchvision calls the folder of training images."""


@DATASETS.register("places_lt")
class PlacesLT(Downloadable):
    """62,500 training and 36,500 test images; 131 head, 163 medium and 71 tail classes."""

    Options: ClassVar = NoOptions
    summary: ClassVar = "Places-LT, imbalance 996, 365 classes (on disk)"
    layout: ClassVar = """\
places_lt: get Places365-Standard from http://places2.csail.mit.edu/download.html and its lists \
from https://github.com/zhmiao/OpenLongTailRecognition-OLTR
  Places_LT_train.txt   a path and a label in each line
  Places_LT_test.txt    100 images of each class, from Places365's val
  data_256/, val_256/   the small images, train and val, or other folders that the lists name"""

    @staticmethod
    def listing(options: NoOptions, root: Path) -> Listing:
        """The lists as they are; groups by the counts of the training list."""
        parts = []
        for name in ("train", "test"):
            items = labelled_paths(required(root / LIST.format(name), PlacesLT.layout), CLASSES)
            parts.append(in_folders(root, items, PlacesLT.layout, OTHERS))
        train, test = parts
        counts = Counter(item.label for item in train)
        return Listing(
            classes=_names(train),
            train=train,
            test=test,
            groups=count_groups(counts[label] for label in range(CLASSES)),
        )

    @staticmethod
    def download(_options: NoOptions, root: Path) -> None:
        """Have torchvision fetch the small images, 25 GB, if there are none.

        Raises:
            MissingData: the lists are not there; they have to be fetched by hand, before.
        """
        from torchvision.datasets import Places365

        for name in ("train", "test"):
            required(root / LIST.format(name), PlacesLT.layout)
        for split, folder in (("train-standard", "data_256"), ("val", "val_256")):
            if not (root / folder).is_dir():
                Places365(str(root), split=split, small=True, download=True)


def _names(train: tuple[Item, ...]) -> tuple[str, ...]:
    """Names of the classes, from folders as in `data_256/a/airfield/00004851.jpg`.

    Where folders do not tell all classes apart, the names are the labels.
    """
    names = [str(label) for label in range(CLASSES)]
    for item in train:
        folders = item.path.split("/")[1:-1]
        if folders and len(folders[0]) == 1:  # Places365 sorts classes by their first letter
            folders = folders[1:]
        names[item.label] = "/".join(folders)
    if len(set(names)) < CLASSES or "" in names:
        return tuple(str(label) for label in range(CLASSES))
    return tuple(names)
