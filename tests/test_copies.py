"""What packs keep of images larger than a view; views are what torchvision makes of the files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from support.images import listed, packed
from torchvision.transforms import RandomResizedCrop, v2

from harness.bench.agreement import agreement, on_copies, sharpness
from harness.data.copies import SCALES, copies, pack_scale, train_copy, train_side
from harness.data.crops import Boxes, by_image, by_matrix, plain_boxes, random_boxes
from harness.data.listing import BorderMask
from harness.data.packed import PackedImages, PixelStore
from harness.rng import generator
from harness.spec import Frozen, Recipe

SIZE = 32


def photo(seed, height, width):
    """As photographs are, with as much contrast in every octave; `[h, w, 3]` uint8."""
    rng, total = np.random.default_rng(seed), np.zeros((height, width, 3))
    for octave in range(1, 8):
        coarse = rng.normal(0, 1, (3, 2**octave, 2**octave)).astype(np.float32)
        layers = [
            np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC))
            for layer in coarse
        ]
        total += np.stack(layers, axis=2)
    return np.clip(128 + 30 * total, 0, 255).astype(np.uint8)


def folder_of(root, shapes):
    """A training and a test image of each of two classes for every shape, as PNG files."""
    for number, shape in enumerate(shapes):
        for place, split in enumerate(("train", "test")):
            for label, name in enumerate("ab"):
                (root / split / name).mkdir(parents=True, exist_ok=True)
                pixels = photo(1000 * place + 100 * label + number, *shape)
                Image.fromarray(pixels).save(root / split / name / f"{number:02}.png")
    return root


def files_of(root, listing):
    return [np.asarray(Image.open(root / item.path)) for item in (*listing.train, *listing.test)]


def store_of(made, mask=0):
    return PixelStore.of(made, BorderMask(border_mask=mask) if mask else Frozen())


def tensor(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0.08, 0.08), (0.9, 0.64), (0.64, 0.64), (0.5, 0.32), (0.3, 0.16), (0.01, 0.08), (1.0, 0.64)],
)
def test_a_recipes_share_counts_as_the_next_lower_one_and_at_least_as_the_cap(given, expected):
    assert pack_scale(Recipe(crop_scale_min=given)) == expected
    assert pack_scale(Recipe(crop_scale_min=given, augment="none")) == SCALES[-1]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "shape", [(300, 300), (200, 500), (700, 300), (40, 900), (33, 40), (20, 31)]
)
def test_a_training_copy_has_the_pixels_that_the_smallest_crops_need(shape, scale):
    pixels = photo(0, *shape)
    small = train_copy(pixels, SIZE, scale)
    height, width = small.shape[:2]
    if height * width == shape[0] * shape[1]:
        side = train_side(SIZE, scale)
        assert small is pixels
        assert shape[0] * shape[1] <= side**2 or min(shape) <= SIZE
        return
    # The smallest box has as many pixels as a view, and every box is at least as large as one
    # that fills the short side.
    needed = max(SIZE**2 / scale, SIZE**2 * max(shape) / min(shape))
    assert height * width == pytest.approx(needed, rel=0.05)
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.05)


def test_bands_are_reduced_as_colours_are():
    pixels = photo(3, 300, 200)
    colours = train_copy(pixels, SIZE, 0.08)
    bands = train_copy(np.concatenate([pixels, pixels[:, :, :2]], axis=2), SIZE, 0.08)
    np.testing.assert_array_equal(bands, colours[:, :, [0, 1, 2, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(600, 800), (700, 700), (900, 450), (300, 3000)])
def test_a_pack_keeps_no_more_than_the_stated_cap(shape):
    kept = copies(photo(0, *shape), SIZE, SCALES[0], is_test=False)
    assert (kept.train.size + kept.eval.size) / 3 <= 16 * SIZE**2
    tested = copies(photo(0, *shape), SIZE, SCALES[0], is_test=True)
    assert tested.train is None
    np.testing.assert_array_equal(tested.eval, kept.eval)


def test_an_image_is_kept_where_its_copies_would_cost_more():
    """A crop's copy of 40 x 40 and a test's of 36 x 36."""
    for side, is_kept in ((36, True), (53, True), (54, False)):
        pixels = photo(0, side, side)
        made = copies(pixels, SIZE, SCALES[-1], is_test=False)
        assert (made.train is pixels) == is_kept == (made.eval is None), side


KEPT = [(90, 110), (64, 64), (120, 70), (100, 100)]
"""Larger than the view and its test reduction, and no larger than a training copy."""
REDUCED = [(226, 226), (452, 452), (226, 226), (452, 452)]
"""Two and four times a training copy, so that boxes have whole pixels on both."""
LONG = [(60, 301), (500, 61), (61, 502), (40, 303), (300, 30), (900, 60)]
"""Long sides whose test reduction is cut, by more and less; the last but one is not reduced."""


def crops_of(root, packs, listing_of=listed):
    """A pack's training crops in both forms, and torchvision's of the files by tensors and PIL."""
    made, files = packed(root, packs, size=SIZE), files_of(root, listing_of(root))
    rows = torch.from_numpy(np.flatnonzero(~made.index.is_test)).repeat(25)
    store = store_of(made)
    where = store.train[rows]
    boxes = random_boxes(where.sizes, SIZE, 0.08, generator(0, "t"))
    factor = torch.from_numpy(made.index.original[rows]) / where.sizes
    cut = boxes.cut * factor.repeat(1, 2)
    assert torch.equal(cut, cut.round())
    forms = [form(store.flat, 3, where, boxes, SIZE) for form in (by_image, by_matrix)]
    theirs = []
    for make in (tensor, Image.fromarray):
        views = []
        for row, box, flip in zip(rows, cut.long().tolist(), boxes.mirrored, strict=True):
            image = make(files[row])
            view = v2.functional.resized_crop(image, *box, [SIZE, SIZE], antialias=True)
            view = view if isinstance(view, torch.Tensor) else v2.functional.pil_to_tensor(view)
            views.append(view.flip(2) if flip else view)
        theirs.append(torch.stack(views))
    return made, forms, theirs


def test_crops_of_images_that_are_kept_equal_torchvisions(tmp_path):
    root = folder_of(tmp_path / "data", KEPT)
    made, (one, other), (by_tensor, by_pil) = crops_of(root, tmp_path / "packs")
    assert made.info.reduced == 0
    torch.testing.assert_close(one, by_tensor, rtol=0, atol=0)
    torch.testing.assert_close(other, by_tensor, rtol=0, atol=1)
    # torchvision's own two ways differ by two levels in one pixel of these 600,000.
    torch.testing.assert_close(one, by_pil, rtol=0, atol=2)
    assert ((one.int() - by_pil.int()).abs() > 1).float().mean() < 1e-4


@pytest.mark.slow
def test_crops_of_images_that_are_reduced_are_as_sharp_as_torchvisions(tmp_path):
    root = folder_of(tmp_path / "data", REDUCED)
    made, (one, other), (by_tensor, _) = crops_of(root, tmp_path / "packs")
    assert made.info.reduced == len(REDUCED) * 2
    difference = (one.float() - by_tensor.float()).abs()
    assert difference.mean() < 1.5
    assert sharpness(one) / sharpness(by_tensor) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(other, one, rtol=0, atol=1)


@pytest.mark.slow
def test_test_views_equal_torchvisions_whatever_the_shape(tmp_path):
    shapes = [*KEPT, *REDUCED, *LONG, (20, 24), (36, 36), (20, 900)]
    root = folder_of(tmp_path / "data", shapes)
    made, files = packed(root, tmp_path / "packs", size=SIZE), files_of(root, listed(root))
    index = made.index
    rows = np.arange(len(index.labels))
    views = PackedImages.of(store_of(made), index.labels, rows, SIZE).plain()
    transform = v2.Compose([v2.Resize(36, antialias=True), v2.CenterCrop(SIZE)])
    expected = torch.stack([transform(tensor(pixels)) for pixels in files])
    torch.testing.assert_close(views, expected, rtol=0, atol=0)
    of_pil = [v2.functional.pil_to_tensor(transform(Image.fromarray(each))) for each in files]
    torch.testing.assert_close(views, torch.stack(of_pil), rtol=0, atol=1)
    cut = index.eval_sizes.max(axis=1) < index.eval_sizes.min(axis=1) * (
        index.original.max(axis=1) // index.original.min(axis=1)
    )
    assert cut.sum() >= 4 * 4, "no test reduction was cut, so nothing of this was tried"


def test_a_mask_is_black_where_the_files_own_border_is_also_where_a_long_side_is_cut(tmp_path):
    mask = 9
    root = folder_of(tmp_path / "data", LONG)
    made, files = packed(root, tmp_path / "packs", size=SIZE), files_of(root, listed(root))
    index = made.index
    which = np.flatnonzero(index.is_test)
    views = PackedImages.of(store_of(made, mask), index.labels, which, SIZE).plain()
    for row, view in zip(which, views, strict=True):
        pixels, short = tensor(files[row]), min(files[row].shape[:2])
        small, border = pixels, mask
        if short > 36:
            small, border = v2.Resize(36, antialias=True)(pixels), round(mask * 36 / short)
        black = torch.zeros_like(small)
        inner = (slice(None), slice(border, -border), slice(border, -border))
        black[inner] = small[inner]
        expected = v2.CenterCrop(SIZE)(v2.Resize(36, antialias=True)(black))
        torch.testing.assert_close(view, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(500, 500), (360, 900), (700, 510)])
def test_boxes_on_copies_follow_torchvisions_law_on_the_files(shape):
    size, count = 64, 3000
    height, width = train_copy(np.zeros((*shape, 3), dtype=np.uint8), size, 0.08).shape[:2]
    assert (height, width) != shape
    sizes = torch.tensor([[height, width]]).repeat(count, 1)
    top, left, h, w = random_boxes(sizes, size, 0.08, generator(1, "t")).cut.double().T
    torch.manual_seed(0)
    image = torch.empty(3, *shape)
    drawn = [RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(count)]
    theirs = torch.tensor(drawn, dtype=torch.float64).T
    for name, own, other in (
        ("area", h * w / (height * width), theirs[2] * theirs[3] / (shape[0] * shape[1])),
        ("ratio", w / h, theirs[3] / theirs[2]),
        ("top", top / height, theirs[0] / shape[0]),
        ("left", left / width, theirs[1] / shape[1]),
    ):
        # Rounding to a copy's pixels moves a value by less than 1 % of its range.
        assert ks_2samp(own.numpy(), other.numpy()).statistic < 0.05, name


def test_boxes_of_files_are_found_on_copies():
    original, sizes = torch.tensor([[400, 300], [50, 50]]), torch.tensor([[100, 75], [50, 50]])
    zeros, cut = torch.zeros(2, 2).long(), torch.tensor([[40, 20, 200, 100], [3, 4, 20, 30]])
    boxes = Boxes(cut=cut, full=zeros, start=zeros, mirrored=torch.zeros(2).bool())
    found = on_copies(boxes, original, sizes).cut
    assert found.tolist() == [[10, 5, 50, 25], [3, 4, 20, 30]]


def test_only_the_rows_of_a_box_are_sent_to_a_device_that_lacks_the_pack(tmp_path):
    root = folder_of(tmp_path / "data", [*KEPT, (339, 452)])
    made = packed(root, tmp_path / "packs", size=SIZE)
    store = store_of(made, mask=5)
    rows = torch.from_numpy(np.flatnonzero(~made.index.is_test)).repeat(5)
    for where, boxes in (
        (store.train[rows], random_boxes(store.train[rows].sizes, SIZE, 0.08, generator(0, "t"))),
        (store.eval[rows], plain_boxes(store.eval[rows].sizes, SIZE)),
    ):
        sent, channels, there = store._sent(where, boxes, torch.device("cpu"))
        assert len(sent) == int((boxes.cut[:, 2] * where.sizes[:, 1]).sum()) * 3
        whole = by_matrix(store.flat, 3, where, boxes, SIZE)
        torch.testing.assert_close(by_matrix(sent, channels, there, boxes, SIZE), whole)


@pytest.mark.slow
def test_the_comparison_of_a_bench_sees_a_pack_that_blurs(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "data", [(300, 400), (350, 350), (500, 300)])
    args = (listed(root), root, None, 0.08)
    fine = agreement(packed(root, tmp_path / "packs", size=SIZE), *args)
    assert fine.views == 6 and fine.sharpness == pytest.approx(1, abs=0.05)
    assert fine.eval_levels < 0.1 and fine.eval_most <= 1
    # As packs were made until format 2: one copy, which is the test reduction.
    monkeypatch.setattr("harness.data.copies.train_side", lambda size, scale: size * 8 // 7)
    blurred = agreement(packed(root, tmp_path / "old", size=SIZE), *args)
    assert blurred.sharpness < 0.85 and blurred.crop_levels > 2 * fine.crop_levels
