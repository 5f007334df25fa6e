"""What is said of searches: by seed, beside random search in closed form, in the rule's words."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
from support.compared import SEEDS, folder_of, logs_of, rows
from support.sweeps import made_metapeft, made_sweep
from support.tables import small_study

from harness.reports.files.write import write_report
from harness.reports.numbers.searches import load_searches
from harness.reports.text.search_answer import verdict
from harness.reports.text.searches import search_document
from harness.store.table import tabulate


def made_table(root, seeds):
    """The table of a made-up sweep with MetaPEFT."""
    study = small_study(seeds=tuple(range(seeds)))
    tabulate([made_sweep(root, study), made_metapeft(root, study)], root / "t.parquet")
    return root / "t.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_table(tmp_path_factory.mktemp("three"), len(SEEDS))


def test_random_search_in_closed_form_is_the_reference(tmp_path, made):
    """Per seed of the table, and nowhere asked for."""
    logs = {"a": logs_of(made, [(seed, 0) for seed in SEEDS])}
    found = load_searches(folder_of(tmp_path, made, logs, budget="2 trials (20 epochs)"))
    assert found.choices.reference == "random, expected"
    seeds = found.choices.seeds[found.choices.seeds["search"] == "random, expected"]
    assert seeds["seed"].tolist() == [*SEEDS]
    for seed in SEEDS:
        cells = []
        for trial in rows(made, seed):
            select, test = trial["final_class_mean"], trial["test_class_mean"]
            has_diverged = trial["status"] == "DIVERGED"
            score = (1 / 15, 1 / 15) if has_diverged else (select, test)
            cells.append((*score, trial["epoch"]))
        assert {epochs for *_, epochs in cells} == {3, 10}  # so up to four trials are begun
        own = seeds[seeds["seed"] == seed]["test"].item()
        assert own == pytest.approx(100 * expected(cells, frozenset(range(18)), 0, (0.0, 0.0)))
    words = verdict(found)
    assert "random search is expected (in closed form) to find configurations of" in words


def expected(cells, left, spent, best):
    """Test score of the best of all that are drawn, over all draws; each needs 10 epochs of 20."""
    if spent + 10 > 20:
        return best[1]
    values = [
        expected(
            cells, left - {n}, spent + cells[n][2], max(best, cells[n][:2], key=lambda b: b[0])
        )
        for n in left
    ]
    return sum(values) / len(values)


def logs_over(made, places):
    """A log with one trial for every seed: of seed n, the one at that place from the best."""
    return logs_of(made, list(enumerate(places)))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Enough seeds for the rule."""
    return made_table(tmp_path_factory.mktemp("eight"), 8)


def test_words_follow_from_the_rule_alone(tmp_path, eight):
    places = [4, 5, 4, 5, 4, 5, 4, 5]
    logs = {
        "random": logs_over(eight, places),
        "same": logs_over(eight, places),
        "good": logs_over(eight, [0] * 8),
        "bad": logs_over(eight, [14] * 8),
    }
    folder = folder_of(tmp_path, eight, logs, seeds=tuple(range(8)))
    found = load_searches(folder)
    contrasts = found.choices.contrasts.set_index(["first", "second"])
    assert contrasts.loc[("good", "random"), "verdict"] == "better"
    assert contrasts.loc[("same", "random"), "verdict"] == "equivalent"
    assert contrasts.loc[("bad", "good"), "verdict"] == "worse"
    assert len(contrasts) == 10
    words = verdict(found)
    for name, row in found.choices.against.iterrows():
        assert f"{name} (" in words
        if row["verdict"] in ("better", "worse"):
            shown = f"{row['difference']:+.2f} ± {row['difference_ci']:.2f}"
            assert re.search(
                rf"{row['verdict'].title()} than random, expected: [^:]*{name} ", words
            )
            assert f"{name} ({shown})" in words
    assert "good is better than random (" in words and "bad is worse than good (" in words
    assert "Holm's correction over 10 pairs" in words
    table = search_document(found, None, "").tables[0].markdown
    assert f"| {contrasts.loc[('good', 'random, expected'), 'mean']:+.2f} ± " in table


def test_few_seeds_are_not_informative_and_chance_alone_is_a_number(tmp_path, made):
    repeats = [(0, n) for n in (4, 5, 4, 5)]
    logs = {"random": logs_of(made, repeats), "good": logs_of(made, [(0, 0), (0, 1)] * 2)}
    found = load_searches(folder_of(tmp_path, made, logs, seeds=(0,)))
    words = verdict(found)
    assert "Better" not in words and "Worse" not in words
    row = found.choices.against.loc["good"]
    alone = f"{row['difference']:+.2f} ± {row['chance_half_width']:.2f}"
    assert "Not informative (1 seed of at least 6), of search chance alone: random (" in words
    assert f"good ({alone})" in words
    assert "There is one training seed: an interval holds the chance of the search alone" in words
    assert "no search is shown to be better or worse than random, expected" in words
    assert math.isnan(found.choices.table.loc["good", "test_ci"])


def test_intervals_too_wide_to_say_anything_are_not_printed(tmp_path, made):
    """E13: +3.33 ± 426.51 says nothing; the numbers stay in contrasts.csv."""
    logs = {"random": logs_of(made, [(0, 17), (0, 0)]), "a": logs_of(made, [(0, 0), (0, 16)])}
    folder = folder_of(tmp_path, made, logs, seeds=(0,))
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert max(map(float, re.findall(r"[+-]\d+\.\d+ ± (\d+\.\d+)", text)), default=0) < 2
    assert re.search("of search chance alone: random [^.]* a .not informative.", text)
    widths = pd.read_csv(folder.report / "contrasts.csv")["chance_half_width"]
    assert (widths > 100).any()


def test_enough_repeats_have_a_word_within_each_seed_alone(tmp_path, made):
    """Though there are too few seeds for a word over them."""
    best, worst = (
        [(seed, start + n % 2) for n in range(100) for seed in SEEDS] for start in (0, 13)
    )
    logs = {"good": logs_of(made, best), "bad": logs_of(made, worst)}
    folder = folder_of(tmp_path, made, logs)
    write_report(folder)
    within = pd.read_csv(folder.report / "within_seeds.csv")
    assert within["verdict"].tolist() == ["better"] * 3 + ["worse"] * 3
    assert within["seed"].tolist() == [*SEEDS] * 2 and set(within["repeats"]) == {100}
    expected = pd.read_csv(folder.report / "seeds.csv").set_index(["search", "seed"])["test"]
    for row in within.itertuples():
        other = expected["random, expected", row.seed]
        assert row.mean == pytest.approx(expected[row.search, row.seed] - other, abs=0.01)
    text = (folder.report / "report.md").read_text()
    assert "Not informative (3 seeds of at least 6), of search chance alone: good (+" in text
    assert "Within each of the 3 seeds alone" in text and ": good 3 better; bad 3 worse." in text
    assert re.search(r"\| 0 +\| \+\d+\.\d+ ± \d\.\d+, better +\| -\d+\.\d+ ± \d\.\d+, worse", text)


def test_of_fewer_repeats_nothing_is_said_within_a_seed(tmp_path, made):
    logs = {"good": logs_of(made, [(seed, 0) for _ in range(9) for seed in SEEDS])}
    folder = folder_of(tmp_path, made, logs)
    write_report(folder)
    assert "Within each" not in (folder.report / "report.md").read_text()
