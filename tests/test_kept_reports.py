"""A report is drawn again where something that it is made of has changed, and only then."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from support.cli import harness
from support.records import publish, tiny_study
from support.runs import made_run, scored

from harness.errors import UserError
from harness.reports.files.write import write_report
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, write_command

RESULTS = [[(0.4, 0.3)], [(0.6, 0.5)], ["FAILED"], [None]]


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    folder = made_run(tmp_path_factory.mktemp("kept"), tiny_study(), RESULTS)
    write_report(folder)
    return folder


@pytest.fixture
def run(drawn_once, tmp_path):
    """A copy that has the times of the original."""
    root = drawn_once.store.root
    shutil.copytree(root, tmp_path / "runs", copy_function=shutil.copy2)
    return RunFolder(tmp_path / "runs" / drawn_once.path.relative_to(root))


def content(run):
    return {path.name: path.read_bytes() for path in run.report.iterdir()}


def times(run):
    return {path.name: path.stat().st_mtime_ns for path in run.report.iterdir()}


def is_drawn(run, on_unusable=None):
    """Whether any file was written; whatever was, it is what a report without a past would be."""
    before = times(run)
    written = write_report(run, on_unusable)
    found = content(run)
    now = times(run)
    assert {path.name for path in written} == set(found)
    shutil.rmtree(run.report)
    assert write_report(run, on_unusable) == written
    assert content(run) == found
    return now != before


@pytest.mark.slow
def test_what_has_not_changed_is_kept_and_what_has_is_drawn(run):
    assert not is_drawn(run)
    write_command(run, Command("harness sweep --study tiny", "Every cell once."))
    assert is_drawn(run)
    assert b"harness sweep --study tiny" in content(run)["index.html"]
    (*_, (_, request)) = tiny_study().cell_requests()
    publish(run.store, resolve(request, Runtime()), select=scored(0.9), test=scored(0.8))
    assert is_drawn(run)
    assert b"80.0" in content(run)["metrics.csv"]
    assert not is_drawn(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "metrics.csv"])
def test_a_file_that_was_edited_or_removed_is_written_again(run, name):
    whole = content(run)
    (run.report / name).write_text("mine")
    write_report(run)
    assert content(run) == whole
    (run.report / name).unlink()
    write_report(run)
    assert content(run) == whole


@pytest.mark.slow
def test_another_state_of_the_code_or_of_a_library_draws_all(run, monkeypatch):
    for name, value in (
        ("harness.reports.files.write.source_hash", lambda: "edited"),
        ("importlib.metadata.version", lambda name: "99"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            before = times(run)
            write_report(run)
            assert all(now > before[file] for file, now in times(run).items())


@pytest.mark.slow
def test_what_is_wrong_with_a_record_is_said_each_time(run):
    trial = next(run.store.trials.glob("*/record.json"))
    trial.write_text("{")
    told = []
    for _ in range(2):
        before = times(run)
        write_report(run, lambda trial_id, why: told.append((trial_id, why)))
    assert times(run) == before
    assert told[0] == told[1] and len(told) == 2 and "is damaged" in told[0][1]
    with pytest.raises(UserError, match="is damaged"):
        write_report(run)


def test_without_a_run_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        write_report(RunFolder(tmp_path / "none"))


def test_the_command_draws_nothing_and_imports_nothing_that_draws(run):
    first = harness("report", run.path)
    code = (
        f"import sys\nfrom harness.cli import main\ntry: main(['report', {str(run.path)!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'optuna'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.output and "Choice " in again.stdout
