"""`vtab1k:NAME`: the 19 tasks of VTAB-1k, from the lists and images of the usual distribution.

Owns: the tasks with their classes and counts, the lists, and what is often got wrong about them.
Must not know: packs, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from harness.data.contract import DATASETS, FileDataset
from harness.data.listing import Item, Listing
from harness.data.long_tail import LongTail
from harness.datasets.reading import labelled_paths, required
from harness.errors import UserError

TRAIN, VAL, BOTH, TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"
LISTED = {TRAIN: 800, VAL: 200, BOTH: 1000}
"""Images of the lists, the same in every task."""


class Task(NamedTuple):
    """A task of VTAB-1k: its classes and test images (Zhai et al., 2019, table 2)."""

    classes: int
    test: int
    moved: bool = False
    """Whether crops and flips change what is asked for."""


TASKS = {
    "caltech101": Task(102, 6084),
    "cifar": Task(100, 10_000),
    "dtd": Task(47, 1880),
    "oxford_flowers102": Task(102, 6149),
    "oxford_iiit_pet": Task(37, 3669),
    "sun397": Task(397, 21_750),
    "svhn": Task(10, 26_032),
    "patch_camelyon": Task(2, 32_768),
    "eurosat": Task(10, 5400),
    "resisc45": Task(45, 6300),
    "diabetic_retinopathy": Task(5, 42_670),
    "clevr_count": Task(8, 15_000, True),
    "clevr_dist": Task(6, 15_000, True),
    "dmlab": Task(6, 22_735, True),
    "kitti": Task(4, 711, True),
    "dsprites_loc": Task(16, 73_728, True),
    "dsprites_ori": Task(16, 73_728, True),
    "smallnorb_azi": Task(18, 12_150, True),
    "smallnorb_ele": Task(9, 12_150, True),
}


class VTABOptions(LongTail):
    """Which list is trained on."""

    train: Literal["train800val200", "train800"] = "train800val200"
    """`train800val200` reports as published; `train800` is for choices made by hand on val200."""


class _VTABTask(FileDataset):
    task: ClassVar[Task]
    name: ClassVar[str]

    @classmethod
    def listing(cls, options: Any, root: Path) -> Listing:
        """The lists as they are, checked against each other.

        Raises:
            MissingData: a list or the images are not there.
            UserError: the lists contradict each other, or name a class that the task has not.
        """
        folder = cls._folder(root)
        place = root / folder
        lists = {
            name: labelled_paths(required(place / name, cls.layout), cls.task.classes)
            for name in (TRAIN, VAL, BOTH, TEST)
        }
        for top in sorted({each.path.split("/")[0] for part in lists.values() for each in part}):
            required(place / top, cls.layout)
        _refuse_contradictions(place, lists)
        train, test = (
            tuple(
                item._replace(path=f"{folder}/{item.path}" if folder else item.path)
                for item in part
            )
            for part in (lists[f"{options.train}.txt"], lists[TEST])
        )
        return Listing(
            classes=tuple(map(str, range(cls.task.classes))),
            train=train,
            test=test,
            notes=tuple(_notes(cls.task, lists)),
        )

    @classmethod
    def _folder(cls, root: Path) -> str:
        """Where the task's lists lie below the root: in it, or in the archive's folder."""
        if (root / TEST).exists():
            return ""
        packed = f"vtab-1k/{cls.name}"
        return packed if (root / packed).is_dir() else cls.name


def _refuse_contradictions(place: Path, lists: Mapping[str, tuple[Item, ...]]) -> None:
    """The lists must part 1,000 images into 800 and 200, and none may be tested on too."""
    train, val, both, test = ({item.path for item in lists[name]} for name in LISTED_ALL)
    by = "get the lists again"
    if train & val:
        raise UserError(f"{place}: {min(train & val)} is in {TRAIN} and in {VAL}; {by}.")
    if train | val != both:
        odd = min((train | val) ^ both)
        raise UserError(f"{place}: {BOTH} is not {TRAIN} and {VAL} together ({odd}); {by}.")
    if both & test:
        raise UserError(f"{place}: {min(both & test)} is in {BOTH} and in {TEST}; {by}.")
    labels = {item.path: item.label for item in lists[BOTH]}
    for name in (TRAIN, VAL):
        for item in lists[name]:
            if labels[item.path] != item.label:
                raise UserError(
                    f"{place}: {item.path} is of class {item.label} in {name} and of class "
                    f"{labels[item.path]} in {BOTH}; {by}."
                )


LISTED_ALL = (TRAIN, VAL, BOTH, TEST)


def _notes(task: Task, lists: Mapping[str, tuple[Item, ...]]) -> list[str]:
    notes = []
    for name, wanted in (*LISTED.items(), (TEST, task.test)):
        if len(lists[name]) != wanted:
            notes.append(f"{name} has {len(lists[name])} images, VTAB-1k's {wanted:,}.")
    train, val = (
        np.bincount([item.label for item in lists[name]], minlength=task.classes)
        for name in (TRAIN, VAL)
    )
    # A stratified split takes the same share of every class, to the nearest image.
    share = len(lists[VAL]) / max(1, len(lists[BOTH]))
    off = np.abs(val - share * (train + val)) >= 1
    if off.any():
        notes.append(
            f"{VAL} is not a stratified part of {BOTH}: {int(off.sum())} of {task.classes} classes "
            "have another share in it."
        )
    notes.append(
        f"{VAL} is not chosen on by itself: choices are made on a stratified part of the training "
        "images (data.val_fraction, 0.2 of 1,000 are 200)."
    )
    notes.append(
        "pixels are normalised with mean and std 0.5, as AugReg's ViTs were trained; published "
        "results differ in this, and many use ImageNet's (0.485, ...)."
    )
    if task.moved:
        notes.append(
            "crops and flips change what this task asks for: set recipe.augment=none, as published."
        )
    return notes


for _name, _task in TASKS.items():
    DATASETS.register(f"vtab1k:{_name}")(
        type(
            f"VTAB_{_name}",
            (_VTABTask,),
            {
                "__module__": __name__,
                "__doc__": f"{_task.classes} classes, 1,000 training, {_task.test:,} test images.",
                "task": _task,
                "name": _name,
                "Options": VTABOptions,
                "summary": f"VTAB-1k's {_name}, {_task.classes} classes (on disk)",
                "layout": f"vtab1k:{_name}: get VTAB-1k as lists and images, e.g. by way of "
                "https://github.com/ZhangYuanhan-AI/NOAH, and put its folder in --data-root\n"
                f"  {_name}/{TRAIN}, {VAL}, {BOTH}, {TEST}   a path and a label in each line\n"
                f"  {_name}/images/                                     {_task.test:,} test images",
            },
        )
    )
