"""Formats of image files, against PIL."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.images import first_of, listed, packed, picture, tree

from harness.data.decode import BadImage, Source, decoded
from harness.errors import UserError


def read(path, **source):
    return decoded(Source(path.parent, **source), path.name)


def test_a_16_bit_png_is_scaled_and_not_cut(tmp_path):
    levels = np.array([[0, 257, 25700, 65535, 300]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png")[0, :, 0].tolist() == [0, 1, 100, 255, 1]
    assert read(tmp_path / "x.png").shape == (1, 5, 3)


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGBA", "1", "CMYK"])
def test_modes_become_rgb(tmp_path, mode):
    rgb = picture(0)
    source = rgb.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else rgb.convert(mode)
    expected = np.asarray(source.convert("RGB"))
    if mode in ("LA", "RGBA"):  # invisible, and yet a photo's own pixels
        source.putalpha(0)
    name = "x.tif" if mode == "CMYK" else "x.png"
    source.save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), expected)


def test_a_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path):
    picture(0).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    error = read(tmp_path / "x.jpg").astype(int) - np.asarray(picture(0)).astype(int)
    assert np.abs(error).mean() < 4


def test_a_turned_photo_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows of the file are columns, from right to left
    picture(0).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), np.rot90(np.asarray(picture(0)), k=-1))


@pytest.mark.parametrize(
    "content,reason",
    [
        (b"", "empty"),
        (b"no image at all", "not an image"),
        (None, "no such file"),
        ("cut", "truncated"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, content, reason):
    path = tmp_path / "x.jpg"
    if content == "cut":
        picture(0, 200, 200).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BadImage, match=reason):
        read(path)


def test_bands_of_a_tiff_are_chosen_and_scaled_once_for_the_dataset(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    values = rng.integers(0, 10000, (12, 20, 20, 13), dtype=np.uint16)
    for number, image in enumerate(values):
        place = tmp_path / "data" / ("a" if number % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            place / f"{number}.tif", image, photometric="minisblack", planarconfig="contig"
        )
    found = packed(tmp_path / "data", tmp_path / "packs", bands=(12, 3))
    assert found.info.channels == 2
    scaling = found.info.scaling
    assert scaling.low == pytest.approx([200, 200], abs=150)
    assert scaling.high == pytest.approx([9800, 9800], abs=150)
    items = listed(tmp_path / "data").train
    first = values[int(items[0].path.split("/")[1].removesuffix(".tif"))][:, :, [12, 3]]
    share = (first - np.array(scaling.low)) / (np.array(scaling.high) - np.array(scaling.low))
    expected = np.rint(share.clip(0, 1) * 255)
    assert np.abs(expected - first_of(found)).max() <= 1
    assert found.pixels.dtype == np.uint8


def test_a_missing_band_is_said(tmp_path):
    tree(tmp_path / "data", {"a": 2, "b": 2})
    with pytest.raises(UserError, match=r"png: band 5 was chosen of 3.*--on-bad-image skip"):
        packed(tmp_path / "data", tmp_path / "packs", bands=(5,))


@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_places_in_a_palette_are_no_bands(tmp_path, suffix):
    if suffix == "tif":
        pytest.importorskip("tifffile")
    path = tmp_path / f"x.{suffix}"
    picture(0).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    with pytest.raises(BadImage, match="are places in a palette, which has no bands; leave data"):
        read(path, bands=(0,))
    assert read(path).shape == (20, 24, 3)
