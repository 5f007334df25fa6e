"""Every pair of a sweep's cells: by seed, corrected for their number, and said in a sentence."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats
from support.records import TINY
from support.runs import made_run, study

from harness.reports.files.write import write_report
from harness.reports.numbers.pairs import cell_pairs
from harness.reports.numbers.run import load_run
from harness.reports.text.pairs import pairs_words
from harness.study.axes import Axis

SCORES = {"q": (50.0, 52.0, 51.0), "v": (54.8, 56.9, 55.8), "mlp1": (53.0, 57.9, 54.0)}
"""By seed; `mlp1` is chosen on validation, and nothing is shown to differ from it."""


def positions(scores, seeds, **changes):
    axis = Axis(field="positions", values=tuple(scores), label="position")
    depth = Axis(field="depth", values=("last:1",), label="depth")
    return study(axes=(axis, depth), seeds=tuple(range(seeds)), **changes)


def run_of(root, scores, seeds):
    results = [
        [(0.9 if name == "mlp1" else 0.5, each / 100) for each in own]
        for name, own in scores.items()
    ]
    return made_run(root, positions(scores, seeds), results)


def test_placements_with_as_many_sites_are_told_apart(tmp_path):
    """In words both have one site, and a table by name would hold each twice."""
    axis = Axis(field="placement", values=({"11.q": 1.0}, {"10.q": 1.0}), label="placement")
    results = [[(0.5, each / 100) for each in own] for own in (SCORES["q"], SCORES["v"])]
    base = TINY.with_values({"positions": None, "depth": "all", "alpha": 1.0}, source="test")
    made = study(base=base, axes=(axis,), views=(), seeds=(0, 1, 2), reference=None)
    [row] = cell_pairs(load_run(made_run(tmp_path, made, results))).to_dict("records")
    assert row["first"].endswith("(cell 2)") and row["second"].endswith("(cell 1)")


def test_a_pair_without_the_chosen_cell_is_seen(tmp_path):
    folder = run_of(tmp_path, SCORES, 3)
    found = cell_pairs(load_run(folder))
    assert found is not None and len(found) == 3
    by_hand = stats.ttest_rel(SCORES["v"], SCORES["q"])
    row = found.iloc[0]
    assert (row["first"], row["second"]) == (
        "position = v, depth = last:1",
        "position = q, depth = last:1",
    )
    assert row["mean"] == pytest.approx(4.8333, abs=1e-3)
    assert row["p"] == pytest.approx(by_hand.pvalue) and row["p_holm"] == pytest.approx(
        3 * row["p"]
    )
    assert found["verdict"].tolist() == ["not informative"] * 3
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    low, high = by_hand.confidence_interval(0.95)
    assert (
        "with Holm's correction over 3, 1 differs (p < 0.05), the most position = v, depth = "
        f"last:1 minus position = q, depth = last:1 (+4.83 ± {(high - low) / 2:.2f}); fewer "
        "than 6 seeds, so by the rule not informative." in text
    )
    written = pd.read_csv(folder.report / "pairs.csv")
    assert written["p_holm"].tolist() == pytest.approx(found["p_holm"].tolist(), abs=1e-4)


def test_with_enough_seeds_the_rule_counts(tmp_path):
    level = (0.0, 3.0, -2.0, 1.0, 2.0, -1.0)
    wiggle = (0.1, -0.1, 0.1, -0.1, 0.1, -0.1)
    scores = {
        "q": [50 + each for each in level],
        "v": [50.1 + a + b for a, b in zip(level, wiggle, strict=True)],
        "mlp1": [56 + a - b for a, b in zip(level, wiggle, strict=True)],
    }
    found = cell_pairs(load_run(run_of(tmp_path, scores, 6)))
    assert found["verdict"].tolist() == ["equivalent", "better", "better"]
    words = pairs_words(found)
    assert "2 differ (p < 0.05)" in words
    assert words.endswith("by the rule: 2 with one cell better, 1 equivalent.")


def test_two_seeds_or_one_cell_have_no_pairs(tmp_path):
    two = {name: own[:2] for name, own in SCORES.items()}
    assert cell_pairs(load_run(run_of(tmp_path / "two", two, 2))) is None
    assert cell_pairs(load_run(run_of(tmp_path / "one", {"mlp1": SCORES["q"]}, 3))) is None


def test_a_cell_without_scores_is_in_no_pair(tmp_path):
    results = [[(0.5, each / 100) for each in own] for own in SCORES.values()]
    results[1] = ["FAILED", None, None]
    found = cell_pairs(load_run(made_run(tmp_path, positions(SCORES, 3), results)))
    assert found["first"].tolist() == ["position = mlp1, depth = last:1"]
