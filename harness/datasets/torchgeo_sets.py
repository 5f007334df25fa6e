"""`torchgeo:NAME`: the classification sets of torchgeo, from files that the user has.

Owns: which sets these are, the arguments of their official parts, and the bands that make RGB. Must
not know: packs, models. torchgeo is imported when files are listed, and downloads nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from harness.data.contract import DATASETS, FileDataset
from harness.data.listing import Listing
from harness.datasets.library_sets import (
    Arguments,
    LibrarySet,
    OnePart,
    Part,
    ThreeParts,
    TwoParts,
    built,
    found_in,
    listed,
    relative,
)
from harness.errors import UserError

FAMILY = "torchgeo"
TIF = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
RGB = (3, 2, 1)
"""B04, B03, B02 among Sentinel-2's bands, as torchgeo's EuroSAT orders them."""


def _parts(*names: str) -> dict[str, dict[str, JsonValue]]:
    keys = ("train", "val", "test") if len(names) == 3 else ("train", "test")
    return {key: {"split": name} for key, name in zip(keys, names, strict=True)}


def _lists(beginning: str) -> tuple[str, ...]:
    return tuple(f"{beginning}-{part}.txt" for part in ("train", "val", "test"))


_THREE: dict[str, Any] = {**_parts("train", "val", "test"), "options": ThreeParts}

SETS = (
    *(
        LibrarySet(
            name=name,
            what=f"10 land uses{more}, B04, B03, B02 of 13 bands as RGB",
            needs=(*_lists(beginning), TIF),
            bands=RGB,
            **_THREE,
        )
        for name, more, beginning in (
            ("EuroSAT", "", "eurosat"),
            ("EuroSATSpatial", " split by longitude", "eurosat-spatial"),
            ("EuroSAT100", ", 100 images", "eurosat-100"),
        )
    ),
    LibrarySet(
        name="UCMerced",
        what="21 land uses",
        needs=(*_lists("uc_merced"), "UCMerced_LandUse/Images"),
        **_THREE,
    ),
    LibrarySet(
        name="RESISC45",
        what="45 scenes",
        needs=(*_lists("resisc45"), "NWPU-RESISC45"),
        **_THREE,
    ),
    LibrarySet(
        name="FireRisk",
        what="7 levels of fire risk",
        needs=("FireRisk/train", "FireRisk/val"),
        options=TwoParts,
        **_parts("train", "val"),  # type: ignore[arg-type]
    ),
    LibrarySet(
        name="PatternNet",
        what="38 scenes, no split",
        needs=("PatternNet/images",),
        train={},
        options=OnePart,
    ),
)

_REASONS = {
    "several labels for one image": (
        *("BigEarthNet", "BigEarthNetV2", "TreeSatAI", "MillionAID", "SeasoNet"),
        *("CopernicusBenchBigEarthNetS1", "CopernicusBenchBigEarthNetS2"),
    ),
    "detection": (
        *("COWCDetection", "DIOR", "DOTA", "FAIR1M", "VHR10", "SODAA", "EverWatch", "IDTReeS"),
        *("NASAMarineDebris", "ReforesTree", "ForestDamage"),
    ),
    "segmentation": (
        *("LoveDA", "LandCoverAI", "LandCoverAI100", "DeepGlobeLandCover", "GID15", "Potsdam2D"),
        *("Vaihingen2D", "ETCI2021", "CloudCoverDetection", "InriaAerialImageLabeling", "DFC2022"),
        *("SEN12MS", "PASTIS", "MMFlood", "ZueriCrop", "SpaceNet", "XView2", "CaFFe", "GeoNRW"),
    ),
    "pairs of images": ("LEVIRCD", "LEVIRCDPlus", "OSCD", "CaBuAr", "ChaBuD"),
    "regression": (
        *("TropicalCyclone", "USAVars", "SKIPPD", "COWCCounting", "SustainBenchCropYield"),
        *("BioMassters", "DigitalTyphoon", "WesternUSALiveFuelMoisture"),
    ),
    "captions": ("SkyScript",),
    "images with sound": ("ADVANCE",),
    "points without images": ("EDDMapS", "INaturalist"),
    "an HDF5 file of radar and optical bands that is not read here": ("So2Sat",),
    "radar without RGB bands": ("QuakeSet", "CopernicusBenchEuroSATS1"),
}


class _GeoSet(FileDataset):
    row: ClassVar[LibrarySet]

    @classmethod
    def listing(cls, options: Any, root: Path) -> Listing:
        """The official parts, sorted by path; no image is opened.

        Raises:
            UserError: torchgeo is not installed.
        """
        found_in(cls.row, FAMILY, root)
        if importlib.util.find_spec("torchgeo") is None:
            raise UserError(
                f"Dataset {FAMILY}:{cls.row.name} is listed by torchgeo, which is not installed: "
                "`pip install 'peft-hpo-harness[geo]'`."
            )
        return listed(cls.row, FAMILY, options, root, functools.partial(cls._part, root))

    @classmethod
    def _part(cls, root: Path, given: Arguments) -> Part:
        make = getattr(importlib.import_module("torchgeo.datasets"), cls.row.name)
        official = built(make, cls.row, FAMILY, root=str(root), **given)
        images = sorted((relative(root, path), int(label)) for path, label in official.imgs)
        return Part(images, tuple(map(str, official.classes)))


def _register() -> None:
    for row in SETS:
        name = f"{FAMILY}:{row.name}"
        there = "".join(f"\n  {needed}" for needed in row.needs)
        body: dict[str, Any] = {
            "__module__": __name__,
            "__doc__": f"{row.what}.",
            "row": row,
            "Options": row.options,
            "summary": f"torchgeo's {row.name}: {row.what} (on disk, needs torchgeo)",
            "layout": f"{name}: get what torchgeo.datasets.{row.name} reads ({row.said()}), "
            f"unpacked in --data-root{there}",
        }
        DATASETS.register(name)(type(row.name, (_GeoSet,), body))
    for reason, names in _REASONS.items():
        for each in names:
            DATASETS.refuse(
                f"{FAMILY}:{each}",
                f"torchgeo's {each} is no set of RGB images with one class each ({reason}): "
                "choose a classification set, see `harness list datasets`.",
            )


_register()
