"""The paper's tables as studies: named variants, its numbers beside ours, and its own averages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from support.cli import harness
from support.records import publish
from support.runs import RESULTS, made_run, scored, study, texts

from harness.catalogue.studies import load_study, study_names
from harness.driver.plan import make_plan
from harness.reports.files.write import write_report
from harness.reports.numbers.paper import read_paper
from harness.reports.numbers.run import load_run
from harness.reports.numbers.sweep import bubbles_of, by_value, choose, summarise
from harness.runner.runtime import Runtime
from harness.spec import explain
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run
from harness.store.store import Store
from harness.study.axes import Axis
from harness.study.figures import Bubbles, Points
from harness.study.space import SearchSpace

VARIANTS = {
    "LoRA at Q": {"method": "lora", "positions": "q", "options.rank": 2},
    "BitFit": {"method": "bitfit", "options": {}, "alpha": 1.0, "positions": None},
}


def named(**changes):
    return study(
        **{
            "axes": (Axis.named("variant", "method", VARIANTS),),
            "views": (Points(rows="variant", title="Variants"),),
            "reference": None,
            **changes,
        }
    )


# Named variants


def test_a_named_variant_sets_its_fields_and_keeps_its_name(tmp_path):
    made = named()
    assert made.cells() == [{"variant": "LoRA at Q"}, {"variant": "BitFit"}]
    (_, lora), (_, bitfit) = made.cell_requests()
    assert (lora.method, lora.positions, lora.options) == ("lora", ("q",), {"rank": 2})
    assert (bitfit.method, bitfit.positions, bitfit.options) == ("bitfit", None, {})
    run = load_run(made_run(tmp_path, made, RESULTS[:2]))
    assert run.trials["variant"].tolist() == ["LoRA at Q", "BitFit"] * 2


def test_a_search_space_expands_variants_as_the_grid_does():
    made = named(
        axes=(
            Axis.named("variant", "positions", {"both": {"positions": "q,v"}}),
            Axis(field="alpha", values=(1.0, 2.0), label="alpha"),
        ),
        views=(),
    )
    space = SearchSpace(made, 12)
    assert space.size == 2 and space.default() == {"variant": 0, "alpha": 0}
    for (cell, request), params in zip(made.cell_requests(), space.enumerate(), strict=True):
        values = space.values(lambda name, domain, params=params: params[name])
        assert values == cell and space.params(values) == params
        assert space.request(values, seed=0) == request
    assert request.positions == ("q", "v")


@pytest.mark.parametrize(
    "make,words",
    [
        (
            lambda: Axis(field="variant", label="v", values=("LoAR",), settings={"LoRA": {}}),
            ["variant of variant: 'LoAR'", "Did you mean 'LoRA'"],
        ),
        (
            lambda: Axis.named("method", "m", {"LoRA": {"method": "lora"}}),
            ["'method'", "'variant'"],
        ),
        (
            lambda: named(axes=(Axis.named("variant", "v", {"a": {"methd": "lora"}}),)),
            ["'methd'", "Did you mean 'method'"],
        ),
        (
            lambda: named(axes=(Axis.named("variant", "v", {"a": {"positions": "mlp"}}),)),
            ["'mlp'"],
        ),
        (
            lambda: named(
                axes=(
                    Axis.named("variant", "v", {"a": {"options": {"rank": 2}}}),
                    Axis(field="options.rank", values=(1,), label="r"),
                )
            ),
            ["variant sets options", "options.rank sets options.rank"],
        ),
    ],
)
def test_wrong_variants_are_refused_in_one_sentence(make, words):
    with pytest.raises(ValidationError) as caught:
        make()
    message = explain(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


# The paper's numbers beside ours


@pytest.mark.parametrize("name", [n for n in study_names() if load_study(n).references])
def test_every_reference_has_rows_for_the_study(name):
    made = load_study(name)
    for reference in made.references:
        table = read_paper(reference)
        assert {"source", "dataset"} <= set(table.columns)
        assert table["source"].notna().all() and table["dataset"].notna().all()
        axes = [axis for axis in made.axes if axis.field in table.columns]
        assert axes
        for axis in axes:
            assert len(set(table[axis.field]) & set(axis.values)) >= 2, axis.field


@pytest.mark.slow
def test_paper_tables_of_several_datasets_stand_beside_ours(tmp_path):
    made = load_study("position_groups").derive(seeds=(0, 1), base=named().base)
    folder = made_run(tmp_path, made, RESULTS[:2] + RESULTS[3:4])
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    tables = {part.split(" (")[0]: part for part in text.split("\nPaper, ")[1:]}
    assert list(tables) == [
        "Table 1, CIFAR100-IR100",
        "Table 1, iNaturalist2018",
        "Table 1, Places-LT",
        "Table 1, DOTA",
        "Table 1, all datasets",
    ]
    rows = [line.split("|") for line in tables["Table 1, DOTA"].splitlines()]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows if len(row) > 3}
    assert cells["FFN"] == ["94.6", "94.8", "91.4"]
    assert "74.9" in tables["Table 1, all datasets"] and "75.8" in tables["Table 1, all datasets"]
    from harness.reports.figures.points import points

    run = load_run(folder)
    summary = summarise(run)
    figure = points(run, summary, choose(run, summary), made.views[0])
    words = texts(figure)
    assert "paper, Table 1, Places-LT" in words and "all datasets" not in words
    lower = next(axis for axis in figure.axes if axis.get_title() == "paper, Table 1, DOTA")
    lines = {line.get_label(): list(line.get_xdata()) for line in lower.get_lines()}
    assert lines["tail"] == [91.1, 91.4, 92.4]


@pytest.mark.slow
def test_paper_rows_that_we_do_not_run_are_kept_in_the_table(tmp_path):
    made = load_study("attention_combinations").derive(seeds=(0,), base=named().base)
    folder = made_run(tmp_path, made, [[(0.5, 0.5)]] * 4)
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "| Q + V + one (K or Out) | 91.6" in text and "| Q + V + Out " in text


# Figures of distances and of bubbles

DISTANCES = {"LoRA at Q": [(0.6, 0.5), (0.8, 0.5)], "BitFit": [(0.3, 0.2), (0.3, 0.4)]}


def measured(root, made):
    """A run whose trials have distances (head, tail) as above, and tails 10 points below."""
    store = Store(root)
    plan = make_plan(made, store=store, run_name=made.name, runtime=Runtime())
    plan.folder.path.mkdir(parents=True)
    write_run(plan.folder, plan.study, plan.cells, {})
    for cell, spec in plan.cells:
        head, tail = DISTANCES[cell["variant"]][spec.seed]
        scores = scored(0.5 + head / 10)
        distance = {"head": head, "medium": 0.5, "tail": tail}
        both = scores.model_copy(update={"distance": distance})
        publish(store, spec, select=both, test=both)
    return plan.folder


@pytest.mark.slow
def test_distances_by_group_in_frame_figure_and_table(tmp_path):
    made = named(views=(Points(rows="variant", title="Apart", value="distance"),))
    folder = measured(tmp_path, made)
    run = load_run(folder)
    summary = summarise(run)
    table = by_value(run, summary, made.views[0])
    assert table.loc["LoRA at Q", "distance_head"] == pytest.approx(0.7)
    # Two values 0.6 and 0.8: s = 0.1414, s / sqrt(2) = 0.1, and t(0.975, 1) = 12.7062.
    assert table.loc["LoRA at Q", "distance_head_ci"] == pytest.approx(1.27062, abs=1e-4)
    from harness.reports.figures.sweep import draw

    figure = draw(run, summary, choose(run, summary), made.views[0])
    assert {"Apart", "cosine distance", "tail"} <= set(texts(figure).split(" | "))
    assert "other classes" in texts(figure) and "Test accuracy" not in texts(figure)
    (axis,) = figure.axes
    drawn = {round(float(x), 6) for line in axis.get_lines() for x in np.ravel(line.get_xdata())}
    assert {0.7, 0.3, 0.6, 0.8, 0.2, 0.4, 0.5} <= drawn
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "| LoRA at Q | 0.70 ± 1.27" in text.replace("  ", "")
    assert (folder.report / "points_variant_distance.png").is_file()


@pytest.mark.slow
def test_bubbles_are_as_wide_as_the_spread_over_seeds(tmp_path):
    made = named(views=(Bubbles(rows="variant", title="Tails"),))
    run = load_run(measured(tmp_path, made))
    summary = summarise(run)
    table = bubbles_of(run, "variant")
    assert table.loc["LoRA at Q", "overall"] == pytest.approx(57)
    assert table.loc["LoRA at Q", "tail"] == pytest.approx(47)
    assert table.loc["LoRA at Q", "spread"] == pytest.approx(np.std([56, 58], ddof=1))
    assert table.loc["BitFit", "spread"] == pytest.approx(0)
    from harness.reports.figures.sweep import draw

    figure = draw(run, summary, choose(run, summary), made.views[0])
    dots = figure.axes[0].collections
    places = [tuple(np.ravel(dot.get_offsets().data).round(6)) for dot in dots]
    areas = [float(dot.get_sizes()[0]) for dot in dots]
    widest = {p: max(a for q, a in zip(places, areas, strict=True) if q == p) for p in places}
    smallest = {p: min(a for q, a in zip(places, areas, strict=True) if q == p) for p in places}
    assert widest[57.0, 47.0] == pytest.approx(55**2)  # in square points
    assert smallest[53.0, 43.0] == 0
    assert "SD over seeds 1.4 points" in texts(figure) and "BitFit" in texts(figure)
    folder = RunFolder.of(Store(run.store), "made")
    write_report(folder)
    text = (folder.report / "report.md").read_text()
    assert "| LoRA at Q | 57.0" in text.replace("  ", "")


def test_bubbles_stand_beside_the_papers(tmp_path):
    base = named().base.with_values({"positions": None, "depth": "all"}, source="test")
    made = load_study("methods").derive(seeds=(0,), base=base)
    run = load_run(made_run(tmp_path, made, [[(0.5, 0.5)]] * 9))
    summary = summarise(run)
    from harness.reports.figures.sweep import draw

    figure = draw(run, summary, choose(run, summary), made.views[1])
    paper = next(axis for axis in figure.axes if axis.get_title() == "paper, Fig. 1(a), DOTA")
    assert [92.3, 90.7] in [list(dot.get_offsets().data[0]) for dot in paper.collections]


# Studies that train nothing


@pytest.mark.slow
def test_module_size_counts_and_says_what_the_paper_cannot_mean(tmp_path):
    done = harness("sweep", "--study", "module_size", "--out", tmp_path)
    assert done.exit_code == 0 and "80 cells are counted" in done.output
    assert not (tmp_path / "trials").exists()
    report = tmp_path / "studies" / "module_size" / "report"
    cells = pd.read_csv(report / "counts.csv").set_index(["variant", "backbone.name", "depth"])
    base, large = "vit_base_patch16_224", "vit_large_patch16_224"
    count = cells["trainable_params"]
    assert count["LoRA, rank 4", base, "all"] == 147_456
    assert count["LoRA + Adapter, rank 8", base, "all"] == 470_112
    assert count["LoRA, rank 4", large, "last:12"] == 196_608
    printed = pd.read_csv(report / "printed.csv").set_index(["dataset", "variant"])
    given = printed["printed number is"]
    combined = "LoRA + Adapter, rank {0}, all; LoRA + AdaptFormer, rank {0}, all"
    assert given["CIFAR100-IR100", "LoRA, rank 4"] == combined.format(4)
    assert given["DOTA", "LoRA, rank 4"] == combined.format(4)
    assert given["Places-LT", "LoRA, rank 8"] == combined.format(8)
    assert given["FUSRS", "LoRA, rank 4"] == "LoRA, rank 2, all; LoRA, rank 4, last:12"
    assert given["FUSRS", "Adapter, rank 4"] == given["FUSRS", "AdaptFormer, rank 4"]
    assert given["FUSRS", "Adapter, rank 4"] == "none of those above"
    assert (given == "as named").sum() == 9 and len(given) == 15
    heads = printed["width × classes (M)"].groupby("dataset").first()
    assert heads["DOTA"] == "0.011520, truncated" and heads["FUSRS"] == "0.004096, differs"
    text = (report / "report.md").read_text()
    assert "- FUSRS, Adapter, rank 4: 0.136 M is given by no formula here" in text

    (report / "report.md").unlink()
    assert harness("report", "module_size", "--out", tmp_path).exit_code == 0
    assert (report / "report.md").read_text() == text
    refused = harness("status", "module_size", "--out", tmp_path)
    assert refused.exit_code == 2 and "trains nothing" in refused.stderr


def test_a_study_that_trains_nothing_has_no_search(tmp_path):
    args = ["sweep", "--study", "module_size", "--out", tmp_path]
    refused = harness(*args, "--search", "tpe")
    assert refused.exit_code == 2 and "trains nothing" in refused.stderr
    dry = harness(*args, "--dry-run")
    assert dry.exit_code == 0 and "80 cells" in dry.output
    assert not (tmp_path / "studies").exists()
