"""The docs name what there is (files, headings, tests, options) and quote what was found."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from urllib.parse import unquote

import pytest
import yaml
from support.docs import PAGES, ROOT, anchors, inline, prose

from harness.cli import main
from harness.reports.reproduce import GALLERY, readme, without_dead_links
from harness.spec import SEMANTICS
from harness.version import __version__

FOLDERS = ("harness", "baselines", "studies", "reports", "tests", "docs", "examples")
QUOTED = re.compile(r"<!-- quoted: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
MEASURED = re.compile(r"<!-- (?:measured|quoted): .*?<!-- end -->", re.DOTALL)


def loaded(name, path):
    """A Python file of the docs as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_linked_or_named_exists(file):
    text = file.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(file)) if ":" not in link]
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/.]*)`", text)
    missing = [link for link in links if not leads(file, *link.partition("#")[::2])]
    missing += [name for name in named if not exists(name)]
    assert not missing, f"{file.name} names what does not exist"


def leads(file, target, anchor):
    """Whether there is a file at a link, and in it a heading of that anchor."""
    path = file.parent / target if target else file
    return path.exists() and (not anchor or anchor in anchors(path.read_text()))


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
    (tmp_path / "f.png").touch()
    below = 'Files: <a href="f.png">f.png</a>, '
    page = f'{kept}{lost}{rest}{below}<a href="f.svg">f.svg</a>.'
    wanted = f"{kept}{rest}{below}<code>f.svg</code>."
    assert without_dead_links(page, tmp_path) == wanted


def test_a_link_to_a_heading_that_there_is_not_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("## How strongly: `α` and its scale\n\n```\n# no heading\n```\n")
    assert leads(page, "", "how-strongly-α-and-its-scale")
    assert not leads(page, "", "no-heading") and not leads(page, "other.md", "")


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_quoted_stands_there(file):
    for source, quote in QUOTED.findall(file.read_text()):
        lines = {plain(line) for line in (ROOT / source).read_text().splitlines()}
        missing = [line for line in map(plain, quote.splitlines()) if line not in lines | {""}]
        assert not missing, f"{file.name} quotes of {source} what it does not say"


def plain(line):
    """A line without the blanks and dashes that only align a table."""
    return re.sub(r"-+", "-", re.sub(r"\s+", " ", line).strip()) if "|" in line else line.strip()


def test_readme_is_short_and_states_no_number_of_its_own():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    rest = MEASURED.sub("", text)
    assert rest.count("<!--") == 0
    assert not re.findall(
        r"\d[\d.]* ?%|±|\d[\d.]* (?:points?|minutes?|hours?|seconds?|s|ms)\b", rest
    )


BY_HAND = ("measured.md", "protocol.md")
"""Pages that say of each number when and how it was measured, or of what it is computed."""


def test_scores_with_intervals_are_quoted_or_computed():
    for page in PAGES:
        if page.name not in BY_HAND:
            rest = MEASURED.sub("", page.read_text())
            assert not re.findall(r"\d ± \d+\.\d", rest), page.name


def test_every_option_that_is_named_is_one():
    known = {"--help", "--version"}
    commands = [main]
    while commands:
        command = commands.pop()
        known |= {name for option in command.params for name in option.opts}
        commands += getattr(command, "commands", {}).values()
    for page in PAGES:
        for code in inline(page):
            if code.startswith(("--", "harness ")):
                named = re.findall(r"(?<!\S)--[a-z][\w-]*", code)
                assert not set(named) - known, f"{page.name}: `{code}`"


def test_all_files_name_the_same_version_and_the_changelog_says_what_is_comparable():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {__version__}" in text
    (comparable,) = re.findall(
        r"^## What is comparable between 0\.1\.0 and 0\.2\.0\n(.*?)^## ", text, re.M | re.S
    )
    assert f"0.2.0 has {SEMANTICS}." in comparable


def test_the_citation_is_of_this_version_and_has_what_its_format_asks_for():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0"


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
    layers = loaded("layers", "docs/layers.py")
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Packages")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", table.partition("\n## ")[0], flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted([*named, "harness"]) == sorted(name for row in layers.LAYERS for name in row)
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for file in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"]({file.name})" in listed


def test_the_site_turns_links_to_where_files_lie_in_it():
    pages = loaded("pages", "docs/site_hooks/pages.py")
    text = "[a](../README.md#x) ![b](../reports/g.png) [c](gpu.md) [d](https://x.y) `[e](f)`"
    assert pages.turned(text, "docs/own.md") == (
        "[a](index.md#x) ![b](repository/reports/g.png) [c](gpu.md) [d](https://x.y) `[e](f)`"
    )
    assert pages.turned("[a](docs/gpu.md)", "README.md") == "[a](gpu.md)"
    assert pages.turned("[a](g.png)", "reports/r.md") == "[a](g.png)"
    taken = pages.outside()
    assert {"README.md", "FINDINGS.md", "CITATION.cff"} <= set(taken)
    assert "reports/gallery/positions/points_positions.png" in taken  # of a report that is linked


def test_every_page_stands_in_the_navigation_of_the_site():
    pages = loaded("pages", "docs/site_hooks/pages.py")
    text = re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text())
    named = set(leaves(yaml.safe_load(text)["nav"]))
    placed = {pages.place(str(page.relative_to(ROOT))) for page in PAGES}
    inner = {page for page in placed if page.startswith("decisions/0")}
    assert placed - inner <= named
    assert named <= placed | {pages.place(path) for path in pages.outside()}


def leaves(tree):
    """Pages of a navigation, however deep."""
    if isinstance(tree, str):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from leaves(part)


@pytest.mark.parametrize(
    "row",
    [
        "| `recipe.lr` | number > 0 | `0.01` | At batch 128; the rate used is",
        "| `recipe.momentum` | number ≥ 0 and < 1 | `0.9` |",
        "| `recipe.schedule` | cosine, constant | `cosine` |",
        "| `backbone.img_size` | whole number > 0 and ≤ 32768 or null | `null` |",
        "| `recipe.epochs` | whole number ≥ 1 | `10` |",
        "| `options.outer_lr` | number ≥ 0 | `0.01` | Of Adam on γ",
        "| `data.options.test_fraction` | number > 0 and < 1 | `0.2` |",
        "### linear_probe",
    ],
)
def test_tables_of_fields_say_types_ranges_defaults_and_meanings(row, tables):
    assert any(line.startswith(row) for line in tables.splitlines()), row


@pytest.fixture(scope="module")
def tables():
    fields = loaded("fields", "docs/site_hooks/fields.py")
    made = fields.filled((ROOT / "docs" / "fields.md").read_text())
    assert "<!--" not in made
    return made


def test_the_gallerys_page_is_of_what_is_there():
    """Its commands are those of `make reproduce`, and it names every report that is older."""
    assert (GALLERY / "README.md").read_text() == readme()
