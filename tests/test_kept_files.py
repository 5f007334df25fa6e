"""Files of kept activations: damage, deletion, room, locks, and the memory that workers keep."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from support.prefixes import LARGE, PARTS, both, cached, files, numbers, spec

from harness.driver.request import parse_size
from harness.errors import UserError
from harness.runner.prefixes import chosen_cuts
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.store.activations import KeptFolder
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("few_images")


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
    assert len(kept) == len(PARTS)
    for path in kept:
        damage(path)
    both(tmp_path, runtime, trial, "damaged")
    both(tmp_path, runtime, trial, "mended")
    for path, content in kept.items():
        assert path.read_bytes()[:1000] == content[:1000]
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_was_used_least_recently_makes_room(tmp_path):
    runtime = cached(tmp_path)
    both(tmp_path, runtime, spec(seed=0))
    one = KeptFolder(tmp_path / "cache", LARGE).size
    runtime = cached(tmp_path, budget=int(1.5 * one))
    for seed in (1, 2):
        both(tmp_path, runtime, spec(seed=seed))
        assert KeptFolder(tmp_path / "cache", LARGE).size <= 1.5 * one
    both(tmp_path, runtime, spec(seed=2), "again")
    kept = [part for parts in files(tmp_path).values() for part in parts]
    assert set(kept) == set(PARTS)  # all that the last seed needs


def test_nothing_is_kept_that_has_no_room(tmp_path):
    both(tmp_path, cached(tmp_path, budget=1000), spec())
    assert files(tmp_path) == {}
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.slow
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


def test_cuts_are_chosen_by_what_they_save_per_byte():
    uses, sizes = {0: 6, 5: 6, 11: 6, 13: 1}, [100] * 13 + [5]
    assert chosen_cuts(uses, sizes, 400) == {0, 5, 11, 13}
    assert chosen_cuts(uses, sizes, 210) == {5, 11, 13}
    assert chosen_cuts(uses, sizes, 110) == {11, 13}
    assert chosen_cuts(uses, sizes, 99) == {13}
    assert chosen_cuts(uses, sizes, 4) == set()
    assert chosen_cuts({40: 3}, sizes, 400) == set()


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), (0, 0), ("500M", 500 * 2**20), ("1.5g", 3 * 2**29), ("2 GiB", 2**31)],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "2X", "9" * 400, "9999999T"])
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


@pytest.mark.slow
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
PeakMemory(torch.device("cpu"))
assert _resident("VmRSS") < before + 50
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
