"""What a dataset is, and the registry of all of them.

Owns: the contract of a file in `harness/datasets/`. Must not know: any dataset by name, file
formats, models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Dataset
from harness.data.listing import Listing
from harness.registry import Registry
from harness.spec import Frozen

OptionsT = TypeVar("OptionsT", bound=Frozen)
OptionsOut = TypeVar("OptionsOut", bound=Frozen, covariant=True)
OptionsIn = TypeVar("OptionsIn", bound=Frozen, contravariant=True)


class Described(Protocol[OptionsOut]):
    """What every dataset says about itself. Datasets are classes without instances: the members
    are class attributes and static methods."""

    @property
    def Options(self) -> type[OptionsOut]:
        """Its own settings, with their defaults."""

    @property
    def summary(self) -> str:
        """One line for `harness list datasets`."""


@runtime_checkable
class DrawnDataset(Described[OptionsT], Protocol[OptionsT]):
    """A dataset that is computed, with no files."""

    def load(self, options: OptionsT) -> Dataset:
        """All of its images."""


@runtime_checkable
class FileDataset(Described[OptionsT], Protocol[OptionsT]):
    """A dataset on disk. See `FileReader` and `Downloadable` for what it may offer besides."""

    @property
    def layout(self) -> str:
        """What to download from its official page, and where to put it."""

    def listing(self, options: OptionsT, root: Path) -> Listing:
        """Read the names and labels of all images; none is opened.

        Raises:
            MissingData: the files are not there.
            UserError: a list cannot be read; names the file and the line.
        """


@runtime_checkable
class FileReader(Protocol):
    """A dataset on disk with a file format of its own."""

    def read(self, root: Path, path: str) -> NDArray[np.uint8]:
        """Pixels `[h, w, 3]` at a listed path, `file::member`."""


@runtime_checkable
class Downloadable(Protocol[OptionsIn]):
    """A dataset on disk that torchvision can download."""

    def download(self, options: OptionsIn, root: Path) -> None:
        """Call torchvision's class for what is not there yet."""


AnyDataset: TypeAlias = DrawnDataset[Any] | FileDataset[Any]

DATASETS: Registry[AnyDataset] = Registry("dataset", "harness.datasets")
