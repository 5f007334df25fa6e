"""Kept activations: equal results with and without, costs, damage, limits, when nothing is kept."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from support.records import TINY

from harness.data import dataset as data
from harness.driver.request import parse_size
from harness.errors import UserError
from harness.insertion.hooks import TrainingHook
from harness.runner import trial as runner
from harness.runner.prefixes import chosen_cuts
from harness.runner.resolve import resolve
from harness.runner.runtime import ActivationCache, Runtime
from harness.runner.trial import run_trial
from harness.store.activations import KeptFolder
from harness.store.store import Store

TIMES = {"wall_s", "device_s", "actual_device_s", "peak_memory_mb"}
LARGE = 2**30


def spec(**values):
    return resolve(TINY.with_values({"recipe.epochs": 2, **values}, source="test"), Runtime())


def cached(tmp_path, budget=LARGE, uses=None):
    cache = ActivationCache(folder=tmp_path / "cache", budget=budget, uses=uses)
    return Runtime(cache=cache)


def numbers(store, trial):
    """All that a trial left but times, memory and machine."""
    folder = store.trials / trial.trial_id
    record = json.loads((folder / "record.json").read_text())
    del record["provenance"]
    record["cost"] = {k: v for k, v in record["cost"].items() if k not in TIMES}
    return record, (folder / "history.jsonl").read_bytes()


def files(tmp_path):
    """Cut -> names of parts."""
    found = {}
    for path in sorted((tmp_path / "cache").rglob("*.*"), key=lambda path: path.name):
        part, _, cut = path.name.partition(".")
        if cut.lstrip("-").isdigit():
            found.setdefault(int(cut), []).append(part)
    return found


def both(tmp_path, runtime, trial, name="with"):
    """The records of a trial with a cache and without; their numbers must be the same."""
    plain, store = Store(tmp_path / "plain"), Store(tmp_path / name)
    without = run_trial(trial, Runtime(), plain)
    record = run_trial(trial, runtime, store)
    assert record.status != "FAILED", record.error
    assert numbers(plain, trial) == numbers(store, trial)
    return record, without


PARTS = ["epoch-0", "epoch-1", "select", "test"]


def test_a_second_trial_begins_where_the_first_one_came_to(tmp_path, monkeypatch):
    runtime = cached(tmp_path)
    first, plain = both(tmp_path, runtime, spec(depth="last:2"))
    assert files(tmp_path) == {10: PARTS}
    assert first.cost.actual_device_s is not None and plain.cost.actual_device_s is None

    def refused(*_):
        raise AssertionError("images were made")

    second = spec(depth="last:1", positions="q")
    plain = run_trial(second, Runtime(), Store(tmp_path / "plain"))
    monkeypatch.setattr(data, "crop_flip", refused)
    record = run_trial(second, runtime, Store(tmp_path / "with"))
    assert record.status == "COMPLETE", record.error
    assert numbers(Store(tmp_path / "plain"), second) == numbers(Store(tmp_path / "with"), second)
    assert files(tmp_path) == {10: PARTS, 11: PARTS}
    assert record.cost.flops == plain.cost.flops


METHODS = {
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
        PARTS[2:],
    ),
    "full": ({"method": "full", "positions": None, "depth": "all", "recipe.lr": 0.001}, None, []),
}


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


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def of_more_batches(path):
    """Whole, but of another pass."""
    key, name = path.parent.name, path.name
    new = KeptFolder(path.parent.parent, LARGE).new(key, name)
    for _ in range(99):
        new.add(torch.zeros(1, 64))
    new.publish({"seconds": [0, 0]})


@pytest.mark.parametrize("damage", [corrupt, truncate, empty, of_more_batches])
def test_damaged_files_change_nothing_and_are_made_again(tmp_path, damage):
    trial, runtime = spec(), cached(tmp_path)
    both(tmp_path, runtime, trial)
    kept = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.11")}
    assert len(kept) == 4
    for path in kept:
        damage(path)
    both(tmp_path, runtime, trial, "damaged")
    both(tmp_path, runtime, trial, "mended")
    for path, content in kept.items():
        assert path.read_bytes()[:1000] == content[:1000]
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.parametrize("when", [0, 1])
def test_the_folder_may_vanish_at_any_moment(tmp_path, when):
    trial, runtime = spec(**{"recipe.epochs": 3}), cached(tmp_path)
    if when:
        both(tmp_path, runtime, trial)
    store = Store(tmp_path / "vanishing")

    def vanish(epochs, scores):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return True

    plain = run_trial(trial, Runtime(), Store(tmp_path / "plain"))
    record = run_trial(trial, runtime, store, vanish)
    assert record.status == plain.status == "COMPLETE"
    assert numbers(Store(tmp_path / "plain"), trial) == numbers(store, trial)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file")
    both(tmp_path, cached(tmp_path), spec())


def test_what_was_used_least_recently_makes_room(tmp_path):
    runtime = cached(tmp_path)
    both(tmp_path, runtime, spec(seed=0))
    one = KeptFolder(tmp_path / "cache", LARGE).size
    runtime = cached(tmp_path, budget=int(1.5 * one))
    for seed in (1, 2):
        both(tmp_path, runtime, spec(seed=seed))
        assert KeptFolder(tmp_path / "cache", LARGE).size <= 1.5 * one
    both(tmp_path, runtime, spec(seed=2), "again")
    assert len(files(tmp_path)[11]) >= 4  # all that the last seed needs


def test_nothing_is_kept_that_has_no_room(tmp_path):
    both(tmp_path, cached(tmp_path, budget=1000), spec())
    assert files(tmp_path) == {}
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_pass_that_another_process_fills_is_only_computed(tmp_path):
    trial, runtime = spec(), cached(tmp_path)
    both(tmp_path, runtime, trial)
    folder = next(path.parent for path in (tmp_path / "cache").rglob("epoch-0.11"))
    (folder / "epoch-0.11").unlink()
    with FileLock(folder / "epoch-0.lock"):
        both(tmp_path, runtime, trial, "locked")
    assert files(tmp_path)[11] == PARTS[1:]
    both(tmp_path, runtime, trial, "free")
    assert files(tmp_path)[11] == PARTS


DIFFERENT = {
    "seed": {"seed": 1},
    "batches": {"recipe.batch_size": 64},
    "crops": {"recipe.crop_scale_min": 0.5},
    "precision": {"recipe.precision": "bf16"},
    "data": {"data.options.seed": 5},
    "split": {"data.val_fraction": 0.3},
    "frozen": {"backbone.frozen": "bf16"},
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_trials_that_see_other_batches_share_nothing(tmp_path, field):
    runtime = cached(tmp_path)
    both(tmp_path, runtime, spec())
    both(tmp_path, runtime, spec(**DIFFERENT[field]))
    assert files(tmp_path)[11].count("epoch-0") == 2


@pytest.mark.parametrize("field", ["recipe.lr", "recipe.head", "recipe.tau", "recipe.epochs"])
def test_trials_that_differ_above_the_cut_share_all(tmp_path, field):
    values = {"recipe.lr": 0.05, "recipe.head": "linear", "recipe.tau": 0.5, "recipe.epochs": 1}
    runtime = cached(tmp_path)
    both(tmp_path, runtime, spec())
    both(tmp_path, runtime, spec(**{field: values[field]}))
    assert files(tmp_path)[11] == PARTS


def test_a_trial_is_charged_for_what_others_computed(tmp_path):
    """By the seconds that are kept with it, here a thousand for every image."""
    trial, runtime = spec(), cached(tmp_path)
    first, _ = both(tmp_path, runtime, trial)
    for path in (tmp_path / "cache").rglob("*.11"):
        folder, key = KeptFolder(tmp_path / "cache", LARGE), path.parent.name
        kept, new = folder.open(key, path.name), folder.new(key, path.name)
        assert len(kept.about["seconds"]) == 2 and all(s > 0 for s in kept.about["seconds"])
        for _ in range(len(kept)):
            new.add(kept.read())
        new.publish({"seconds": [2000.0, 1000.0]})
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
    for path in (tmp_path / "cache").rglob("*.11"):
        folder, key = KeptFolder(tmp_path / "cache", LARGE), path.parent.name
        kept, new = folder.open(key, path.name), folder.new(key, path.name)
        for _ in range(len(kept)):
            new.add(kept.read())
        new.publish({"seconds": [1000.0, 1000.0]})
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
    real = runner.train

    def short_of_memory(*args, micro_batches, **rest):
        if micro_batches == 1:
            raise torch.OutOfMemoryError("simulated")
        return real(*args, micro_batches=micro_batches, **rest)

    monkeypatch.setattr(runner, "train", short_of_memory)
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
    from harness.insertion.attachment import Attachment

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
    both(tmp_path, runtime, spec())
    seen = Looks.seen
    both(tmp_path, runtime, spec(), "again")
    if kind == "looks":
        assert files(tmp_path) == {11: PARTS[2:]} and Looks.seen == 1.5 * seen
    else:
        assert files(tmp_path) == {3: ["epoch-1", "select", "test"], 11: ["epoch-0"]}


def test_cuts_are_chosen_by_what_they_save_per_byte():
    uses, sizes = {0: 6, 5: 6, 11: 6, 13: 1}, [100] * 13 + [5]
    assert chosen_cuts(uses, sizes, 400) == {0, 5, 11, 13}
    assert chosen_cuts(uses, sizes, 210) == {5, 11, 13}
    assert chosen_cuts(uses, sizes, 204) == {5, 11}
    assert chosen_cuts(uses, sizes, 110) == {5, 13}
    assert chosen_cuts(uses, sizes, 99) == {13}
    assert chosen_cuts(uses, sizes, 4) == set()
    assert chosen_cuts({40: 3}, sizes, 400) == set()


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), (0, 0), ("500M", 500 * 2**20), ("1.5g", 3 * 2**29), ("2 GiB", 2**31)],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "2X"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match=r"write a size such as 500M or 2G"):
        parse_size(text)


def test_tensors_are_read_as_they_were(tmp_path):
    """Also a view of every first token, and a transposed one: strides may decide about bits."""
    tokens = torch.randn(5, 17, 8)
    given = [tokens, tokens[:, 0], tokens.transpose(1, 2), tokens[:2]]
    folder = KeptFolder(tmp_path, LARGE)
    (tmp_path / "key").mkdir()
    new = folder.new("key", "name")
    for tensor in given:
        new.add(tensor)
    assert folder.names("key") == {f"name.{os.getpid()}.part"}
    new.publish({"seconds": [1.0, 2.0]})
    kept = folder.open("key", "name")
    assert len(kept) == len(given) and kept.about == {"seconds": [1.0, 2.0]}
    for tensor in given:
        found = kept.read()
        assert torch.equal(found, tensor) and found.stride() == tensor.stride()
        assert found.data_ptr() % 64 == 0
    kept.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_what_a_worker_keeps_of_freed_memory_is_bounded():
    code = """
import torch
from harness.runner.memory import PeakMemory, _resident, keep_freed_memory

assert keep_freed_memory()
before = _resident("VmRSS")
blocks = [torch.ones(2**20) for _ in range(150)]  # of 4 MiB, which malloc would map one by one
assert _resident("VmRSS") > before + 500
del blocks
assert _resident("VmRSS") < before + 300
PeakMemory(torch.device("cpu"))
assert _resident("VmRSS") < before + 50
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
