"""How many methods beat LoRA at every linear map, from a made-up archive of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_trials import Fake, cells, written

from harness.archive.collect import archive_run
from harness.comparison.methods import compare_methods, compared_methods
from harness.findings.document import blocks
from harness.findings.methods import ARCHIVE, label_of, methods_table
from harness.runner.runtime import Runtime
from harness.store.store import Store

SEEDS = tuple(range(7))
GAINS = {"adapter": 0.03, "lora_plus": 0.0, "metapeft": -0.03, "rslora": 0.05}
"""Method -> what it adds to LoRA's score."""


def made_up(spec):
    """Best at the recipe's own rate; LoRA+ is as good as LoRA, to a little of each seed."""
    worst = abs(np.log2(spec.recipe.lr / 0.01)) / 100
    noise = 0.001 * (spec.seed % 3) if spec.method in GAINS else 0.0
    return 0.5 + GAINS.get(spec.method, 0.0) + noise - worst


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    store = Store(place / "store")
    compared = compare_methods(
        compared_methods("lora,adapter,lora_plus,rslora,metapeft"),
        study=cells(),
        seeds=SEEDS,
        run=Fake(store, made_up),
        store=store,
        runtime=Runtime(),
    )
    archive_run(written(compared, store), place / ARCHIVE)
    return place


def test_each_method_is_judged_once_at_every_linear_map(archives):
    table = methods_table(archives)
    words = dict(zip(table["arm"], table["verdict"], strict=True))
    assert words.pop("lora, α = 4, all linear maps") is np.nan
    assert words.pop("lora, α = 4, all linear maps, one run") is np.nan
    for other in ("lora, α = 1", "rslora, α = 1 (LoRA's α = 2)"):  # shown, and no other method
        assert words.pop(f"{other}, all linear maps") is np.nan
    assert words == {
        "lora with MetaPEFT": "worse",
        "adapter, all positions": "better",
        "lora_plus, all positions": "equivalent",
    }
    judged = table.set_index("arm").loc["adapter, all positions"]
    assert judged["mean"] == pytest.approx(3 + 0.1 * np.mean([s % 3 for s in SEEDS]))
    assert judged["p_holm"] < 1e-6 and judged["seeds"] == 7
    assert judged["deciding_level"] > 0.95  # three contrasts, corrected for


def test_the_document_counts_those_that_are_better(archives):
    text = blocks([], {}, methods_table(archives))["methods"]
    assert text.startswith("**1 of 3** beat LoRA at every linear map (7 seeds).")
    [learned] = [line for line in text.splitlines() if "with MetaPEFT" in line]
    assert "| -2.91 ± " in learned and "| worse |" in learned


def test_without_an_archive_it_was_not_run(tmp_path):
    assert methods_table(tmp_path) is None
    assert blocks([], {}, None)["methods"] == "Not run.\n"


def test_a_name_loses_the_rates_of_its_seeds():
    assert label_of("hf:dora, all positions (× 2, 0.5)") == "hf:dora, all positions"
