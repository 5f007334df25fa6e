"""Runs whose study, device, version or files changed in between: said in one sentence, never taken.

All through the command line, on trials that were made up or are very small.
"""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.spec import TrialSpec
from harness.spec import trial as identities
from harness.store.run_folder import RunFolder
from harness.store.search_log import asks, read_log, tells
from harness.store.store import Store

STUDY = """
from harness.study import Axis, View
from harness.studies.depth_vs_position import study as base


def study():
    made = base()
    values = {"depth": "last:1", "recipe.epochs": 1, "data.options.test_per_class": 4}
    values["data.val_fraction"] = 0.8
    return made.derive(
        name="edited",
        base=made.base.with_values(values, source="test"),
        axes=(
            Axis(field="positions", values=("q", "v"), label="position"),
            Axis(field="alpha", values=ALPHAS, label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="t"),),
        reference=None,
    )
"""
TPE = ["--search", "tpe", "--budget", "2"]

pytestmark = pytest.mark.usefixtures("all_trained_here")


def run(out, *words):
    """A command's exit code and what it says."""
    ran = CliRunner().invoke(main, [*map(str, words), "--out", str(out)])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.output


def sweep(made, *words):
    return run(made.out, "sweep", "--study", made.study, "--workers", "1", *words)


def write_study(path, alphas="(1.0, 2.0)"):
    path.write_text(STUDY.replace("ALPHAS", alphas))


class Made:
    """A store with a finished grid and a finished search, and their study."""

    def __init__(self, folder):
        self.out, self.study = folder / "runs", folder / "edited.py"

    def folder(self, name="edited"):
        return RunFolder.of(Store(self.out), name)

    @property
    def log(self):
        return self.folder("edited+tpe").log(0)

    def files(self):
        """All but the cache, reports and locks, which readers may make."""
        made = (p for p in self.out.rglob("*") if p.is_file() and "report" not in p.parts)
        kept = [p for p in made if p.suffix not in (".lock", ".sqlite")]
        return {path: path.read_bytes() for path in kept}

    def records(self):
        return sorted(self.out.glob("trials/*/record.json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, all_trained_here):
    made = Made(tmp_path_factory.mktemp("finished"))
    write_study(made.study)
    for words in ([], TPE):
        assert sweep(made, *words)[0] == 0
    return made


@pytest.fixture
def made(finished, tmp_path):
    shutil.copytree(finished.out.parent, tmp_path, dirs_exist_ok=True)
    return Made(tmp_path)


def refused(made, *words):
    """What is said of a command that is refused and has left everything as it was."""
    before = made.files()
    code, said = sweep(made, *words)
    assert code == 2 and said.count("\n") == 1, said
    assert made.files() == before
    return said


# What a search is continued with.


@pytest.mark.slow
@pytest.mark.parametrize("alphas", ["(1.0, 3.0)", "(2.0, 1.0)", "(4.0,)"])
@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_search_of_an_edited_study_is_refused(made, alphas, words):
    write_study(made.study, alphas)
    said = refused(made, *TPE, *words)
    assert "search-0.jsonl cannot go on: its trial " in said and "alpha = " in said


@pytest.mark.slow
def test_a_search_is_refused_after_another_change_of_its_study(made):
    made.study.write_text(made.study.read_text().replace('"recipe.epochs": 1', '"recipe.lr": 0.5'))
    assert "because recipe.epochs was 1 and is 10 now" in refused(made, *TPE)


@pytest.mark.slow
def test_a_search_is_refused_under_other_semantics(made, monkeypatch):
    monkeypatch.setattr(identities, "SEMANTICS", identities.SEMANTICS + 1)
    said = refused(made, *TPE)
    was, now = identities.SEMANTICS - 1, identities.SEMANTICS
    assert f"under SEMANTICS {was} than they do now, under {now}" in said


def test_a_search_is_refused_on_another_device(made, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    said = refused(made, *TPE, "--device", "cuda")
    assert 'recipe.precision was "fp32" and is "bf16" now; precision=auto follows' in said


@pytest.mark.slow
def test_the_same_search_goes_on(made):
    code, said = sweep(made, "--search", "tpe", "--budget", "4")
    assert code == 0, said
    assert len({ask.trial_id for ask in asks(read_log(made.log))}) == 4


# Other semantics, of a grid.


@pytest.mark.slow
def test_status_and_dry_run_agree_under_other_semantics(made, monkeypatch):
    was = identities.SEMANTICS
    monkeypatch.setattr(identities, "SEMANTICS", was + 1)
    before = made.files()
    code, plan = sweep(made, "--dry-run")
    assert code == 2 and "nothing of it is reused" in plan
    code, status = run(made.out, "status", "edited")
    assert code == 0 and f"Trials: 4 done under SEMANTICS {was} of 4." in status
    why = f"other numbers under SEMANTICS {was} than they do now, under {was + 1}"
    assert why in plan and why in status and "nothing of it is reused" in status
    assert why in run(made.out, "status", "edited+tpe")[1]
    assert run(made.out, "report", "edited")[0] == 0 and made.files() == before


# Records that are not what they should be.


def changed(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def swapped(made):
    one, other = made.records()[:2]
    one.rename(made.out / "kept")
    other.rename(one)
    (made.out / "kept").rename(other)
    return [one, other], f"it is that of trial {other.parent.name}; move its folder out"


def of_another_spec(made):
    path = made.records()[0]
    changed(path, lambda record: record["spec"].update(seed=7))
    return [path], "its spec is that of trial "


def impossible(*names, value):
    def tampered(made):
        path = made.records()[0]

        def edit(record):
            for name in names[:-1]:
                record = record[name]
            record[names[-1]] = value

        changed(path, edit)
        return [path], ".".join(map(str, names))

    return tampered


TAMPERED = {
    "swapped": swapped,
    "of another spec": of_another_spec,
    "a score of 7.5": impossible("test", "class_mean", value=7.5),
    "a score that is not finite": impossible("select", "micro", value=float("nan")),
    "a negative group": impossible("test", "groups", "tail", value=-0.1),
    "a negative cost": impossible("cost", "device_s", value=-1.0),
    "a class of 2": impossible("test", "per_class", 0, value=2.0),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_record_that_cannot_be_so_is_named_and_not_used(made, case):
    paths, words = TAMPERED[case](made)
    before = made.files()
    code, status = run(made.out, "status", "edited")
    assert code == 0 and words in status and f"{len(paths)} not used" in status
    code, said = run(made.out, "export", "edited", "--csv", made.out / "rows")
    assert code == 0 and words in said
    assert sum("record.json is" in line for line in said.splitlines()) == len(paths)
    table = (made.out / "rows").read_text()
    (made.out / "rows").unlink()
    assert table.count("MISSING") == len(paths)
    for more in ([], ["--dry-run"]):
        code, said = sweep(made, *more)
        assert code == 2 and said.count("\n") == 1, said
        assert "record.json is" in said and words.split("; ")[-1] in said
    assert run(made.out, "tabulate", "edited", "--file", made.out / "t")[0] == 2
    assert made.files() == before


@pytest.mark.slow
def test_a_report_is_drawn_without_such_records(made):
    (path, *_), words = TAMPERED["a score of 7.5"](made)
    code, said = run(made.out, "report", "edited")
    assert code == 0 and str(path) in said and words in said
    rows = (made.folder().report / "trials.csv").read_text().splitlines()
    assert [path.parent.name in row for row in rows if "MISSING" in row] == [True]


def newer(place):
    def edit(record):
        at = record
        for name in place:
            at = at[name]
        at["of_a_newer_version"] = [1]

    return edit


@pytest.mark.parametrize("place", [[], ["cost"], ["test"], ["spec", "recipe"], "schema"])
def test_a_record_of_a_newer_version_is_kept_and_named(made, place):
    path = made.records()[0]
    edit = newer(place) if place != "schema" else lambda record: record.update(schema_version=99)
    changed(path, edit)
    before = made.files()
    rows = made.out.parent / "rows"
    for words in (["status", "edited"], ["export", "edited", "--csv", rows]):
        code, said = run(made.out, *words)
        assert code == 0 and "record.json was written by a newer version" in said
        assert "damaged" not in said and "delete" not in said and "move" not in said
    code, said = sweep(made)
    assert code == 2 and "newer version" in said and "update the harness" in said
    assert made.files() == before


@pytest.mark.slow
def test_a_spec_beside_its_record_is_checked_too(made):
    path = made.records()[0].with_name("spec.json")
    changed(path, lambda spec: spec.update(seed=5))
    code, said = run(made.out, "report", "edited")
    assert code == 2 and "spec.json is not used: its spec is that of trial" in said


@pytest.mark.slow
def test_records_of_earlier_semantics_are_those_of_their_folders(made, monkeypatch):
    spec = TrialSpec.model_validate_json(made.records()[0].with_name("spec.json").read_text())
    was = spec.trial_id
    monkeypatch.setattr(identities, "SEMANTICS", identities.SEMANTICS + 1)
    spec = spec.model_copy()
    assert spec.trial_id != was == spec.id_under(identities.SEMANTICS - 1)
    assert Store(made.out).record(was).trial_id == was and Store(made.out).spec(was) == spec


# Histories.


@pytest.mark.parametrize("epochs", [[0, 0, 1, 1], [1, 0], [0, 1, 2], [1, 2], [0, None]])
def test_a_table_refuses_a_history_with_other_epochs(made, epochs):
    record = made.records()[0]
    changed(record, lambda content: content.update(epochs_run=2))
    history = record.with_name("history.jsonl")
    row = json.loads(history.read_text())
    history.write_text("".join(json.dumps({**row, "epoch": n}) + "\n" for n in epochs))
    code, said = run(made.out, "tabulate", "edited", "--file", made.out / "t")
    assert code == 2 and said.count("\n") == 1 and not (made.out / "t").exists()
    assert str(history) in said and f"trial {record.parent.name} lists epochs" in said
    history.write_text("".join(json.dumps({**row, "epoch": n}) + "\n" for n in (0, 1)))
    assert run(made.out, "tabulate", "edited", "--file", made.out / "t")[0] == 0


# Budgets in epochs. No proposal repeats an earlier one here: alpha is drawn from a range.


@pytest.fixture
def ranged(tmp_path):
    made = Made(tmp_path)
    write_study(made.study)
    text = made.study.read_text().replace("import Axis, View", "import Axis, Range, View")
    space = 'space=(Range(field="alpha", low=0.5, high=2.0, label="alpha"),),'
    made.study.write_text(text.replace("reference=None,", f"reference=None, {space}"))
    return made


@pytest.mark.slow
def test_a_budget_in_epochs_leaves_no_proposal_that_waits(ranged):
    for _ in range(2):
        code, said = sweep(ranged, "--search", "random", "--budget", "3epochs")
        assert code == 0, said
        events = read_log(ranged.folder("edited+random").log(0))
        assert [ask.trial_id for ask in asks(events)] == [each.trial_id for each in tells(events)]
        assert len(asks(events)) == 3
        code, said = run(ranged.out, "status", "edited+random")
        assert "Trials: 3 done." in said and "waiting" not in said


@pytest.mark.slow
def test_a_comparison_logs_as_many_proposals_as_its_budget_has(ranged):
    words = ["compare", "--search", "random,tpe", "--study", ranged.study, "--budget", "3"]
    code, said = run(ranged.out, *words, "--repeats", "1", "--workers", "1")
    assert code == 0, said
    logs = [ranged.folder("edited+searches").log(0, name) for name in ("random", "tpe")]
    assert [len(asks(read_log(log))) for log in logs] == [3, 3]
    assert "waiting" not in run(ranged.out, "status", "edited+searches")[1]
