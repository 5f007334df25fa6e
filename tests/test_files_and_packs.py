"""Images on disk: formats, lists, packs and views, against PIL and torchvision."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from harness.cli import main
from harness.data.crops import Where, by_image, by_matrix, plain_boxes, random_boxes
from harness.data.dataset import epoch_batches, split
from harness.data.decode import BadImage, Source, decoded
from harness.data.listing import Item, Listing, MissingData
from harness.data.long_tail import LongTail, kept, tail_counts, with_tail_file
from harness.data.pack import pack, reduced
from harness.data.pack_format import open_pack, verify
from harness.data.packed import load_packed, pack_of
from harness.datasets.folder import Folder, FolderOptions
from harness.errors import UserError
from harness.rng import generator
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import DataSpec, Recipe, TrialRequest, validated

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


def two_splits(root, train=None, test=None):
    tree(root / "train", train or {"a": 6, "b": 4})
    tree(root / "test", test or {"a": 3, "b": 3}, start=1000)
    return root


def listed(root, **options):
    return Folder.listing(FolderOptions(**options), root)


def packed(root, folder, *, side=18, on_bad="stop", **options):
    return pack(
        listed(root, **options), name="folder", root=root, folder=folder, side=side, on_bad=on_bad
    )


def dataset(root, folder, **options):
    chosen = validated(FolderOptions, options, source="test")
    sha256 = pack_of(
        "folder", chosen.model_dump_json(), SIZE, str(root), str(folder), "stop"
    ).sha256
    spec = DataSpec(name="folder", options=chosen.model_dump(mode="json"), sha256=sha256)
    return load_packed(spec, SIZE, str(folder))


def read(path, **source):
    return decoded(Source(path.parent, **source), path.name)


# formats


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
    got = found.pixels[: expected.size].reshape(expected.shape)
    assert np.abs(reduced(expected.astype(np.uint8), 18).astype(int) - first_of(found)).max() <= 1
    assert got.dtype == np.uint8


def first_of(found):
    height, width = found.index.sizes[0]
    count = height * width * found.info.channels
    return found.pixels[:count].reshape(height, width, found.info.channels).astype(int)


def test_a_missing_band_is_said(tmp_path):
    tree(tmp_path / "data", {"a": 2, "b": 2})
    with pytest.raises(UserError, match=r"png: band 5 was chosen of 3.*--on-bad-image skip"):
        packed(tmp_path / "data", tmp_path / "packs", bands=(5,))


# packs


def test_a_pack_holds_every_image_where_its_index_says(tmp_path):
    root = two_splits(tmp_path / "data")
    listing = listed(root)
    found = packed(root, tmp_path / "packs", side=64)
    items = [*listing.train, *listing.test]
    for row, item in enumerate(items):
        height, width = found.index.sizes[row]
        start = found.index.offsets[row]
        pixels = found.pixels[start : start + height * width * 3].reshape(height, width, 3)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(root / item.path)))
        assert found.index.labels[row] == item.label
    assert found.index.is_test.tolist() == [False] * 10 + [True] * 6
    train = np.stack([np.asarray(Image.open(root / item.path)) for item in listing.train]) / 255
    assert found.info.mean == pytest.approx(train.mean(axis=(0, 1, 2)))
    assert found.info.std == pytest.approx(train.std(axis=(0, 1, 2)))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (100, 20), (10, 90), (18, 18), (5, 7)])
def test_reducing_is_torchvisions_resize_with_a_limit_for_long_images(shape):
    side = 18
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    small = reduced(pixels, side)
    assert min(small.shape[:2]) <= side and max(small.shape[:2]) <= 2 * side
    if min(shape) <= side and max(shape) <= 2 * side:
        np.testing.assert_array_equal(small, pixels)
    elif max(shape) <= 2 * min(shape):
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        expected = v2.Resize(side, antialias=True)(tensor).permute(1, 2, 0)
        np.testing.assert_array_equal(small, expected.numpy())
    else:
        assert max(small.shape[:2]) == 2 * side
        assert small.shape[0] / small.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.15)


def test_a_pack_is_found_again_and_made_anew_when_a_file_changes(tmp_path, capfd):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    first = packed(root, packs)
    stamp = (first.folder / "pack.json").stat().st_mtime_ns
    assert packed(root, packs).folder == first.folder
    assert (first.folder / "pack.json").stat().st_mtime_ns == stamp
    assert "changed" not in capfd.readouterr().err
    picture(77).save(root / "train/a/0.png")
    second = packed(root, packs)
    assert second.info.sha256 != first.info.sha256
    assert "files of folder have changed" in capfd.readouterr().err
    os.utime(root / "train/a/0.png")  # the same bytes, at another time
    assert packed(root, packs).info.sha256 == second.info.sha256
    assert not list(packs.glob("*.part"))


def test_what_a_killed_process_left_is_no_pack(tmp_path):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    left = packs / "folder-18-new.part"
    left.mkdir(parents=True)
    (left / "pack.json").write_text("{}")
    (left / "pixels.bin").write_bytes(b"half")
    found = packed(root, packs)
    assert verify(found.folder) and not left.exists()


def test_damage_is_noticed(tmp_path):
    found = packed(two_splits(tmp_path / "data"), tmp_path / "packs")
    assert verify(found.folder)
    file = found.folder / "pixels.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert not verify(found.folder)
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged: delete it"):
        open_pack(found.folder)


def test_a_bad_image_stops_or_is_left_out_and_known(tmp_path, capfd):
    root, packs = two_splits(tmp_path / "data"), tmp_path / "packs"
    whole = packed(root, packs)
    (root / "train/a/0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/a/0.png: the file is empty.*--on-bad-image skip"):
        packed(root, packs)
    assert not list(packs.glob("*.part"))
    rest = packed(root, packs, on_bad="skip")
    assert rest.info.bad == {"train/a/0.png": "the file is empty"}
    assert "1 images of folder cannot be read" in capfd.readouterr().err
    assert len(rest.index.labels) == len(whole.index.labels) - 1
    assert rest.info.sha256 != whole.info.sha256
    stamp = (rest.folder / "pack.json").stat().st_mtime_ns
    assert packed(root, packs, on_bad="skip").folder == rest.folder
    assert (rest.folder / "pack.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="the file is empty"):
        packed(root, packs)


def test_boxes_are_cut_at_the_images_edge_and_refused_beyond_it(tmp_path):
    picture(0, 20, 24).save(tmp_path / "x.png")
    inside, edge = (4, 5, 10, 15), (-3, 15, 6, 40)
    items = (Item("x.png", 0, inside), Item("x.png", 1, edge))
    made = Listing(classes=("a", "b"), train=items, test=items)
    found = pack(made, name="boxes", root=tmp_path, folder=tmp_path / "packs", side=64)
    whole = np.asarray(picture(0, 20, 24))
    np.testing.assert_array_equal(first_of(found), whole[5:15, 4:10])
    assert found.index.sizes[1].tolist() == [5, 6]
    beyond = Listing(classes=("a",), train=(Item("x.png", 0, (30, 0, 40, 9)),), test=items)
    with pytest.raises(UserError, match=r"outside its 24 x 20 pixels"):
        pack(beyond, name="boxes", root=tmp_path, folder=tmp_path / "packs", side=64)


def test_a_dataset_may_read_a_format_of_its_own(tmp_path):
    np.save(tmp_path / "all.npy", np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3))
    items = tuple(Item(f"all.npy::{row}", row % 2) for row in range(4))
    listing = Listing(classes=("a", "b"), train=items[:2], test=items[2:])

    def read(root, path):
        file, _, row = path.partition("::")
        return np.load(root / file)[int(row)]

    def found():
        return pack(listing, name="own", root=tmp_path, folder=tmp_path / "p", side=9, read=read)

    first = found()
    assert first.pixels.tolist() == list(range(48))
    np.save(tmp_path / "all.npy", np.zeros((4, 2, 2, 3), dtype=np.uint8))
    assert found().info.sha256 != first.info.sha256


# views


@pytest.fixture(scope="module")
def noise():
    """Images of many sizes in a flat tensor: the hardest pixels to resample alike."""
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(17, 90, (60, 2), generator=rng)
    ends = (sizes.prod(dim=1) * 3).cumsum(0)
    flat = torch.randint(0, 256, (int(ends[-1]),), dtype=torch.uint8, generator=rng)
    where = Where(offsets=ends - sizes.prod(dim=1) * 3, sizes=sizes, borders=torch.zeros(60).long())
    images = [
        part.view(*size, 3).permute(2, 0, 1)
        for part, size in zip(
            flat.split((sizes.prod(dim=1) * 3).tolist()), sizes.tolist(), strict=True
        )
    ]
    return flat, where, images


def test_training_views_are_torchvisions_crops_in_both_forms(noise):
    flat, where, images = noise
    boxes = random_boxes(where.sizes, SIZE, 0.08, generator(0, "test"))
    one = by_image(flat, 3, where, boxes, SIZE)
    other = by_matrix(flat, 3, where, boxes, SIZE)
    for image, view, box, flip in zip(images, one, boxes.cut.tolist(), boxes.mirrored, strict=True):
        expected = v2.functional.resized_crop(image, *box, [SIZE, SIZE], antialias=True)
        torch.testing.assert_close(view, expected.flip(2) if flip else expected, rtol=0, atol=0)
    assert (one.int() - other.int()).abs().max() <= 1


def test_test_views_are_torchvisions_in_both_forms(noise):
    flat, where, images = noise
    transform = v2.Compose([v2.Resize(SIZE * 8 // 7, antialias=True), v2.CenterCrop(SIZE)])
    boxes = plain_boxes(where.sizes, SIZE)
    one = by_image(flat, 3, where, boxes, SIZE)
    expected = torch.stack([transform(image) for image in images])
    torch.testing.assert_close(one, expected, rtol=0, atol=0)
    assert (one.int() - by_matrix(flat, 3, where, boxes, SIZE).int()).abs().max() <= 1


@pytest.mark.parametrize("shape", [(40, 60), (64, 64), (15, 90)])
def test_crops_follow_torchvisions_law(shape):
    count = 3000
    cut = random_boxes(torch.tensor([shape]).repeat(count, 1), SIZE, 0.08, generator(1, "t")).cut
    torch.manual_seed(0)
    image = torch.empty(3, *shape)
    reference = [v2.RandomResizedCrop(SIZE).make_params([image]) for _ in range(count)]
    for name, own in (
        ("area", cut[:, 2] * cut[:, 3]),
        ("ratio", cut[:, 3].double() / cut[:, 2]),
        ("top", cut[:, 0]),
        ("left", cut[:, 1]),
    ):
        other = [
            {
                "area": p["height"] * p["width"],
                "ratio": p["width"] / p["height"],
                "top": p["top"],
                "left": p["left"],
            }[name]
            for p in reference
        ]
        assert ks_2samp(own.numpy(), other).pvalue > 0.01, name
    assert ((cut[:, 0] + cut[:, 2] <= shape[0]) & (cut[:, 1] + cut[:, 3] <= shape[1])).all()


def test_half_of_the_crops_are_mirrored():
    boxes = random_boxes(torch.tensor([[20, 20]]).repeat(2000, 1), SIZE, 0.08, generator(2, "t"))
    assert 0.45 < boxes.mirrored.float().mean() < 0.55


def test_a_border_is_black_in_the_files_own_pixels_in_both_forms(tmp_path):
    root = two_splits(tmp_path / "data")  # 20 x 24, reduced to 18 x 21
    plain, masked = (dataset(root, tmp_path / "packs", border_mask=border) for border in (0, 4))
    assert len(list((tmp_path / "packs").glob("folder-18-*"))) == 1
    store, rows = masked.train.store, masked.train.rows
    assert store.where.borders[rows].unique().tolist() == [4]  # 4 * 18 / 20, to whole pixels
    views, full = masked.train.plain(), plain.train.plain()
    inside = views[:, :, 3:-3, 3:-3]  # the view is the middle 16 of 18 rows, and of 21 columns
    torch.testing.assert_close(inside[..., 1:-1], full[:, :, 3:-3, 4:-4], rtol=0, atol=0)
    assert views[:, :, :3].max() == 0 and views[:, :, -3:].max() == 0
    boxes = plain_boxes(store.where.sizes[rows], SIZE)
    other = by_matrix(store.flat, 3, store.where[rows], boxes, SIZE)
    torch.testing.assert_close(views, other, rtol=0, atol=1)


def test_batches_depend_on_seed_and_epoch_alone(tmp_path):
    data = dataset(two_splits(tmp_path / "data"), tmp_path / "packs")
    recipe = Recipe(batch_size=4)

    def pixels(seed, epoch):
        return torch.cat([batch.pixels for batch in epoch_batches(data.train, recipe, seed, epoch)])

    assert pixels(0, 0).shape == (10, 3, SIZE, SIZE) and pixels(0, 0).dtype == torch.uint8
    torch.testing.assert_close(pixels(0, 0), pixels(0, 0), rtol=0, atol=0)
    assert (pixels(0, 0) != pixels(0, 1)).any() and (pixels(0, 0) != pixels(1, 0)).any()
    plain = recipe.model_copy(update={"augment": "none"})
    order = torch.arange(10)
    batch = data.train.augmented(order, plain, generator(0, "t"))
    torch.testing.assert_close(batch.pixels, data.train.plain(), rtol=0, atol=0)
    parts = torch.cat([part.plain() for part in data.train.parts(3)])
    torch.testing.assert_close(parts, data.train.plain(), rtol=0, atol=0)


@pytest.mark.gpu
def test_batches_of_a_streamed_pack_are_those_of_a_whole_one_and_nothing_is_waited_for(
    tmp_path, monkeypatch
):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    data, gpu = dataset(two_splits(tmp_path / "data"), tmp_path / "packs"), torch.device("cuda")
    whole = data.train.to(gpu)
    monkeypatch.setattr("harness.data.packed.SHARE_OF_MEMORY", 0.0)
    streamed = dataset(tmp_path / "data", tmp_path / "packs").train.to(gpu)
    assert whole.store.flat.is_cuda and not streamed.store.flat.is_cuda
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        one, other = (
            list(epoch_batches(images, Recipe(batch_size=4), 0, 0)) for images in (whole, streamed)
        )
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left.pixels, right.pixels) and torch.equal(left.labels, right.labels)


# long tails


def test_long_tails_are_the_formulas_and_never_more_than_there_is():
    exp = tail_counts(LongTail(imbalance=100), [500] * 100)
    assert exp.tolist() == [int(500 * 0.01 ** (c / 99)) for c in range(100)]
    assert exp.sum() == 10847 and (exp[0], exp[-1]) == (500, 5)
    pareto = tail_counts(LongTail(imbalance=50, tail="pareto"), [250] * 7)
    assert (pareto[0], pareto[-1]) == (250, 5) and (np.diff(pareto) < 0).all()
    assert pareto[1] == int(250 * 2 ** (-np.log(50) / np.log(7)))
    assert tail_counts(LongTail(imbalance=2), [100, 3, 100]).tolist() == [100, 3, 50]
    assert tail_counts(LongTail(), [7, 9]).tolist() == [7, 9]
    with pytest.raises(UserError, match="exp or pareto"):
        tail_counts(LongTail(imbalance=2, tail="counts.csv"), [7, 9])


def test_a_longer_tail_keeps_a_part_of_a_shorter_ones_images():
    labels = np.repeat(np.arange(3), 50)
    few, many = (kept(labels, np.array([50, n, n // 2]), seed=0) for n in (10, 30))
    assert np.bincount(labels[few]).tolist() == [50, 10, 5]
    assert set(few) < set(many)
    assert set(few) != set(kept(labels, np.array([50, 10, 5]), seed=1))


def test_tails_are_chosen_among_packed_images_and_groups_follow(tmp_path):
    root, packs = two_splits(tmp_path / "data", {"a": 12, "b": 12, "c": 12}), tmp_path / "packs"
    whole = dataset(root, packs)
    tailed = dataset(root, packs, imbalance=4.0, head_above=10, tail_below=4)
    assert torch.bincount(tailed.train.labels).tolist() == [12, 6, 3]
    assert tailed.groups == {"head": (0,), "medium": (1,), "tail": (2,)}
    assert len(tailed.test) == len(whole.test)
    assert len(list(packs.glob("folder-18-*"))) == 1


def test_a_tail_from_a_file(tmp_path):
    root = two_splits(tmp_path / "data")
    (root / "counts.csv").write_text("class,count\nb,2\n")
    options = FolderOptions(tail="counts.csv")
    listing = with_tail_file(listed(root), options, root)
    assert [item.label for item in listing.train] == [0] * 6 + [1] * 2
    for content, words in (
        ("class,count\nb,9\n", "line 2: b has 4 training images"),
        ("class,count\nx,1\n", "Unknown class 'x'"),
        ("klass,count\nb,1\n", "no column 'class'"),
    ):
        (root / "counts.csv").write_text(content)
        with pytest.raises(UserError, match=words):
            with_tail_file(listed(root), options, root)


# forms of a folder


def write_list(root, rows, name="split.csv"):
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])


def test_a_list_says_what_is_what(tmp_path):
    tree(tmp_path, {"x": 4, "y": 3})
    rows = [("x/0.png", 10, "train"), ("y/0.png", 9, "train"), ("x/1.png", 10, "test")]
    write_list(tmp_path, [*rows, ("y/1.png", 9, "val"), ("x/0.png", 10, "train")])
    listing = listed(tmp_path)
    assert listing.classes == ("9", "10")
    assert listing.train[:2] == (Item("x/0.png", 1), Item("y/0.png", 0))
    assert listing.test == (Item("x/1.png", 1),)
    assert ["left out" in note or "another line" in note for note in listing.notes] == [True] * 2
    table = pa.table(
        {"path": ["x/0.png", "x/1.png"], "label": ["p", "p"], "split": ["train", "test"]}
    )
    pq.write_table(table, tmp_path / "other.parquet")
    assert listed(tmp_path, list="other.parquet").classes == ("p",)


@pytest.mark.parametrize(
    "rows,options,words",
    [
        ([("x/0.png", "x", "trian")], {}, "line 2: Unknown split 'trian'. Did you mean 'train'"),
        (
            [("x/0.png", "q", "train")],
            {"classes": "names.txt"},
            "line 2: label 'q' is not in names",
        ),
        ([("x/0.png", "", "train")], {}, "line 2: write a value"),
        ([("x/0.png", "x", "train")], {}, "no test image"),
        ([("x/0.png", "x", ""), ("x/1.png", "x", "test")], {}, "line 2: no split is named"),
        ([("x/0.png", "x", "train"), ("x/1.png", "y", "test")], {}, "'y' has no training image"),
    ],
)
def test_mistakes_in_a_list_name_the_line(tmp_path, rows, options, words):
    tree(tmp_path, {"x": 4})
    (tmp_path / "names.txt").write_text("x\n")
    write_list(tmp_path, rows)
    with pytest.raises(UserError, match=words):
        listed(tmp_path, **options)


def test_a_listed_file_that_is_not_there_is_named(tmp_path):
    tree(tmp_path / "data", {"x": 2})
    write_list(tmp_path / "data", [("x/0.png", "x", "train"), ("x/9.png", "x", "test")])
    with pytest.raises(UserError, match=r"x/9.png: there is no such file"):
        packed(tmp_path / "data", tmp_path / "packs")


def test_trees_with_and_without_splits(tmp_path):
    root = two_splits(tmp_path / "one")
    (root / "train/a/notes.txt").write_text("no image")
    listing = listed(root)
    assert listing.classes == ("a", "b")
    assert (len(listing.train), len(listing.test)) == (10, 6)
    assert "1 files in train/a are no images" in listing.notes[0]
    os.rename(root / "test", root / "val")
    assert len(listed(root).test) == 6
    drawn = listed(tree(tmp_path / "two", {"b": 10, "a": 5, "only": 1}))
    assert drawn.classes == ("a", "b", "only")
    assert np.bincount([item.label for item in drawn.test]).tolist() == [1, 2]
    assert sum(item.label == 2 for item in drawn.train) == 1
    other = listed(tmp_path / "two", split_seed=1)
    assert set(other.test) != set(drawn.test)


def test_an_empty_root_is_refused(tmp_path):
    with pytest.raises(MissingData, match="data check folder"):
        listed(tmp_path)


def test_names_that_are_not_utf_8(tmp_path):
    root = tree(tmp_path / "data", {"a": 5, "b": 5})
    os.rename(root / "a/0.png", os.path.join(os.fsencode(root), b"a/caf\xe9.png"))
    os.rename(root / "b", os.path.join(os.fsencode(root), b"b\xe9"))
    found = packed(root, tmp_path / "packs")
    assert len(found.index.labels) == 10
    assert found.info.classes == ("a", "b\\xe9")
    with open(os.path.join(os.fsencode(root), b"a/caf\xe9.png"), "wb"):
        pass
    with pytest.raises(UserError, match=r"caf\\xe9.png: the file is empty"):
        packed(root, tmp_path / "packs")


def encoded(seed):
    file = io.BytesIO()
    picture(seed).save(file, "png")
    return file.getvalue()


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_webdataset_shards(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for part, name in enumerate(("train-0.tar", "train-1.tar", "test-0.tar")):
        with tarfile.open(root / name, "w") as tar:
            for number in range(4):
                add(tar, f"{number}.png", encoded(10 * part + number))
                label = json.dumps({"label": number % 2}) if part else str(number % 2)
                add(tar, f"{number}.{'json' if part else 'cls'}", label.encode())
    listing = listed(root)
    assert listing.classes == ("0", "1") and (len(listing.train), len(listing.test)) == (8, 4)
    assert listing.train[0] == Item("train-0.tar::0.png", 0)
    found = packed(root, tmp_path / "packs", side=64)
    np.testing.assert_array_equal(first_of(found), np.asarray(picture(0)))
    with tarfile.open(root / "train-2.tar", "w") as tar:
        add(tar, "7.png", encoded(7))
    with pytest.raises(UserError, match=r"train-2.tar: 7.png has neither .cls nor .json"):
        listed(root)


def write_arrow(table, file):
    """As `save_to_disk` does, in batches of 2 rows, with the leftovers of a `map` beside it."""
    file.parent.mkdir(parents=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (file.parent / "cache-0123456789abcdef.arrow").write_bytes(b"of a map")
    (file.parent / "state.json").write_text('{"_data_files": [{"filename": "' + file.name + '"}]}')


HUGGING_FACE = {
    "hub": (
        "data/{}-00000-of-00001.parquet",
        lambda table, file: pq.write_table(table, file, row_group_size=2),
    ),
    "save_to_disk": ("{}/data-00000-of-00001.arrow", write_arrow),
}


@pytest.mark.parametrize("form", HUGGING_FACE)
def test_a_hugging_face_folder(form, tmp_path):
    name, write = HUGGING_FACE[form]
    root = tmp_path / "data"
    (root / "data").mkdir(parents=True)
    features = {
        "image": {"_type": "Image"},
        "target": {"_type": "ClassLabel", "names": ["cat", "ant"]},
    }
    for part, split_name in enumerate(("train", "test")):
        rows = [{"bytes": encoded(10 * part + i), "path": None} for i in range(5)]
        table = pa.table({"image": rows, "target": [0, 1, 0, 1, 1]})
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        write(table.replace_schema_metadata(meta), root / name.format(split_name))
    listing = listed(root)
    assert listing.classes == ("cat", "ant")  # in the file's order
    assert [item.label for item in listing.train] == [0, 1, 0, 1, 1]
    found = packed(root, tmp_path / "packs", side=64)
    start, (height, width) = found.index.offsets[4], found.index.sizes[4]
    pixels = found.pixels[start : start + height * width * 3].reshape(height, width, 3)
    np.testing.assert_array_equal(pixels, np.asarray(picture(4)))
    broken = root / name.format("zzz")
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"no table")
    with pytest.raises(UserError, match=f"{broken.name} cannot be read as a table"):
        listed(root)


def test_classes_and_groups_from_files(tmp_path):
    root = two_splits(tmp_path / "data")
    (root / "names.txt").write_text("b\na\n")
    (root / "groups.csv").write_text("class,group\na,common\nb,rare\n")
    listing = listed(root, classes="names.txt", groups="groups.csv")
    assert listing.classes == ("b", "a") and listing.groups == {"common": (1,), "rare": (0,)}
    (root / "groups.csv").write_text("class,group\na,common\n")
    with pytest.raises(UserError, match="class 'b' is in 0 groups"):
        listed(root, groups="groups.csv")


# trials


def on_disk(root, out, **values):
    runtime = Runtime(data_root=str(root), packs=str(out / "packs"))
    request = TrialRequest().with_values({"data": "folder", **values}, source="test")
    return resolve(request, runtime)


def test_a_trials_name_knows_the_pixels_and_not_where_they_lie(tmp_path):
    one = two_splits(tmp_path / "one")
    other = two_splits(tmp_path / "other")
    spec = on_disk(one, tmp_path)
    assert on_disk(other, tmp_path / "elsewhere").trial_id == spec.trial_id
    picture(5).save(other / "test/a/0.png")
    pack_of.cache_clear()
    assert on_disk(other, tmp_path / "elsewhere").trial_id != spec.trial_id
    assert on_disk(one, tmp_path, **{"data.options.imbalance": 2.0}).data.sha256 == spec.data.sha256


def test_drawn_data_keeps_the_names_of_its_trials():
    spec = resolve(TrialRequest(seed=3), Runtime())
    assert '"sha256"' not in json.dumps(json.loads(spec._canonical())["spec"]["data"])
    named = spec.model_copy(update={"data": spec.data.model_copy(update={"sha256": "0"})})
    assert named.trial_id != spec.trial_id
    assert named.over_seeds([3, 4])[0].trial_id == named.trial_id


def test_a_class_of_one_is_trained_on_and_one_without_test_images_is_named(tmp_path, capfd):
    root = two_splits(tmp_path / "data", {"a": 9, "b": 1, "c": 5}, {"a": 2, "b": 1})
    data = dataset(root, tmp_path / "packs")
    assert "Without a test image, so left out of test averages: c" in capfd.readouterr().err
    parts = split(data, DataSpec(), seed=0)
    assert parts.train_counts.tolist() == [7, 1, 4]
    assert 1 not in parts.select.labels


def test_another_dataset_or_backbone_starts_with_options_of_its_own():
    base = TrialRequest(data=DataSpec(options={"test_per_class": 4}, val_fraction=0.3))
    changed = base.with_values({"data": "folder", "data.options.imbalance": 10.0}, source="t")
    assert changed.data == DataSpec(name="folder", options={"imbalance": 10.0}, val_fraction=0.3)
    assert base.with_values({"data.name": "folder"}, source="t").data.options == {}
    assert base.with_values({"data": "synth-rs"}, source="t").data == base.data
    sized = base.with_values({"backbone.img_size": 96}, source="t")
    assert sized.with_values({"backbone": "deit_tiny_patch16_224"}, source="t").backbone == (
        base.backbone.model_copy(update={"name": "deit_tiny_patch16_224"})
    )


# the command line


def harness(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_check_counts_and_names_what_is_wrong(tmp_path):
    root = two_splits(tmp_path / "data")
    args = ["data", "check", "folder", "--data-root", root, "--out", tmp_path / "out"]
    fine = harness(*args)
    assert fine.exit_code == 0 and "No problem found." in fine.output
    assert fine.stdout.splitlines()[1].split() == ["a", "tail", "6", "6", "3"]
    (root / "train/b/0.png").write_bytes(b"")
    picture(1000).save(root / "train/a/5.png")  # that of test/a/0.png
    picture(1).save(root / "train/b/2.bmp")  # that of train/a/1.png, in another format
    wrong = harness(*args, "--set", "data.options.imbalance=2")
    assert wrong.exit_code == 1
    text = " ".join(wrong.output.split())
    for words in (
        "1 image (train/b/0.png (the file is empty)) that cannot be read",
        "1 image (train/a/5.png = test/a/0.png) in train and in test",
        "1 image (train/a/1.png = train/b/2.bmp) more than once in one split",
        "1 image (train/a/1.png = train/b/2.bmp) under several labels",
    ):
        assert words in text, text


def test_check_of_a_folder_in_which_everything_is_odd(tmp_path):
    root = two_splits(tmp_path / "data", {"a": 5, "b": 4, "one": 1, "untested": 3})
    tree(root / "test", {"one": 1}, start=2000)
    odd = root / "train/a"
    picture(3000, 200, 200).save(odd / "cut.jpg")
    (odd / "cut.jpg").write_bytes((odd / "cut.jpg").read_bytes()[:1500])
    (odd / "void.jpg").write_bytes(b"")
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(odd / "16.png")
    picture(3001).convert("P", palette=Image.Palette.ADAPTIVE).save(odd / "palette.png")
    picture(3002).convert("CMYK").save(odd / "cmyk.jpg")
    picture(3003).save(os.path.join(os.fsencode(odd), b"caf\xe9.png"))
    os.rename(root / "train/b", os.path.join(os.fsencode(root), b"train/b\xe9"))
    os.rename(root / "test/b", os.path.join(os.fsencode(root), b"test/b\xe9"))
    args = ["data", "check", "folder", "--data-root", root, "--out", tmp_path / "out"]
    found = harness(*args)
    assert found.exit_code == 1
    assert [line.split()[::2] for line in found.stdout.splitlines()[1:5]] == [
        ["a", "11", "3"],
        ["b\\xe9", "4", "3"],
        ["one", "1", "1"],
        ["untested", "3", "0"],
    ]
    # How many bytes are left of the truncated file is PIL's affair.
    text = re.sub(r" \(\d+ bytes not processed\)", "", found.stdout)
    assert [line for line in text.splitlines() if line.startswith(("Note", "Problem"))] == [
        "Note: 1 class (one) with one training image, which is never chosen on.",
        "Problem: 1 class (untested) without a test image.",
        "Problem: 2 images (train/a/cut.jpg (image file is truncated), "
        "train/a/void.jpg (the file is empty)) that cannot be read.",
    ]
    (root / "names.txt").write_text("a\none\nuntested\n")
    wrong = harness(*args, "--set", "data.options.classes=names.txt")
    assert wrong.exit_code == 2 and wrong.stderr.count("\n") == 1
    assert "label 'b\\udce9' is not in names.txt" in wrong.stderr


def test_check_without_files_says_what_belongs_there(tmp_path):
    told = harness("data", "check", "rsscn7")
    assert told.exit_code == 0 and "split.csv" in told.output and "RSSCN7" in told.output
    absent = harness("data", "check", "rsscn7", "--data-root", tmp_path)
    assert absent.exit_code == 2 and "There is no split.csv in" in absent.stderr
    assert "put into --data-root" in absent.stdout
    assert harness("data", "check", "synth-rs").exit_code == 2


def test_check_sees_a_pack_that_was_damaged(tmp_path):
    root, out = two_splits(tmp_path / "data"), tmp_path / "out"
    made = harness("data", "pack", "folder", "--data-root", root, "--size", SIZE, "--out", out)
    assert made.exit_code == 0 and "16 images" in made.output
    (file,) = out.glob("packs/*/pixels.bin")
    file.write_bytes(bytes(len(file.read_bytes())))
    seen = harness("data", "check", "folder", "--data-root", root, "--out", out)
    assert seen.exit_code == 1 and "has changed since it was written" in seen.output


def test_a_sweep_on_a_folder_from_pack_to_report(tmp_path):
    root = two_splits(tmp_path / "data", {"a": 12, "b": 8}, {"a": 4, "b": 4})
    args = ["sweep", "--study", "depth_vs_position", "--smoke", "--set", "data=folder"]
    args += ["--set", "recipe.batch_size=8", "--workers", 1, "--out", tmp_path / "out"]
    lost = harness(*args)
    assert lost.exit_code == 2
    assert "--data-root" in lost.stderr and "harness data check folder" in lost.stderr
    first = harness(*args, "--budget", 1, "--data-root", root)
    assert first.exit_code == 0, first.output
    (record,) = (tmp_path / "out").glob("trials/*/record.json")
    found = json.loads(record.read_text())
    assert found["status"] == "COMPLETE" and found["test"]["class_counts"] == [4, 4]
    again = harness(*args, "--budget", 1, "--data-root", root)
    assert "1 done" in again.output
