"""Views of packed images, against torchvision."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import ks_2samp
from support.images import SIZE, dataset, two_splits
from torchvision.transforms import v2

from harness.data.crops import Where, by_image, by_matrix, plain_boxes, random_boxes
from harness.data.dataset import epoch_batches
from harness.rng import generator
from harness.spec import Recipe


@pytest.fixture(scope="module")
def noise():
    """Images of many sizes in a flat tensor: the hardest pixels to resample alike."""
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(17, 90, (60, 2), generator=rng)
    ends = (sizes.prod(dim=1) * 3).cumsum(0)
    flat = torch.randint(0, 256, (int(ends[-1]),), dtype=torch.uint8, generator=rng)
    where = Where(
        offsets=ends - sizes.prod(dim=1) * 3, sizes=sizes, borders=torch.zeros(60, 2).long()
    )
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


@pytest.mark.slow
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
    root = two_splits(tmp_path / "data")  # 20 x 24, of which test images are reduced to 18 x 21
    plain, masked = (dataset(root, tmp_path / "packs", border_mask=border) for border in (0, 4))
    assert len(list((tmp_path / "packs").glob("folder-16px-*"))) == 1
    store, rows = masked.test.store, masked.test.rows
    assert store.eval.borders[rows].unique().tolist() == [4]  # 4 * 18 / 20, to whole pixels
    assert store.train.borders[masked.train.rows].unique().tolist() == [4]
    views, full = masked.test.plain(), plain.test.plain()
    inside = views[:, :, 3:-3, 3:-3]  # the view is the middle 16 of 18 rows, and of 21 columns
    torch.testing.assert_close(inside[..., 1:-1], full[:, :, 3:-3, 4:-4], rtol=0, atol=0)
    assert views[:, :, :3].max() == 0 and views[:, :, -3:].max() == 0
    for where in (store.eval[rows], store.train[masked.train.rows]):
        boxes = plain_boxes(where.sizes, SIZE)
        both = (by_image, by_matrix)
        one, other = (form(store.flat, 3, where, boxes, SIZE) for form in both)
        torch.testing.assert_close(one, other, rtol=0, atol=1)


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


def test_views_of_large_images_agree_where_weights_have_few_digits():
    """Far from the first pixel, a place in single precision would be off by a share of a pixel."""
    rng = torch.Generator().manual_seed(3)
    height, width = 40, 9000
    flat = torch.randint(0, 256, (height * width * 3,), dtype=torch.uint8, generator=rng)
    where = Where(
        offsets=torch.zeros(6).long(),
        sizes=torch.tensor([[height, width]]).repeat(6, 1),
        borders=torch.zeros(6, 2).long(),
    )
    for boxes in (
        random_boxes(where.sizes, SIZE, 0.08, generator(0, "test")),
        plain_boxes(where.sizes, SIZE),
    ):
        one = by_image(flat, 3, where, boxes, SIZE)
        other = by_matrix(flat, 3, where, boxes, SIZE)
        assert (one.int() - other.int()).abs().max() <= 1
