"""From archives of docs/protocol.md to sentences, on scores that were made up."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

import harness.findings.scenario as reading
from harness.archive.collect import archive_run
from harness.archive.parquet import read_archive
from harness.catalogue.studies import load_study, study_names
from harness.driver.plan import make_plan
from harness.errors import UserError
from harness.findings import __main__ as command
from harness.findings import searched
from harness.findings.arms import RUNS, chosen_by_seed, grid, placed, random_by_seed
from harness.findings.bootstrap import Bits, bootstrap, resampled
from harness.findings.claims import (
    CLAIMS,
    NOT_RUN,
    PRIMARY,
    arms_of,
    contrasts_of,
    overhead_of,
)
from harness.findings.document import blocks, fill
from harness.findings.evidence import ARCHIVES, KINDS, SCENARIOS, archive_of, name_of
from harness.findings.figure import arms_table, draw_arms
from harness.findings.scenario import Scenario, read_scenario
from harness.findings.strengths import strengths_table
from harness.metrics import pack_hits
from harness.runner.runtime import Runtime
from harness.store.runs import write_run
from harness.store.store import Store
from harness.studies.protocol_synth_rs_lora import RATE
from harness.testing.made import made_record

ROOT = command.ROOT
slow = pytest.mark.slow
SEEDS = tuple(range(100, 107))
FULL = 1000
"""FLOPs of a trial that adapts all blocks; one of the last six costs 600."""


def shares(kind, cell, seed):
    """Selection and test score of a made-up trial. The best by selection is LoRA everywhere, and
    MetaPEFT's first cell is better by two points and a little more."""
    extra = 0.001 * (seed % 3)
    if kind == "lora":
        if (cell["where"], cell["depth"], cell["alpha"]) == ("all", "last:12", 4.0):
            return (0.60, 0.70 + extra) if cell["recipe.lr"] == RATE else (0.55, 0.40)
        return 0.30 + extra, 0.30
    if kind == "gamma":
        best = cell["options.outer_lr"] == 0.03 and cell["alpha"] == 4.0
        return (0.61, 0.72 + 2 * extra) if best else (0.20, 0.20)
    return (0.40, 0.50 + extra)


def made(spec, kind, cell, seed):
    record = made_record(spec)
    select, test = shares(kind, cell, seed)
    flops = 600 if cell.get("depth") == "last:6" else FULL
    flops = int(1.25 * FULL) if kind == "gamma" else flops
    cost = record.cost.model_copy(update={"flops": flops + 50, "test_flops": 50, "device_s": 60.0})

    def scores(value):
        groups = dict.fromkeys(("head", "medium", "tail"), value)
        changes = {"class_mean": value, "groups": groups, "groups_se": groups, "distance": groups}
        images = {"class_counts": (10, 10), "hits": pack_hits(np.arange(20) % 10 < 10 * value)}
        return record.select.model_copy(update={**changes, **images})

    changes = {"select": scores(select), "test": scores(test), "cost": cost}
    return record.model_copy(update={**changes, "provenance": {"semantics": "3", "device": "made"}})


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives of a whole scenario of seven seeds, with the replays that belong to them."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")  # one process makes them for all
    place = tmp_path_factory.mktemp("archives")
    if run:
        place = tmp_path_factory.getbasetemp().parent / f"archives-{run}"
        place.mkdir(exist_ok=True)
    with FileLock(place.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        if any(place.iterdir()):
            return place
        patch.setattr(reading, "load_study", few_seeds)
        patch.setattr(searched, "REPEATS", {"gp": 1, "tpe": 3})
        patch.setattr(searched, "MONTE_CARLO", 100.0)
        for kind in KINDS:
            archive(place, tmp_path_factory.mktemp("store"), kind)
        searched.replay(read_scenario("synth_rs", place))
    return place


def few_seeds(name):
    return load_study(name).derive(seeds=SEEDS)


def archive(place, root, kind, without=()):
    study, store = few_seeds(name_of("synth_rs", kind)), Store(root)
    plan = make_plan(study, store=store, run_name=study.name, runtime=Runtime())
    for cell, spec in plan.cells:
        if (kind, spec.seed) in without:
            continue
        folder = store.trials / spec.trial_id
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1))
        epochs = [json.dumps({"epoch": epoch}) for epoch in range(spec.recipe.epochs)]
        (folder / "history.jsonl").write_text("\n".join(epochs) + "\n")
        record = made(spec, kind, cell, spec.seed)
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
    plan.folder.path.mkdir(parents=True)
    write_run(plan.folder, study, plan.cells, {"semantics": "3"})
    archive_run(plan.folder, archive_of(study.name, place))


@pytest.fixture(scope="module")
def once_read(archives):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "load_study", few_seeds)
        return read_scenario("synth_rs", archives)


@pytest.fixture
def scenario(once_read, monkeypatch):
    monkeypatch.setattr(reading, "load_study", few_seeds)
    monkeypatch.setattr(searched, "REPEATS", {"gp": 1, "tpe": 3})
    monkeypatch.setattr(searched, "MONTE_CARLO", 100.0)
    return once_read


@slow
def test_a_run_is_lora_everywhere_and_costs_exclude_the_test(scenario):
    assert scenario.is_whole and scenario.seeds == SEEDS
    own = scenario.of_seed("lora", 103)
    assert set(own[own["depth"] == "last:12"]["runs"]) == {1.0}
    assert set(own[own["depth"] == "last:6"]["runs"]) == {0.6}
    assert set(scenario.trials["gamma"]["runs"]) == {1.25}


@slow
def test_an_arm_chooses_by_the_dev_score_and_pays_for_all_that_it_looked_at(scenario):
    tuned = chosen_by_seed(scenario, placed("all"))
    assert list(tuned["runs"]) == [4.0] * 7 and list(tuned["looked"]) == [4] * 7
    assert tuned["test"].loc[100] == pytest.approx(100 * (0.70 + 0.001 * (100 % 3)))
    assert set(tuned["alpha"]) == {4.0}


@slow
def test_the_grid_tries_the_larger_alpha_first_and_stops_before_the_budget(scenario):
    looked = grid(scenario, 100)
    assert list(looked["alpha"].unique()) == [4.0] and looked["runs"].sum() <= RUNS
    assert looked["runs"].sum() > RUNS - 1


@slow
def test_random_search_is_what_drawing_cells_gives_on_average(scenario):
    own = scenario.of_seed("lora", 101)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(4000):
        drawn = own.iloc[rng.permutation(len(own))]
        tried = drawn[drawn["runs"].cumsum() <= RUNS + 1e-9]
        means.append(tried["test"][tried["select"] == tried["select"].max()].mean())
    error = 4 * np.std(means) / np.sqrt(len(means))
    assert random_by_seed(scenario).loc[101, "test"] == pytest.approx(np.mean(means), abs=error)


@slow
def test_verdicts_are_those_of_the_differences_within_seeds(scenario):
    arms = arms_of(scenario)
    found = contrasts_of(scenario, arms)
    assert found.keys() == {claim.key for claim in CLAIMS}
    assert found["T"].word == "better"
    assert found["T"].mean == pytest.approx(2 + 0.1 * np.mean([seed % 3 for seed in SEEDS]))
    assert found["C5"].mean == 0 and found["C5"].word == "equivalent"
    assert arms["MetaPEFT, tuned"]["runs"].iloc[0] == pytest.approx(8 * 1.25 + 1)


@slow
def test_the_overhead_is_of_costs_alone_and_known_before_the_replays(scenario):
    found = overhead_of(scenario)
    cells = 8 * 1.25 + 1  # and the defaults, in this fixture at the cost of LoRA
    assert found.flops == pytest.approx((cells / 9, 0)) and found.seconds == (1.0, 0.0)
    kinds = {"gamma": 3.0, "single": 2.0}
    seconds = {
        kind: scenario.trials[kind].assign(device_s=60.0 * factor + scenario.trials[kind]["seed"])
        for kind, factor in kinds.items()
    }
    dearer = Scenario(**{**vars(scenario), "trials": {**scenario.trials, **seconds}})
    ratios = [((8 * 180 + 120) / 9 + seed) / 60 for seed in SEEDS]
    assert overhead_of(dearer).seconds[0] == pytest.approx(np.mean(ratios))
    assert overhead_of(dearer).seconds[1] > 0
    rows = blocks([dearer], {})["claims"].splitlines()
    [row] = [row for row in rows if row.startswith("| C11 ")]
    assert "× 1.22 in FLOPs, × 4.61 ± 0.03 in CPU seconds" in row


@slow
def test_seconds_of_different_devices_are_not_compared(scenario):
    rows = scenario.trials["gamma"].copy()
    some = rows["alpha"] == 1.0
    rows.loc[some, "device"], rows.loc[some, "device_s"] = "a slower one", 600.0
    changed = Scenario(**{**vars(scenario), "trials": {**scenario.trials, "gamma": rows}})
    assert overhead_of(changed).seconds == (1.0, 0.0)


@slow
def test_a_trial_that_diverged_early_is_not_in_the_overhead(scenario):
    rows = scenario.trials["lora"].copy()
    first = rows.index[(rows["where"] == "all") & (rows["depth"] == "last:12")][0]
    rows.loc[first, ["status", "flops"]] = ["DIVERGED", 1.0]
    changed = Scenario(**{**vars(scenario), "trials": {**scenario.trials, "lora": rows}})
    assert overhead_of(changed) == overhead_of(scenario)


def test_what_was_not_run_names_a_study_that_bears_on_it():
    assert {each.study for each in NOT_RUN} <= set(study_names())


def test_the_papers_gains_are_those_of_its_table():
    table = pd.read_csv(ROOT / "baselines" / "paper" / "table4.csv")
    means = table[table["dataset"] == "all"].set_index("variant")
    gains = (
        means.loc["LoRA + MetaPEFT"][["average", "tail"]] - means.loc["LoRA", ["average", "tail"]]
    )
    by_key = {claim.key: claim.paper.split()[0] for claim in CLAIMS if claim.paper}
    assert by_key == {"C9": f"{gains['average']:+.2f}", "C9, tail": f"{gains['tail']:+.2f}"}


@slow
def test_scores_that_differ_in_the_last_bits_are_ties_and_the_earlier_is_chosen(scenario):
    rows = scenario.trials["lora"].copy()
    own = rows.index[(rows["where"] == "all") & (rows["depth"] == "last:12")]
    rows.loc[own, "select"] = 60.0
    rows.loc[own[-1], "select"] = 60.0 + 1e-14
    changed = Scenario(**{**vars(scenario), "trials": {**scenario.trials, "lora": rows}})
    tuned = chosen_by_seed(changed, placed("all"))
    assert set(tuned["alpha"]) == {4.0} and set(tuned["recipe.lr"]) == {RATE}


@slow
def test_the_strengths_that_were_chosen_are_counted(scenario):
    table = strengths_table(scenario, arms_of(scenario))
    assert list(table.loc["grid"].iloc[:4]) == [0, 0, 7, 0]
    learned = table.loc["MetaPEFT, tuned"].dropna()
    assert learned.to_dict() == {
        "1": 0, "4": 0, "16": 7, "64": 0, "defaults": 0, "outer 0.03": 7, "outer 0.3": 0
    }  # fmt: skip


def test_the_bootstrap_draws_seeds_and_images():
    rng = np.random.default_rng(1)
    seeds, counts = 12, (30, 90)
    of_seed = rng.normal(0.02, 0.05, (seeds, 1))
    low, high = resampled(np.repeat(of_seed, 120, axis=1), counts)  # images say nothing
    error = 100 * of_seed.std() / np.sqrt(seeds)
    assert (low + high) / 2 == pytest.approx(100 * of_seed.mean(), abs=0.3 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    of_image = np.concatenate([rng.normal(0, 1, 30), rng.normal(0, 1, 90)])
    low, high = resampled(np.repeat(of_image[None], seeds, axis=0), counts)  # nor seeds
    parts = [own.var() / len(own) / 4 for own in np.split(of_image, [30])]  # classes weigh alike
    assert high - low == pytest.approx(2 * 1.96 * 100 * np.sqrt(sum(parts)), rel=0.1)


def test_the_bootstrap_is_of_what_was_chosen():
    hits = {"a": np.array([1.0, 1, 0, 1]), "b": np.array([0.0, 1, 0, 1]), "c": np.full(4, 0.5)}
    found = Bits(hits, (2, 2))
    same = {seed: {"a": 0.25, "b": 0.75} for seed in range(6)}
    assert bootstrap(found, same, same) == (0, 0)
    low, high = bootstrap(found, {1: {"a": 1.0}}, {1: {"b": 1.0}})
    assert (low, high) == (0, 50)  # one image of one class of two


@slow
def test_what_replays_chose_is_kept_and_comes_again(scenario, tmp_path):
    table = searched.table_of(scenario, tmp_path)
    kept = pd.read_csv(searched.kept_at(scenario))
    own = kept[(kept["search"] == "tpe") & (kept["seed"] == 102)]
    again = list(searched.replays(table, "tpe", 102, range(3), tmp_path))
    assert sorted(each.trial_id for each in again) == sorted(
        trial_id
        for trial_id, times in zip(own["trial_id"], own["times"], strict=True)
        for _ in range(times)
    )
    assert all(RUNS - 1 < each.runs <= RUNS for each in again)


@slow
def test_replays_of_other_scores_are_refused(scenario):
    rows = scenario.trials["lora"].copy()
    rows.loc[0, "select"] += 0.01
    changed = Scenario(**{**vars(scenario), "trials": {**scenario.trials, "lora": rows}})
    with pytest.raises(UserError, match="other scores"):
        arms_of(changed)


def contrasts(scenario):
    return blocks([scenario], {scenario.name: arms_of(scenario)})["contrasts"]


@slow
def test_one_changed_score_changes_the_text(scenario):
    rows = scenario.trials["lora"].copy()
    best = rows.index[rows["select"] == rows["select"].max()][0]
    rows.loc[best, "test"] += 1.0
    changed = Scenario(**{**vars(scenario), "trials": {**scenario.trials, "lora": rows}})
    assert contrasts(changed) != contrasts(scenario)


@slow
def test_of_a_scenario_that_lacks_a_seed_nothing_is_computed(archives, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "load_study", few_seeds)
    for path in archives.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    archive(tmp_path, tmp_path / "store", "gamma", without={("gamma", 105)})
    partial = read_scenario("synth_rs", tmp_path)
    assert partial.seeds == tuple(seed for seed in SEEDS if seed != 105)
    made = blocks([partial], {})
    assert made["claims"].count("not run (6 of 7 seeds)") == len(CLAIMS) - len(PRIMARY) + 1
    assert "not run (6 of 7 seeds)" in made["contrasts"] and "±" not in "".join(made.values())
    with pytest.raises(ValueError):
        arms_of(partial)


def test_a_document_may_not_name_a_block_that_there_is_not():
    text = "a\n<!-- measured: arms -->\nold\n<!-- end -->\nb\n"
    assert fill(text, {"arms": "new\n"}) == text.replace("old", "new")
    with pytest.raises(UserError, match="'arms'"):
        fill(text, {"claims": ""})


def test_the_documents_say_what_the_committed_archives_hold():
    scenarios = [read_scenario(name) for name in SCENARIOS]
    for path, text in command.make(scenarios).texts.items():
        assert path.read_text() == text, f"{path.name}: run `make findings`"


def git(*words):
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_archived_trial_is_of_a_commit_that_has_the_protocol():
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("needs the history of a whole clone")
    files = sorted(ARCHIVES.glob("protocol_*.parquet"))
    assert files
    for file in files:
        commits = {trial.record["provenance"]["git"] for trial in read_archive(file).trials}
        scenario = file.stem.removeprefix("protocol_").rpartition("_")[0]
        rate = load_study(name_of(scenario, "single")).base.recipe.lr
        for commit in commits:
            shown = git("show", f"{commit}:docs/protocol.md")
            assert shown.returncode == 0, f"{file.name}: {commit} is no commit, or was changed"
            text = " ".join(shown.stdout.split())
            assert "**B**: MetaPEFT − GP, both at 12 runs" in text
            assert "**T**: MetaPEFT at 12 runs − tuned LoRA at 4" in text
            assert file.stem.endswith("pilot") or f"(r = {rate})" in text, file.name


@slow
def test_the_figure_has_every_arm_of_a_scenario(scenario):
    arms = {scenario.name: arms_of(scenario)}
    rows = arms_table(arms)
    assert list(rows["arm"]) == list(arms[scenario.name]) and set(rows["seeds"]) == {len(SEEDS)}
    [panel] = draw_arms(rows).axes
    assert [tick.get_text() for tick in panel.get_yticklabels()] == list(rows["arm"])


@slow
def test_replays_go_on_where_they_stopped_and_before_nothing_is_concluded(
    archives, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "load_study", few_seeds)
    monkeypatch.setattr(searched, "REPEATS", {"gp": 1, "tpe": 3})
    monkeypatch.setattr(searched, "MONTE_CARLO", 100.0)
    for path in archives.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    scenario = read_scenario("synth_rs", tmp_path)
    path = searched.kept_at(scenario)
    whole = path.read_bytes()
    kept = pd.read_csv(path)
    kept[kept["seed"] != 103].to_csv(path, index=False)
    said = command.make([scenario]).texts[command.ROOT / "README.md"]
    assert "7 of 7 seeds trained, 6 replayed" in said
    searched.replay(scenario)
    assert path.read_bytes() == whole
