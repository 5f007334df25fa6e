"""What follows the released code: steps per epoch, the parts of its data, AdaptFormer's scalar."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from support.cli import harness
from support.methods import double, fill, images, setting

from harness.baselines.metapeft.sampling import quotas
from harness.data.dataset import Images, epoch_batches
from harness.insertion.hooks import InnerProblem
from harness.model.backbones import features
from harness.spec import Recipe, Site
from harness.testing.made import SMALL

STEPS = [(728, 32, 19), (728, 128, 5), (10_847, 32, 272), (10_847, 128, 68)]
"""Training images, batch, and the released code's steps per epoch at the ratio 0.2: it trains on
int(0.8 n) images and keeps the last, smaller batch."""


def started(n, batch_size, **options):
    """The hook of MetaPEFT, as the trainer starts it, and `n` images of one pixel to train on."""
    method, placement, parsed = setting(
        "metapeft", SMALL, blocks=[0], positions=["q"], options=options
    )
    model = double(SMALL)
    attachment = method.attach(model, placement, parsed, seed=0)
    attachment.detach()
    data = Images(pixels=torch.zeros(n, 3, 1, 1, dtype=torch.uint8), labels=torch.arange(n) % 7)
    hook = attachment.training_hook()
    recipe = Recipe(batch_size=batch_size, augment="none", precision="fp32")
    hook.start(
        InnerProblem(
            parameters={},
            optimiser=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
            images=data,
            classes=7,
            loss=lambda batch, parameters=None: pytest.fail("nothing is trained"),
            batch=lambda index, rng: data.subset(index),
            recipe=recipe,
            seed=0,
            mean=lambda value: value,
        )
    )
    return hook, data, recipe


@pytest.mark.parametrize("n,batch_size,steps", STEPS)
def test_as_many_steps_per_epoch_as_the_released_code(n, batch_size, steps):
    hook, data, recipe = started(n, batch_size, variant="released")
    batches = list(epoch_batches(data, recipe, 0, 0, hook.excluded))
    assert len(batches) == steps == math.ceil(int(0.8 * n) / batch_size)
    assert sum(map(len, batches)) == int(0.8 * n)


@pytest.mark.parametrize("n,batch_size,steps", STEPS)
def test_holding_out_one_d_val_takes_as_many_steps(n, batch_size, steps):
    """All of an epoch with one D_val, which is of as many images as the released code's part."""
    hook, data, recipe = started(n, batch_size, d_val="held_out")
    batches = list(epoch_batches(data, recipe, 0, 0, hook.excluded))
    assert len(batches) == steps
    held = int(quotas(torch.bincount(data.labels), 0.2, "random", leave=1).sum())
    assert sum(map(len, batches)) == n - held


def test_the_parts_are_of_the_sizes_that_the_released_code_has():
    """CIFAR-100-IR100 with ratio 0.2: 8,677 trained on, 1,084 looked ahead on, 1,086 validated."""
    hook, _, _ = started(10_847, 128, variant="released")
    assert len(hook._held) == 1_084 + 1_086 and hook._half == 1_084


@pytest.mark.slow
@pytest.mark.parametrize("batch_size,steps", [(32, 19), (128, 5)])
def test_a_released_run_takes_them(tmp_path, batch_size, steps):
    """Of synth-rs 728 images are trained on; a step is a row's `inner_step` further."""
    args = ["train", "--method", "metapeft", "--set", "options.variant=released", "--depth"]
    args += ["last:1", "--set", "recipe.epochs=1", "--set", f"recipe.batch_size={batch_size}"]
    args += ["--set", "data.options.test_per_class=4", "--workers", 1, "--out", tmp_path]
    run = harness(*args)
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("trials/*/trajectory.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["inner_step"]) for row in rows] == [0, steps, 2 * steps]  # ceil(1 / 0.8)


@pytest.mark.slow
def test_a_run_with_d_val_held_out_trains_on_its_last_images(tmp_path):
    args = ["train", "--method", "metapeft", "--set", "options.d_val=held_out", "--sites", "q"]
    args += ["--depth", "last:1", "--set", "options.inner_steps=1000", "--set", "recipe.epochs=1"]
    args += ["--set", "recipe.batch_size=128", "--set", "data.options.test_per_class=4"]
    run = harness(*args, "--workers", 1, "--out", tmp_path)
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("trials/*/record.json")
    trained = json.loads(path.read_text())["cost"]["images_backward"]
    assert 4 * 128 < trained < 5 * 128 and trained == pytest.approx(0.8 * 728, rel=0.02)


# AdaptFormer's scalar.


def scaled(scale, alpha):
    """A model with AdaptFormer in float64, tensors filled, its scale equal in both forms."""
    model = double(SMALL)
    method, placement, options = setting(
        "adaptformer",
        SMALL,
        blocks=[11],
        positions=["ffn"],
        alpha=alpha,
        options={"scale": scale},
    )
    attachment = method.attach(model, placement, options, seed=0).double()
    (delta,) = attachment.deltas.values()
    start = delta.gain.item()
    fill(attachment)
    with torch.no_grad():
        delta.gain.fill_(start)
    return model, attachment, delta


def test_the_trained_scalar_starts_at_alpha_and_moves_as_the_released_one():
    x = images(SMALL).double()
    found = {}
    for scale in ("learnable", "alpha_times_gain"):
        model, attachment, delta = scaled(scale, 3.0)
        y = features(model, x)
        (gradient,) = torch.autograd.grad((y * torch.arange(y.shape[1])).sum(), delta.gain)
        found[scale] = delta.gain.item(), y, gradient.item()
        attachment.detach()
    (start, y, slope), (gain, other, by_gain) = found.values()
    assert (start, gain) == (3.0, 1.0) and torch.allclose(y, other, rtol=1e-12)
    # A step of SGD moves the scale by the rate times `slope`, or by α times that of the gain.
    assert slope != 0 and 3.0 * by_gain == pytest.approx(9.0 * slope)


@pytest.mark.slow
def test_a_strength_that_is_set_later_scales_what_was_trained():
    """As in mid-training changes and under γ: the module's whole scale follows it."""
    x = images(SMALL).double()
    model, attachment, delta = scaled("learnable", 2.0)
    with torch.no_grad():
        delta.gain.fill_(5.0)
    site = Site(11, "ffn")
    frozen = features(model, x)
    attachment.set_strengths({site: 4.0})
    twice = features(model, x)
    attachment.set_strengths({site: 2.0})
    with torch.no_grad():
        delta.gain.fill_(10.0)
    assert torch.allclose(features(model, x), twice, rtol=1e-12)
    assert not torch.allclose(frozen, twice)
    attachment.detach()


@pytest.mark.parametrize("scale", ["learnable", "alpha_times_gain"])
def test_at_alpha_zero_nothing_happens_until_a_strength_is_set(scale):
    x = images(SMALL).double()
    model, attachment, _ = scaled(scale, 0.0)
    site = Site(11, "ffn")
    off = features(model, x)
    attachment.set_strengths({site: 1.0})
    on = features(model, x)
    attachment.detach()
    assert torch.equal(off, features(model, x)) and not torch.allclose(on, off)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options,starts", [([], 2.0), (["--set", "options.scale=alpha_times_gain"], 1.0)]
)
def test_a_run_starts_adaptformers_scalar_where_the_released_code_does(tmp_path, options, starts):
    args = ["train", "--method", "adaptformer", "--alpha", 2, "--depth", "last:2", *options]
    args += ["--set", "recipe.epochs=1", "--set", "recipe.lr=1e-12", "--workers", 1]
    run = harness(*args, "--set", "data.options.test_per_class=4", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("trials/*/weights.safetensors")
    gains = [float(t) for name, t in load_file(path).items() if name.endswith("gain")]
    assert len(gains) == 2 and gains == pytest.approx([starts] * 2)
