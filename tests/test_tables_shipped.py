"""Tables that ship: what the archives hold, found by name, with a sheet each, and replayed."""

from __future__ import annotations

import pandas as pd
import pytest
from support.cli import harness

import harness.store.shipped as shipping
from harness.errors import UserError
from harness.findings.evidence import SCENARIOS
from harness.findings.scenario import read_scenario
from harness.findings.tables import PAGE, page, tables_of
from harness.store.run_folder import RunFolder
from harness.store.runs import read_search_comparison
from harness.store.search_log import read_log, tells
from harness.store.shipped import ASSETS, DEFAULT, LINES, file_of, find_table, shipped
from harness.store.store import Store
from harness.store.table import PER_IMAGE, read_table, write_table

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def scenarios():
    return [read_scenario(name) for name in SCENARIOS]


@slow
def test_what_ships_is_what_the_archives_of_whole_scenarios_give(scenarios, tmp_path):
    made = {name: table for each in scenarios for name, table in tables_of(each).items()}
    assert set(shipped()) == {DEFAULT, *made}, "run `make findings`"
    for name, table in made.items():
        write_table(tmp_path / name, table)
        one, other = read_table(tmp_path / name), read_table(file_of(name))
        assert one.info == other.info, name
        pd.testing.assert_frame_equal(one.rows, other.rows)


@slow
def test_a_table_has_every_trial_of_its_scenario_and_counts_in_its_runs(scenarios):
    whole = [each for each in scenarios if each.is_whole]
    assert whole
    for scenario in whole:
        table = read_table(file_of(scenario.name))
        lora = scenario.trials["lora"].set_index("trial_id")
        single = scenario.trials["single"]
        defaults = single[single["arm"] == "MetaPEFT, defaults"].set_index("trial_id")
        own = table.trials.set_index("trial_id")
        assert set(own.index) == {*lora.index, *defaults.index}
        known = pd.concat([lora, defaults]).loc[own.index]
        complete = known["status"] == "COMPLETE"
        for column, score in (("final_class_mean", "select"), ("test_class_mean", "test")):
            found, wanted = 100 * own[column][complete], known[score][complete]
            pd.testing.assert_series_equal(found, wanted, check_names=False)
        runs = own["flops"] / table.info.reference.flops
        pd.testing.assert_series_equal(runs, known["runs"], check_names=False, rtol=1e-6)
        gamma = read_table(file_of(f"{scenario.name}_gamma"))
        assert set(gamma.trials["trial_id"]) == set(scenario.trials["gamma"]["trial_id"])
        assert gamma.info.reference == table.info.reference
        assert not [name for name in table.rows if name.endswith(PER_IMAGE)]


@slow
def test_of_a_scenario_that_lacks_a_seed_there_is_no_table(scenarios):
    whole = next(each for each in scenarios if each.is_whole)
    lacking = type(whole)(**{**vars(whole), "seeds": whole.seeds[1:]})
    assert tables_of(lacking) == {}


def test_every_file_has_a_name_and_a_line():
    assert {path.stem for path in ASSETS.glob("*.parquet")} == set(shipped()) <= set(LINES)
    assert sum(path.stat().st_size for path in shipped().values()) < 2_000_000


def test_every_table_has_a_sheet_that_is_read_from_it():
    text = PAGE.read_text()
    assert page(text) == text, "run `make findings`"
    for name in shipped():
        sheet = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        for word in ("data", "backbone", "seeds", "objective", "licence", "cannot say"):
            assert f"\n| {word} |" in sheet, name
        assert ("SYNTHETIC" in sheet) == ("synthetic" in sheet.replace("not synthetic", ""))


def test_a_table_is_found_by_its_name_or_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_table(True) == file_of(DEFAULT)
    assert find_table("synth_rs_gamma") == file_of("synth_rs_gamma")
    for path in ("mine.parquet", "./synth_rs", str(tmp_path / "synth_rs")):
        assert str(find_table(path)) == path.removeprefix("./")
    (tmp_path / "mine").touch()
    assert find_table("mine").name == "mine"
    with pytest.raises(UserError, match=r"Unknown table 'synth-rs'. Did you mean 'synth_rs'"):
        find_table("synth-rs")
    (tmp_path / "joint_space.parquet").touch()
    monkeypatch.setattr(shipping, "ASSETS", tmp_path)
    with pytest.raises(UserError, match=r"synth_rs: this table does not ship yet.*joint_space"):
        find_table("synth_rs")


def test_tables_are_listed():
    result = harness("list", "tables")
    assert result.exit_code == 0
    for name in shipped():
        assert name in result.output
    assert "SYNTHETIC" in result.output and "vit_pico" in result.output


@slow
def test_a_table_is_replayed_by_its_name(tmp_path):
    args = ("--replay", "synth_rs", "--budget", "3runs", "--repeats", "16,gp=1", "--confirm", 0)
    result = harness("compare", "--search", "all", *args, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    folder = RunFolder.of(Store(tmp_path), "protocol_synth_rs_lora+searches")
    comparison = read_search_comparison(folder)
    assert {"random", "tpe", "gp", "metapeft", "lora_all_linear"} <= set(comparison.searches)
    assert comparison.learned == ("metapeft",) and len(comparison.seeds) == 16
    notes = " ".join(comparison.notes)
    assert "tpe+hyperband watches every epoch" in notes and "lacks the baseline" not in notes
    known = read_table(file_of("synth_rs")).trials.set_index("trial_id")
    for repeat in range(16):
        told = list(tells(read_log(folder.log(repeat, "random"))))
        costs = [known.loc[tell.trial_id, "flops"] for tell in told]
        assert sum(costs[:-1]) < 3 * comparison.reference.flops <= sum(costs) + max(costs)
        assert {known.loc[tell.trial_id, "seed"] for tell in told} == {comparison.seeds[repeat]}
    report = (folder.report / "report.md").read_text()
    assert "where all" in report and "16 training seeds" in report


@slow
def test_two_spaces_are_replayed_by_their_names(tmp_path):
    names = ("--replay", "synth_rs", "--replay", "synth_rs_gamma")
    args = ("--search", "random", "--budget", "3runs", "--repeats", 16, "--confirm", 0)
    result = harness("compare", *args, *names, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "studies/protocol_synth_rs_lora+searches/report/report.md").read_text()
    assert "Spaces: protocol_synth_rs_lora, protocol_synth_rs_gamma." in text


@pytest.mark.parametrize(
    "table,search,words",
    [
        ("synth-rs", "random", "Unknown table 'synth-rs'"),
        ("none.parquet", "random", "none.parquet does not exist"),
        ("synth_rs", "tpe+hyperband,pbt", "watches the scores of every epoch"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(tmp_path, table, search, words):
    result = harness("compare", "--search", search, "--replay", table, "--out", tmp_path)
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output
    assert result.stderr.strip().count("\n") == 0
