"""`folder`: a user's own images in any of the usual forms; and `rsscn7` and `mstar`, built on it.

Forms in the order in which they are looked for: a list (CSV or Parquet), Hugging Face's Parquet
files or what its `save_to_disk` writes (Arrow), webdataset shards (`*.tar`), `train/<class>/` with
`test/` or `val/`, and `<class>/`. Owns: which of these forms is there, the class folders, and how
train and test are told apart. Must not know: what files of the other forms hold (`forms`), pixels,
how images are packed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator

from harness.data.contract import DATASETS, FileDataset, refuse_taken
from harness.data.dataset import stratified
from harness.data.decode import printable
from harness.data.listing import BorderMask, Item, Listing, MissingData, read_csv
from harness.data.long_tail import HEAD_ABOVE, TAIL_BELOW, LongTail
from harness.datasets.forms import Found, of_list, of_shards, of_tables
from harness.datasets.reading import class_folders, folders_with_images, natural, walked
from harness.datasets.two_ways import (
    refuse_beside_folders,
    refuse_lookalikes,
    refuse_one_class,
    say_inner_folders,
    say_unread,
    split_folders,
)
from harness.errors import UserError, unknown
from harness.rng import generator
from harness.spec import Seed

LIST = "split.csv"


class FolderOptions(LongTail, BorderMask):
    """File names are relative to the data root."""

    list: str | None = None
    """CSV or Parquet with the columns path, label and, optionally, split (train or test; rows of
    val are left out). None: split.csv if there is one."""
    classes: str | None = None
    """Text file with one class per line, which fixes their order; None: sorted by name."""
    groups: str | None = None
    """CSV with the columns class and group; None: by counts (`head_above`, `tail_below`)."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of every class that is kept for testing, where the files name no split."""
    split_seed: Seed = 0
    bands: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Bands to use, counted from 0; None: RGB."""

    @model_validator(mode="after")
    def _each_has_an_effect(self) -> FolderOptions:
        bounds = (self.head_above, self.tail_below)
        if self.groups is not None and self.grouped_by == "thirds":
            raise UserError("grouped_by=thirds has no effect beside a file of groups: give one.")
        if self.groups is not None and bounds != (HEAD_ABOVE, TAIL_BELOW):
            raise UserError(
                "head_above and tail_below have no effect beside a file of groups: leave them out."
            )
        if self.bands == ():
            raise UserError("bands=[] names no band: list some, counted from 0, or leave it out.")
        return self


@DATASETS.register("folder")
class Folder(FileDataset):
    """A user's own images."""

    Options: ClassVar = FolderOptions
    summary = "your own images: class folders, a CSV or Parquet list, webdataset, Hugging Face"
    layout = """\
folder: --data-root is a folder with one of
  split.csv             columns path, label, split (train or test); or data.options.list=FILE
  train/<class>/*.jpg   and test/<class>/*.jpg or val/<class>/*.jpg
  <class>/*.jpg         a share of every class (data.options.test_fraction) is kept for testing
  *.tar                 webdataset shards, with .cls or .json beside each image
  *.parquet, *.arrow    as Hugging Face writes them: an image column and a label column"""

    @staticmethod
    def listing(options: FolderOptions, root: Path) -> Listing:
        notes: list[str] = []
        found, names = _found(options, root, notes)
        if options.classes is not None:
            names = _lines(root / options.classes)
        refuse_lookalikes((each.label for each in found), notes)
        classes = names or sorted({each.label for each in found}, key=natural)
        index = {name: number for number, name in enumerate(classes)}
        for each in found:
            if each.label not in index:
                where = options.classes or "the classes"
                raise UserError(
                    f"{each.origin}: label {each.label!r} is not in {where}. "
                    f"{unknown('class', each.label, classes)}"
                )
        train, test = _parted(found, index, options, notes)
        _refuse_empty(classes, train)
        refuse_one_class(classes, root, (each.path for each in found))
        return Listing(
            classes=tuple(printable(name) for name in classes),
            train=train,
            test=test,
            groups=None if options.groups is None else _groups(root / options.groups, classes),
            bands=options.bands,
            notes=tuple(notes),
        )


def _found(
    options: FolderOptions, root: Path, notes: list[str]
) -> tuple[list[Found], list[str] | None]:
    """All images, and the classes in order if the files say so."""
    if options.list is not None or (root / LIST).is_file():
        return list(of_list(root / (options.list or LIST), root, notes)), None
    arrow = _below(root, ".arrow")
    # Beside the data, Hugging Face caches the results of `map`.
    saved = [file for file in arrow if not os.path.basename(file).startswith("cache-")]
    tables, shards = _below(root, ".parquet") or saved, _below(root, ".tar")
    if tables or shards:
        refuse_beside_folders(tables or shards, folders_with_images(root))
        return of_tables(root, tables) if tables else (list(of_shards(root, shards, notes)), None)
    found = list(_of_tree(root, notes))
    if not found:
        raise MissingData(
            f"There is no image in {printable(str(root))}. `harness data check folder` says what "
            "belongs there."
        )
    say_inner_folders(((each.label, each.path) for each in found), notes)
    say_unread(root, (options.classes, options.groups, options.tail), notes)
    return found, None


def _below(root: Path, suffix: str) -> list[str]:
    """Files under the root with a suffix, as relative paths."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in walked(root, root)
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    )


def _of_tree(root: Path, notes: list[str]) -> Iterator[Found]:
    splits = split_folders(root)
    test = splits.get("test") or splits.get("val")
    if splits and ("train" not in splits or test is None):
        raise UserError(
            f"{root} has {' and '.join(splits.values())}, and no folder "
            f"{'test or val' if 'train' in splits else 'train'} beside it."
        )
    if "test" in splits and "val" in splits:
        notes.append(f"{splits['val']}/ is left out: what is chosen on is drawn from train/.")
    parts = [(splits["train"], "train"), (str(test), "test")] if splits else [("", None)]
    for folder, split in parts:
        for label, paths in class_folders(root, folder, notes).items():
            place = printable(os.path.join(folder, label))
            yield from (Found(path, label, split, place) for path in paths)


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    repeated = [name for name, count in Counter(lines).items() if count > 1]
    if repeated:
        raise UserError(f"{file} names class {repeated[0]!r} twice.")
    if not lines:
        raise UserError(
            f"{file} names no class: write one per line, or leave data.options.classes out."
        )
    return lines


def _parted(
    found: Sequence[Found], index: dict[str, int], options: FolderOptions, notes: list[str]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Training and test images; drawn where no split is named."""
    items = [Item(each.path, index[each.label]) for each in found]
    splits = [each.split for each in found]
    if all(split is None for split in splits):
        labels = torch.tensor([item.label for item in items])
        rng = generator(options.split_seed, "test split")
        rest, sample = stratified(labels, options.test_fraction, rng)
        notes.append(f"No split is named: {len(sample)} images are drawn for testing.")
        return tuple(items[i] for i in rest), tuple(items[i] for i in sample)
    if None in splits:
        origin = found[splits.index(None)].origin
        raise UserError(f"{origin}: no split is named, while others are of train or test.")
    for field in ("test_fraction", "split_seed"):
        value = getattr(options, field)
        if value != FolderOptions.model_fields[field].default:
            raise UserError(
                f"data.options.{field}={value} has no effect where the splits are named, as that "
                f"of {found[0].origin} is: leave it out."
            )
    last = "test" if "test" in splits else "val"
    unused = splits.count("val") if last == "test" else 0
    if unused:
        notes.append(
            f"{unused} images of the split val are left out: what is chosen on is drawn from train."
        )
    train = tuple(item for item, split in zip(items, splits, strict=True) if split == "train")
    test = tuple(item for item, split in zip(items, splits, strict=True) if split == last)
    if not test:
        raise UserError("There is no test image: name some of the split test.")
    return train, test


def _refuse_empty(classes: Sequence[str], train: Sequence[Item]) -> None:
    empty = sorted(set(range(len(classes))) - {item.label for item in train})
    if empty:
        raise UserError(
            f"Class {printable(classes[empty[0]])!r} has no training image: add some, or take the "
            "class out."
        )


def _groups(file: Path, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = {}
    for line, row in read_csv(file, ("class", "group")):
        if row["class"] not in classes:
            raise UserError(f"{file}, line {line}: {unknown('class', row['class'], classes)}")
        refuse_taken(row["group"], f"{file}, line {line}")
        groups.setdefault(row["group"], []).append(list(classes).index(row["class"]))
    named = [number for members in groups.values() for number in members]
    for number, name in enumerate(classes):
        if named.count(number) != 1:
            raise UserError(f"{file}: class {name!r} is in {named.count(number)} groups, not one.")
    return {name: tuple(members) for name, members in groups.items()}


class PresetOptions(LongTail, BorderMask):
    """Options of a dataset whose split is fixed."""


def _preset(name: str, classes: tuple[str, ...], root: Path) -> Listing:
    """Listing of a dataset with a split.csv, in the root or in a folder of its name there."""
    inner = "" if (root / LIST).is_file() else f"{name}/"
    if not (root / inner / LIST).is_file():
        raise MissingData(
            f"There is no {LIST} in {root} or in {root / name}: `harness data check {name}` "
            "says what belongs there."
        )
    found = Folder.listing(FolderOptions(), root / inner)
    if found.classes != classes:
        raise UserError(
            f"{root / inner / LIST} is not that of {name}: its classes are "
            f"{', '.join(found.classes[:5])}, ..., not {', '.join(classes[:5])}, ..."
        )
    train, test = (
        tuple(item._replace(path=inner + item.path) for item in part)
        for part in (found.train, found.test)
    )
    return replace(found, train=train, test=test)


@DATASETS.register("rsscn7")
class RSSCN7(FileDataset):
    """Optical remote-sensing scenes (Zou et al., 2015)."""

    Options: ClassVar = PresetOptions
    summary = "optical remote-sensing scenes, 7 classes, 224 px (on disk)"
    layout = f"""\
rsscn7: from its page, https://github.com/palewithout/RSSCN7, put into --data-root
  <class>/*.jpg         classes field, forest, grass, industry, parking, resident, river_lake
  {LIST}             columns path, label and split (train or test), paths as above"""

    @staticmethod
    def listing(options: PresetOptions, root: Path) -> Listing:
        classes = ("field", "forest", "grass", "industry", "parking", "resident", "river_lake")
        return _preset("rsscn7", classes, root)


@DATASETS.register("mstar")
class MSTAR(FileDataset):
    """SAR chips of vehicles: training images at 17 degrees of depression, test images at 15."""

    Options: ClassVar = PresetOptions
    summary = "SAR chips of 10 vehicles, 17 to 15 degrees, 128 px (on disk)"
    layout = f"""\
mstar: from the Sensor Data Management System, https://www.sdms.afrl.af.mil, put into --data-root
  <class>/*.jpg         128 x 128 chips; 2S1 BMP2 BRDM2 BTR60 BTR70 D7 T62 T72 ZIL131 ZSU234
  {LIST}             columns path, label and split (train: 17 degrees, test: 15 degrees)
The clutter around a vehicle gives away its class too: compare with data.options.border_mask=24."""

    @staticmethod
    def listing(options: PresetOptions, root: Path) -> Listing:
        vehicles = "2S1 BMP2 BRDM2 BTR60 BTR70 D7 T62 T72 ZIL131 ZSU234"
        return _preset("mstar", tuple(vehicles.split()), root)
