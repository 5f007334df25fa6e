"""Comparisons of searches from command to report: hand-made logs, replayed ones, live ones."""

from __future__ import annotations

import math
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from support.cli import harness
from support.compared import SEEDS, folder_of, rows
from support.sweeps import made_metapeft, made_sweep
from support.tables import compare, small_study

from harness.errors import UserError
from harness.reports.files.write import write_report
from harness.reports.numbers.searches import load_searches
from harness.reports.text.searches import search_document
from harness.store.run_folder import RunFolder
from harness.store.runs import read_command, write_run
from harness.store.search_log import Ask, Tell, best_cells
from harness.store.store import Store
from harness.store.table import read_table, tabulate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The table of a made-up sweep with MetaPEFT, three seeds."""
    root = tmp_path_factory.mktemp("made")
    study = small_study(seeds=SEEDS)
    path = root / "t.parquet"
    tabulate([made_sweep(root, study), made_metapeft(root, study)], path)
    return path


def test_incumbents_costs_and_regret_by_hand(tmp_path, made):
    trials = rows(made, 0)
    diverged, low, middle, best = trials[0], trials[-5], trials[-3], trials[-1]
    assert diverged["status"] == "DIVERGED"
    folder = folder_of(
        tmp_path,
        made,
        {
            "random": [[(diverged, {}), (middle, {}), (low, {})]],
            "a": [
                [
                    (best, {"status": "PRUNED", "objective": 0.99, "device_s": 2.0}),
                    (trials[-2], {"status": "FAILED", "objective": None, "device_s": 1.0}),
                    (low, {}),
                    (middle, {"objective": low["final_class_mean"]}),
                ]
            ],
        },
    )
    found = load_searches(folder)
    one_run = found.recorded.comparison.reference.device_s
    random, a = (own for _, own in found.answers.groupby("search", sort=False))
    # A diverged trial is an incumbent at chance; a lower score changes nothing.
    assert random["incumbent"].tolist() == [t["trial_id"] for t in (diverged, middle, middle)]
    assert random["incumbent_test"].tolist() == pytest.approx(
        [100 / 15, *[100 * middle["test_class_mean"]] * 2]
    )
    # Stopped and failed trials cost, and are no answers; of equal scores the first stays.
    assert a["incumbent"].tolist() == ["", "", low["trial_id"], low["trial_id"]]
    spent = np.cumsum([2.0, 1.0, low["device_s"], middle["device_s"]]) / one_run
    assert a["runs"].tolist() == pytest.approx(spent) == a["cost"].tolist()
    assert found.choices.at == pytest.approx(min(random["runs"].max(), spent[-1]))
    assert a["within"].all() and random["within"].all()  # fewer epochs than four trials have

    trials_of = read_table(made).trials
    grid = trials_of[trials_of["method"].isna()]
    means = (100 * grid[["final_class_mean", "test_class_mean"]]).fillna(100 / 15)
    means = means.groupby(grid["cell"]).mean()
    regret = means["final_class_mean"].max() - means["final_class_mean"][middle["cell"]]
    final = found.choices.final.set_index("search")
    assert final["regret"]["random"] == pytest.approx(regret)
    oracle = means["test_class_mean"].max() - means["test_class_mean"][middle["cell"]]
    assert final["test_regret"]["random"] == pytest.approx(oracle)
    fellows = grid[(grid["cell"] == middle["cell"]) & (grid["seed"] != 0)]
    luck = 100 * (middle["final_class_mean"] - fellows["final_class_mean"].mean())
    assert final["luck"]["random"] == pytest.approx(luck)
    missed = max(middle["test_class_mean"], low["test_class_mean"]) - middle["test_class_mean"]
    assert final["missed"]["random"] == pytest.approx(100 * missed)

    table = found.choices.table
    yields = table.loc["a"]
    assert (yields["answers"], yields["PRUNED"], yields["FAILED"], yields["DIVERGED"]) == (
        *(4, 1, 1, 0),
    )
    assert table.loc["random", "DIVERGED"] == table.loc["random", "collapsed"] == 1
    # Quartiles of one repeat are itself, from its first whole trial on.
    curve = found.curves.lines[found.curves.lines["search"] == "a"]
    assert curve["runs"].iloc[0] == pytest.approx(spent[2])
    assert (curve["test_low"] == curve["test_high"]).all()


def test_what_the_rungs_of_a_pruner_can_know(tmp_path, made):
    found = load_searches(folder_of(tmp_path, made, {"random": [[(rows(made, 0)[-1], {})]]}))
    assert found.landscape is not None
    fidelity = found.landscape.fidelity
    assert fidelity["epoch"].tolist() == [1, 3, 9]
    table = read_table(made).rows
    taus = []
    for seed in SEEDS:
        own = table[(table["seed"] == seed) & table["method"].isna()]
        early = own[own["epoch"] == 3].set_index("cell")["select_class_mean"]
        final = own.groupby("cell")["final_class_mean"].last().fillna(1 / 15)
        pairs = list(combinations(early.reindex(final.index).fillna(-1).items(), 2))
        signs = [
            (np.sign(b - a), np.sign(final[right] - final[left])) for (left, a), (right, b) in pairs
        ]
        untied = [sum(each[k] != 0 for each in signs) for k in (0, 1)]
        taus.append(sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1]))
    assert fidelity["tau"][1] == pytest.approx(np.mean(taus))


def test_curves_begin_where_every_repeat_has_a_choice(tmp_path, made):
    trials = rows(made, 0)
    cheap, dear = sorted(trials[-6:], key=lambda t: t["device_s"])[::5]
    folder = folder_of(tmp_path, made, {"random": [[(cheap, {}), (dear, {})], [(dear, {})]]})
    found = load_searches(folder)
    first = found.curves.lines["runs"].iloc[0]
    one_run = found.recorded.comparison.reference.device_s
    assert first * one_run == pytest.approx(dear["device_s"])


def test_a_search_that_ends_after_one_trial_is_started_again_in_closed_form(tmp_path, made):
    trials = read_table(made).trials
    own = trials[trials["method"] == "metapeft"].sort_values("seed")
    logs = {
        "random": [[(trial, {}) for trial in rows(made, 0)[-3:]]],
        "metapeft": [[(own.iloc[0].to_dict(), {})]],
    }
    found = load_searches(folder_of(tmp_path, made, logs, learned=("metapeft",)))
    select, test = (100 * own[f"{name}_class_mean"].to_numpy() for name in ("final", "test"))
    expected = [
        np.mean([test[max(drawn, key=lambda i: select[i])] for drawn in combinations(range(3), n)])
        for n in (1, 2, 3)
    ]
    assert found.curves.restarts["test"].tolist() == pytest.approx(expected)
    cost = own["device_s"].mean() / found.recorded.comparison.reference.device_s
    assert found.curves.restarts["runs"].tolist() == pytest.approx([cost, 2 * cost, 3 * cost])
    words = " ".join(search_document(found, None, "").answer)
    assert f"Started on 3 seeds ({3 * cost:.1f} full runs)" in words
    assert f"reach {expected[-1]:.1f} %" in words


def test_confirmation_judges_by_unseen_seeds(tmp_path, made):
    trials = rows(made, 0)
    chosen, second, third = trials[-1], trials[-2], trials[-4]
    events = [[(third, {}), (second, {}), (chosen, {})]]
    folder = folder_of(tmp_path, made, {"random": events}, confirm=2, confirm_seeds=SEEDS)
    row = load_searches(folder).choices.final.iloc[0]
    table = read_table(made).trials
    unseen = table[table["seed"] != 0].groupby("cell")
    select, test = unseen["final_class_mean"].mean(), unseen["test_class_mean"].mean()
    seconds = unseen["device_s"].sum()
    best = max((chosen, second), key=lambda trial: select[trial["cell"]])
    assert row["first_again"] == pytest.approx(100 * test[chosen["cell"]])
    assert row["confirmed"] == pytest.approx(100 * test[best["cell"]])
    one_run = read_table(made).info.reference.device_s
    assert row["confirm_runs"] == pytest.approx(
        (seconds[chosen["cell"]] + seconds[second["cell"]]) / one_run
    )


def test_the_best_cells_of_a_log_are_whole_and_different():
    def event(cell, score, status="COMPLETE", seed=0):
        trial = f"{cell}{seed}{status}"
        cost = dict(epochs=1, device_s=1.0, flops=1)
        return [
            Ask(params={}, cell={"x": cell}, seed=seed, trial_id=trial),
            Tell(trial_id=trial, status=status, objective=score, **cost),
        ]

    parts = [event(1, 0.5), event(2, 0.7), event(2, 0.9, seed=1), event(3, 0.7)]
    parts += [event(4, 0.99, "PRUNED"), event(5, 0.07, "DIVERGED"), event(6, None, "FAILED")]
    log = [line for part in parts for line in part]
    assert best_cells(log, 3) == [({"x": 2}, 1), ({"x": 3}, 0), ({"x": 1}, 0)]
    assert len(best_cells(log, 99)) == 3


def test_the_choice_is_the_best_within_the_budget(tmp_path, made):
    """Of three trials of 10 epochs, 25 epochs hold two; the log has more than the budget."""
    low, middle, best = rows(made, 0)[-5:-2]
    logs = {"random": [[(low, {}), (middle, {}), (best, {})]]}
    for budget, count in (("3 trials (30 epochs)", 3), ("25 epochs", 2), ("1 trials", 1)):
        shutil.rmtree(tmp_path / "studies", ignore_errors=True)
        found = load_searches(folder_of(tmp_path, made, logs, budget=budget))
        assert found.answers["within"].sum() == count
        chosen = (low, middle, best)[count - 1]
        assert found.choices.final["test"][0] == pytest.approx(100 * chosen["test_class_mean"])
    shutil.rmtree(tmp_path / "studies")
    reference = read_table(made).info.reference
    found = load_searches(folder_of(tmp_path, made, logs, budget="0.9 runs"))
    runs = (low["flops"] + np.array([0, middle["flops"], middle["flops"] + best["flops"]])) / (
        reference.flops
    )
    assert found.answers["cost"].tolist() == pytest.approx(runs)
    assert found.answers["within"].sum() == (runs <= 0.9).sum() and found.choices.at == 0.9


# From the command line.


@pytest.mark.slow
def test_a_replayed_comparison_from_command_to_report_and_again(tmp_path, made):
    args = ["--search", "all", "--repeats", 3, "--budget", 3]
    first = compare(tmp_path, made, *args)
    assert first.exit_code == 0, first.output
    folder = RunFolder.of(Store(tmp_path), "joint_space+searches")
    logs = {path.name: path.read_bytes() for path in folder.logs()}
    assert {f"search-tpe+hyperband-{n}.jsonl" for n in range(3)} < set(logs)
    text = (folder.report / "report.md").read_text()
    assert "pbt changes values in mid-training, which no table has: left out." in text
    assert "metapeft is one trial per training seed" in text and "train --method metapeft" in text
    assert "cost that is not charged here" in text
    assert "share (%)" in text and "are not stated" not in text
    assert "nan" not in text.lower().replace("finance", "")
    summary = pd.read_csv(folder.report / "searches.csv", index_col="search")
    assert list(summary.index) == ["random", "sobol", "tpe", "gp", "tpe+hyperband", "metapeft"]
    assert math.isnan(summary.loc["metapeft", "rank"])
    report = {path.name: path.read_bytes() for path in folder.report.iterdir()}
    assert {"anytime.png", "anytime.svg", "choices.png", "interactions.csv"} < set(report)

    again = compare(tmp_path, made, *args)
    assert again.exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.logs()} == logs
    assert harness("report", folder.name, "--out", tmp_path).exit_code == 0
    assert {p.name: p.read_bytes() for p in folder.report.iterdir()} == report


@pytest.mark.slow
def test_the_table_that_ships_is_replayed_without_a_name(tmp_path):
    args = ["--search", "random,metapeft", "--replay", "--repeats", 2, "--budget", 3]
    result = harness("compare", *args, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    folder = RunFolder.of(Store(tmp_path), "joint_space+searches")
    found = load_searches(folder)
    assert found.landscape is not None
    assert found.landscape.cells.select.shape == (6, 12, 12, 3)
    assert found.recorded.study.seeds == (0, 1, 2)
    assert found.curves.restarts["starts"].tolist() == [1, 2, 3]
    typed = read_command(folder)
    assert typed is not None and typed.line.endswith("--replay --budget 3 --repeats 2")  # no path
    by_search = found.choices.final.groupby("search")["test"].mean()
    assert set(by_search.index) == {"random", "metapeft"} and (by_search > 100 / 15).all()


@pytest.mark.slow
def test_a_comparison_is_not_mixed_with_another(tmp_path, made):
    args = ["--search", "random", "--repeats", 2, "--budget", 2]
    assert compare(tmp_path, made, *args).exit_code == 0
    for more in (["--seeds", 1], ["--workers", 2]):
        result = compare(tmp_path, made, *args, *more)
        assert result.exit_code == 2 and "holds a comparison with other" in result.stderr


@pytest.mark.slow
def test_a_table_of_one_seed_has_nothing_to_confirm_with(tmp_path):
    study = small_study(seeds=(0,))
    tabulate([made_sweep(tmp_path, study)], tmp_path / "t.parquet")
    result = compare(
        tmp_path, tmp_path / "t.parquet", "--search", "random,tpe", "--repeats", 2, "--budget", 3
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "studies/joint_space+searches/report/report.md").read_text()
    assert "No confirmation: the table has no other seeds" in text
    assert "tabulate a run of one with it" in text and "one seed, so no spread" in text
    assert "Shares of the variation are not stated" in text and "share (%)" not in text
    assert not (tmp_path / "studies/joint_space+searches/report/interactions.csv").exists()


@pytest.mark.slow
def test_tuning_of_a_learned_search_is_charged_apart(tmp_path, made):
    root = made.parent
    args = ["--search", "random,metapeft", "--repeats", 3, "--budget", 3]
    result = harness(
        *("compare", "--study", "joint_space", "--replay", made, "--out", root, *args),
        *("--charge", "joint_space+metapeft"),
    )
    assert result.exit_code == 0, result.output
    table = read_table(made)
    trials = table.trials
    seconds = trials[trials["method"] == "metapeft"]["device_s"].sum()
    runs = seconds / table.info.reference.device_s
    text = (root / "studies/joint_space+searches/report/report.md").read_text()
    assert f"joint_space+metapeft at {runs:.1f} full runs, which are charged apart" in text


@pytest.mark.slow
def test_starts_on_further_seeds_are_counted_and_their_options_named(tmp_path):
    folder = made_metapeft(tmp_path, small_study(seeds=SEEDS))
    write_run(folder, small_study(seeds=(0,)), [], {"device": "made up"})
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "10 epochs, 3 seeds." in text and "One seed" not in text
    assert "method = metapeft, options = base lora, base_options rank 4 (" in text
    assert "Cells range" not in text  # there is one


def test_a_folder_without_answers_is_refused(tmp_path, made):
    folder = folder_of(tmp_path, made, {"random": [[]]})
    with pytest.raises(UserError, match="no trial of a search has finished"):
        write_report(folder)


def test_tuning_is_charged_to_no_search_that_learns_nothing(tmp_path, made):
    args = ["--search", "random,tpe", "--repeats", 3, "--charge", "joint_space+metapeft"]
    root = made.parent
    result = harness("compare", "--study", "joint_space", "--replay", made, "--out", root, *args)
    assert result.exit_code == 2 and "random, tpe do not; leave it out, or add" in result.stderr
