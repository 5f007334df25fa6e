"""The shipped table as a problem of OptunaHub, with the real library: `make integrations`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest

from harness.store.shipped import DEFAULT, file_of
from harness.store.table import read_table

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "examples" / "optunahub" / "benchmarks" / "peft_placement"


@pytest.fixture(scope="module")
def module():
    import optunahub

    return optunahub.load_local_module(
        "benchmarks/peft_placement", registry_root=str(ROOT / "examples" / "optunahub")
    )


@pytest.fixture(scope="module")
def rows():
    """The last row of every configuration of the axes; MetaPEFT's runs have none of them."""
    found = pd.read_parquet(file_of(DEFAULT)).drop_duplicates("trial_id", keep="last")
    return found[found["positions"].notna()]


def every(problem):
    space = problem.search_space
    choices = [
        getattr(each, "choices", None) or range(each.low, each.high + 1) for each in space.values()
    ]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*choices)]


def test_every_configuration_has_its_rows_scores(module, rows):
    problem = module.Problem()
    axes = {axis.field: axis.values for axis in read_table(file_of(DEFAULT)).info.study.axes}
    params = every(problem)
    assert len(params) == len(rows) == 864
    scores = rows.set_index(["positions", "depth", "alpha"])
    for each in params:
        depth, alpha = axes["depth"][each["depth"]], axes["alpha"][each["alpha"]]
        assert problem.values(each) == {
            "positions": each["positions"],
            "depth": depth,
            "alpha": alpha,
        }
        row = scores.loc[(each["positions"], depth, alpha)]
        if row["status"] == "DIVERGED":
            assert problem.evaluate(each) == problem.test(each) == pytest.approx(1 / 15)
        else:
            assert problem.evaluate(each) == pytest.approx(row["final_class_mean"])
            assert problem.test(each) == pytest.approx(row["test_class_mean"])


def test_optuna_searches_it_and_finds_nothing_better_than_its_best(module):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = module.Problem()
    scores = sorted(map(problem.evaluate, every(problem)))
    found = []
    for sampler in (optuna.samplers.TPESampler(seed=0), optuna.samplers.RandomSampler(seed=0)):
        study = optuna.create_study(sampler=sampler, directions=problem.directions)
        study.optimize(problem, n_trials=40)
        assert study.best_value == problem.evaluate(study.best_params) <= scores[-1]
        found.append(study.best_value)
    assert min(found) > scores[len(scores) // 2]  # of the best of 40, and of one configuration


def test_several_objectives_have_their_directions(module, rows):
    import optuna

    problem = module.Problem("trainable_params,class_mean,tail")
    assert problem.names == ("class_mean", "tail", "trainable_params")
    maximise, minimise = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    assert problem.directions == [maximise, maximise, minimise]
    score, tail, params = problem.evaluate({"positions": "mlp1", "depth": 0, "alpha": 0})
    assert 0 < score < 1 and 0 <= tail < 1 and params == 4 * (64 + 256)
    study = optuna.create_study(
        sampler=optuna.samplers.NSGAIISampler(seed=0, population_size=8),
        directions=problem.directions,
    )
    study.optimize(problem, n_trials=24)
    assert len(study.best_trials) > 1


def test_a_curve_ends_at_the_score_of_its_trial(module):
    problem = module.Problem()
    for each in every(problem)[::37]:
        curve = problem.curve(each)
        if problem.evaluate(each) != pytest.approx(1 / 15):
            assert len(curve) == 10 and curve[-1] == pytest.approx(problem.evaluate(each))


@pytest.mark.parametrize(
    "given,words",
    [
        ({"objectives": "class_meen"}, "Did you mean 'class_mean'"),
        ({"objectives": "trainable_params"}, "costs alone"),
        ({"objectives": "val_loss"}, "tabulated without the selection loss"),
        ({"seed": 9}, "seed 9: the table has 0"),
        ({"table": "none.parquet"}, "none.parquet does not exist"),
    ],
)
def test_what_the_table_has_not_is_refused(module, given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        module.Problem(**given)


def test_the_readme_has_what_the_hub_asks_for_and_its_example_runs(monkeypatch, capsys):
    text = (PACKAGE / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert set(fields) == {
        "author",
        "title",
        "description",
        "tags",
        "optuna_versions",
        "license",
    }
    for heading in ("## Abstract", "## APIs", "## Installation", "## Example"):
        assert heading in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert "'positions'" in capsys.readouterr().out
