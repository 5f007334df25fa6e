"""What all figures of all reports share: a foot, looks of positions, names beside lines and points,
and files that are the same for the same numbers."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from support.cli import harness
from support.fake_trials import Fake, controls, written
from support.runs import made_run, path, study, write_trajectory
from support.sweeps import made_sweep
from support.tables import compare, small_study

from harness.reports.figures.comparison import pareto
from harness.reports.figures.grids import curves
from harness.reports.figures.labels import Named, label_ends, label_points
from harness.reports.figures.save import save
from harness.reports.figures.scatter import bubbles
from harness.reports.figures.searches import anytime
from harness.reports.figures.style import looks
from harness.reports.files.write import write_report
from harness.reports.numbers.comparison import load_arms
from harness.reports.numbers.positions import in_block_order
from harness.reports.numbers.run import load_run
from harness.reports.numbers.searches import load_searches
from harness.reports.numbers.sweep import choose, summarise
from harness.reports.redraw import read_arms, read_sweep
from harness.reports.reproduce import GALLERY
from harness.store.run_folder import RunFolder
from harness.store.store import Store
from harness.store.table import tabulate
from harness.study.axes import Axis
from harness.study.figures import Bubbles, Embedding, Points, View

MOST_IN_A_LEGEND = 4
"""Entries: groups of classes, and a mean over them. What has more is named where it is drawn."""
FOOT = ("synth-rs (SYNTHETIC)", "vit_pico", "chosen on: validation", "lr ", "seed")
"""What stands below every figure, whatever it shows."""


POSITION = Axis(field="positions", values=("v", "mlp1", "q"), label="position")
ALPHA = Axis(field="alpha", values=(0.5, 1.0, 2.0), label="alpha")
OWN = {"rows": "positions", "title": "t"}
OF_TWO = tuple(View(kind=kind, columns="alpha", **OWN) for kind in ("heatmap", "curves"))
OF_ONE = (
    *(Points(value=value, **OWN) for value in ("accuracy", "distance", "cost")),
    Bubbles(**OWN),
    Embedding(**OWN),
)


def scores(cell):
    return [(0.4 + 0.01 * cell + 0.02 * seed, 0.5 + 0.01 * cell - 0.02 * seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    made = study(axes=(POSITION, ALPHA), views=OF_TWO, reference="fig1d", paper="Fig. 1(d)")
    return made_run(tmp_path_factory.mktemp("maps"), made, [*map(scores, range(9))])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    made = study(axes=(POSITION,), views=OF_ONE, reference=None)
    return made_run(tmp_path_factory.mktemp("rows"), made, [*map(scores, range(3))])


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("arms"))
    folder = written(controls(store, Fake(store, lambda spec: 0.5 + 0.01 * spec.seed)), store)
    for trial_id in load_arms(folder).comparison.arms[0].trials:
        write_trajectory(store.trials / trial_id, path(0.0, 1.0, 2.0, 3.0))
    return folder


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    root = tmp_path_factory.mktemp("searches")
    tabulate([made_sweep(root, small_study())], root / "t.parquet")
    done = compare(root, root / "t.parquet", "--search", "random,sobol,tpe", "--budget", 3)
    assert done.exit_code == 0, done.output
    return RunFolder.of(Store(root), "joint_space+searches")


@pytest.fixture(scope="module")
def fronts(tmp_path_factory):
    root = tmp_path_factory.mktemp("fronts")
    goals = "class_mean,trainable_params"
    words = ("compare", "--search", "random,nsga2", "--replay", "--objective", goals)
    done = harness(*words, "--budget", 4, "--repeats", 2, "--out", root)
    assert done.exit_code == 0, done.output
    return RunFolder.of(Store(root), f"joint_space+objective={goals}+searches")


def words_of(svg):
    """What is written in a drawing, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", svg.split("</metadata>")[-1]).split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "report, count", [("maps", 2), ("rows", 5), ("arms", 3), ("searches", 2), ("fronts", 1)]
)
def test_every_figure_says_what_it_was_measured_on(report, count, request):
    folder = request.getfixturevalue(report)
    drawn = [file for file in write_report(folder) if file.suffix == ".svg"]
    assert len(drawn) == count and all(each.with_suffix(".png").is_file() for each in drawn)
    page = (folder.report / "index.html").read_text()
    for file in drawn:
        words = words_of(file.read_text())
        assert not [part for part in FOOT if part not in words], (file.name, words[-400:])
        for name in (file.name, file.with_suffix(".png").name):
            assert f'<a href="{name}">{name}</a>' in page


def legends(figure):
    return [len(legend.get_texts()) for legend in figure.findobj(Legend)]


@pytest.mark.slow
def test_names_stand_beside_lines_and_points_and_not_in_legends(maps, rows, arms, searches):
    run, other = load_run(maps), load_run(rows)
    summary = summarise(run)
    drawn = {
        "curves": curves(run, summary, choose(run, summary), OF_TWO[1]),
        "bubbles": bubbles(other, choose(other, summarise(other)), OF_ONE[3]),
        "pareto": pareto(load_arms(arms)),
        "anytime": anytime(load_searches(searches)),
    }
    named = {"curves": "mlp1", "bubbles": "mlp1", "anytime": "sobol"}
    named["pareto"] = load_arms(arms).table["arm"].iloc[-1]
    for name, figure in drawn.items():
        assert not [count for count in legends(figure) if count > MOST_IN_A_LEGEND], name
        assert named[name] in [text.get_text() for text in figure.findobj(Text)], name


def test_a_position_looks_the_same_whatever_stands_beside_it():
    alone, among = looks(["mlp1"]), looks(["q+v", "v", "mlp1", "all"])
    assert alone["mlp1"] == among["mlp1"] == looks(["k", "mlp1", "mlp2"])["mlp1"]
    for found in (among, looks(range(20)), looks(["attn", "q+v", "ffn", "a", "b", "c"])):
        marks = [(each["color"], each["marker"], str(each["linestyle"])) for each in found.values()]
        assert len(set(marks)) == len(found)


def test_positions_have_one_order_and_other_values_their_own(maps):
    assert in_block_order(["mlp2", "mlp1", "out", "q", "v", "k"]) == [
        *("q", "k", "v", "out", "mlp1", "mlp2")
    ]
    for others in (["v", "q+v", "q"], [4.0, 1.0], []):
        assert in_block_order(others) == others
    assert load_run(maps).order("positions") == ["q", "v", "mlp1"]


def shown(figure):
    """The boxes of all names in a figure, in pixels."""
    figure.draw_without_rendering()
    names = [text for text in figure.findobj(Text) if text.get_text().startswith("name")]
    return [Text.get_window_extent(text) for text in names]


@pytest.mark.parametrize("heights", [[5.0] * 12, [0.0, 10.0], [0.0, 0.1, 9.9, 10.0, 12.0], [3.0]])
def test_names_at_the_ends_of_lines_lie_on_no_other_and_beside_the_axes(heights):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_ylim(0, 10)
    ends = [Named(1.0, y, f"name {number}", "black") for number, y in enumerate(heights)]
    label_ends(axis, [*ends, Named(1.0, float("nan"), "name of nothing", "black")])
    boxes = shown(figure)
    assert len(boxes) == len(heights)
    assert not [1 for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]
    inside = axis.get_window_extent()
    assert all(box.x0 > inside.x1 and box.x1 <= figure.bbox.x1 for box in boxes)
    lowest, highest = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    assert inside.y0 - 9 <= lowest and highest <= inside.y1 + 9  # half a name beyond either end


def test_names_of_points_lie_on_no_other_and_on_no_point():
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    points = [(x, y) for x in range(4) for y in range(4)] + [(1.1, 1.1), (1.1, 0.9), (1.0, 1.05)]
    axis.plot(*zip(*points, strict=True), "o")
    label_points(axis, [Named(*xy, f"name {n}", "black") for n, xy in enumerate(points)])
    boxes, marks = shown(figure), axis.transData.transform(points)
    assert len(boxes) == len(points)
    assert not [1 for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]
    assert not [1 for box in boxes for mark in marks if box.contains(*mark)]


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    def drawn(name):
        figure = Figure()
        figure.subplots().plot([1, 2], [2, 1], marker="o", clip_on=True)
        return [file.read_bytes() for file in save(tmp_path / name, figure)]

    once = drawn("a")
    assert once == drawn("b") and b"<dc:date>" not in once[1]
    assert [file.name for file in save(tmp_path / "c.d", Figure())] == ["c.d.png", "c.d.svg"]


def test_the_gallerys_tables_give_its_runs_back():
    """What `harness.reports.redraw` draws are the numbers that the gallery has."""
    drawn = 0
    for folder in sorted(GALLERY.iterdir()):
        run = read_sweep(folder) if folder.is_dir() else None
        if run is None:
            continue
        drawn += 1
        known = pd.read_csv(folder / "metrics.csv")
        found = summarise(run)
        for name in (run.select, run.test, f"{run.test}_ci"):
            assert found[name].to_numpy() == pytest.approx(
                known[name].to_numpy(dtype=float), abs=2e-4, nan_ok=True
            ), (folder.name, name)
        assert found["DIVERGED"].tolist() == known["DIVERGED"].tolist()
        assert len(run.groups) == 3 and run.seeds == tuple(sorted(set(run.trials["seed"])))
    assert drawn > 20
    for name in ("methods_tuned", "metapeft_lora"):
        arms = read_arms(GALLERY / name)
        means = arms.scores.groupby("arm")["test_class_mean"].mean()[arms.table["arm"]]
        assert arms.table["class_mean"].tolist() == pytest.approx(means.tolist(), abs=2e-4)
        assert arms.groups == ("head", "medium", "tail")
        assert arms.comparison.unit in arms.table["arm"].tolist()
