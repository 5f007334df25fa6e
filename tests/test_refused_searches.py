"""What is asked of a search and would be ignored is refused, before anything is trained."""

from __future__ import annotations

import pytest
from support.runs import made_run, study
from support.searches import lines, run, space_of
from support.searches import search as started

from harness.comparison.live import plan_any_sweep
from harness.console import SILENT
from harness.driver import setup
from harness.driver.request import EngineRequest, PlaceRequest, StudyRequest, SweepRequest
from harness.driver.setup import engine_starter
from harness.errors import UserError
from harness.reports.files.write import write_report
from harness.runner.runtime import Runtime
from harness.search.plan import learning_cell
from harness.search.resumed import refuse_another_start
from harness.store.runs import read_run
from harness.store.search_log import Ask, append_event
from harness.store.store import Store
from harness.study.axes import Axis, Range, Switches

CHANGES = study(
    axes=(
        Axis(field="alpha", values=(1.0, 2.0, 4.0), label="alpha"),
        Axis(field="positions", values=("mlp1", "q"), label="position"),
    ),
    views=(),
)


BARE = study(axes=(Axis(field="recipe.epochs", values=(1, 2), label="epochs"),), views=())
RATE = (Range(field="recipe.lr", low=0.1, high=0.2, label="rate"),)
SITES = (Switches(positions=("q",)),)


def planned(root, search="grid", made=CHANGES, asked=None, of_search=None, **engine):
    asked = SweepRequest(
        study=StudyRequest(study=made, **asked or {}),
        place=PlaceRequest(out=str(root), device="cpu"),
        engine=EngineRequest(**engine),
        search=search,
        line="harness sweep",
        **of_search or {},
    )
    return plan_any_sweep(asked, SILENT)


def refused(words, *args, **kwargs):
    with pytest.raises(UserError, match=words) as error:
        planned(*args, **kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("search", ["pbt", "random+asha"])
def test_trials_on_several_gpus_are_not_watched(tmp_path, search, monkeypatch):
    monkeypatch.setattr(setup, "_refuse_engine", lambda *_: None)  # this machine may have no GPU
    several = dict(kind="ray", gpus_per_trial=2)
    refused("--gpus-per-trial 2: .* does not report its epochs", tmp_path, search, **several)
    compared = CHANGES.derive(searches=f"random,{search}")
    watcher = f"--search {search}".replace("+", r"\+")
    refused(f"--gpus-per-trial 2: .*{watcher} watches", tmp_path, made=compared, **several)
    planned(tmp_path, "random", **several)
    planned(tmp_path, search, kind="ray", gpus_per_trial=0.5)


def test_an_installed_search_that_watches_is_refused_at_its_start(tmp_path):
    start = engine_starter(EngineRequest(kind="ray", gpus_per_trial=2), Runtime())
    with pytest.raises(UserError, match=r"--gpus-per-trial 2: .*which this search watches"):
        start(Store(tmp_path), True)


def test_a_search_that_a_study_misspells_is_refused_before_a_dry_run(tmp_path):
    misspelt = CHANGES.derive(searches="random,tpee")
    refused("Unknown search 'tpee'. Did you mean 'tpe'", tmp_path, made=misspelt)


@pytest.mark.parametrize(
    "search,space,asked,said",
    [
        (
            "metapeft",
            (),
            {"only": {"positions": ["q"]}},
            "--only positions: --search metapeft looks",
        ),
        ("snip", (), {"only": {"alpha": [1.0]}}, "--only alpha: --search snip looks at every site"),
        ("metapeft", (), {"settings": {"depth": "last:2"}}, "--set depth: --search metapeft looks"),
        ("random", RATE, {"settings": {"recipe.lr": 0.1}}, "--set recipe.lr: a search of study"),
        ("random", SITES, {"settings": {"depth": "last:2"}}, "--set depth: a search of study"),
        (
            "random",
            SITES,
            {"settings": {"options.rank": 2, "positions": ["q"]}},
            "--set positions:",
        ),
    ],
)
def test_what_a_search_chooses_is_not_set_beside_it(tmp_path, search, space, asked, said):
    refused(said, tmp_path, search, CHANGES.derive(space=space), asked=asked)
    if space:  # its grid walks the axes, which do not have it
        planned(tmp_path, made=BARE.derive(space=space), asked=asked)


def test_one_search_has_one_seed(tmp_path):
    refused(
        "--seeds 3: a search trains on the first seed alone", tmp_path, "random", asked={"seeds": 3}
    )
    planned(tmp_path, "random", asked={"seeds": 1})
    planned(tmp_path, made=CHANGES.derive(searches="random"), asked={"seeds": 3})


def test_repeats_of_restarts_keep_their_seeds(tmp_path):
    """The budget moves those of the second, which is seen before the first trains again."""
    asked = {"repeats": 2, "budget": "1"}
    plan = planned(tmp_path, "metapeft", of_search=asked)
    cell = learning_cell(CHANGES, "metapeft")
    for repeat in (0, 1):
        spec = plan.planned.full.model_copy(update={"seed": CHANGES.seeds[0] + repeat})
        fields = dict(cell=cell, seed=spec.seed, trial_id=spec.trial_id)
        plan.folder.path.mkdir(parents=True, exist_ok=True)
        append_event(plan.folder.log(repeat), Ask(params={}, **fields))
    planned(tmp_path, "metapeft", of_search=asked)
    more = {**asked, "budget": "2"}
    refused("--budget 2: .* begins at seed 1, .* at 2", tmp_path, "metapeft", of_search=more)


def test_the_report_of_one_search_does_not_advise_more_seeds(tmp_path):
    made = study(seeds=(0,), views=(), reference=None)
    folder = made_run(tmp_path, made, [[(0.5, 0.5)]] * 6)
    write_report(folder)
    assert "One seed: " in (text := (folder.report / "report.md").read_text())
    assert "Run more with `--seeds N`" in text
    for trial in read_run(folder).asked:
        fields = dict(trial_id=trial.trial_id, seed=0, cell=trial.cell)
        append_event(folder.log(0), Ask(params={}, **fields))
    write_report(folder)
    assert "One seed: " in (text := (folder.report / "report.md").read_text())
    assert "--seeds N" not in text


def test_what_is_known_before_a_search_is_not_changed_in_its_midst(tmp_path):
    space, log = space_of("tpe"), tmp_path / "log"
    points = [(params, 0.5) for params in space.enumerate()]
    refuse_another_start(log, points, "cached")
    run(started("tpe", log, warm=points[:4]), most=2)
    refuse_another_start(log, points[:4], "cached")
    refuse_another_start(log, [], "cached")  # goes on with what it knew
    for other in (points[:5], points[1:5]):
        with pytest.raises(UserError, match="has begun with 4 known configurations"):
            refuse_another_start(log, other, "cached")
    run(started("tpe", tmp_path / "cold"), most=2)
    with pytest.raises(UserError, match=r"--warm-start: .* has begun with 0 known"):
        refuse_another_start(tmp_path / "cold", points[:4], "cached")


def test_a_warm_start_that_was_interrupted_is_completed(tmp_path):
    points = [(params, 0.5) for params in space_of("tpe").enumerate()]
    started("tpe", tmp_path / "log", warm=points[:2])
    refuse_another_start(tmp_path / "log", points[:5], "cached")
    assert started("tpe", tmp_path / "log", warm=points[:5])._search.warm == 5
    assert len(lines(tmp_path / "log", "warm")) == 5


def test_what_a_repeat_becomes_is_not_changed_in_the_midst(tmp_path):
    for was, other in (("cached", "next-seed"), ("next-seed", "cached")):
        log = tmp_path / was
        run(started("random", log, "30", on_repeat=was))
        refuse_another_start(log, [], was)
        with pytest.raises(UserError, match=f"--on-repeat {other}: .* has begun with {was}"):
            refuse_another_start(log, [], other)


def test_a_sweep_looks_at_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.search.plan.refuse_another", lambda *args, **kwargs: None)
    log = planned(tmp_path, "random").folder.log(0)
    log.parent.mkdir(parents=True)
    run(started("random", log, "30"))
    refused("--on-repeat next-seed: ", tmp_path, "random", of_search={"on_repeat": "next-seed"})
