"""Folders and labels that can be read in two ways, and what is not read: refused, or said.

Owns: which of them, and their messages. Must not know: how what is left is listed.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.data.decode import printable
from harness.datasets.reading import is_image
from harness.errors import UserError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
"""Names that a split goes by, in small letters -> what it is."""
WHOLE = re.compile(r"([+-]?[0-9]{1,100})(\.0*)?")
"""A whole number as tables and people write one. Not `1.10`, which may be a class below `1`."""


def split_of(word: str) -> str | None:
    """The split that a word names, in any case; None for other words."""
    return SPLIT_WORDS.get(word.strip().casefold())


def split_folders(root: Path) -> dict[str, str]:
    """Split -> its folder in `root`; empty where no folder is called like one.

    Raises:
        UserError: two folders are of one split, or other folders lie beside them.
    """
    names = sorted(e.name for e in os.scandir(root) if e.is_dir() and e.name[:1] not in "._")
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split is None:
            continue
        if split in found:
            raise UserError(
                f"{root} has the folders {found[split]} and {name}, which are both of {split}: "
                "leave one."
            )
        found[split] = name
    others = [name for name in names if split_of(name) is None and _has_images(root / name)]
    if found and others:
        raise UserError(
            f"{printable(str(root))} has {', '.join(found.values())} beside "
            f"{_some(others)}: put folders that are classes into one of a split, and move others "
            "away."
        )
    return found


def _has_images(folder: Path) -> bool:
    """Whether images lie in a folder or in folders in it; in those of a store they do not count."""
    if (folder / "trials").is_dir():
        return False
    files = [*folder.glob("*"), *folder.glob("*/*")]
    return any(is_image(file.name) for file in files)


def refuse_one_class(classes: Sequence[str], root: Path, places: Iterable[str]) -> None:
    """Whether there is a second class, and the folder to name instead of the one above it.

    Raises:
        UserError: there is one class alone.
    """
    if len(classes) > 1:
        return
    inner = sorted({part for place in places if (part := _below_class(place, classes[0]))})
    if len(inner) > 1:
        hint = f"if its folders {_some(inner)} are the classes, give {classes[0]} as the data root"
    else:
        hint = "classifying needs two"
    raise UserError(
        f"{printable(str(root))} has a single class, {printable(classes[0])!r}; {hint}."
    )


def _below_class(place: str, name: str) -> str | None:
    """The folder in a class's folder that a path goes through."""
    parts = place.split("/")
    where = parts.index(name) if name in parts else len(parts)
    return parts[where + 1] if len(parts) > where + 2 else None


def refuse_lookalikes(labels: Iterable[str], notes: list[str]) -> None:
    """Whether classes are told apart by more than blanks and the way in which accents or a whole
    number are written; where case alone does, it is noted.

    Raises:
        UserError: two are not.
    """
    by_blanks, by_accents, by_case = (defaultdict(list) for _ in range(3))
    by_number = defaultdict(list)
    for label in sorted(set(labels)):
        plain = " ".join(label.split())
        by_blanks[plain].append(label)
        by_accents[unicodedata.normalize("NFC", plain)].append(label)
        by_case[plain.casefold()].append(label)
        if whole := WHOLE.fullmatch(plain):
            by_number[int(whole[1])].append(label)
        if not plain:
            raise UserError("A label is empty or of blanks alone: write the name of a class.")
    for alike in by_blanks.values():
        if len(alike) > 1:
            raise UserError(f"Classes {_quoted(alike)} differ in blanks alone: write one of them.")
    for alike in by_accents.values():
        if len(alike) > 1:
            raise UserError(
                f"Classes {_quoted(alike)} differ in the way their accents are written alone, "
                "composed or decomposed: write one of them."
            )
    for alike in by_number.values():
        if len(alike) > 1:
            raise UserError(
                f"Classes {_quoted(alike)} are one number in {len(alike)} spellings: write one of "
                "them, in all files."
            )
    for alike in by_case.values():
        if len(alike) > 1:
            notes.append(f"Classes {_quoted(alike)} differ in case alone; they are kept apart.")


def refuse_beside_folders(files: Sequence[str], folders: Mapping[str, object]) -> None:
    """Whether files that hold images lie beside class folders with some: either may be meant.

    Raises:
        UserError: both are there.
    """
    if files and folders:
        raise UserError(
            f"There are {printable(files[0])} and class folders {_some(sorted(folders))}: either "
            "may hold the images, so move the others away."
        )


def say_inner_folders(found: Iterable[tuple[str, str]], notes: list[str]) -> None:
    """Note it where folders around the class folders may have been taken for the classes.

    `found` are labels and paths of images in class folders. It is refused where there is one such
    folder (`refuse_one_class`); of several, the folders in them may be anything.
    """
    inner: dict[str, set[str | None]] = defaultdict(set)
    for label, path in found:
        inner[label].add(_below_class(path, label))
    times = Counter(itertools.chain.from_iterable(inner.values()))
    repeated = [name for name, count in times.items() if name is not None and count > 1]
    if repeated and None not in times:
        classes = _some(sorted(inner))
        notes.append(
            f"The classes are {classes}; all their images lie in folders in them, of which several "
            f"classes have {_some(sorted(repeated))}: if those are the classes, put them in the "
            f"place of {classes}."
        )


def say_unread(root: Path, used: Iterable[str | None], notes: list[str]) -> None:
    """Note files beside class folders, such as an archive or a list, that are not read.

    `used` are names of files that the options give.
    """
    read = {os.path.normpath(name) for name in used if name is not None}
    others = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_file() and entry.name[:1] not in "._" and not is_image(entry.name)
    )
    unread = [name for name in others if name not in read]
    if unread:
        notes.append(f"Class folders are read, and not what lies beside them: {_some(unread)}.")


def say_unlisted(file: Path, root: Path, listed: Iterable[str], notes: list[str]) -> None:
    """Note images that lie beside those of a list, and that it does not name."""
    named: dict[str, set[str]] = defaultdict(set)
    for path in listed:
        folder, name = os.path.split(os.path.normpath(path))
        named[folder].add(name)
    unlisted = 0
    for folder, names in named.items():
        try:
            beside = os.listdir(root / folder)
        except (OSError, ValueError):
            continue  # what is not there is named when the images are read
        others = (name for name in beside if name not in names and name[:1] not in "._")
        unlisted += sum(is_image(name) for name in others)
    if unlisted:
        notes.append(
            f"{unlisted} images beside those in {file.name} are not in it, and are left out."
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(repr(printable(name)) for name in names)
