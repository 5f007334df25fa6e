"""Dev sets and tails by seed: balanced, apart from what is trained and tested on, reproducible."""

from __future__ import annotations

import csv
import itertools
import re

import numpy as np
import pytest
import torch
from support.cli import harness
from support.images import SIZE, tree, two_splits
from support.records import WHOLE
from test_cifar100_lt import shuffled_labels, write_cifar

from harness.data.dataset import Images, split
from harness.data.dev_set import for_seed, in_order
from harness.data.listing import Item
from harness.data.long_tail import LongTail, thirds
from harness.data.pack_format import packs_of, verify
from harness.data.packed import PackRequest, forget_packs, load_packed, pack_of
from harness.datasets.folder import FolderOptions
from harness.datasets.synth_rs import SynthRS, SynthRSOptions
from harness.errors import UserError
from harness.runner.prepare import prepare
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import DataSpec
from harness.store.store import Store

TAIL = {"imbalance": 4.0, "largest": 8}
"""Of three classes of 14 images: 8, 4 and 2."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    names = ("a", "b", "c")
    where = tmp_path_factory.mktemp("dev") / "images"
    return two_splits(where, dict.fromkeys(names, 14), dict.fromkeys(names, 3))


def load(root, packs, name="folder", trial=0, **options):
    """A dataset on disk as a trial of some seed gets it, and its spec."""
    given = DataSpec(name=name, options=options)
    data = WHOLE.data.model_copy(update=dict(given))
    runtime = Runtime(data_root=str(root), packs=str(packs))
    backbone = WHOLE.backbone.model_copy(update={"img_size": SIZE})
    spec = resolve(WHOLE.model_copy(update={"data": data, "backbone": backbone}), runtime).data
    return load_packed(spec, SIZE, str(packs), trial), spec


def contents(images):
    """The pixels of every image, as tested."""
    return {each.numpy().tobytes() for each in images.plain()}


def per_class(images):
    return torch.bincount(images.labels).tolist()


def same(one, two):
    return contents(one) == contents(two)


def test_a_dev_set_is_balanced_and_apart_and_nothing_is_held_out(root, tmp_path):
    data, spec = load(root, tmp_path, dev_per_class=5, **TAIL)
    parts = split(data, spec, seed=0)
    assert per_class(parts.train) == [8, 4, 2] == parts.train_counts.tolist()
    assert per_class(parts.select) == [5, 5, 5] and per_class(parts.test) == [3, 3, 3]
    sets = [contents(part) for part in (parts.train, parts.select, parts.test)]
    assert [len(each) for each in sets] == [14, 15, 9], "an image is there twice"
    assert not any(one & two for one, two in itertools.combinations(sets, 2))
    assert data.groups == {"tail": (0, 1, 2)}, "groups are by the images that are trained on"


def test_without_a_dev_set_a_part_is_held_out_as_before(root, tmp_path):
    data, spec = load(root, tmp_path, **TAIL)
    parts = split(data, spec, seed=0)
    assert data.dev is None and len(parts.train) + len(parts.select) == 14
    assert "dev_per_class" not in spec.options and "largest" in spec.options
    assert resolve(WHOLE, Runtime()).data.options == {"seed": 0, "test_per_class": 4}


def test_a_seed_draws_its_own_tail_and_dev_set_again_and_again(root, tmp_path):
    options = dict(dev_per_class=5, tail_seed="trial", **TAIL)
    one, two, again = (load(root, tmp_path, trial=seed, **options)[0] for seed in (1, 2, 1))
    for part in ("train", "dev"):
        assert same(getattr(one, part), getattr(again, part))
        assert not same(getattr(one, part), getattr(two, part))
    assert same(one.test, two.test)
    fixed = [load(root, tmp_path, trial=seed, dev_per_class=5, **TAIL)[0] for seed in (1, 2)]
    assert same(fixed[0].train, fixed[1].train) and same(fixed[0].dev, fixed[1].dev)
    number, _ = load(root, tmp_path, trial=7, **{**options, "tail_seed": 1})
    assert same(number.train, one.train) and same(number.dev, one.dev)
    assert len(list(tmp_path.glob("folder-*"))) == 1, "all seeds share one pack"


def test_a_dev_set_is_the_same_whatever_the_tail(root, tmp_path):
    long, short = (
        load(root, tmp_path, dev_per_class=5, imbalance=imbalance, largest=8)[0]
        for imbalance in (8.0, 2.0)
    )
    assert same(long.dev, short.dev) and contents(long.train) < contents(short.train)
    smaller, _ = load(root, tmp_path, dev_per_class=3, **TAIL)
    assert contents(smaller.dev) < contents(long.dev)


def write_list(root, order, name):
    rows = [
        (f"{part}/{cls}/{number}.png", cls, part)
        for part, count in (("train", 14), ("test", 3))
        for cls in "abc"
        for number in range(count)
    ]
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *(rows[i] for i in order)])


def test_neither_order_of_files_nor_of_classes_matters(root, tmp_path):
    orders = [range(51), np.random.default_rng(0).permutation(51)]
    for number, order in enumerate(orders):
        write_list(root, order, f"{number}.csv")
    (root / "counts.csv").write_text("class,count\nb,4\nc,2\na,8\n")
    (root / "names.txt").write_text("c\na\nb\n")
    options = dict(dev_per_class=5, tail="counts.csv", list="0.csv")
    first, _ = load(root, tmp_path, **options)
    assert per_class(first.train) == [8, 4, 2] and per_class(first.dev) == [5, 5, 5]
    shuffled, _ = load(root, tmp_path, **{**options, "list": "1.csv"})
    assert torch.equal(first.train.plain(), shuffled.train.plain())
    assert torch.equal(first.dev.plain(), shuffled.dev.plain())
    named, _ = load(root, tmp_path, classes="names.txt", **options)
    assert named.classes == ("c", "a", "b") and per_class(named.train) == [2, 8, 4]
    assert same(named.train, first.train) and same(named.dev, first.dev)


def test_other_counts_in_the_file_make_other_data(root, tmp_path):
    found = []
    for count in (2, 3):
        (root / "few.csv").write_text(f"class,count\na,8\nb,4\nc,{count}\n")
        forget_packs()
        found.append(load(root, tmp_path, dev_per_class=5, tail="few.csv"))
    (two, first), (three, second) = found
    assert per_class(two.train) == [8, 4, 2] and per_class(three.train) == [8, 4, 3]
    assert first.sha256 != second.sha256 and first.options == second.options
    assert all(verify(folder) for folder in packs_of(tmp_path, "folder"))


def test_a_dataset_that_makes_no_dev_set_is_not_chosen_on_something_else(root, tmp_path):
    data, _ = load(root, tmp_path, **TAIL)
    with pytest.raises(UserError, match="makes no dev set"):
        split(data, DataSpec(options={"dev_per_class": 2}), seed=0)


def test_an_image_that_is_listed_twice_or_in_test_is_drawn_once():
    a, b, c = (Item(f"{name}.png", 0) for name in "abc")
    assert in_order([c, b, a, c._replace(label=1), b._replace(box=(0, 0, 1, 1))], [a]) == (
        b,
        b._replace(box=(0, 0, 1, 1)),
        c,
    )


def test_an_image_that_cannot_be_read_is_not_in_the_dev_set(tmp_path):
    where = tree(tmp_path / "images" / "train", {"a": 8, "b": 6})
    tree(tmp_path / "images" / "test", {"a": 2, "b": 2}, start=500)
    (where / "b" / "3.png").write_bytes(b"")
    options = LongTail(imbalance=2, largest=4, dev_per_class=4).model_dump_json()
    place = (str(tmp_path / "images"), str(tmp_path / "packs"), "skip")
    with pytest.raises(UserError, match=r"class 'b' has 3:"):
        pack_of(PackRequest("folder", options, SIZE, *place))


def test_cifar100_lt_keeps_images_for_a_dev_set(tmp_path):
    write_cifar(tmp_path / "files", shuffled_labels(12, 1), shuffled_labels(2, 2))
    options = dict(imbalance=10, largest=8, dev_per_class=4, tail_seed="trial")
    one, two = (
        load(tmp_path / "files", tmp_path / "packs", "cifar100_lt", trial=seed, **options)[0]
        for seed in (1, 2)
    )
    counts = [max(1, int(8 * 0.1 ** (c / 99))) for c in range(100)]
    assert per_class(one.train) == counts and per_class(one.dev) == [4] * 100
    assert not set(one.train.rows.tolist()) & set(one.dev.rows.tolist())
    assert set(one.dev.rows.tolist()) != set(two.dev.rows.tolist())
    with pytest.raises(UserError, match=r"class 'class 0' has 2, .* and so on for"):
        load(tmp_path / "files", tmp_path / "packs", "cifar100_lt", **{**options, "largest": 10})


@pytest.mark.slow
def test_the_embedded_benchmark_draws_new_images():
    options = SynthRSOptions(dev_per_class=20)
    before, data = SynthRS.load(SynthRSOptions()), SynthRS.load(options)
    assert before.dev is None and len(data.train) == 911
    assert torch.equal(before.train.plain(), data.train.plain())
    assert per_class(data.dev) == [20] * 15
    sets = [contents(part) for part in (data.train, data.dev, data.test)]
    assert [len(each) for each in sets] == [911, 300, 1200]
    assert not any(one & two for one, two in itertools.combinations(sets, 2))
    by_trial = options.model_copy(update={"tail_seed": "trial"})
    zero, one, again, two = (SynthRS.load(for_seed(by_trial, seed)) for seed in (0, 1, 1, 2))
    assert same(zero.train, data.train) and same(zero.dev, data.dev)
    assert same(one.train, again.train) and same(one.dev, again.dev)
    assert not contents(one.train) & contents(two.train)
    assert not contents(one.dev) & contents(two.dev)
    assert not contents(one.dev) & contents(one.train)
    assert torch.equal(one.test.plain(), before.test.plain())


@pytest.mark.slow
def test_a_worker_gives_every_seed_its_own_images():
    values = {"data.options.dev_per_class": 3, "data.options.tail_seed": "trial"}
    base = WHOLE.with_values(values, source="test")
    one, two, again = (
        prepare(resolve(base.model_copy(update={"seed": seed}), Runtime()), Runtime()).split
        for seed in (1, 2, 1)
    )
    assert len(one.train) == len(two.train) == 911 and per_class(one.select) == [3] * 15
    assert same(one.train, again.train) and same(one.select, again.select)
    assert not contents(one.train) & contents(two.train)
    shared = WHOLE.with_values({"data.options.dev_per_class": 3}, source="test")
    one, two = (
        prepare(resolve(shared.model_copy(update={"seed": seed}), Runtime()), Runtime()).split
        for seed in (1, 2)
    )
    assert same(one.train, two.train) and same(one.select, two.select)


@pytest.mark.slow
def test_strengths_are_not_learned_on_the_dev_set(tmp_path, monkeypatch):
    seen, augmented = set(), Images.augmented

    def watched(self, index, recipe, rng):
        seen.update(each.numpy().tobytes() for each in self.pixels[index])
        return augmented(self, index, recipe, rng)

    monkeypatch.setattr(Images, "augmented", watched)
    values = {"data.options.dev_per_class": 3, "method": "metapeft", "recipe.augment": "none"}
    spec = resolve(WHOLE.with_values(values, source="test"), Runtime())
    record = run_trial(spec, Runtime(), Store(tmp_path))
    assert record.learned is not None and record.select.class_counts == (3,) * 15
    parts = prepare(spec, Runtime()).split
    assert seen == contents(parts.train)


def test_groups_are_thirds_of_the_classes_on_request(root, tmp_path):
    assert thirds([5, 9, 9, 1]) == {"head": (1, 2), "medium": (0,), "tail": (3,)}
    assert thirds([4, 7]) == {"head": (1,), "medium": (0,)}
    data, _ = load(root, tmp_path, dev_per_class=5, grouped_by="thirds", **TAIL)
    assert data.groups == {"head": (0,), "medium": (1,), "tail": (2,)}


# From the command line.


def settings(values):
    return [word for pair in values.items() for word in ("--set", "=".join(map(str, pair)))]


def test_check_counts_the_dev_set(root, tmp_path):
    given = {"data.options.dev_per_class": 5, "data.options.imbalance": 4}
    place = ("data", "check", "folder", "--data-root", root, "--out", tmp_path)
    result = harness(*place, *settings({**given, "data.options.largest": 8}))
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["class", "group", "train", "train", "used", "dev", "test"] in lines
    assert ["c", "tail", "14", "2", "5", "3"] in lines
    assert "Chosen on: dev set, 5 per class." in result.output
    refused = harness(*place, *settings(given))
    assert refused.exit_code == 2 and "class 'a' has 0" in refused.output


@pytest.mark.slow  # a worker of its own
def test_training_says_what_is_chosen_on(tmp_path):
    given = {
        "data.options.dev_per_class": 3,
        "data.options.test_per_class": 4,
        "data.options.tail_seed": "trial",
        "backbone.weights": "random",
        "recipe.epochs": 1,
    }
    words = ["--method", "linear_probe", "--workers", 1, "--out", tmp_path]
    result = harness("train", *words, *settings(given))
    assert result.exit_code == 0, result.output
    assert "Chosen on: dev set, 3 per class; nothing is held out" in result.output
    assert "\ndev set " in result.output and "validation" not in result.output
    (record,) = [Store(tmp_path).record(path.name) for path in (tmp_path / "trials").iterdir()]
    assert record.spec.data.options["dev_per_class"] == 3
    assert record.select.class_counts == (3,) * 15 and record.test.class_counts == (4,) * 15


def test_a_dev_set_of_each_trials_own_needs_no_long_tail():
    options = FolderOptions(tail_seed="trial", dev_per_class=5)
    assert options.seed_for(3) == 3


SHORT = {"data": "folder", "data.options.imbalance": 4, "data.options.dev_per_class": 5}


@pytest.mark.parametrize(
    "given, words",
    [
        (SHORT, "dev_per_class=5 takes that many images .* class 'a' has 0"),
        ({"data.options.dev_per_class": 5, "data.val_fraction": 0.3}, "nothing is held out"),
        ({"data.options.dev_per_class": 5, "data.val_fraction": 0.2}, "nothing is held out"),
        ({"data.options.dev_per_class": 5, "data.select_on": "test"}, "give one of them"),
        ({"data.options.dev_per_class": -1}, "greater than or equal to 0"),
        ({"data.options.tail_seed": "trail"}, "whole number from 0, or trial, not 'trail'"),
        ({"data.options.tail_seed": -1}, "whole number from 0, or trial, not -1"),
        (
            {"data": "folder", "data.options.tail_seed": "trial"},
            "where neither a long tail",
        ),
        ({"data": "folder", "data.options.largest": 5}, "no effect without data.options.imb"),
        ({**SHORT, "data.options.largest": 15}, "the largest class has 14 training images"),
        (
            {"data": "folder", "data.options.grouped_by": "thirds", "data.options.head_above": 9},
            "no effect with grouped_by",
        ),
        *(
            ({"data": name, f"data.options.{field}": value}, f"data {name}: .* {field} has no eff")
            for name in ("dota", "fusrs", "inat2018", "places_lt")
            for field, value in (("dev_per_class", 5), ("tail_seed", "trial"))
        ),
    ],
)
def test_what_cannot_be_or_has_no_effect_is_refused_in_one_sentence(root, tmp_path, given, words):
    place = ["--data-root", root, "--out", tmp_path / "out"] if "data" in given else []
    result = harness("train", "--method", "linear_probe", *place, *settings(given))
    assert result.exit_code == 2, result.output
    error = result.output[result.output.index("Error: ") :]
    assert len(error.splitlines()) == 1 and "Traceback" not in result.output
    assert re.search(words, error), error
