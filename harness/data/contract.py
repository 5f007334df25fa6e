"""What a dataset is, and the registry of all of them.

Owns: the base classes of the files in `harness/datasets/`. Must not know: any dataset by name, file
formats, models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from harness.data.dataset import Dataset
from harness.data.dev_set import DevSet
from harness.data.listing import Item, Listing
from harness.errors import UserError, code_of
from harness.registry import Registry, unlike
from harness.spec import Frozen, validated


class DrawnDataset(ABC):
    """A dataset that is drawn, not read. `DATASETS` holds the class itself: its method is static.

    For datasets on disk see `FileDataset`.
    """

    Options: ClassVar[type[Frozen]]
    summary: ClassVar[str]
    """One line for `harness list datasets`."""
    bands: ClassVar[int | None] = None
    """Of every image, so that another number is refused before any is drawn. None: not said."""

    @staticmethod
    @abstractmethod
    def load(options: Any) -> Dataset:
        """Draw it. `options` are `Options`."""


class FileDataset(ABC):
    """A dataset on disk. `DATASETS` holds the class itself: all its methods are static."""

    Options: ClassVar[type[Frozen]]
    summary: ClassVar[str]
    """One line for `harness list datasets`."""
    layout: ClassVar[str]
    """What to download from its official page, and where to put it."""

    @staticmethod
    @abstractmethod
    def listing(options: Any, root: Path) -> Listing:
        """List all images with their labels; none is opened. `options` are `Options`.

        Raises:
            MissingData: the files are not there.
            UserError: a list cannot be read; names the file and the line.
        """


class OwnFormat(FileDataset):
    """A dataset in files that `harness.data.decode` does not know."""

    @staticmethod
    @abstractmethod
    def read(root: Path, path: str) -> NDArray[np.uint8]:
        """The image uint8 `[h, w, 3]` at a listed path, `FILE::MEMBER`."""


class Downloadable(FileDataset):
    """A dataset that torchvision can download."""

    @staticmethod
    @abstractmethod
    def download(options: Any, root: Path) -> None:
        """Have torchvision's class fetch what is not there yet.

        Raises:
            UserError: what the options ask for cannot be had in this way.
        """


_COLUMNS = """
class_mean group_mean flat_mean micro loss negated_loss hits class_counts by_class
test select seed status trial_id cell arm search repeat repeats trials runs flop_runs confirm_runs
runs_per_seed runs_by_flops regret test_regret missed luck area cost_to reached rank improves
first_again confirmed diverged minus_first trainable_params inference_gflop
"""
TAKEN = frozenset(_COLUMNS.split())
"""Columns of tables of results, some behind `test_` or `select_`, that no group can have as its
name, because groups are columns there, too."""

AnyDataset: TypeAlias = type[DrawnDataset] | type[FileDataset]

DATASETS: Registry[AnyDataset] = Registry(
    "dataset",
    "harness.datasets",
    group="harness.datasets",
    misfit=lambda entry: unlike(entry, Frozen, DrawnDataset, FileDataset),
)


def is_drawn(name: str) -> bool:
    """Whether a dataset is made by a formula, so that no file of a user's is read.

    Raises:
        UserError: there is none of this name.
    """
    return issubclass(DATASETS.get(name), DrawnDataset)


def drawn_bands(name: str) -> int | None:
    """Bands of the images of a drawn dataset, where it says so without drawing any.

    Raises:
        UserError: there is none of this name.
    """
    dataset: AnyDataset = DATASETS.get(name)
    return dataset.bands if issubclass(dataset, DrawnDataset) else None


def file_dataset(name: str) -> type[FileDataset]:
    """A dataset on disk.

    Raises:
        UserError: there is none of that name, or it is drawn.
    """
    dataset: AnyDataset = DATASETS.get(name)
    if not issubclass(dataset, FileDataset):
        raise UserError(
            f"Dataset {name} is drawn, not read from files: nothing is checked or packed."
        )
    return dataset


def listing_of(name: str, options: Frozen, root: Path) -> Listing:
    """All images of a dataset on disk, none of which is opened.

    Raises:
        UserError: it is drawn, its files are not there, a list cannot be read, or its own code
            fails.
    """
    dataset = file_dataset(name)
    with code_of(f"Dataset {name!r}", "listing"):
        listing = dataset.listing(options, root)
    if not isinstance(listing, Listing):
        raise UserError(f"Dataset {name!r} gives {type(listing).__name__}, not a Listing.")
    _refuse_unsound(name, listing)
    return listing


def _refuse_unsound(name: str, listing: Listing) -> None:
    """Whether every image has a class, and no class is in two groups.

    Raises:
        UserError: one has none, or is in two.
    """
    for item in (*listing.train, *listing.test):
        if not (isinstance(item, Item) and isinstance(item.label, (int, np.integer))):
            raise UserError(f"Dataset {name!r} lists {item!r}, not an Item with a number as label.")
        if not 0 <= item.label < len(listing.classes):
            raise UserError(
                f"Dataset {name!r} gives {item.path!r} the label {item.label}, and has "
                f"{len(listing.classes)} classes, counted from 0."
            )
    _refuse_overlap(name, listing.groups or {}, len(listing.classes))


def _refuse_overlap(name: str, groups: Mapping[str, tuple[int, ...]], classes: int) -> None:
    """Whether a class is in one group at most, and there is such a class; and the groups' names.

    Raises:
        UserError: one is in two, there is none of its number, or a name is taken.
    """
    own: dict[int, str] = {}
    for group, members in groups.items():
        refuse_taken(group, f"Dataset {name!r}")
        for label in members:
            if not 0 <= label < classes:
                raise UserError(
                    f"Dataset {name!r} has class {label} in group {group!r}, and {classes} "
                    "classes, counted from 0."
                )
            if own.setdefault(label, group) != group:
                raise UserError(
                    f"Dataset {name!r} has class {label} in the groups {own[label]!r} and "
                    f"{group!r}."
                )


def refuse_taken(group: str, source: str) -> None:
    """Whether a group may have this name; `source` is who gives it.

    Raises:
        UserError: a table of results has a column of that name.
    """
    if str(group).replace(" ", "_") in TAKEN:
        raise UserError(
            f"{source} calls a group {group!r}, as a column of the tables of results is called: "
            "give it another name."
        )


def drawn_images(name: str, options: Frozen) -> Dataset:
    """A dataset that is drawn.

    Raises:
        UserError: its code fails.
    """
    dataset = DATASETS.get(name)
    assert issubclass(dataset, DrawnDataset)
    with code_of(f"Dataset {name!r}", "load"):
        images = dataset.load(options)
    if not isinstance(images, Dataset):
        raise UserError(f"Dataset {name!r} gives {type(images).__name__}, not a Dataset.")
    _refuse_overlap(name, images.groups, len(images.classes))
    return images


def options_of(name: str, given: Mapping[str, JsonValue]) -> Frozen:
    """The options of a dataset, checked, and those that are not given at their defaults.

    Raises:
        UserError: there is no such dataset or option, or a value that it does not take.
    """
    options = DATASETS.get(name).Options
    if not issubclass(options, DevSet):
        for field in ("dev_per_class", "tail_seed"):
            if field in given and field not in options.model_fields:
                raise UserError(
                    f"data {name}: its split is given and no long tail is drawn from it, so "
                    f"{field} has no effect; leave it out."
                )
    return validated(options, dict(given), source=f"data {name}")
