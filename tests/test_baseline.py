"""The baseline of every comparison: which trials it is, and where a table has it."""

from __future__ import annotations

import pytest
from support.sweeps import made_sweep
from support.tables import small_study

from harness.catalogue.studies import load_study
from harness.comparison.baseline import (
    ALPHA,
    RATES,
    STANDING,
    baseline_cells,
    recorded_baseline,
    with_baseline,
)
from harness.comparison.replay import replay_searches
from harness.comparison.request import Repeats, SearchesRequest
from harness.errors import UserError
from harness.reports.numbers.searches import load_searches
from harness.reports.text.searches import search_document
from harness.runner.runtime import Runtime
from harness.search.plan import live_space
from harness.spec import LINEAR_POSITIONS, Placement
from harness.store.runs import read_search_comparison
from harness.store.search_log import asks, read_log
from harness.store.store import Store
from harness.store.table import read_table, tabulate
from harness.studies.protocol_synth_rs_lora import RATE

ONE_RUN, TUNED = STANDING
EVERYWHERE = Placement.of(LINEAR_POSITIONS, range(12), ALPHA)


@pytest.mark.parametrize("name", ["joint_space", "per_site", "rank_vs_alpha"])
def test_it_is_lora_at_every_linear_map_on_the_studys_data(name):
    study = load_study(name)
    cells = baseline_cells(study)
    assert cells[ONE_RUN] == cells[TUNED][:1]
    _, make = live_space(study, Runtime())
    made = with_baseline(make, study, Runtime())
    specs = [made(cell, 7) for cell in cells[TUNED]]
    for spec, rate in zip(specs, RATES, strict=True):
        assert spec.method == "lora" and spec.placement == EVERYWHERE and spec.seed == 7
        assert spec.options["rank"] == study.base.options.get("rank", 4)
        assert spec.recipe.lr == rate * study.base.recipe.lr
        assert spec.data == specs[0].data and spec.data.name == study.base.data.name
    point = next(iter(study.cells()))
    if name != "per_site":
        assert made(point, 3) == make(point, 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of the protocol's space of LoRA, which has the baseline at two rates."""
    root = tmp_path_factory.mktemp("protocol")
    study = load_study("protocol_synth_rs_lora").derive(seeds=(100, 101))

    def true(cell):
        return 0.5 if cell["where"] != "all" else 0.6 if cell["recipe.lr"] == 4 * RATE else 0.55

    tabulate([made_sweep(root, study, true=true)], root / "t.parquet")
    return root / "t.parquet"


def test_a_table_has_it_at_the_rates_that_it_has(made):
    found = recorded_baseline(read_table(made))
    cell = {"where": "all", "depth": "last:12", "alpha": ALPHA}
    assert found[ONE_RUN] == [{**cell, "recipe.lr": RATE}]
    assert found[TUNED] == [{**cell, "recipe.lr": RATE}, {**cell, "recipe.lr": 4 * RATE}]


def replayed(table, root, searches, repeats):
    asked = SearchesRequest(
        searches=searches, budget="4runs", repeats=Repeats(count=repeats), line="test"
    )
    return replay_searches(asked, table, None, Store(root), processes=1)


def test_a_replay_charges_it_for_what_it_tried(made, tmp_path):
    folder = replayed(made, tmp_path, "random", 3)
    comparison = read_search_comparison(folder)
    assert comparison.searches == ("random", *STANDING) and comparison.standing == STANDING
    assert comparison.repeats_of(TUNED) == 2 and not comparison.notes[1:]
    for repeat, seed in enumerate((100, 101)):
        tried = [ask.cell["recipe.lr"] for ask in asks(read_log(folder.log(repeat, TUNED)))]
        assert tried == [RATE, 4 * RATE]
        (one,) = asks(read_log(folder.log(repeat, ONE_RUN)))
        assert one.seed == seed and one.cell["recipe.lr"] == RATE
    document = search_document(load_searches(folder), None, "")
    assert f"{ONE_RUN} and {TUNED}: LoRA" in document.definition["Baseline of every comparison"]


def test_a_table_without_it_says_so(tmp_path):
    study = small_study(seeds=(0,))
    tabulate([made_sweep(tmp_path, study)], tmp_path / "t.parquet")
    assert recorded_baseline(read_table(tmp_path / "t.parquet")) == {}
    folder = replayed(tmp_path / "t.parquet", tmp_path, "random", 1)
    comparison = read_search_comparison(folder)
    assert comparison.searches == ("random",) and comparison.standing == ()
    words = "The table lacks the baseline of every comparison"
    assert sum(note.startswith(words) for note in comparison.notes) == 1
    with pytest.raises(UserError, match=f"Unknown search '{ONE_RUN}'"):
        replayed(tmp_path / "t.parquet", tmp_path / "other", ONE_RUN, 1)
