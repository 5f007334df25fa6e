"""The docs name what there is: files, tests and packages."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from harness.reports.reproduce import without_dead_links

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("harness", "baselines", "studies", "reports", "tests", "docs", "examples")


@pytest.mark.parametrize("file", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_linked_or_named_exists(file):
    text = file.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/.]*)`", text)
    missing = [link for link in links if not (file.parent / link).exists()]
    missing += [name for name in named if not exists(name)]
    assert not missing, f"{file.name} names what does not exist"


def exists(name):
    """Whether a name is that of a file, or of a module or package without its ending."""
    return (ROOT / name).exists() or (ROOT / f"{name}.py").is_file()


LINK = re.compile(r'(?:href|src)="([^"#]+)"|\]\(([^)#]+)\)')


@pytest.mark.parametrize(
    "page",
    [p for kind in ("*.html", "*.md") for p in sorted((ROOT / "reports").rglob(kind))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_published_page_has_a_dead_link(page):
    links = [unquote(a or b) for a, b in LINK.findall(page.read_text())]
    here = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert not [link for link in here if not (page.parent / link).exists()]


def test_a_page_is_published_without_what_is_not_kept(tmp_path):
    (tmp_path / "a b.csv").touch()
    kept = '    <li><a href="a%20b.csv">a b.csv</a></li>\n'
    lost = '    <li><a href="a.tex">a.tex</a></li>\n'
    rest = '<li><a href="#answer">Answer</a></li>\n'
    assert without_dead_links(f"{kept}{lost}{rest}", tmp_path) == f"{kept}{rest}"


def test_decisions_name_tests_that_exist():
    files = [*(ROOT / "tests").glob("*.py"), *(ROOT / "harness" / "testing").glob("*.py")]
    tests = "".join(path.read_text() for path in files)
    for file in (ROOT / "docs" / "decisions").glob("0*.md"):
        checked = file.read_text().partition("**Checked by**")[2]
        names = re.findall(r"`(test_\w+)`", checked)
        assert names or "tests/" in checked, file.name
        missing = [name for name in names if f"def {name}(" not in tests]
        assert not missing, f"{file.name} names tests that do not exist"


def test_every_package_stands_in_the_table_and_every_decision_in_the_list():
    spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "layers.py")
    layers = importlib.util.module_from_spec(spec)
    sys.modules["layers"] = layers
    spec.loader.exec_module(layers)
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Packages")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", table.partition("\n## ")[0], flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted([*named, "harness"]) == sorted(name for row in layers.LAYERS for name in row)
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for file in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"]({file.name})" in listed
