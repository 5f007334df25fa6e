"""Folders of small images, and their listings and packs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from harness.console import SILENT
from harness.data.pack import pack
from harness.data.packed import PackRequest, load_packed, pack_of
from harness.datasets.folder import Folder, FolderOptions
from harness.spec import DataSpec, validated

SIZE = 16


def picture(seed, height=20, width=24):
    """Smooth enough that JPEG keeps it, and different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def tree(root, counts, *, suffix=".png", start=0):
    """`<class>/<number>` with so many images of each class; all differ."""
    seed = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(seed).save(root / name / f"{number}{suffix}")
            seed += 1
    return root


def photographs(root, counts):
    """`<split>/<class>/<file>` as cameras and people leave them, of `counts[class]` (train, test).

    Sizes, formats and modes differ: JPEG and PNG, grey, with a palette, transparent, or turned by
    their EXIF data. A class has a colour of its own, so that there is something to learn.
    """
    seed = 0
    for hue, (name, parts) in enumerate(counts.items()):
        colour = Image.new("HSV", (1, 1), (85 * hue, 160, 200)).convert("RGB").getpixel((0, 0))
        for split, count in zip(("train", "test"), parts, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = picture(seed, 40 + 7 * (seed % 5), 60 + 11 * (seed % 3))
                image = Image.blend(image, Image.new("RGB", image.size, colour), 0.5)
                _as_found(image, folder / f"IMG {number:04}", seed % 6)
                seed += 1
    return root


def _as_found(image, path, kind):
    """An image in one of six ways to save it."""
    if kind < 3:
        turned = Image.Exif()
        turned[0x0112] = (1, 6, 3)[kind]
        image.save(path.with_suffix((".jpg", ".JPG", ".jpeg")[kind]), exif=turned, quality=90)
    else:
        image.convert(("L", "P", "RGBA")[kind - 3]).save(path.with_suffix(".png"))


def two_splits(root, train=None, test=None):
    tree(root / "train", train or {"a": 6, "b": 4})
    tree(root / "test", test or {"a": 3, "b": 3}, start=1000)
    return root


def listed(root, **options):
    return Folder.listing(FolderOptions(**options), root)


def packed(root, folder, *, size=16, scale=0.08, on_bad="stop", console=SILENT, **options):
    return pack(
        listed(root, **options),
        name="folder",
        root=root,
        folder=folder,
        size=size,
        scale=scale,
        on_bad=on_bad,
        console=console,
    )


def dataset(root, folder, console=SILENT, **options):
    chosen = validated(FolderOptions, options, source="test")
    asked = PackRequest("folder", chosen.model_dump_json(), SIZE, str(root), str(folder))
    sha256 = pack_of(asked, console).sha256
    spec = DataSpec(name="folder", options=chosen.model_dump(mode="json"), sha256=sha256)
    return load_packed(spec, SIZE, str(folder))


def first_of(found):
    height, width = found.index.sizes[0]
    count = height * width * found.info.channels
    return found.pixels[:count].reshape(height, width, found.info.channels).astype(int)
