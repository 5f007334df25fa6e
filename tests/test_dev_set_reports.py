"""What reports call the images that choices were made on, where those are a dev set."""

from __future__ import annotations

import pytest
from support.cli import harness
from support.records import WHOLE
from support.runs import RESULTS, made_run, study, texts
from support.sweeps import made_metapeft, made_sweep
from support.tables import compare, small_study

from harness.catalogue.studies import load_study
from harness.reports.figures.grids import heatmap
from harness.reports.figures.searches import anytime
from harness.reports.files.write import write_report
from harness.reports.numbers.run import load_run
from harness.reports.numbers.searches import load_searches
from harness.reports.numbers.sweep import choose, summarise
from harness.spec import DataSpec
from harness.store.run_folder import RunFolder
from harness.store.store import Store
from harness.store.table import tabulate

DEV = {"data.options.dev_per_class": 2}


def test_what_choices_are_made_on_has_a_name():
    found = DataSpec(options={"dev_per_class": 100})
    assert found.chosen_on == "dev set" and found.selected_on == "dev"
    assert found.chosen_on_in_full == "dev set, 100 per class"
    for other, words, file in (
        (DataSpec(), "validation", "val"),
        (DataSpec(select_on="test"), "test", "test"),
        (DataSpec(options={"dev_per_class": 0}), "validation", "val"),
    ):
        assert (other.chosen_on, other.selected_on) == (words, file)
        assert other.chosen_on_in_full == words


@pytest.mark.slow
def test_a_sweep_chosen_on_a_dev_set_says_so_in_every_output(tmp_path):
    made = study(base=WHOLE.with_values(DEV, source="test"))
    folder = made_run(tmp_path, made, RESULTS)
    run = load_run(folder)
    summary = summarise(run)
    drawn = " ".join(texts(heatmap(run, summary, choose(run, summary), made.views[0])).split())
    assert "chosen on dev set" in drawn and "chosen on: dev set, 2 per class" in drawn
    write_report(folder)
    for path in folder.report.iterdir():
        if path.suffix in (".md", ".html", ".tex"):
            text = path.read_text().lower()
            assert "validation" not in text, path.name
            assert "dev set" in text or path.suffix == ".tex", path.name
    assert "chosen on: dev set, 2 per class" in (folder.report / "report.md").read_text()
    for name in ("metrics.csv", "trials.csv"):
        header, first = (folder.report / name).read_text().splitlines()[:2]
        assert header.endswith(",selected_on") and first.endswith(",dev")
    status = harness("status", folder.name, "--out", tmp_path).output
    assert "dev set" in status and "validation" not in status


@pytest.mark.slow
@pytest.mark.parametrize(
    "values, title, column",
    [
        (DEV, "dev set", "dev set"),
        ({"data.select_on": "test"}, "test", "test (selected on)"),
    ],
)
def test_a_comparison_of_searches_says_what_it_chose_on(tmp_path, values, title, column):
    base = load_study("joint_space").base.with_values(values, source="test")
    made = small_study(base=base, seeds=(0, 1, 2))
    table = tmp_path / "t.parquet"
    tabulate([made_sweep(tmp_path, made), made_metapeft(tmp_path, made)], table)
    words = ["--search", "random,sobol", "--repeats", 2, "--budget", 3]
    result = compare(tmp_path, table, *words)
    assert result.exit_code == 0, result.output
    folder = RunFolder.of(Store(tmp_path), "joint_space+searches")
    report = folder.report
    text = (report / "report.md").read_text()
    for expected in (f"regret, {column}", f"chosen: {column}", f"lost on {column}"):
        assert expected in text
    (page,) = (path.read_text() for path in report.glob("*.html"))
    assert f"on {title} of a finished trial" in page
    assert "validation" not in text and "validation" not in page
    drawn = texts(anytime(load_searches(folder)))
    assert f"chosen on {title}, shown on test" in drawn and f"regret on {title}" in drawn
