"""Reading what datasets ship: lists of `path label`, folders of classes, and what is missing.

Owns: how lines and class folders are read, and the messages about wrong or missing ones. Must not
know: any dataset's names, pixels.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.data.decode import printable
from harness.data.listing import Item, MissingData
from harness.errors import UserError, unknown
from harness.spec import Frozen

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
        *(".ppm", ".pgm"),
    }
)
"""Files in class folders that count as images."""


class NoOptions(Frozen):
    """None."""


def absent(path: Path, layout: str, problem: str = "is missing") -> MissingData:
    """The error for a missing file or folder; from the first line of `layout`: what to get."""
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


NO_OTHER: Mapping[str, str] = {}


def in_folders(
    root: Path, items: Iterable[Item], layout: str, others: Mapping[str, str] = NO_OTHER
) -> tuple[Item, ...]:
    """The items with the top-level folders that they lie in; only these folders are looked for.

    `others` maps listed names of such folders to other names, used where the listed one is absent.

    Raises:
        MissingData: a folder is absent, as when lists are there and archives are not unpacked.
    """
    items = tuple(items)
    place = {}
    for top in sorted({item.path.partition("/")[0] for item in items}):
        is_renamed = not (root / top).exists() and (root / others.get(top, top)).exists()
        place[top] = others[top] if is_renamed else top
        required(root / place[top], layout)
    return tuple(
        item._replace(path="/".join([place[top], *rest]))
        for item in items
        for top, *rest in [item.path.split("/")]
    )


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """`("FILE, line N", text)` of every line that is not blank.

    Any line ending will do; bytes that are not UTF-8 become surrogates.
    """
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
        # So that two spellings of one path count as one.
        items.append(Item(path=posixpath.normpath(image), label=label))
    return tuple(items)


def class_folders(root: Path, under: str, notes: list[str]) -> dict[str, list[str]]:
    """Class -> its images, at any depth of `root/under/<class>/`, as paths from the root, sorted.

    Names that begin with `.` or `__`, such as `.ipynb_checkpoints` and `__MACOSX`, are passed over.
    What else is left out is counted in `notes`: files whose names are not those of images, and
    images that lie in no class folder. The result is empty if there is no image at all.

    Raises:
        UserError: a class folder has no image, while others have some.
    """
    found, loose = {}, 0
    for entry in sorted(os.scandir(root / under), key=lambda entry: entry.name):
        if not entry.is_dir():
            loose += not _is_hidden(entry.name) and is_image(entry.name)
        elif not _is_hidden(entry.name) and not _leads_back(entry.path, root):
            found[entry.name] = _images_in(root, os.path.join(under, entry.name), notes)
    if loose:
        place = f"{printable(under)}/" if under else "the data root"
        notes.append(f"{loose} images in {place} lie in no class folder and are left out.")
    if not any(found.values()):
        return {}
    for name, images in found.items():
        if not images:
            place = printable(os.path.join(under, name))
            raise UserError(f"Class folder {place} has no image: put some in, or remove it.")
    return found


def natural(name: str) -> tuple[bool, int, str]:
    """What classes are sorted by: numbers by value and before names."""
    # Of `²` and `①`, which are digits too, int() makes nothing.
    return (True, 0, name) if not name.isdecimal() else (False, int(name), name)


def folders_with_images(root: Path) -> dict[str, list[str]]:
    """Folders in `root` that hold images, at any depth, with their paths."""
    notes: list[str] = []
    inner = [
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not _is_hidden(entry.name) and not _leads_back(entry.path, root)
    ]
    found = {name: _images_in(root, name, notes) for name in inner}
    return {name: images for name, images in found.items() if images}


def images_below(root: Path, notes: list[str]) -> list[str]:
    """All images in a folder, at any depth, as paths from it, sorted; `notes` as in
    `class_folders`."""
    return _images_in(root, "", notes)


def _images_in(root: Path, place: str, notes: list[str]) -> list[str]:
    images, others = [], 0
    for folder, inner, names in walked(root / place, root):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        for name in names:
            if is_image(name) and not _is_hidden(name):
                images.append(os.path.relpath(os.path.join(folder, name), root))
            else:
                others += not _is_hidden(name)
    if others:
        where = printable(place) or "the folder"
        notes.append(f"{others} files in {where} are no images by their name.")
    for path in images:
        if "::" in path:
            raise UserError(f"Rename {printable(path)}: '::' stands for what a file holds.")
    return sorted(images)


def walked(top: Path, root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, through links too, of a folder in `root`; links to a folder that they lie in
    are passed over, since each image would be met again and again."""
    for folder, inner, names in os.walk(top, followlinks=True):
        inner[:] = [name for name in inner if not _leads_back(os.path.join(folder, name), root)]
        yield folder, inner, names


def _leads_back(path: str, root: Path) -> bool:
    """Whether a path in `root` is a link to a folder on the way to it, or to one around that."""
    if not os.path.islink(path):
        return False
    target, first = os.path.realpath(path), os.path.abspath(root)
    folder = os.path.dirname(os.path.abspath(path))
    while len(folder) >= len(first):
        if os.path.commonpath((target, os.path.realpath(folder))) == target:
            return True
        if folder == os.path.dirname(folder):
            break
        folder = os.path.dirname(folder)
    return False


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def is_image(name: str) -> bool:
    """Whether a file in a class folder counts as an image, by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def known_class_folders(
    root: Path, under: str, classes: Sequence[str], layout: str, notes: list[str]
) -> tuple[Item, ...]:
    """Images in `root/under/<class>/`, as by `class_folders`, of a dataset with fixed classes.

    Raises:
        MissingData: there is no such folder, or no image in it.
        UserError: a folder is not named for a class, or has no image.
    """
    folder = required(root / under, layout)
    found = class_folders(root, under, notes)
    if not found:
        raise absent(folder, layout, "holds no image")
    for name in found:
        if name not in classes:
            raise unknown(f"class folder in {folder}:", name, classes)
    return tuple(
        Item(path=path, label=label)
        for label, name in enumerate(classes)
        for path in found.get(name, ())
    )
