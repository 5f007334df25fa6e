"""`fusrs`: the paper's SAR ship chips, with counts of the lists' repeats and leaks.

There is no other loader. Owns: both versions' classes and groups, and what is done about repeats.
Must not know: packs, models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from harness.data.contract import DATASETS, FileDataset
from harness.data.listing import Item, Listing
from harness.datasets.reading import in_folders, labelled_paths, required
from harness.spec import Frozen

CLASSES = {
    "v1.7": ("cargo", "other", "fishing", "tanker", "dredger"),
    "v2.5": ("cargo", "fishing", "tanker", "dredger"),
}
TAIL = ("tanker", "dredger")
"""The others are head; there is no medium group, as in the paper's Table 4."""


class FusrsOptions(Frozen):
    """Which release, and whether its repeats and leaks are removed."""

    version: Literal["v1.7", "v2.5"] = "v2.5"
    dedupe: bool = False
    """Keep each path once, and no test path in train. The paper does neither."""


@DATASETS.register("fusrs")
class Fusrs(FileDataset):
    """v2.5: 5,261 training lines (4,397 paths) and 1,700 test lines (1,549 paths), 101 in both."""

    Options: ClassVar = FusrsOptions
    summary: ClassVar = "FUSRS SAR ships, v1.7 (5 classes) or v2.5 (4), imbalance 16 (on disk)"
    layout: ClassVar = """\
fusrs: get the images and lists of FUSRS from https://www.doem1997.com/metapeft
  FUSRSv25/train.txt   a path and a label in each line; FUSRSv17/ for data.options.version=v1.7
  FUSRSv25/test.txt
  the images           where the lists say
The lists repeat images and leak test images into train; data.options.dedupe=true mends both."""

    @staticmethod
    def listing(options: FusrsOptions, root: Path) -> Listing:
        """The lists as they are, or without repeats and leaks; the notes count both."""
        classes = CLASSES[options.version]
        folder = root / f"FUSRS{options.version.replace('.', '')}"
        train, test = (
            in_folders(
                root, labelled_paths(required(file, Fusrs.layout), len(classes)), Fusrs.layout
            )
            for file in (folder / "train.txt", folder / "test.txt")
        )
        leaked = {item.path for item in train} & {item.path for item in test}
        notes = [*_notes("train", train), *_notes("test", test)]
        if leaked:
            notes.append(f"{len(leaked)} paths are in train and in test")
        if options.dedupe:
            before = len(train), len(test)
            train = tuple(item for item in _first(train) if item.path not in leaked)
            test = tuple(_first(test))
            notes.append(
                f"dedupe left out {before[0] - len(train)} lines of train and "
                f"{before[1] - len(test)} of test"
            )
        groups = {
            "head": tuple(c for c, name in enumerate(classes) if name not in TAIL),
            "tail": tuple(c for c, name in enumerate(classes) if name in TAIL),
        }
        return Listing(classes=classes, train=train, test=test, groups=groups, notes=tuple(notes))


def _first(items: tuple[Item, ...]) -> Iterator[Item]:
    """The first item of each path."""
    seen = set()
    for item in items:
        if item.path not in seen:
            seen.add(item.path)
            yield item


def _notes(name: str, items: tuple[Item, ...]) -> Iterator[str]:
    times = Counter(item.path for item in items)
    if len(times) < len(items):
        path, most = times.most_common(1)[0]
        yield (
            f"{name} lists {len(times)} paths in {len(items)} lines; {path!r} is there {most} times"
        )
    unsure = len({(item.path, item.label) for item in items}) - len(times)
    if unsure:
        yield f"{name} gives {unsure} paths a second label"
