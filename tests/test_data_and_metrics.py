"""Splits, batches, the embedded benchmark's bytes, and scores against hand computations."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.dataset import Dataset, Images, crop_flip, epoch_batches, split, stratified
from harness.datasets.dota import CLASSES as TARGET_CLASSES
from harness.datasets.synth_rs import TRAIN_COUNTS, SynthRS, SynthRSOptions
from harness.datasets.synth_rs_render import SOURCE_CLASSES, render_source, render_target
from harness.errors import UserError
from harness.metrics import split_metrics
from harness.rng import generator
from harness.spec import DataSpec, Recipe


def toy(counts, test_per_class=2):
    """A dataset whose pixel value is the image's index."""
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    test = torch.arange(len(counts)).repeat(test_per_class)
    test_pixels = torch.full((len(test), 3, 4, 4), 255, dtype=torch.uint8)
    return Dataset(
        train=Images(pixels=pixels, labels=labels),
        test=Images(pixels=test_pixels, labels=test),
        classes=tuple(f"c{i}" for i in range(len(counts))),
        groups={"head": (0,), "tail": tuple(range(1, len(counts)))},
    )


def indices(images):
    return images.pixels[:, 0, 0, 0].tolist()


def test_split_is_stratified_disjoint_and_complete():
    data = toy([50, 10, 3, 2, 1])
    parts = split(data, DataSpec(), seed=0)
    assert torch.bincount(parts.select.labels, minlength=5).tolist() == [10, 2, 1, 1, 0]
    assert parts.train_counts.tolist() == [40, 8, 2, 1, 1]
    together = indices(parts.train) + indices(parts.select)
    assert sorted(together) == list(range(66))
    assert parts.test is data.test
    again, other = split(data, DataSpec(), seed=0), split(data, DataSpec(), seed=1)
    assert indices(again.select) == indices(parts.select)
    assert indices(other.select) != indices(parts.select)


def test_selecting_on_test_trains_on_everything():
    data = toy([5, 4])
    parts = split(data, DataSpec(select_on="test"), seed=0)
    assert len(parts.train) == 9
    assert parts.select is parts.test is data.test


def test_every_class_of_two_is_on_both_sides_at_any_fraction():
    labels = torch.tensor([0, 0, 1, 1, 1])
    for fraction in (0.01, 0.5, 0.99):
        rest, sample = stratified(labels, fraction, generator(0, "test"))
        assert labels[rest].unique().tolist() == labels[sample].unique().tolist() == [0, 1]


def test_class_without_training_images_is_refused():
    with pytest.raises(UserError, match="'c1' of synth-rs has no training image"):
        split(toy([5, 0]), DataSpec(), seed=0)


def test_one_training_image_of_every_class_leaves_none_to_select_on():
    data = toy([1, 1, 1])
    with pytest.raises(UserError, match=r"No class of synth-rs has two .*data\.select_on=test"):
        split(data, DataSpec(), seed=0)
    assert len(split(data, DataSpec(select_on="test"), seed=0).train) == 3


def test_epochs_cover_the_data_in_an_order_of_seed_and_epoch_alone():
    data = toy([7, 6])
    recipe = Recipe(batch_size=4, augment="none")

    def order(seed, epoch):
        return [indices(batch) for batch in epoch_batches(data.train, recipe, seed, epoch)]

    assert [len(batch) for batch in order(0, 0)] == [4, 4, 4, 1]
    assert sorted(i for batch in order(0, 0) for i in batch) == list(range(13))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)


def test_crops_mirror_half_of_the_images_and_only_left_to_right():
    ramp = torch.linspace(0, 255, 16)
    across = crop_flip(ramp.view(1, 1, 1, 16).expand(400, 3, 16, 16), 0.5, generator(0, "test"))
    down = crop_flip(ramp.view(1, 1, 16, 1).expand(400, 3, 16, 16), 0.5, generator(0, "test"))
    rising = (across[:, 0, 0, -1] > across[:, 0, 0, 0]).float().mean()
    assert 0.4 < rising < 0.6
    assert (down[:, 0, -1, 0] > down[:, 0, 0, 0]).all()


@pytest.mark.slow
def test_crops_have_the_asked_area():
    # On a unit ramp, the range of values in a crop is its width; its height likewise.
    ramp = torch.linspace(0, 1, 64)
    across = ramp.view(1, 1, 1, 64).expand(2000, 3, 64, 64)
    down = ramp.view(1, 1, 64, 1).expand(2000, 3, 64, 64)

    def extent(images):
        out = crop_flip(images, 0.25, generator(3, "test"))[:, 0]
        return (out.flatten(1).amax(1) - out.flatten(1).amin(1)) * 64 / 63

    area = extent(across) * extent(down)
    assert area.min() > 0.23 and area.max() < 1.04
    assert area.mean() == pytest.approx(0.62, abs=0.03)  # uniform mean .625, less what is cut


def test_embedded_benchmark_is_the_same_bytes_everywhere():
    """Changing the drawing changes every result: raise SEMANTICS and redo the weights."""
    data = SynthRS.load(SynthRSOptions())
    digest = hashlib.sha256(
        data.train.pixels.numpy().tobytes() + data.test.pixels.numpy().tobytes()
    )
    assert digest.hexdigest()[:16] == "1632558c4de94726"
    source = render_source(np.arange(40) % len(SOURCE_CLASSES), 0)
    assert hashlib.sha256(source.tobytes()).hexdigest()[:16] == "9daf105336cc7fa5"


def test_embedded_benchmark_has_dotas_profile():
    data = SynthRS.load(SynthRSOptions())
    counts = torch.bincount(data.train.labels, minlength=15)
    assert int(counts.max()) / int(counts.min()) == 86
    assert 900 <= len(data.train) <= 1100
    assert data.train.pixels.shape[1:] == (3, 32, 32)
    assert [len(data.groups[g]) for g in ("head", "medium", "tail")] == [3, 6, 6]
    tail = min(counts[list(data.groups["medium"])])
    assert all(counts[c] < tail for c in data.groups["tail"])
    assert torch.bincount(data.test.labels).min() >= 60
    assert {TARGET_CLASSES[c]: int(n) for c, n in enumerate(counts)} == TRAIN_COUNTS


def test_target_is_one_band_and_test_images_are_not_training_images():
    labels = np.zeros(8, dtype=np.int64)
    first, second = render_target(labels, 0), render_target(labels, 1)
    assert (first[:, 0] == first[:, 1]).all() and (first[:, 0] == first[:, 2]).all()
    assert not (first == second).all(axis=(1, 2, 3)).any()


def test_metrics_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 0, 1, 1, 0, 0])
    features = np.array([[1.0, 0.0]] * 4 + [[0.0, 2.0]] * 2 + [[-3.0, 0.0]])
    scores = split_metrics(
        predictions=predictions,
        labels=labels,
        features=features,
        loss=0.5,
        groups={"head": (0,), "tail": (1, 2), "none": (3,)},
        num_classes=4,
    )
    assert scores.per_class == (0.75, 0.5, 0.0, None)
    assert scores.groups == {"head": 0.75, "tail": 0.25}
    errors = {"head": (0.75 * 0.25 / 4) ** 0.5, "tail": (0.25 / 2) ** 0.5 / 2}
    assert scores.groups_se == pytest.approx(errors)
    assert scores.class_mean == pytest.approx(1.25 / 3)
    assert scores.group_mean == scores.flat_mean == 0.5
    assert scores.micro == pytest.approx(4 / 7)
    assert scores.class_counts == (4, 2, 1, 0)
    # cosine distances: 0-1: 1, 0-2: 2, 1-2: 1
    assert scores.distance == pytest.approx({"head": 1.5, "tail": (1.0 + 1.5) / 2})


def slow_batches(images, recipe, seed, epoch, excluded):
    """Batches as they were made until SEMANTICS 2: from a mask over all that is left."""
    order = torch.randperm(len(images), generator=generator(seed, "order", epoch))
    rng = generator(seed, "augment", epoch)
    while len(order):
        mask = excluded()
        free = torch.ones(len(order), dtype=torch.bool) if mask is None else ~mask[order]
        place = free.nonzero().flatten()[: recipe.batch_size]
        if len(place):
            yield images.augmented(order[place], recipe, rng)
        if len(place) < recipe.batch_size:
            return
        left = torch.ones(len(order), dtype=torch.bool)
        left[place] = False
        order = order[left]


@pytest.mark.parametrize("every", [0, 1, 2, 3], ids=["never", "always", "half", "a third"])
@pytest.mark.parametrize("batch", [4, 5, 66, 100])
def test_batches_are_those_that_a_mask_over_all_images_gives(every, batch):
    """Where nothing is excluded they are cut from the order; masks may come and go."""
    data, recipe = toy([50, 10, 3, 2, 1]), Recipe(batch_size=batch)
    masks = [torch.rand(66, generator=generator(0, "mask", i)) < 0.4 for i in range(40)]

    def excluding():
        calls = iter(range(40))
        return lambda: masks[i] if every and not (i := next(calls)) % every else None

    found, wanted = (
        list(make(data.train, recipe, 1, 2, excluding())) for make in (epoch_batches, slow_batches)
    )
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def test_a_batch_takes_no_longer_with_more_images():
    """Elements that are touched after the order is drawn, counted."""

    class Counts(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            is_view = any(r.alias_info is not None for r in function._schema.returns)
            if isinstance(result, torch.Tensor) and not is_view:
                self.total += result.numel()
            return result

    def touched(count):
        data = Images(pixels=torch.zeros(count, 1, 2, 2).byte(), labels=torch.zeros(count).long())
        batches = epoch_batches(data, Recipe(batch_size=10, augment="none"), 0, 0)
        next(batches)
        with Counts() as counts:
            next(batches)
        return counts.total

    assert touched(100_000) == touched(1000)
