"""`eurosat`: Sentinel-2 patches of 10 land uses, as RGB or with all 13 bands.

torchvision's EuroSAT has the RGB images only, in a folder of its own choice. Owns: folders, the
order of bands, and the split, since EuroSAT ships none. Must not know: packs, models.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from pydantic import model_validator

from harness.data.contract import DATASETS, Downloadable
from harness.data.listing import Item, Listing
from harness.data.long_tail import LongTail
from harness.datasets.reading import absent, known_class_folders
from harness.errors import UserError, unknown
from harness.spec import Seed

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)

BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07"),
    *("B08", "B09", "B10", "B11", "B12", "B8A"),
)
"""In the order of the files, where B8A comes last, not after B08."""

FOLDERS = {
    "rgb": ("EuroSAT_RGB", "2750", "eurosat/2750"),
    "ms": ("EuroSAT_MS", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"),
}
"""What the archives of today and of 2018 unpack to, and torchvision's; the images are the same."""

TEST_SHARE = 0.2


class EuroSatOptions(LongTail):
    """RGB or multispectral images, and which of their bands."""

    kind: Literal["rgb", "ms"] = "rgb"
    bands: str = "all"
    """For `kind` ms: `all`, or names in the order wanted, as in B04,B03,B02."""
    split_seed: Seed = 0
    """Draws the fifth of each class that is the test set."""

    @model_validator(mode="after")
    def _known_bands(self) -> EuroSatOptions:
        self.band_indices()
        return self

    def band_indices(self) -> tuple[int, ...] | None:
        """Indices of the bands in a file, or None for RGB.

        Raises:
            UserError: a band does not exist or is named twice, or RGB is asked for its bands.
        """
        if self.kind == "rgb":
            if self.bands != "all":
                raise UserError(f"bands {self.bands!r}: only kind=ms has bands to choose from.")
            return None
        names = BANDS if self.bands == "all" else tuple(self.bands.split(","))
        for place, name in enumerate(names):
            if name not in BANDS:
                raise unknown("band", name, BANDS)
            if name in names[:place]:
                raise UserError(f"bands {self.bands!r}: {name} is there twice; name it once.")
        return tuple(map(BANDS.index, names))


@DATASETS.register("eurosat")
class EuroSat(Downloadable):
    """27,000 images of 64 px, 2,000 to 3,000 of a class; a fifth of each is the test set."""

    Options: ClassVar = EuroSatOptions
    summary: ClassVar = "EuroSAT, RGB or 13 bands, 10 classes, long-tailed on request (on disk)"
    layout: ClassVar = """\
eurosat: get EuroSAT_RGB.zip or EuroSAT_MS.zip by way of https://github.com/phelber/EuroSAT
  EuroSAT_RGB/<class>/*.jpg
  EuroSAT_MS/<class>/*.tif    13 bands, data.options.kind=ms"""

    @staticmethod
    def listing(options: EuroSatOptions, root: Path) -> Listing:
        """All images, split within each class; RGB and multispectral images are split alike."""
        there = _there(options, root)
        if not there:
            raise absent(root / FOLDERS[options.kind][0], EuroSat.layout)
        notes: list[str] = []
        items = known_class_folders(root, there[0], CLASSES, EuroSat.layout, notes)
        train: list[Item] = []
        test: list[Item] = []
        for label in range(len(CLASSES)):
            members = [item for item in items if item.label == label]
            drawn = sorted(members, key=lambda item: _lot(item, options.split_seed))
            chosen = set(drawn[: round(TEST_SHARE * len(members))])
            train += [item for item in members if item not in chosen]
            test += [item for item in members if item in chosen]
        return Listing(
            classes=CLASSES,
            train=tuple(train),
            test=tuple(test),
            bands=options.band_indices(),
            notes=tuple(notes),
        )

    @staticmethod
    def download(options: EuroSatOptions, root: Path) -> None:
        """Have torchvision fetch the RGB images.

        Raises:
            UserError: those with 13 bands are asked for.
        """
        from torchvision.datasets import EuroSAT as Official

        if options.kind == "ms":
            raise UserError(
                "torchvision downloads EuroSAT's RGB images only: get EuroSAT_MS.zip by hand, as "
                "`harness data check eurosat` says."
            )
        if not _there(options, root):
            Official(str(root), download=True)


def _there(options: EuroSatOptions, root: Path) -> list[str]:
    return [folder for folder in FOLDERS[options.kind] if (root / folder).is_dir()]


def _lot(item: Item, seed: int) -> bytes:
    """A sort key drawn from the image's name alone.

    If an image is missing, at most one other changes sides.
    """
    name = PurePosixPath(item.path).stem
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
