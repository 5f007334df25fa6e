"""What a record holds, from the command line to its readers: hits, names, costs by part, memory."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.cli import harness
from support.records import TINY

from harness.metrics import SplitMetrics, pack_hits, split_metrics, unpack_hits
from harness.runner.memory import PeakMemory
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.search.base import Decision
from harness.search.bounded import bounded
from harness.store.store import Store
from harness.store.table import read_table

STUDY = """
from harness.spec import DataSpec, Recipe, TrialRequest
from harness.study import Axis, Study


def study() -> Study:
    return Study(
        name="s",
        question="What does a record hold?",
        paper="none",
        base=TrialRequest(
            data=DataSpec(options={"test_per_class": 4}),
            recipe=Recipe(epochs=2, batch_size=512),
        ),
        axes=(Axis(field="method", values=("full", "linear_probe"), label="method"),),
        views=(),
        smoke={},
        reference=None,
        fixed="nothing",
    )
"""
"""Two trials in one worker, of which the first takes much more memory."""


class Sweep:
    """A finished sweep and what it left."""

    def __init__(self, root, *args):
        (root / "s.py").write_text(STUDY)
        self.out = root / "runs"
        self.study = root / "s.py"
        self.run = harness(
            *("sweep", "--study", self.study, "--workers", 1, "--out", self.out, *args)
        )
        assert self.run.exit_code == 0, self.run.output
        (self.folder,) = (self.out / "studies").iterdir()
        rows = json.loads((self.folder / "study.json").read_text())["cells"]
        self.ids = {row["cell"]["method"]: row["trial_id"] for row in rows}
        self.records = {name: self.record(key) for name, key in self.ids.items()}

    def record(self, trial_id):
        return json.loads((self.out / "trials" / trial_id / "record.json").read_text())

    def history(self, method):
        path = self.out / "trials" / self.ids[method] / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def scored_last(tmp_path_factory):
    return Sweep(
        tmp_path_factory.mktemp("last"), "--keep", "all", "--set", "recipe.score_epochs=last"
    )


def scores(record, part):
    return SplitMetrics.model_validate_json(json.dumps(record[part]))


def by_image(found):
    """Whether each image was right, and its class, as the docstring of `hits` has them."""
    count, classes = sum(found.class_counts), np.arange(len(found.class_counts))
    return unpack_hits(found.hits, count), np.repeat(classes, found.class_counts)


@pytest.mark.slow
def test_a_record_says_which_images_were_right(scored_last):
    for record in scored_last.records.values():
        for part, total in (("select", 183), ("test", 60)):
            found = scores(record, part)
            hits, labels = by_image(found)
            assert len(hits) == len(labels) == total and len(found.hits) <= total / 6 + 4
            assert hits.mean() == pytest.approx(found.micro)
            by_class = [hits[labels == c].mean() for c in range(15)]
            assert by_class == pytest.approx(found.per_class)
        assert len(record["class_names"]) == 15 == len(set(record["class_names"]))


@pytest.mark.slow
def test_the_selection_split_is_scored_once_after_training_and_the_test_once(scored_last):
    for name, record in scored_last.records.items():
        first, last = scored_last.history(name)
        assert "select" not in first and first["train_loss"] > 0
        assert last["select"]["class_mean"] == record["select"]["class_mean"]
        assert record["tested_epoch"] == 1
        cost = record["cost"]
        assert cost["images_forward"] - cost["images_backward"] == 183 + 60
        assert cost["selection_flops"] == 183 * cost["inference_flops"]
        assert cost["test_flops"] == 60 * cost["inference_flops"]
        parts = ("training_flops", "selection_flops", "test_flops")
        assert sum(cost[part] for part in parts) == cost["flops"]
        assert cost["training_flops"] > 2 * 728 * cost["inference_flops"]


@pytest.mark.slow
def test_memory_is_that_of_the_trial_and_not_of_one_before_it(scored_last):
    """In one worker; as the high-water mark, the probe's could not be the smaller one."""
    full, probe = (scored_last.records[name]["cost"] for name in ("full", "linear_probe"))
    assert probe["peak_memory_mb"] + 50 < full["peak_memory_mb"]
    report = (scored_last.folder / "report" / "report.md").read_text()
    assert f"{full['peak_memory_mb']:.0f}" in report


@pytest.mark.slow
def test_tensors_have_the_mode_of_the_record_beside_them(scored_last, tmp_path):
    for trial_id in scored_last.ids.values():
        folder = scored_last.out / "trials" / trial_id
        modes = {(folder / n).stat().st_mode for n in ("weights.safetensors", "record.json")}
        assert len(modes) == 1
    exported = harness("export", trial_id, "--weights", tmp_path / "w", "--out", scored_last.out)
    assert exported.exit_code == 0, exported.output
    assert len({path.stat().st_mode for path in (tmp_path / "w").iterdir()}) == 1


@pytest.mark.slow
def test_exports_have_hits_and_the_classes_names(scored_last, tmp_path):
    csv, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    run = harness(
        *("export", scored_last.folder, "--csv", csv, "--parquet", parquet),
        *("--out", scored_last.out),
    )
    assert run.exit_code == 0, run.output
    read = pd.read_csv(csv), pd.read_parquet(parquet)
    assert list(read[0].columns) == list(read[1].columns)
    for rows in read:
        for _, row in rows.iterrows():
            record = scored_last.records[row["method"]]
            for part in ("select", "test"):
                assert row[f"{part}_hits"] == record[part]["hits"]
                assert json.loads(row[f"{part}_class_counts"]) == record[part]["class_counts"]
                by_class = json.loads(row[f"{part}_by_class"])
                assert list(by_class) == record["class_names"]
                percent = [100 * share for share in record[part]["per_class"]]
                assert list(by_class.values()) == percent


@pytest.mark.slow
def test_a_table_has_them_and_no_scores_of_epochs_that_were_not_scored(scored_last, tmp_path):
    path = tmp_path / "t.parquet"
    run = harness("tabulate", scored_last.folder, "--file", path, "--out", scored_last.out)
    assert run.exit_code == 0, run.output
    table = read_table(path)
    record = scored_last.records["full"]
    assert list(table.info.class_names) == record["class_names"]
    rows = table.rows[table.rows["trial_id"] == scored_last.ids["full"]]
    assert rows["select_class_mean"].isna().tolist() == [True, False]
    last = rows.iloc[-1]
    assert (last["final_hits"], last["test_hits"]) == tuple(
        record[part]["hits"] for part in ("select", "test")
    )
    assert json.loads(last["test_class_counts"]) == record["test"]["class_counts"]
    cost = record["cost"]
    assert last["flops"] == cost["training_flops"] + cost["selection_flops"]
    replay = harness(
        *("compare", "--search", "random", "--replay", path, "--budget", 2, "--repeats", 2),
        *("--out", tmp_path / "r"),
    )
    assert replay.exit_code == 0, replay.output
    watched = harness(
        *("compare", "--search", "random+median", "--replay", path, "--budget", 2),
        *("--repeats", 2, "--out", tmp_path / "p"),
    )
    assert watched.exit_code == 2 and "watches the scores of every epoch" in watched.output


# Scoring the last epoch alone.


@pytest.mark.parametrize(
    "args,watcher",
    [
        (["--search", "tpe", "--pruner", "median"], "--pruner median"),
        (["--search", "pbt", "--budget", 3], "--search pbt"),
        (["--set", "recipe.early_stop=true"], "recipe.early_stop"),
        (["--set", 'recipe.epoch_rule="best"'], "recipe.epoch_rule"),
    ],
)
def test_what_watches_every_epoch_is_refused_in_one_sentence(tmp_path, args, watcher):
    run = harness(
        *("sweep", "--study", "rank_vs_alpha", "--set", "recipe.score_epochs=last", *args),
        *("--dry-run", "--out", tmp_path),
    )
    assert run.exit_code == 2, run.output
    (line,) = run.output.strip().splitlines()
    assert "recipe.score_epochs=last: " in line and watcher in line and "leave one of" in line


def test_a_users_search_that_watches_is_refused_too():
    spec = resolve(TINY.with_values({"recipe.score_epochs": "last"}, source="t"), Runtime())

    class Watcher:
        needs_epoch_reports = True

        def ask(self, count):
            return [spec]

        def report(self, trial_id, epoch, score):
            return Decision.GO_ON

        def tell(self, outcome):
            pass

    from harness.errors import UserError

    with pytest.raises(UserError, match=r"search 'Watcher' watches the scores of every epoch"):
        bounded(Watcher()).ask(1)


@pytest.mark.slow
def test_scoring_the_last_epoch_alone_changes_costs_and_nothing_else(tmp_path):
    found = {}
    for which in ("all", "last"):
        values = {"recipe.epochs": 3, "recipe.score_epochs": which}
        spec = resolve(TINY.with_values(values, source="t"), Runtime())
        found[which] = run_trial(spec, Runtime(), Store(tmp_path))
    whole, last = found.values()
    assert (whole.select, whole.test, whole.learned) == (last.select, last.test, last.learned)
    assert whole.trial_id != last.trial_id
    assert whole.cost.selection_flops == 3 * last.cost.selection_flops
    assert whole.cost.training_flops == last.cost.training_flops
    assert whole.cost.charged_flops - last.cost.charged_flops == 2 * last.cost.selection_flops


# Bits.


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_hits_are_packed_and_unpacked(count):
    hits = np.random.default_rng(count).random(count) < 0.5
    text = pack_hits(hits)
    assert np.array_equal(unpack_hits(text, count), hits)
    assert len(text) == 4 * math.ceil(math.ceil(count / 8) / 3)
    with pytest.raises(ValueError):
        unpack_hits(text, count + 8)


def test_a_bit_is_of_the_image_at_its_place_in_its_class():
    labels = np.array([2, 0, 1, 0, 2, 2])
    found = split_metrics(
        predictions=np.array([2, 0, 0, 1, 1, 2]),
        labels=labels,
        features=np.eye(6),
        loss=0.0,
        groups={"all": (0, 1, 2)},
        num_classes=4,
    )
    hits, of = by_image(found)
    assert hits.tolist() == [True, False, False, True, False, True]
    assert of.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.flat_mean == found.group_mean


@pytest.mark.slow
def test_classes_of_images_of_ones_own_are_named(tmp_path, trained_here):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for name in ("a b", "ä", "z"):
            folder = tmp_path / "d" / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 255, (40, 40, 3)).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{part}{name}{n}.png")
    run = harness(
        *("train", "--method", "linear_probe", "--set", "data=folder", "--set", "recipe.epochs=1"),
        *("--data-root", tmp_path / "d", "--workers", 1, "--out", tmp_path / "o"),
    )
    assert run.exit_code == 0, run.output
    (path,) = (tmp_path / "o").glob("trials/*/record.json")
    record = json.loads(path.read_text())
    assert record["class_names"] == ["a b", "z", "ä"]
    assert len(record["test"]["per_class"]) == 3


# Memory.

needs_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the platform cannot reset the peak"
)
CPU = torch.device("cpu")
MIB = 2**20


@needs_linux
def test_the_peak_is_counted_anew_from_what_is_resident_then():
    before = PeakMemory(CPU)
    large = torch.ones(300 * MIB // 4)
    highest = before.mib
    del large
    now = PeakMemory(CPU)
    start = now.mib
    assert start < highest - 250
    large = torch.ones(200 * MIB // 4)
    del large
    assert start + 150 < now.mib < highest


@pytest.mark.parametrize(
    "status",
    [None, "VmHWM:\t  900000 kB\nVmRSS:\t  100000 kB\n", "Name:\tpython\n"],
    ids=["nothing", "not reset", "not told"],
)
def test_where_the_platform_cannot_tell_there_is_no_number(tmp_path, monkeypatch, status):
    if status is not None:
        (tmp_path / "status").write_text(status)
    root = tmp_path if status is not None else Path("/nonexistent")
    monkeypatch.setattr("harness.runner.memory.PROCESS", root)
    assert PeakMemory(CPU).mib is None
