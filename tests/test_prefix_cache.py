"""Kept activations: equal results with and without, costs, keys, and when nothing is kept."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES
from support.prefixes import LARGE, PARTS, both, cached, files, numbers, spec

from harness.data import dataset as data
from harness.insertion.attachment import Attachment
from harness.insertion.hooks import TrainingHook
from harness.runner import trial as runner
from harness.runner.runtime import ActivationCache, Runtime
from harness.runner.trial import run_trial
from harness.store.activations import KeptFolder
from harness.store.store import Store
from harness.training.train import TrainingLoop

pytestmark = pytest.mark.usefixtures("few_images")


def test_a_second_trial_begins_where_the_first_one_came_to(tmp_path, monkeypatch):
    runtime = cached(tmp_path)
    two = {"recipe.epochs": 2}
    first, plain = both(tmp_path, runtime, spec(depth="last:2", **two))
    parts = ["epoch-0", "epoch-1", "select", "test"]
    assert files(tmp_path) == {10: parts}
    assert first.cost.actual_device_s is not None and plain.cost.actual_device_s is None

    def refused(*_):
        raise AssertionError("images were made")

    second = spec(depth="last:1", positions="q", **two)
    plain = run_trial(second, Runtime(), Store(tmp_path / "plain"))
    monkeypatch.setattr(data, "crop_flip", refused)
    record = run_trial(second, runtime, Store(tmp_path / "with"))
    assert record.status == "COMPLETE", record.error
    assert numbers(Store(tmp_path / "plain"), second) == numbers(Store(tmp_path / "with"), second)
    assert files(tmp_path) == {10: parts, 11: parts}
    assert record.cost.flops == plain.cost.flops


def on(backbone):
    """What makes the trial one on another backbone."""
    fields = BACKBONES[backbone].model_dump(exclude_defaults=True)
    return {f"backbone.{name}": value for name, value in fields.items()}


METHODS = {
    "a rotary model": (on("DINOv3, gated, biases"), 2, PARTS),
    "one that is not cut": (on("BEiT"), None, []),
    "linear probe": ({"method": "linear_probe", "positions": None, "depth": "all"}, 13, PARTS),
    "whole depth": ({"depth": "all"}, 0, PARTS),
    "bf16": ({"recipe.precision": "bf16"}, 11, PARTS),
    "no crops": ({"recipe.augment": "none"}, 11, PARTS),
    "test as selection": ({"data.select_on": "test"}, 11, PARTS),
    "bitfit": ({"method": "bitfit", "positions": None}, 11, PARTS),
    "vpt_deep": ({"method": "vpt_deep", "positions": None}, 11, PARTS),
    "held out": (
        {"method": "metapeft", "positions": None, "options.d_val": "held_out"},
        0,
        PARTS[1:],
    ),
    "full": ({"method": "full", "positions": None, "depth": "all", "recipe.lr": 0.001}, None, []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_results_are_the_same_and_nothing_is_kept_where_it_must_not(tmp_path, name):
    values, cut, parts = METHODS[name]
    trial, runtime = spec(**values), cached(tmp_path)
    first, _ = both(tmp_path, runtime, trial)
    assert files(tmp_path) == ({cut: parts} if parts else {})
    assert (first.cost.actual_device_s is None) == (not parts)
    both(tmp_path, runtime, trial, "again")


def test_a_planned_sweep_keeps_every_cut_that_is_passed(tmp_path):
    runtime = cached(tmp_path, uses=((8, 3), (10, 1), (None, 1)))
    trial = spec(method="linear_probe", positions=None, depth="all")
    both(tmp_path, runtime, trial)
    assert files(tmp_path) == {8: PARTS, 10: PARTS, 13: PARTS}
    both(tmp_path, runtime, spec(depth="last:3"))  # begins at 8, in need of 9, which nobody plans
    assert set(files(tmp_path)) == {8, 10, 13}


DIFFERENT = {
    "seed": {"seed": 1},
    "batches": {"recipe.batch_size": 64},
    "crops": {"recipe.crop_scale_min": 0.5},
    "precision": {"recipe.precision": "bf16"},
    "data": {"data.options.seed": 5},
    "split": {"data.val_fraction": 0.3},
    "frozen": {"backbone.frozen": "bf16"},
}


SHARED = {
    "recipe.lr": 0.05,
    "recipe.head": "linear",
    "recipe.tau": 0.5,
    "recipe.optimiser": "adamw",
    "recipe.epoch_rule": "best",
    "recipe.epochs": 2,
}


@pytest.mark.slow
def test_trials_share_what_is_the_same_and_nothing_else(tmp_path):
    runtime, store = cached(tmp_path), Store(tmp_path)
    run_trial(spec(), runtime, store)
    for number, values in enumerate(DIFFERENT.values()):
        run_trial(spec(**values), runtime, store)
        assert files(tmp_path)[11].count("epoch-0") == 2 + number, values
    kept = files(tmp_path)[11]
    for field, value in SHARED.items():
        run_trial(spec(**{field: value}), runtime, store)
        assert sorted(files(tmp_path)[11]) == sorted(
            [*kept, *(["epoch-1"] if field == "recipe.epochs" else [])]
        )


def charge(tmp_path, wall, device):
    """Put other seconds per image beside everything that is kept at cut 11."""
    folder = KeptFolder(tmp_path / "cache", LARGE)
    for path in (tmp_path / "cache").rglob("*.11"):
        kept, new = (f(path.parent.name, path.name) for f in (folder.open, folder.new))
        assert len(kept.about["seconds"]) == 2 and all(s > 0 for s in kept.about["seconds"])
        for _ in range(len(kept)):
            new.add(kept.read())
        new.publish({"seconds": [wall, device]})


def test_a_trial_is_charged_for_what_others_computed(tmp_path):
    """By the seconds that are kept with it, here a thousand for every image."""
    trial, runtime = spec(), cached(tmp_path)
    first, _ = both(tmp_path, runtime, trial)
    charge(tmp_path, 2000.0, 1000.0)
    record, _ = both(tmp_path, runtime, trial, "again")
    cost = record.cost
    assert cost.images_forward == first.cost.images_forward
    saved = cost.device_s - cost.actual_device_s
    assert saved == pytest.approx(1000 * cost.images_forward, rel=1e-3)
    assert cost.wall_s == pytest.approx(2000 * cost.images_forward, rel=1e-3)
    assert cost.flops == first.cost.flops


def test_what_was_saved_before_a_pause_counts_after_it(tmp_path):
    trial = spec(**{"recipe.epochs": 2})
    runtime = Runtime(
        cache=ActivationCache(folder=tmp_path / "cache", budget=LARGE), keep_checkpoints=True
    )
    both(tmp_path, runtime, trial)
    charge(tmp_path, 1000.0, 1000.0)
    store = Store(tmp_path / "paused")
    paused = run_trial(trial, runtime, store, lambda epochs, scores: False)
    assert paused.status == "PRUNED"
    ended = run_trial(trial, runtime, store, lambda epochs, scores: True)
    assert ended.status == "COMPLETE"
    assert numbers(Store(tmp_path / "plain"), trial) == numbers(store, trial)
    for record in (paused, ended):
        cost = record.cost
        saved = cost.device_s - cost.actual_device_s
        assert saved == pytest.approx(1000 * cost.images_forward, rel=1e-3)
    assert ended.cost.images_forward > paused.cost.images_forward


def test_a_record_without_a_cache_is_what_it_was(tmp_path):
    run_trial(spec(), Runtime(), Store(tmp_path))
    text = (tmp_path / "trials" / spec().trial_id / "record.json").read_text()
    assert "actual_device_s" not in text


def test_micro_batches_are_computed_whole(tmp_path, monkeypatch):
    class ShortOfMemory(TrainingLoop):
        def __init__(self, *args, micro_batches, **rest):
            if micro_batches == 1:
                raise torch.OutOfMemoryError("simulated")
            super().__init__(*args, micro_batches=micro_batches, **rest)

    monkeypatch.setattr(runner, "TrainingLoop", ShortOfMemory)
    record, _ = both(tmp_path, cached(tmp_path), spec())
    assert record.parts > 1 and record.cost.actual_device_s is None
    assert files(tmp_path) == {}


class Looks(TrainingHook):
    """Sees the images of every step."""

    seen = 0

    def before_step(self, batch):
        Looks.seen += batch.pixels.numel()


class Grows(TrainingHook):
    """Changes a block below all adapted ones after the first epoch."""

    def __init__(self, model):
        super().__init__()
        self._model, self._epochs = model, 0

    def after_epoch(self):
        self._epochs += 1
        if self._epochs == 1:
            self.handle = self._model.blocks[3].register_forward_hook(lambda m, a, y: 1.1 * y)


@pytest.mark.parametrize("kind", ["looks", "grows"])
def test_a_hook_finds_what_it_would_find(tmp_path, monkeypatch, kind):
    hooks = []

    def make(self):
        hooks.append(Looks() if kind == "looks" else Grows(self.model))
        return hooks[-1]

    def ended(self):
        if kind == "grows":
            hooks[-1].handle.remove()
        return None

    monkeypatch.setattr(Attachment, "training_hook", make)
    monkeypatch.setattr(Attachment, "learned", ended)
    runtime = cached(tmp_path)
    trial = spec(**{"recipe.epochs": 2})
    both(tmp_path, runtime, trial)
    seen = Looks.seen
    both(tmp_path, runtime, trial, "again")
    if kind == "looks":
        assert files(tmp_path) == {11: PARTS[1:]} and Looks.seen == 1.5 * seen
    else:
        assert files(tmp_path) == {3: ["epoch-1", "select", "test"], 11: ["epoch-0"]}
