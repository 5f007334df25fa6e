"""From a finished sweep to its best classifier in use: exported, loaded, and asked for predictions.

Tensors that a trial did not keep are had by training it again; what comes of that is its record's.
"""

from __future__ import annotations

import csv
import re
import runpy
import sys
from pathlib import Path

import pytest
from support.cli import harness
from support.exports import code_of, rows_of
from support.images import photographs, picture
from support.pages import CHROMIUM, browser  # noqa: F401 - a fixture
from support.records import TINY
from support.runs import made_run
from test_real_data import DATA, PER_CLASS, some_of

from harness.console import SILENT, duration
from harness.driver.again import Again
from harness.driver.batch import Batch
from harness.engines.base import Ended
from harness.errors import UserError
from harness.export.about import read_about
from harness.export.predict import load_export, predictions
from harness.reports.brief import LABEL
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.search.base import GridSearch
from harness.store.store import Store

STUDY = """
from harness.studies.depth_vs_position import study as base
from harness.study.axes import Axis
def study():
    small = {"recipe.epochs": 1, "recipe.batch_size": 16, "positions": "q"}
    return base().derive(
        name="mine", base=base().base.with_values(small, source="test"), smoke={}, views=(),
        reference=None, axes=(Axis(field="alpha", values=(1.0, 4.0), label="alpha"),),
    )
"""


class Inline:
    """Trials run in this process, when their end is asked for."""

    slots = 1

    def __init__(self, store, runtime):
        self.store, self.runtime, self.specs = store, runtime, []

    def submit(self, spec):
        self.specs.append(spec)

    def next(self):
        spec = self.specs.pop(0)
        run_trial(spec, self.runtime, self.store)
        return Ended(spec, None)

    def answer(self, spec, goes_on):
        raise AssertionError

    def close(self):
        pass


def batch(store, keep, started=None):
    runtime = Runtime(keep_weights=keep != "none")

    def start(where, watch):
        if started is not None:
            started.append(where.root.name)
        return Inline(where, runtime)

    return Batch(store=store, runtime=runtime, base=TINY, start_engine=start, keep=keep)


def specs(*alphas):
    requests = (TINY.with_values({"alpha": alpha}, source="test") for alpha in alphas)
    return [resolve(request, Runtime()) for request in requests]


def run(store, keep, wanted, started=None):
    with batch(store, keep, started) as made:
        made.run(GridSearch(wanted), count=None, title="t", objective="class_mean")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with two trials that kept nothing."""
    store = Store(tmp_path_factory.mktemp("finished"))
    run(store, "none", specs(1.0, 64.0))
    return store


def kept(store, wanted):
    return [store.weights(spec.trial_id).is_file() for spec in wanted]


def folders(root):
    return sorted(path.name for path in root.iterdir() if path.is_dir())


@pytest.mark.slow
def test_what_is_to_be_kept_is_trained_again_and_no_record_changes(finished):
    wanted = specs(1.0, 64.0)
    files = [finished.trials / spec.trial_id / "record.json" for spec in wanted]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    scores = [finished.record(spec.trial_id).objective("class_mean") for spec in wanted]
    run(finished, "best", wanted)
    assert kept(finished, wanted) == [score == max(scores) for score in scores]
    run(finished, "all", wanted)
    assert kept(finished, wanted) == [True, True]
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before
    assert folders(finished.root) == ["trials"]  # neither `again` nor an attic
    assert folders(finished.trials) == sorted(spec.trial_id for spec in wanted)
    modes = {
        path.stat().st_mode
        for spec in wanted
        for path in (
            finished.weights(spec.trial_id),
            finished.trials / spec.trial_id / "record.json",
        )
    }
    assert len(modes) == 1
    started = []
    run(finished, "all", wanted, started)
    assert "again" not in started  # once is enough


@pytest.mark.slow
def test_the_tensors_are_those_that_would_have_been_kept(finished, tmp_path):
    wanted = specs(1.0)
    with batch(finished, "all") as made:
        made.complete(wanted, title="t", objective="class_mean")
    at_once = Store(tmp_path)
    run(at_once, "all", wanted)
    assert (
        finished.weights(wanted[0].trial_id).read_bytes()
        == at_once.weights(wanted[0].trial_id).read_bytes()
    )


@pytest.mark.slow
def test_other_scores_than_the_records_are_refused_and_nothing_is_kept(tmp_path):
    store, (spec,) = Store(tmp_path), specs(1.0)
    run(store, "none", [spec])
    file = store.trials / spec.trial_id / "record.json"
    record = store.record(spec.trial_id)
    off = record.test.model_copy(update={"micro": 0.123, "hits": None})
    text = record.model_copy(update={"test": off}).model_dump_json(indent=1)
    file.write_text(text)
    with pytest.raises(UserError, match=r"of the test images when trained again, and 12\.30 %"):
        run(store, "all", [spec])
    assert kept(store, [spec]) == [False] and file.read_text() == text
    assert folders(tmp_path) == ["trials"]


@pytest.mark.slow
def test_a_trial_of_another_version_is_not_trained_again(tmp_path, monkeypatch):
    store, (spec,) = Store(tmp_path), specs(1.0)
    run(store, "none", [spec])
    record = store.record(spec.trial_id)
    monkeypatch.setattr("harness.spec.trial.SEMANTICS", 99)
    again = Again(
        store=store,
        runtime=Runtime(keep_weights=True),
        start_engine=None,
        max_retries=0,
        console=SILENT,
    )
    monkeypatch.setattr(again.store, "record", lambda trial_id: record)
    with pytest.raises(UserError, match="cannot be trained again, because the same settings"):
        again.keep_weights([record.trial_id])


def run_readme(folder, image, monkeypatch, capsys):
    """Class -> share, as the code in an export's README prints them."""
    (folder / "code.py").write_text(code_of(folder))
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["code.py", str(image)])
        capsys.readouterr()
        runpy.run_path("code.py")
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    return {words[1]: float(words[0]) for words in lines}


def commands(root, data, tmp_path):
    """README's four, as lists of words, on a small study and in folders of the test."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    block = (
        text.partition("From your own images to predictions")[2].split("```bash")[1].split("```")[0]
    )
    ours = {
        "my_images": root,
        "folder": data,
        "depth_vs_position": tmp_path / "mine.py",
        "data=folder": f"data={data}",
        "depth_vs_position+data=folder": f"mine+data={data}",
        "best": tmp_path / "best",
        "predictions.csv": tmp_path / "p.csv",
    }
    found = [line.split()[1:] for line in block.strip().splitlines()]
    out = ["--out", tmp_path / "runs"]
    for words in found:
        yield [ours.get(w, w) for w in words] + ([] if words[0] == "predict" else out)


def in_use(root, data, tmp_path):
    """What README's four commands print; the best trial's record, and the rows of predictions."""
    (tmp_path / "mine.py").write_text(STUDY)
    results = []
    for words in commands(root, data, tmp_path):
        results.append(harness(*words, *(["--workers", 1] if words[0] == "sweep" else [])))
        assert results[-1].exit_code == 0, results[-1].output
    assert len(results) == 4
    record = Store(tmp_path / "runs").record(read_about(tmp_path / "best").trial_id)
    return results, record, rows_of(tmp_path / "p.csv")


def share_right(rows):
    return sum(row["label"] == row["predicted"] for row in rows) / len(rows)


def check_what_is_printed(results, record, rows, counts, tmp_path):
    """Every number that the four commands print is that of the folder, the records or the CSV.

    `counts` are the images of every class in train and test.
    """
    checked, swept, exported, done = (result.stdout for result in results)
    table = {n: f"{a} {a} {b}" for n, (a, b) in counts.items()}
    totals = [sum(part) for part in zip(*counts.values(), strict=True)]
    table["all"] = "{0} {0} {1}".format(*totals)
    for cls, wanted in table.items():
        row = rf"^{re.escape(cls)} +(?:[^\W\d]\w* +|- +)?((?: *\d+)+) *$"  # behind it its group
        (found,) = re.findall(row, checked, re.M)
        assert " ".join(found.split()) == wanted, cls
    assert checked.endswith("No problem found.\n")
    said = {line[:LABEL].strip(): line[LABEL:] for line in swept.split("\n\n")[-1].splitlines()}
    store = Store(tmp_path / "runs")
    records = [store.record(name) for name in folders(store.trials)]
    best = max(each.select.class_mean for each in records)
    assert len(records) == 2 and record.select.class_mean == best
    cell = f"alpha = {alpha_of(record)}"
    score = f"best class mean on validation: {100 * record.select.class_mean:.1f} %"
    assert said["Choice"] == f"{cell} ({score})"
    assert said["Test"].startswith(f"{100 * record.test.class_mean:.1f} % class mean on ")
    top = max(records, key=lambda each: each.test.class_mean)
    most = f"is best of 2 cells on test: {100 * top.test.class_mean:.1f} %"
    is_top = top.test.class_mean == record.test.class_mean
    alone = "the choice is also the best of 2 cells on test"
    assert said["Hindsight"].startswith(alone if is_top else f"alpha = {alpha_of(top)} {most}")
    seconds = duration(sum(each.cost.device_s for each in records))
    assert said["Cost"] == f"2 trials, {seconds} of device time"
    assert said["Next"].startswith(
        f"harness export {Path(said['Page']).parents[1].name} --best best"
    )
    assert f"validation: {cell}; trial {record.trial_id}, seed 0." in exported
    written = re.findall(r"^Wrote (.+)$", exported, re.M)
    assert sorted(written) == sorted(map(str, (tmp_path / "best").iterdir()))
    share = f"Right are {100 * share_right(rows):.2f} % of the {len(rows)} whose class is known."
    assert done == f"Wrote {tmp_path / 'p.csv'}: {len(rows)} images. {share}\n"
    assert share_right(rows) == record.test.micro and len(rows) == totals[1]
    return Path(said["Page"]), said


def alpha_of(record):
    return next(iter(record.spec.placement.root.values()))


def check_the_page(browser, page, said):  # noqa: F811
    """The page that the sweep names opens, without complaint, on the answer that was printed."""
    problems = []
    opened = browser.new_page()
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(page.as_uri())
    shown = " ".join(opened.locator("#answer .brief").inner_text().split())
    for label in ("Choice", "Test", "Hindsight", "Cost"):
        assert " ".join(said[label].split()) in shown, label
    for name in opened.locator("ul.files a").all_inner_texts():
        assert (page.parent / name).is_file()
    opened.close()
    assert problems == []


COUNTS = {"bare field": (12, 5), "harbour": (9, 4), "river": (7, 6)}


@pytest.mark.slow
def test_four_commands_lead_from_class_folders_to_predictions(
    tmp_path, monkeypatch, capsys, request
):
    root = photographs(tmp_path / "d", COUNTS)
    results, record, rows = in_use(root, "folder", tmp_path)
    exported = results[2]
    page, said = check_what_is_printed(results, record, rows, COUNTS, tmp_path)
    assert page.is_file()
    if CHROMIUM is not None:
        check_the_page(request.getfixturevalue("browser"), page, said)
    name, best = "mine+data=folder", tmp_path / "best"
    assert "kept no weights, and is trained again" in exported.stderr
    paths = [row["path"] for row in rows]
    tested = [p for p in (root / "test").rglob("*") if p.is_file()]
    assert sorted(paths) == sorted(str(p.relative_to(root)) for p in tested)
    for row in rows:
        shares = {c: float(row[f"p_{c}"]) for c in COUNTS}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(shares, key=shares.get)
        assert float(row["probability"]) == max(shares.values())
    out = ("--out", tmp_path / "runs")
    # The same images as a folder, without the dataset's help.
    again = harness("predict", best, root / "test", "--out", tmp_path / "f.csv")
    assert again.exit_code == 0, again.output
    plain = {f"test/{row.pop('path')}": row for row in rows_of(tmp_path / "f.csv")}
    assert plain == {row["path"]: {k: v for k, v in row.items() if k != "path"} for row in rows}
    # As a checkpoint of timm's and as an adapter, without training anything again.
    others = (tmp_path / "merged", tmp_path / "peft")
    more = harness("export", name, "--merged", others[0], "--peft", others[1], *out)
    assert more.exit_code == 0 and "trained again" not in more.stderr, more.output
    picture(5, 60, 80).save(tmp_path / "x.png")
    (one,) = predictions(load_export(best), tmp_path / "x.png")
    wanted = dict(zip(COUNTS, one.probabilities, strict=True))
    for folder in (*others, best):
        found = run_readme(folder, tmp_path / "x.png", monkeypatch, capsys)
        assert found == pytest.approx({c: wanted[c] for c in found}, abs=0.02)
    mode = (tmp_path / "runs/trials" / record.trial_id / "record.json").stat().st_mode
    assert {path.stat().st_mode for f in (best, *others) for path in f.glob("*.safetensors")} == {
        mode
    }
    # A cell's settings have their tensors by `train`, too; `--keep best` has those of the best.
    given = ("--study", tmp_path / "mine.py", "--set", "data=folder", "--data-root", root)
    alpha = 5.0 - alpha_of(record)
    cell = ("--method", "lora", "--sites", "q", "--alpha", alpha)
    for words, count in ((("sweep", "--keep", "best"), 1), (("train", *cell), 2)):
        assert harness(*words, *given, *out, "--workers", 1).exit_code == 0
        assert len([*(tmp_path / "runs/trials").glob("*/weights.safetensors")]) == count
    assert len(folders(tmp_path / "runs/trials")) == 2


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "rsscn7").is_dir(), reason="no real data")
def test_so_do_they_from_real_images(tmp_path):
    root = some_of("rsscn7", tmp_path / "rsscn7")
    results, record, rows = in_use(root, "rsscn7", tmp_path)
    with (root / "split.csv").open() as file:
        wanted = {
            row["path"]: row["label"] for row in csv.DictReader(file) if row["split"] == "test"
        }
    assert {row["path"]: row["label"] for row in rows} == wanted and len(rows) == len(wanted) == 140
    counts = {label: (PER_CLASS, PER_CLASS) for label in sorted(set(wanted.values()))}
    assert check_what_is_printed(results, record, rows, counts, tmp_path)[0].is_file()


def test_a_run_without_scores_has_no_best_trial(tmp_path):
    made_run(tmp_path, small(), [["FAILED"], [None]])
    result = harness("export", "made", "--best", tmp_path / "b", "--out", tmp_path)
    assert result.exit_code == 2 and "no trial with scores yet" in result.stderr


def test_the_best_trial_is_of_the_chosen_cell_and_of_its_best_seed(tmp_path, monkeypatch):
    """The single best trial is of another cell, whose mean over seeds is lower."""
    results = [[(0.9, 0.1), (0.1, 0.1)], [(0.6, 0.5), (0.7, 0.5)]]
    folder = made_run(tmp_path, small(seeds=(0, 1)), results)
    asked = []
    monkeypatch.setattr("harness.cli.exports._Again.run", lambda *given: asked.append(given[1]))
    harness("export", "made", "--best", tmp_path / "b", "--out", tmp_path)
    assert (asked[0].spec.seed, asked[0].select.class_mean) == (1, 0.7)
    assert folder.store.record(asked[0].trial_id) == asked[0]


def small(**changes):
    from support.runs import study

    from harness.study.axes import Axis

    axes = (Axis(field="positions", values=("mlp1", "q"), label="position"),)
    return study(**{"axes": axes, "views": (), "seeds": (0,), "reference": None, **changes})
