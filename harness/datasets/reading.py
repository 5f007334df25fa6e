"""Reading what named datasets ship: lists of `path label`, folders of classes, and what is missing.

Owns: how a line is read and how a wrong one is named. Must not know: any dataset's names, pixels.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.errors import UserError, unknown
from harness.files import Item, MissingData


def absent(path: Path, layout: str, problem: str = "is missing") -> MissingData:
    """The error that names what is not there, and what to get by the first line of `layout`."""
    name, _, what = layout.split("\n")[0].partition(": ")
    return MissingData(f"{path} {problem}: {what}, and see `harness data check {name}`.")


def required(path: Path, layout: str) -> Path:
    """`path`, which must be there.

    Raises:
        MissingData: it is not.
    """
    if not path.exists():
        raise absent(path, layout)
    return path


def require_folders(root: Path, items: Iterable[Item], layout: str) -> None:
    """Check that the uppermost folders of `items` are there, without a look at every image.

    Raises:
        MissingData: one is not, as when lists are in place and archives are not unpacked.
    """
    for top in sorted({item.path.partition("/")[0] for item in items}):
        required(root / top, layout)


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """`("FILE, line N", text)` of every line that is not blank; any line ending, UTF-8 or not."""
    # "utf-8-sig" drops the mark that Windows editors put first.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def labelled_paths(path: Path, classes: int) -> tuple[Item, ...]:
    """Items of a list with one `path label` a line; the path may hold spaces.

    Raises:
        UserError: a line has another form, or a label is not in 0..`classes` - 1; names the line.
    """
    items = []
    for place, line in numbered_lines(path):
        image, _, word = line.replace("\t", " ").rpartition(" ")
        try:
            label = int(word)
        except ValueError:
            label = None
        if not image or label is None:
            raise UserError(f"{place}: write a path and a label, not {line!r}.")
        if not 0 <= label < classes:
            raise UserError(
                f"{place}: label {label} is outside 0 to {classes - 1}; correct the line or get "
                "the list again."
            )
        # So that two spellings of one path are seen as one.
        items.append(Item(path=posixpath.normpath(image), label=label))
    return tuple(items)


def class_folders(root: Path, under: str, classes: Sequence[str], layout: str) -> tuple[Item, ...]:
    """Images in `root/under/<class>/`, by class and name; other files are passed over.

    Raises:
        MissingData: there is no such folder, or no image in it.
        UserError: a folder is not named for a class.
    """
    # Slow to import, and most datasets do without.
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    folder = required(root / under, layout)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name not in classes:
            raise unknown(f"class folder in {folder}:", entry.name, classes)
    index = {name: label for label, name in enumerate(classes)}
    found = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise absent(folder, layout, "holds no image")
    return tuple(Item(path=Path(path).relative_to(root).as_posix(), label=c) for path, c in found)
