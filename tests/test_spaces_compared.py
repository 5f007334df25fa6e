"""Searches on several spaces on one axis of cost: one table of each, paired by training seed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from support.cli import harness
from support.runs import texts
from support.sweeps import made_metapeft, made_sweep
from support.tables import small_study

from harness.comparison.request import Repeats, SearchesRequest
from harness.comparison.spaces import replay_spaces
from harness.errors import UserError
from harness.reports.figures.searches import anytime
from harness.reports.files.write import write_report
from harness.reports.numbers.searches import load_searches
from harness.reports.text.search_answer import verdict
from harness.store.comparisons import SearchComparison
from harness.store.runs import read_search_comparison
from harness.store.store import Store
from harness.store.table import read_table, tabulate
from harness.study.axes import Axis

SEEDS = tuple(range(6))
EPOCHS = Axis(field="recipe.epochs", values=(5, 10), label="epochs")


def other_space(**changes):
    """Cells of other positions in all blocks at another rate, so that each costs more."""
    study = small_study()
    values = {"positions": ("v", "q"), "depth": ("last:12",), "alpha": (1.0, 4.0)}
    axes = [axis.model_copy(update={"values": values[axis.field]}) for axis in study.axes]
    base = study.base.with_values({"recipe.lr": 0.05}, source="test")
    made = {"name": "joint_wide", "axes": tuple(axes), "base": base, "seeds": SEEDS}
    return study.derive(**{**made, **changes})


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    first = small_study(seeds=SEEDS)
    tabulate([made_sweep(root, first), made_metapeft(root, first)], root / "a.parquet")
    tabulate([made_sweep(root, other_space())], root / "b.parquet")
    return [root / "a.parquet", root / "b.parquet"]


def replay(root, tables, searches="random,metapeft", budget="3runs"):
    asked = SearchesRequest(
        searches=searches, budget=budget, repeats=Repeats(count=12), line="harness compare"
    )
    return replay_spaces(asked, tables, Store(root), processes=1)


@pytest.fixture(scope="module")
def compared(tables, tmp_path_factory):
    return replay(tmp_path_factory.mktemp("out"), tables)


@pytest.fixture(scope="module")
def found(compared):
    return load_searches(compared)


def test_every_search_on_every_space_is_an_arm(found):
    # A method that learns strengths takes part where its trials are.
    assert found.choices.table.index.tolist() == [
        "random (space)",
        "metapeft (space)",
        "random (wide)",
    ]
    arms = list(dict.fromkeys(found.choices.seeds["search"]))
    assert arms[:2] == ["random, expected (space)", "random, expected (wide)"]
    assert found.choices.reference == arms[0] and len(found.choices.contrasts) == 10
    assert found.learned == ("metapeft (space)",)


def test_costs_are_in_full_runs_of_the_first_by_flops(found, tables):
    one_run = read_table(tables[0]).info.reference.flops
    flops = dict(
        pair for path in tables for pair in read_table(path).trials[["trial_id", "flops"]].values
    )
    for (name, _), own in found.answers.groupby(["search", "repeat"]):
        spent = np.cumsum([flops[trial] for trial in own["trial_id"]]) / one_run
        assert own["cost"].tolist() == pytest.approx(spent.tolist())
        assert own["within"].tolist() == (spent <= 3).tolist()
        assert spent[-1] >= 3 or "metapeft" in name  # a budget of its own for each
    assert found.choices.at == 3


def test_contrasts_are_paired_over_the_seeds(found):
    choices = found.choices
    scores = choices.final.groupby(["search", "seed"])["test"].mean()
    differences = (scores["random (wide)"] - scores["metapeft (space)"]).to_numpy()
    contrasts = choices.contrasts.set_index(["first", "second"])
    row = contrasts.loc[("random (wide)", "metapeft (space)")]
    assert row["mean"] == pytest.approx(differences.mean()) and row["seeds"] == 6
    assert row["sd"] == pytest.approx(differences.std(ddof=1))


def test_where_the_budget_holds_all_cells_the_closed_form_is_their_best(tmp_path, tables):
    """Four cells of about 1.01 runs each."""
    folder = replay(tmp_path, tables, searches="random", budget="5runs")
    choices = load_searches(folder).choices
    own = choices.seeds[choices.seeds["search"] == "random, expected (wide)"].set_index("seed")
    trials = read_table(tables[1]).trials
    for seed, cells in trials.groupby("seed"):
        best = cells.loc[cells["final_class_mean"].idxmax()]
        assert own["test"][seed] == pytest.approx(100 * best["test_class_mean"])


@pytest.mark.slow
def test_one_report_and_one_figure_show_all(compared, found):
    write_report(compared)
    text = (compared.report / "report.md").read_text()
    assert "Spaces: joint_space, joint_wide." in text and "budget 3 runs" in text
    for name in ("random, expected (wide)", "metapeft (space)", "random (wide)"):
        assert f"| {name} " in text
    assert "Cost is in FLOPs" in text
    assert "random (wide) minus random, expected (space)" in text
    drawn = texts(anytime(found))
    assert "random, expected (wide) (closed form)" in drawn and "by FLOPs" in drawn
    words = verdict(found)
    assert "random, expected (wide) (" in words
    # The others' own run says the same of them alone.
    own = load_searches(compared.beside("joint_wide+searches+in=joint_space"))
    assert own.choices.table.index.tolist() == ["random"]
    # A report is made anew when a run that it shows has changed.
    log = compared.beside("joint_wide+searches+in=joint_space").log(0, "random")
    before, whole = compared.drawn.read_bytes(), log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    write_report(compared)
    log.write_bytes(whole)
    assert compared.drawn.read_bytes() != before


def test_comparisons_from_before_are_read(compared):
    stored = json.loads(compared.searches.read_text())
    assert stored.pop("beside") == ["joint_wide+searches+in=joint_space"]
    del stored["half_width"]
    plan = SearchComparison.model_validate_json(json.dumps(stored))
    assert plan.beside == () and plan.half_width is None
    assert read_search_comparison(compared).beside != ()


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"seeds": (0, 1)}, "differ in seeds"),
        ({"objective": "micro"}, "differ in objective"),
        ({"recipe.batch_size": 16}, "differ in recipe.batch_size (32 and 16)"),
        ({"data.options.test_per_class": 9}, "differ in data.options"),
        ({"axes": (EPOCHS,)}, "differ in recipe.epochs (10 and 5, 10)"),
        ({"name": "joint_space"}, "Two of the tables are of one study"),
    ],
)
def test_what_cannot_stand_beside_each_other_is_refused(tmp_path, tables, changes, words):
    values = {name: value for name, value in changes.items() if "." in name}
    changes = {name: value for name, value in changes.items() if "." not in name}
    if values:
        changes["base"] = other_space().base.with_values(values, source="test")
    study = other_space(**{"seeds": SEEDS, **changes})
    tabulate([made_sweep(tmp_path, study)], tmp_path / "c.parquet")
    with pytest.raises(UserError) as error:
        replay(tmp_path / "o", [tables[0], tmp_path / "c.parquet"])
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "args,words",
    [
        ([], "write it in full runs, as in 12runs"),
        (["--budget", "600s"], "--budget 600s: with several tables"),
        (["--budget", "3runs", "--study", "joint_space"], "--study is for one table"),
        (["--budget", "3runs", "--charge", "joint_space+metapeft"], "--charge is for one table"),
    ],
)
def test_options_of_one_table_are_refused(tables, args, words):
    given = [each for path in tables for each in ("--replay", path)]
    result = harness("compare", "--search", "random", *given, *args, "--out", tables[0].parent)
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.stderr.strip().count("\n") == 0


@pytest.mark.slow
def test_from_the_command_line(tmp_path, tables):
    given = [each for path in tables for each in ("--replay", path)]
    args = ["--search", "random,metapeft", "--budget", "3runs", "--repeats", 12]
    result = harness("compare", *given, *args, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "studies/joint_space+searches"
    seeds = pd.read_csv(folder / "report" / "seeds.csv")
    assert seeds["search"].nunique() == 5
    line = json.loads((folder / "command.json").read_text())["line"]
    assert line.count("--replay") == 2
