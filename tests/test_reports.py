"""Frames by value from made records, and what figures say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from support.records import TINY
from support.runs import RESULTS, made_run, study, texts

from harness.errors import UserError
from harness.reports.files.write import write_report
from harness.reports.numbers.embedding import load_embedded
from harness.reports.numbers.run import load_run
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.numbers.sweep import (
    bubbles_of,
    choose,
    grid,
    minus_chosen,
    over_nuisance,
    summarise,
)
from harness.reports.text.tables import point_tables
from harness.store.run_folder import RunFolder
from harness.study.axes import Axis
from harness.study.figures import Embedding, Points, View


@pytest.fixture
def folder(tmp_path):
    return made_run(tmp_path, study(), RESULTS)


@pytest.mark.slow
def test_an_axis_that_a_figure_does_not_show_is_at_what_validation_prefers(tmp_path):
    alphas = Axis(field="alpha", values=(1.0, 4.0), label="alpha")
    axes = (*study().axes[:1], Axis(field="depth", values=("last:1",), label="depth"), alphas)
    results = [[(0.5, 0.3)], [(0.4, 0.9)], [(0.2, 0.6)], ["DIVERGED"]]
    folder = made_run(tmp_path, study(axes=axes, seeds=(0,), reference=None), results)
    run = load_run(folder)
    shown = grid(run, summarise(run), "positions", "depth", "test_class_mean")
    # The better test score of mlp1 at 4 is not shown, nor is it in a mean.
    assert shown["last:1"].to_dict() == pytest.approx({"mlp1": 30.0, "q": 60.0})
    assert grid(run, summarise(run), "positions", "depth", "DIVERGED")["last:1"].sum() == 0
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "class mean, at the alpha that is best on validation" in text


def test_every_trial_has_a_row_and_no_score_is_invented(folder):
    trials = load_run(folder).trials
    assert trials["status"].tolist() == (
        ["COMPLETE", "COMPLETE", "DIVERGED", "COMPLETE", "FAILED", "MISSING"]
        + ["COMPLETE"] * 4
        + ["MISSING"] * 2
    )
    scores = trials["test_class_mean"]
    assert scores[0] == pytest.approx(60)
    assert scores[2] == pytest.approx(100 / 15)  # diverged: chance
    assert np.isnan(scores[4]) and np.isnan(scores[5])
    assert trials["test_tail"][0] == pytest.approx(50)
    assert trials["seed"].tolist() == [0] * 6 + [1] * 6


def test_summary_by_hand(folder):
    table = summarise(load_run(folder))
    assert table["test_class_mean"][0] == pytest.approx(61)
    # Two values 60 and 62: s = sqrt(2), s / sqrt(2) = 1, and t(0.975, 1) = 12.7062.
    assert table["test_class_mean_ci"][0] == pytest.approx(12.7062, abs=1e-3)
    assert table["n"].tolist() == [2, 2, 2, 2, 0, 0]
    assert table["DIVERGED"].tolist() == [0, 0, 1, 0, 0, 0]
    assert table["test_class_mean"][2] == pytest.approx((100 / 15 + 41) / 2)
    assert table[["FAILED", "MISSING"]].iloc[4].tolist() == [1, 1]


@pytest.mark.parametrize(
    "values,mean,half",
    [([], math.nan, math.nan), ([3.0], 3.0, math.nan), ([1.0, 2.0, 3.0, math.nan], 2.0, 2.4841)],
)
def test_intervals(values, mean, half):
    got = mean_and_half_width(pd.Series(values, dtype=float))
    assert got == pytest.approx((mean, half), abs=1e-3, nan_ok=True)


def test_choice_is_made_on_selection_scores_alone(folder):
    run = load_run(folder)
    choice = choose(run, summarise(run))
    assert choice.cell == {"positions": "mlp1", "depth": "last:2"}
    assert choice.row["test_class_mean"] == pytest.approx(56)
    assert choice.oracle == {"positions": "q", "depth": "last:1"}
    assert choice.oracle_score == pytest.approx(81)
    assert choice.at_edge == ()


def test_ties_go_to_the_first_cell(tmp_path):
    run = load_run(made_run(tmp_path, study(), [[(0.5, 0.5), (0.5, 0.5)]] * 6))
    choice = choose(run, summarise(run))
    assert choice.cell == {"positions": "mlp1", "depth": "last:1"}
    assert choice.at_edge == ()  # beyond the ends of a network there is nothing


@pytest.mark.parametrize(
    "best,flagged", [(0, ()), (1, ()), (2, ("recipe.weight_decay",))], ids=["zero", "inner", "end"]
)
def test_a_choice_at_the_end_of_its_range_is_flagged(tmp_path, best, flagged):
    axes = (Axis(field="recipe.weight_decay", values=(0.0, 0.1, 0.2), label="decay"),)
    made = study(axes=axes, views=(Points(rows="recipe.weight_decay", title="t"),), reference=None)
    results = [[(0.5 + 0.1 * (cell == best), 0.5)] * 2 for cell in range(3)]
    run = load_run(made_run(tmp_path, made, results))
    assert choose(run, summarise(run)).at_edge == flagged


@pytest.mark.slow
def test_a_silhouette_counts_the_seeds_whose_features_were_kept(tmp_path):
    axes = (Axis(field="alpha", values=(1.0, 2.0), label="alpha"),)
    made = study(axes=axes, views=(Embedding(rows="alpha", title="Plane"),), reference=None)
    folder = made_run(tmp_path, made, [[(0.5, 0.5)] * 2] * 2)
    run = load_run(folder)
    rng = np.random.default_rng(0)
    for trial_id in run.trials["trial_id"].iloc[:3]:
        np.savez(
            run.store / "trials" / trial_id / "features.npz",
            features=rng.normal(size=(8, 4)),
            labels=np.arange(8) % 2,
            groups=np.array(["head", "tail"] * 4),
        )
    found = load_embedded(run, "alpha").silhouettes
    assert found["seeds"].to_dict() == {1.0: 2, 2.0: 1}
    assert math.isnan(found.loc[2.0, "all_ci"])
    write_report(folder)
    lines = (folder.report / "report.md").read_text().splitlines()
    (header,) = [line for line in lines if "seeds with features" in line]
    assert [cell.strip() for cell in lines[lines.index(header) + 3].split("|")][-2] == "1"


@pytest.mark.slow
def test_nothing_finished_is_said_not_crashed(tmp_path):
    folder = made_run(tmp_path, study(), [[None, None]] * 6)
    run = load_run(folder)
    assert choose(run, summarise(run)) is None
    write_report(folder)
    assert "No trial has finished yet" in (folder.report / "report.md").read_text()


def test_nuisance_is_chosen_on_selection_scores(tmp_path):
    made = study(
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="recipe.lr", values=(0.1, 0.2), label="lr", role="nuisance"),
        ),
        views=(),
        seeds=(0,),
    )
    results = [[(0.5, 0.9)], [(0.6, 0.3)], [(0.7, 0.4)], [(0.2, 0.8)]]
    run = load_run(made_run(tmp_path, made, results))
    table = over_nuisance(run, summarise(run))
    assert table["positions"].tolist() == ["mlp1", "q"]
    assert table["recipe.lr"].tolist() == [0.2, 0.1]
    assert table["test_class_mean"].tolist() == pytest.approx([30, 40])


def test_all_that_is_shown_of_a_value_is_at_the_nuisance_values_that_were_chosen(tmp_path):
    points = Points(rows="positions", title="Positions")
    made = study(
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="recipe.lr", values=(0.1, 0.2), label="lr", role="nuisance"),
        ),
        views=(points,),
        seeds=(0, 1),
    )
    poor, low, high = (0.2, 0.1), (0.5, 0.6), (0.6, 0.7)
    broken = ["DIVERGED", poor]  # at the rate that is not chosen
    run = load_run(made_run(tmp_path, made, [[low, low], broken, [poor, poor], [high, high]]))
    summary = summarise(run)
    choice = choose(run, summary)
    assert choice.cell == {"positions": "q", "recipe.lr": 0.2}
    assert minus_chosen(run, "positions", choice)["mlp1"] == pytest.approx((-10, 0))
    table = bubbles_of(run, "positions")
    assert table["overall"].to_dict() == pytest.approx({"mlp1": 60, "q": 70})
    assert table["spread"].tolist() == pytest.approx([0, 0])
    assert table["DIVERGED"].tolist() == [0, 0]
    [accuracy, *_] = point_tables(run, over_nuisance(run, summary), choice, points)
    [column] = [name for name in accuracy.words if name.endswith("minus chosen's, paired")]
    assert accuracy.words[column].to_dict() == {"mlp1": "-10.0 ± 0.0", "q": "chosen"}


def test_grids_keep_every_cell_of_the_axes(folder):
    run = load_run(folder)
    table = grid(run, summarise(run), "positions", "depth", "test_class_mean")
    assert table.index.tolist() == ["q", "mlp1"]
    assert table.columns.tolist() == ["last:1", "last:2", "last:3"]
    assert np.isnan(table.loc["q", "last:3"])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"not a run: it has no study\.json"):
        load_run(RunFolder(tmp_path))


def test_the_heatmap_says_what_it_shows(folder):
    from harness.reports.figures.grids import heatmap

    run = load_run(folder)
    summary = summarise(run)
    words = texts(heatmap(run, summary, choose(run, summary), run.study.views[0]))
    for word in ("Made", "61.0", "head classes", "tail classes", "paper, Fig. 1(c)", "88.8"):
        assert word in words
    assert "SYNTHETIC" in words and "chosen on validation" in words and "2 seeds" in words
    assert words.count("×") >= 4  # the diverged cell in four panels, beside the caption's key


@pytest.mark.slow
def test_curves_say_what_they_show(tmp_path):
    made = study(
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="alpha", values=(0.5, 1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="curves", rows="positions", columns="alpha", title="Lines"),),
        reference="fig1d",
        paper="Fig. 1(d)",
    )
    from harness.reports.figures.grids import curves

    run = load_run(made_run(tmp_path, made, RESULTS))
    summary = summarise(run)
    figure = curves(run, summary, choose(run, summary), run.study.views[0])
    overall = figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in overall.get_lines()}
    assert lines["mlp1"][:2] == pytest.approx([61, 56])
    assert lines["chance"][0] == pytest.approx(100 / 15)
    assert overall.get_xscale() == "log" and len(overall.get_xticks()) == 3
    assert "paper, Fig. 1(d)" in texts(figure)


@pytest.mark.slow
def test_points_say_what_they_show(tmp_path):
    made = study(
        base=TINY.with_values({"method": "metapeft"}, source="test"),
        axes=(Axis(field="options.ratio", values=(0.05, 0.2, 0.5), label="ratio"),),
        views=(Points(rows="options.ratio", title="Ratios"),),
        reference="table6",
        paper="Table 6",
    )
    from harness.reports.figures.points import points

    folder = made_run(tmp_path, made, RESULTS[:2] + RESULTS[2:3])
    run = load_run(folder)
    summary = summarise(run)
    figure = points(run, summary, choose(run, summary), made.views[0])
    words = texts(figure)
    for word in ("Ratios", "0.05", "head classes", "paper, Table 6", "average", "2 seeds"):
        assert word in words
    means = [
        line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1
    ]
    assert any(mean == pytest.approx(61) for mean in means)
    paper = {line.get_label(): line.get_xdata() for line in figure.axes[-1].get_lines()}
    assert paper["tail"][0] == 88.2 and math.isnan(paper["tail"][1])  # 20 % is not in Table 6
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| 0.05 ")]
    assert "61.0 ± 12.7" in rows[0] and "71.0 ± 12.7" in rows[0] and "90.5" in rows[-1]
    assert "Learned strengths" not in text  # made records have no trajectory
    names = {path.name for path in folder.report.iterdir()}
    assert {"points_options-ratio.png", "points_options-ratio.svg"} <= names


@pytest.mark.slow
def test_points_report_tells_what_was_learned(tmp_path):
    from support.runs import path, write_trajectory

    made = study(
        axes=(Axis(field="alpha", values=(1.0, 2.0), label="alpha"),),
        views=(Points(rows="alpha", title="t"),),
        reference=None,
    )
    folder = made_run(tmp_path, made, RESULTS[:2])
    for index, trial in enumerate(load_run(folder).trials["trial_id"]):
        rows = path(0.0, 1.0, 2.0, 3.0 + index)
        (tmp_path / "trials" / trial).rename(tmp_path / "kept")
        write_trajectory(tmp_path / "trials" / trial, rows)
        for file in (tmp_path / "kept").iterdir():
            file.rename(tmp_path / "trials" / trial / file.name)
        (tmp_path / "kept").rmdir()
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "Learned strengths" in text and "0.00 to 4.00" in text and "| 1.00 " in text


@pytest.mark.slow
def test_selecting_on_test_is_labelled_in_every_output(tmp_path):
    made = study(base=TINY.with_values({"data.select_on": "test"}, source="test"))
    folder = made_run(tmp_path, made, RESULTS)
    from harness.reports.figures.grids import heatmap

    run = load_run(folder)
    summary = summarise(run)
    assert "SELECTED ON TEST" in texts(heatmap(run, summary, choose(run, summary), made.views[0]))
    write_report(folder)
    assert "SELECTED ON TEST" in (folder.report / "report.md").read_text()
    for name in ("metrics.csv", "trials.csv"):
        header, first = (folder.report / name).read_text().splitlines()[:2]
        assert header.endswith(",selected_on") and first.endswith(",test")
