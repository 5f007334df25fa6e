"""Every command and every block of Python in the docs is one that works."""

from __future__ import annotations

import importlib.util
import re

import click
import pytest
from support.cli import harness
from support.docs import EXCERPT, ROOT, blocks, harness_lines, typed
from support.runs import scored
from support.untrained import train_nothing, with_test

from harness.catalogue.studies import study_names
from harness.cli import main
from harness.cli.given import parse_only, parse_settings
from harness.driver.request import StudyRequest
from harness.driver.setup import asked_study
from harness.insertion.method import get_method
from harness.spec import TrialRequest

OTHERS = (".", "ray", "pip", "sbatch", "positions", "first=")
"""What a line of a shell block may begin with that is none of ours."""
LINES = list(harness_lines())
PYTHON = [each for each in blocks() if each.language == "python"]
BEFORE_SHELL = re.compile(r"^(exec|srun .*--)$")


def name_of(item):
    return str(item[0]) if isinstance(item, tuple) else str(item)


def parsed(words):
    """The context of a command line, parsed as click does, not run."""
    command, rest = main, list(words)
    path = []
    while isinstance(command, click.Group) and (rest or not command.invoke_without_command):
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    return command.make_context(" ".join(path), rest)


@pytest.mark.parametrize("line", LINES, ids=name_of)
def test_a_command_in_the_docs_is_one(line):
    """Its options are known and have values that they take; so are studies, methods and fields."""
    _, words = line
    given = parsed(words).params
    settings = parse_settings(given.get("settings", ()))
    TrialRequest().with_values(
        {field: value for field, value in settings.items() if field != "data.options"},
        source="--set",
    )
    study = given.get("study_name")
    if study is not None and not study.endswith(".py"):
        only = parse_only(given.get("only", ()))
        asked_study(StudyRequest(study=study, settings=settings, only=only), settings)
    for method in (given.get("method"), given.get("base")):
        if method is not None:
            get_method(method)


def test_a_command_that_is_none_is_found():
    for words in (
        ["sweep"],
        ["sweep", "--studdy", "x"],
        ["train", "--method", "lora", "--seed", "x"],
    ):
        with pytest.raises(click.UsageError):
            parsed(words)
    with pytest.raises(KeyError):
        parsed(["sweeep"])


def test_every_other_line_of_a_shell_block_is_known():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for block, words in typed():
        if "harness" in words:
            before = " ".join(words[: words.index("harness")])
            assert not before or BEFORE_SHELL.match(before), f"{block}: {words}"
        elif words[0] == "make":
            assert words[1] in targets, f"{block}: {words}"
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), f"{block}: {words}"
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{block}: {words}"
        else:
            known = words[0].endswith(("/pre-commit", "/activate")) or words[0] in OTHERS
            assert known, f"{block}: {words}"


@pytest.fixture
def without_training(tmp_path, monkeypatch):
    """Trials end at once with made-up scores, in a store of the test's."""

    train_nothing(monkeypatch, score, finished)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(spec):
    """Grows a little with what is adapted and with the seed."""
    return 0.4 + 0.001 * len(spec.placement) + 0.01 * spec.seed


def finished(record, value):
    """A pruned trial is never tested."""
    if record.status == "COMPLETE":
        return with_test(record, value)
    return record.model_copy(update={"select": scored(value)})


def marked(page):
    """A page as a case of a test; one that sweeps, which draws reports, is slow."""
    sweeps = any("harness.sweep(" in each.code for each in PYTHON if each.page == page)
    return pytest.param(page, id=page.name, marks=[pytest.mark.slow] if sweeps else [])


@pytest.mark.parametrize("page", [marked(page) for page in sorted({each.page for each in PYTHON})])
def test_blocks_of_python_run(page, without_training):
    """In one folder and in their order, as a reader would; nothing is trained."""
    for block in PYTHON:
        if block.page == page and not block.code.startswith(EXCERPT):
            exec(compile(block.code, str(block), "exec"), {"__name__": "docs"})


def is_cheap(words):
    """Whether a sweep needs no images, weights, cluster or downloads of the reader's own."""
    needs = {"--data-root", "--engine", "--weights", "--warm-start"}
    study = words[words.index("--study") + 1] if "--study" in words else None
    own = any(word.startswith(("backbone=", "data=")) for word in words)
    return words[0] == "sweep" and study in study_names() and not needs & set(words) and not own


SWEEPS = list({tuple(words): (block, words) for block, words in LINES if is_cheap(words)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("line", SWEEPS, ids=name_of)
def test_a_sweep_in_the_docs_would_run(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in ("run", "plan"):
        place = f"harness.driver.{module}.probe_seconds"
        monkeypatch.setattr(place, lambda spec, runtime: 1.0)
    words = [word for word in line[1] if word != "--dry-run"]
    here = ("--device", "cpu", "--workers", 1, "--out", tmp_path / "runs")
    done = harness(*words, "--dry-run", *here)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_study_in_the_docs_runs(without_training):
    """`python.md` has a study file; it is whole, and its small version draws its report."""
    (block,) = [each for each in PYTHON if "def study() -> Study" in each.code]
    path = without_training / "mine.py"
    path.write_text(block.code)
    done = harness("sweep", "--study", path, "--smoke", "--workers", 1)
    assert done.exit_code == 0, done.output
