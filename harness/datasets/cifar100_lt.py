"""`cifar100_lt`: CIFAR-100 made long-tailed by the usual rule, from the official files.

torchvision's reader unpickles whatever a file asks for; this one accepts numpy arrays only, because
a pickle from a mirror can run any program. Owns: which images are kept, and the reading of these
files. Must not know: packs, models.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.data.contract import DATASETS, Downloadable, OwnFormat
from harness.data.dev_set import DevSet, TailSeed
from harness.data.listing import Item, Listing
from harness.data.long_tail import count_groups
from harness.datasets.reading import required
from harness.errors import UserError
from harness.spec import Added

FOLDER = "cifar-100-python"
CLASSES = 100
LARGEST = 500
"""Training images of every class in the official, balanced files."""
SIDE = 32

FRACTIONS = {10: 0.1, 50: 0.02, 100: 0.01}
"""Imbalance -> share of the images that the smallest class keeps, in the rule's own digits."""


class Cifar100LTOptions(DevSet):
    """`imbalance`: ratio of the largest to the smallest training class."""

    imbalance: Literal[10, 50, 100] = 100
    largest: Annotated[int, Field(ge=1, le=LARGEST), Added] = LARGEST
    """Training images of the largest class; fewer leave some of every class for a dev set."""
    tail_seed: Annotated[TailSeed, Added] = 0
    """Draws the images that are kept, and the dev set. 0 without a dev set: those of the released
    code. `trial`: each trial's own seed does."""

    @property
    def draws_by_name(self) -> bool:
        return super().draws_by_name or self.tail_seed != 0


@DATASETS.register("cifar100_lt")
class Cifar100LT(OwnFormat, Downloadable):
    """10,847 training images at imbalance 100, 12,608 at 50, 19,573 at 10; 10,000 test images."""

    Options: ClassVar = Cifar100LTOptions
    summary: ClassVar = "CIFAR-100-LT, imbalance 10, 50 or 100; 100 classes, 32 px (on disk)"
    layout: ClassVar = """\
cifar100_lt: get the python version of CIFAR-100 from https://www.cs.toronto.edu/~kriz/cifar.html
  cifar-100-python/train   the archive, unpacked in --data-root
  cifar-100-python/test
  cifar-100-python/meta"""

    @staticmethod
    def listing(options: Cifar100LTOptions, root: Path) -> Listing:
        """The images that the rule keeps, class by class; all, where trials draw from them.

        Groups are those at imbalance 100, whatever the imbalance, as in the released code.
        """
        _, train = _images(root / FOLDER / "train")
        _, test = _images(root / FOLDER / "test")
        meta = root / FOLDER / "meta"
        names = _unpickled(meta).get("fine_label_names")
        if not isinstance(names, list) or len(names) != CLASSES:
            raise _not_official(meta, "it does not name 100 classes")
        rows, tail = long_tailed(train, options.imbalance, options.largest), None
        if options.draws_by_name:
            rows, tail = (
                list(range(len(train))),
                tuple(class_counts(options.imbalance, options.largest)),
            )
        return Listing(
            classes=tuple(map(str, names)),
            train=tuple(_item("train", row, train) for row in rows),
            tail=tail,
            test=tuple(_item("test", row, test) for row in range(len(test))),
            groups=count_groups(class_counts(100)),
        )

    @staticmethod
    def download(_options: Cifar100LTOptions, root: Path) -> None:
        """Have torchvision fetch the official archive and verify its checksums."""
        from torchvision.datasets import CIFAR100

        CIFAR100(str(root), download=True)

    @staticmethod
    def read(root: Path, path: str) -> NDArray[np.uint8]:
        """The image uint8 `[32, 32, 3]` at a listed path, `FILE::ROW`."""
        name, _, row = path.partition("::")
        pixels, _ = _images(root / name)
        return np.ascontiguousarray(pixels[int(row)].reshape(3, SIDE, SIDE).transpose(1, 2, 0))


def class_counts(imbalance: int, largest: int = LARGEST) -> list[int]:
    """n_c = int(largest f^(c / 99)) with f = 1 / imbalance, in class order (Cao et al., 2019);
    at least one, which only a smaller `largest` than 500 needs."""
    fraction = FRACTIONS[imbalance]
    return [max(1, int(largest * fraction ** (c / (CLASSES - 1.0)))) for c in range(CLASSES)]


def long_tailed(labels: Sequence[int], imbalance: int, largest: int) -> list[int]:
    """Rows of the long-tailed training set, class by class.

    As in the released code, one numpy generator with seed 0 shuffles the rows of each class, in
    class order, and the first n_c are taken.
    """
    chance = np.random.RandomState(0)
    of = np.array(labels)
    kept: list[int] = []
    for label, count in enumerate(class_counts(imbalance, largest)):
        rows = np.flatnonzero(of == label)
        chance.shuffle(rows)
        kept += rows[:count].tolist()
    return kept


def _item(name: str, row: int, labels: Sequence[int]) -> Item:
    return Item(path=f"{FOLDER}/{name}::{row}", label=labels[row])


def _images(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels `[n, 3072]` and labels of one official file."""
    required(path, Cifar100LT.layout)
    return _images_of(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _images_of(path: Path, _changed: int) -> tuple[NDArray[np.uint8], list[int]]:
    content = _unpickled(path)
    pixels, labels = content.get("data"), content.get("fine_labels")
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2):
        raise _not_official(path, "it has no table of pixels")
    if not isinstance(labels, list) or pixels.shape != (len(labels), 3 * SIDE * SIDE):
        raise _not_official(path, "its labels do not fit its pixels")
    for row, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < CLASSES:
            raise _not_official(path, f"the label {label!r} of row {row} is outside 0 to 99")
    return pixels, labels


_RECONSTRUCT = np.empty(0).__reduce__()[0]
"""What numpy's pickles call to make an array. Its module has moved between versions of numpy."""

_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Loads plain values and numpy arrays, and refuses anything else that a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}")
        return _KNOWN[module, name]


def _unpickled(path: Path) -> dict[str, Any]:
    with required(path, Cifar100LT.layout).open("rb") as file:
        try:
            content = _ArraysOnly(file, encoding="latin1").load()  # written by Python 2
        except Exception as error:  # a damaged pickle may raise anything
            raise _not_official(path, str(error)) from error
    if not isinstance(content, dict):
        raise _not_official(path, "it is not a table")
    return content


def _not_official(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is not the official CIFAR-100 file ({reason}); get it again, see `harness data "
        "check cifar100_lt`."
    )
