"""`torchvision:NAME`: the classification sets of torchvision, from files that the user has.

Owns: which sets these are, the arguments of their official parts, where their images and labels
are kept, and why the others are refused. Must not know: packs, models. Nothing is downloaded.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from harness.data.contract import DATASETS, FileDataset, OwnFormat
from harness.data.listing import Listing
from harness.data.long_tail import LongTail
from harness.datasets.library_sets import (
    Arguments,
    LibrarySet,
    OnePart,
    Part,
    ThreeParts,
    TwoParts,
    built,
    listed,
    relative,
)

FAMILY = "torchvision"


class DTDOptions(ThreeParts):
    """Of DTD, which has ten official partitions."""

    partition: Annotated[int, Field(ge=1, le=10)] = 1


class AircraftOptions(ThreeParts):
    """Of FGVCAircraft, whose labels are of three levels."""

    annotation_level: Literal["variant", "family", "manufacturer"] = "variant"


class EMNISTOptions(TwoParts):
    """Of EMNIST, which is six datasets."""

    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = "balanced"


class PlacesOptions(TwoParts):
    """Of Places365, which has two sizes."""

    small: bool = True
    """The images of 256 px; else the large ones."""


def _split(first: str, second: str, third: str | None = None) -> dict[str, Any]:
    """Arguments of train and test, or of train, val and test."""
    if third is None:
        return {"train": {"split": first}, "test": {"split": second}}
    return {"train": {"split": first}, "val": {"split": second}, "test": {"split": third}}


def _row(name: str, what: str, *needs: str, options: type[LongTail], **parts: Any) -> LibrarySet:
    return LibrarySet(name=name, what=what, needs=needs, options=options, **parts)


_TRAIN: dict[str, Any] = {"train": {"train": True}, "test": {"train": False}, "options": TwoParts}
_THREE: dict[str, Any] = {**_split("train", "val", "test"), "options": ThreeParts}
_TWO: dict[str, Any] = {**_split("train", "test"), "options": TwoParts}
_VAL: dict[str, Any] = {**_split("train", "val"), "options": TwoParts}
_ONE: dict[str, Any] = {"train": {}, "options": OnePart}

ARRAYS = (
    _row("CIFAR10", "10 objects, 32 px", "cifar-10-batches-py", **_TRAIN),
    _row("CIFAR100", "100 objects, 32 px", "cifar-100-python", **_TRAIN),
    _row("MNIST", "10 digits", "MNIST/raw", **_TRAIN),
    _row("FashionMNIST", "10 clothes", "FashionMNIST/raw", **_TRAIN),
    _row("KMNIST", "10 Kuzushiji characters", "KMNIST/raw", **_TRAIN),
    _row("QMNIST", "10 digits, 60,000 test images", "QMNIST/raw", **_TRAIN),
    _row("EMNIST", "letters and digits", "EMNIST/raw", **{**_TRAIN, "options": EMNISTOptions}),
    _row("USPS", "10 digits, 16 px", "usps.bz2", "usps.t.bz2", **_TRAIN),
    _row("SEMEION", "10 digits, 16 px, no split", "semeion.data", **_ONE),
    _row("SVHN", "10 house digits", "train_32x32.mat", "test_32x32.mat", **_TWO),
    _row("STL10", "10 objects, 96 px", "stl10_binary", **_TWO),
    _row("FER2013", "7 faces, from train.csv and test.csv", "fer2013", **_TWO),
    _row("PCAM", "tumour or not, 96 px", "pcam", **_THREE),
)
"""Sets whose images lie in arrays: one is read by its row."""

FILES = (
    _row("Caltech101", "101 objects", "caltech101/101_ObjectCategories", **_ONE),
    _row("Caltech256", "257 objects", "caltech256/256_ObjectCategories", **_ONE),
    _row("CLEVRClassification", "number of objects", "clevr/CLEVR_v1.0", **_VAL),
    _row(
        *("Country211", "211 countries", "country211"),
        **_split("train", "valid", "test"),
        options=ThreeParts,
    ),
    _row("DTD", "47 textures", "dtd/dtd", **{**_THREE, "options": DTDOptions}),
    _row("EuroSAT", "10 land uses, RGB, no split", "eurosat/2750", **_ONE),
    _row(
        *("FGVCAircraft", "aircraft", "fgvc-aircraft-2013b"),
        **{**_THREE, "options": AircraftOptions},
    ),
    _row("Flowers102", "102 flowers", "flowers-102/jpg", "flowers-102/setid.mat", **_THREE),
    _row("Food101", "101 dishes", "food-101/meta", "food-101/images", **_TWO),
    _row("GTSRB", "43 traffic signs", "gtsrb/GTSRB", "gtsrb/GT-final_test.csv", **_TWO),
    _row("Imagenette", "10 objects of ImageNet, full size", "imagenette2", **_VAL),
    _row("ImageNet", "1,000 objects", "train", "val", "meta.bin", **_VAL),
    _row(
        *("INaturalist", "10,000 species of 2021", "2021_train", "2021_valid"),
        train={"version": "2021_train"},
        test={"version": "2021_valid"},
        options=TwoParts,
    ),
    _row(
        *("OxfordIIITPet", "37 cats and dogs", "oxford-iiit-pet/images"),
        "oxford-iiit-pet/annotations",
        **_split("trainval", "test"),
        options=TwoParts,
    ),
    _row(
        *("Places365", "365 scenes", "places365_train_standard.txt", "places365_val.txt"),
        **_split("train-standard", "val"),
        options=PlacesOptions,
    ),
    _row("RenderedSST2", "2 sentiments, as pictures of text", "rendered-sst2", **_THREE),
    _row("StanfordCars", "196 cars", "stanford_cars/devkit", **_TWO),
    _row("SUN397", "397 scenes, no split", "SUN397", **_ONE),
)
"""Sets of one file for every image."""

_REASONS = {
    "detection": ("CocoDetection", "VOCDetection", "WIDERFace", "Kitti"),
    "segmentation": ("VOCSegmentation", "Cityscapes", "SBDataset"),
    "captions": ("CocoCaptions", "SBU", "Flickr8k", "Flickr30k"),
    "video": ("MovingMNIST", "Kinetics", "HMDB51", "UCF101"),
    "pairs of images": ("PhotoTour", "LFWPairs"),
    "optical flow": ("KittiFlow", "Sintel", "FlyingChairs", "FlyingThings3D", "HD1K"),
    "stereo": (
        *("Kitti2012Stereo", "Kitti2015Stereo", "CarlaStereo", "Middlebury2014Stereo"),
        *("CREStereo", "FallingThingsStereo", "SceneFlowStereo", "SintelStereo", "InStereo2k"),
        "ETH3DStereo",
    ),
    "many attributes of one image": ("CelebA",),
    "classes in test that are not in train": ("Omniglot", "LFWPeople"),
    "lmdb databases that are not read here": ("LSUN", "LSUNClass"),
    "images drawn by chance": ("FakeData",),
}


def _arguments(given: Arguments, root: Path) -> dict[str, Any]:
    return {"root": str(root), **given}


def _official(row: LibrarySet, root: Path, given: Arguments) -> Any:
    import torchvision.datasets

    make = getattr(torchvision.datasets, row.name)
    # Nothing is downloaded unasked: SEMEION's class does so by default.
    quiet = {"download": False} if row.name == "SEMEION" else {}
    return built(make, row, FAMILY, **_arguments(given, root), **quiet)


def _classes_of(official: Any) -> tuple[str, ...] | None:
    names = getattr(official, "classes", None) or getattr(official, "categories", None)
    if names is None:
        names = getattr(official, "all_categories", None)
    if names is None:
        return None
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)


def _images(official: Any) -> list[tuple[str, int]]:
    """Files of a torchvision dataset with their labels, from where its class keeps them."""
    here = vars(official)
    if "index" in here and "y" in here:  # Caltech101 and 256
        return [_of_caltech(official, place) for place in range(len(official.index))]
    if "index" in here:  # iNaturalist
        names = official.all_categories
        return [
            (str(Path(official.root, names[label], name)), label) for label, name in official.index
        ]
    for samples in ("_samples", "samples", "imgs"):
        if samples in here:
            return [(str(path), int(label)) for path, label in here[samples]]
    paths = here["_image_files"] if "_image_files" in here else here["_images"]
    return [(str(path), int(label)) for path, label in zip(paths, here["_labels"], strict=True)]


def _of_caltech(official: Any, place: int) -> tuple[str, int]:
    label, number = official.y[place], official.index[place]
    category = official.categories[label]
    if type(official).__name__ == "Caltech101":
        name = f"101_ObjectCategories/{category}/image_{number:04d}.jpg"
    else:
        name = f"256_ObjectCategories/{category}/{label + 1:03d}_{number:04d}.jpg"
    return str(Path(official.root, name)), label


def _labels(official: Any) -> list[int]:
    """Labels of a dataset in arrays, row by row."""
    for name in ("targets", "labels"):
        if hasattr(official, name):
            found = np.asarray(getattr(official, name))
            return [int(x) for x in (found[:, 0] if found.ndim == 2 else found)]
    if hasattr(official, "_samples"):
        return [int(label) for _, label in official._samples]
    return [int(official[row][1]) for row in range(len(official))]


class _InFiles(FileDataset):
    row: ClassVar[LibrarySet]

    @classmethod
    def _part(cls, root: Path, given: Arguments) -> Part:
        official = _official(cls.row, root, given)
        images = sorted((relative(root, path), label) for path, label in _images(official))
        return Part(images, _classes_of(official))

    @classmethod
    def listing(cls, options: Any, root: Path) -> Listing:
        """The official parts, sorted by path; no image is opened."""
        return listed(cls.row, FAMILY, options, root, functools.partial(cls._part, root))


@functools.lru_cache(maxsize=4)
def _opened(row_name: str, root: Path, given: tuple[tuple[str, JsonValue], ...]) -> Any:
    row = next(row for row in ARRAYS if row.name == row_name)
    return _official(row, root, dict(given))


class _InArrays(OwnFormat):
    row: ClassVar[LibrarySet]

    @classmethod
    def _part(cls, root: Path, given: Arguments) -> Part:
        _opened.cache_clear()  # files may have changed since
        official = _opened(cls.row.name, root, tuple(given.items()))
        words = ",".join(f"{key}={value}" for key, value in given.items())
        file = _first_file(root, cls.row.needs[0])
        paths = [f"{file}::{words}/{row}" for row in range(len(official))]
        return Part(list(zip(paths, _labels(official), strict=True)), _classes_of(official))

    @classmethod
    def listing(cls, options: Any, root: Path) -> Listing:
        """The official parts, row by row."""
        return listed(cls.row, FAMILY, options, root, functools.partial(cls._part, root))

    @classmethod
    def read(cls, root: Path, path: str) -> NDArray[np.uint8]:
        """The image uint8 `[h, w, 3]` at a listed path, `FILE::ARGUMENTS/ROW`."""
        words, _, row = path.partition("::")[2].rpartition("/")
        pairs = (word.partition("=") for word in words.split(",") if word)
        given = {key: value == "True" if value in _BOOLS else value for key, _, value in pairs}
        image = _opened(cls.row.name, root, tuple(given.items()))[int(row)][0]
        return np.array(image.convert("RGB"))


_BOOLS = ("True", "False")


def _first_file(root: Path, needed: str) -> str:
    """A file that stands for all of an array set's: the needed one, or the first in its folder."""
    place = root / needed
    if place.is_file():
        return needed
    return min(relative(root, file) for file in place.rglob("*") if file.is_file())


def _register() -> None:
    for rows, base in ((ARRAYS, _InArrays), (FILES, _InFiles)):
        for row in rows:
            name = f"{FAMILY}:{row.name}"
            there = "".join(f"\n  {needed}" for needed in row.needs)
            body: dict[str, Any] = {
                "__module__": __name__,
                "__doc__": f"{row.what}.",
                "row": row,
                "Options": row.options,
                "summary": f"torchvision's {row.name}: {row.what} (on disk)",
                "layout": f"{name}: get what torchvision.datasets.{row.name} reads ({row.said()}), "
                f"in --data-root as its class lays it out{there}",
            }
            DATASETS.register(name)(type(row.name, (base,), body))
    for reason, names in _REASONS.items():
        for each in names:
            DATASETS.refuse(
                f"{FAMILY}:{each}",
                f"torchvision's {each} is no set of images with one class each ({reason}): choose "
                "a classification set, see `harness list datasets`.",
            )
    for each in ("ImageFolder", "DatasetFolder"):
        DATASETS.refuse(f"{FAMILY}:{each}", f"torchvision's {each} is data=folder here.")


_register()
