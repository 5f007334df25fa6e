"""A page's trials looked at in a real browser: opened, compared, filtered, linked to, kept up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from support.pages import browser, browsers, publish_cell, three_axes, visiting  # noqa: F401 - a fixture
from support.runs import RESULTS, made_run, study

from harness.reports.files import details, live
from harness.reports.files.anew import write_live
from harness.reports.files.html import Live
from harness.reports.files.write import read_brief, write_report
from harness.reports.numbers.importance import importances
from harness.reports.numbers.run import load_run

GALLERY = Path(__file__).parents[1] / "reports" / "gallery"
LINK = re.compile(r'<a[^>]* href="([^"]*)"')


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    plan = three_axes(tmp_path_factory.mktemp("three"))
    write_report(plan.folder)
    return plan


@pytest.fixture
def visit(browser):  # noqa: F811
    """Opens a folder's page; checks at the end that nothing was complained of."""
    with visiting(browser) as opened:
        yield opened


@pytest.mark.slow
@browsers
@pytest.mark.parametrize("width", [1280, 390])
def test_a_cell_opens_its_trial_whose_command_is_copied(visit, run, width):
    page = visit(run.folder, width, permissions=["clipboard-read", "clipboard-write"])
    cell = page.locator("#map").get_by_role("button", name=re.compile("^q, last:2"))
    assert "mean of 4 trials" in cell.get_attribute("aria-label")
    cell.focus()
    page.keyboard.press("Enter")
    card = page.locator("#opened .card")
    words = card.inner_text()
    assert "airport" in words and "<b>forest</b>" in words
    labels = [each.get_attribute("aria-label") for each in card.locator("svg").all()]
    assert labels == [
        "validation class mean (%): 23.33 at epoch 1, 70 at epoch 3",
        "training loss: 2 at epoch 1, 1 at epoch 3",
    ]
    command = card.locator(".command").inner_text()
    assert command.startswith("harness train ")
    card.get_by_role("button", name="Copy the command").click()
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.get_by_label("Compare with another trial").select_option(index=1)
    assert page.locator("#opened .card").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@browsers
def test_a_link_shows_the_view_that_it_was_copied_from(visit, run):
    page = visit(run.folder)
    page.get_by_label("alpha", exact=True).select_option("1.0")
    page.get_by_label("rows").select_option("depth")
    page.locator("#map").get_by_role("button", name=re.compile("chosen")).click()
    page.locator("#trial-list thead button").nth(2).click()
    page.locator("nav a", has_text="Environment").click()
    view = "#" + page.evaluate("location.hash.slice(1)")
    other = visit(run.folder, at=view)
    for each in (page, other):
        assert each.get_by_role("status").inner_text() == "8 of 16 shown"
        assert each.locator("#map thead th").all_inner_texts() == [r"depth \ position", "q", "mlp1"]
    assert page.locator("#opened").inner_text() == other.locator("#opened").inner_text()
    assert other.locator("[aria-sort]").inner_text() == page.locator("[aria-sort]").inner_text()
    assert other.locator("#lines .line").count() == page.locator("#lines .line").count() == 8


@pytest.mark.slow
@browsers
def test_arrows_move_between_cells_and_ticks_filter(visit, run):
    page = visit(run.folder)
    page.locator("#cell-0-0").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.id") == "cell-1-1"
    tick = page.get_by_role("button", name="depth = last:1: filter")
    tick.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("status").inner_text() == "8 of 16 shown"
    assert page.get_by_label("depth", exact=True).input_value() == "last:1"


@pytest.mark.slow
@browsers
def test_a_trial_that_ends_appears_and_the_whole_run_rests(visit, tmp_path):
    plan = three_axes(tmp_path, missing=(0, 15))
    write_live(plan.folder, Live(every_s=1, written="now"))
    page = visit(plan.folder)
    page.get_by_label("position", exact=True).select_option("mlp1")
    page.evaluate("scrollTo(0, 300)")
    assert page.locator("tr.missing:visible").count() == 1
    publish_cell(plan, 0)
    write_live(plan.folder, Live(every_s=1, written="later"))
    page.get_by_text("As of later").wait_for()
    assert page.locator("tr.missing:visible").count() == 0
    assert page.get_by_label("position", exact=True).input_value() == "mlp1"
    page.wait_for_function("Math.abs(scrollY - 300) < 2")
    publish_cell(plan, 15)
    write_report(plan.folder)
    page.locator("html:not([data-every])").wait_for()
    assert page.locator(".live").count() == 0 and page.locator("tr.missing").count() == 0


def test_the_page_says_what_the_command_ends_with(run):
    text = (run.folder.report / "index.html").read_text()
    said = re.findall(r"<dt title=\"[^\"]+\">([^<]+)</dt><dd[^>]*>(.*?)</dd>", text)
    brief = read_brief(run.folder)
    assert dict(said).items() >= brief.said.items()
    assert dict(said)["Next"] == f"<code>harness {' '.join(brief.next)} --out there</code>"


def test_shares_and_their_floor(run):
    found = {each.field: each for each in importances(load_run(run.folder))}
    assert next(iter(found)) == "positions" and found["positions"].share > found["depth"].share
    # Seeds differ by one point but for the cell with a diverged trial; alpha does nothing beside.
    assert found["positions"].floor == found["alpha"].floor
    assert found["alpha"].share < 2 * found["alpha"].floor < found["positions"].share


def test_one_seed_has_no_floor(tmp_path):
    results = [[(0.3 + 0.1 * n, 0.5)] for n in range(6)]
    folder = made_run(tmp_path, study(seeds=(0,)), results)
    shares = {each.field: each for each in importances(load_run(folder))}
    # By hand: scores 0..5 in two rows of three; sums of squares 13.5 and 4 of 17.5.
    assert shares["positions"].share == pytest.approx(13.5 / 17.5)
    assert shares["depth"].share == pytest.approx(4 / 17.5)
    assert shares["depth"].floor is None


def test_details_are_bounded_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(details, "MOST_BYTES", 1)
    plan = three_axes(tmp_path)
    write_live(plan.folder, Live(every_s=0, written="noon"))
    text = (plan.folder.report / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert len(data["trials"]) == 1 and "Curves and classes of 15 trials were left out" in text
    assert "<strong>Stopped</strong> at noon" in text and "data-every" not in text
    kept = next(iter(data["trials"].values()))
    assert kept["e"] == [1, 2, 3] and kept["l"] == [2.0, 1.5, 1.0] and len(kept["c"]) == 15


def test_pages_are_kept_up_until_the_run_ends(tmp_path):
    folder, written = made_run(tmp_path, study(), RESULTS), []

    class Waiting(Event):
        def wait(self, timeout=None):
            written.append((folder.report / "index.html").read_text())
            self.set()

    live.keep_up(folder, Waiting(), every_s=7)
    assert "<img" not in written[0]  # figures come with the report
    assert 'data-every="7"' in written[0] and "<strong>Running.</strong>" in written[0]
    assert "<strong>Stopped</strong>" in (folder.report / "index.html").read_text()


def test_no_published_page_has_a_dead_link_or_an_address_elsewhere(run):
    pages = [*GALLERY.glob("*/index.html"), run.folder.report / "index.html"]
    assert len(pages) > 1
    for page in pages:
        text = page.read_text()
        anchors = set(re.findall(r' id="([^"]+)"', text))
        for link in LINK.findall(text):
            file, _, anchor = link.partition("#")
            assert not re.match(r"\w+:|//", link), (page, link)
            assert not file or (page.parent / unquote(file)).is_file(), (page, link)
            assert file or anchor in anchors, (page, link)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", sorted(GALLERY.glob("*/index.html")), ids=lambda p: p.parent.name)
def test_a_published_page_neither_complains_nor_overflows(visit, page, width):
    opened = visit(SimpleNamespace(report=page.parent), width)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
