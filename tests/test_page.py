"""The page of a run in a real browser: it shows everything, runs nothing foreign, fits a phone."""

from __future__ import annotations

import html
import re

import pytest
from support.fake_trials import Fake, controls, score, written
from support.pages import browser, browsers, visiting  # noqa: F401 - a fixture
from support.records import TINY, publish
from support.runs import EVIL, RESULTS, made_run, scored, study
from support.sweeps import made_sweep
from support.tables import compare, small_study

from harness.metrics import OVERALL
from harness.reports.files.write import write_report
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, write_command, write_run
from harness.store.store import Store
from harness.store.table import tabulate
from harness.study.axes import Axis
from harness.study.figures import View
from harness.study.study import Study

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A sweep with holes, one whose every text is hostile, arms compared, searches compared."""
    sweep = made_run(tmp_path_factory.mktemp("sweep"), study(), RESULTS)
    write_command(sweep, Command("harness sweep --study made", "Every cell once."))
    store = Store(tmp_path_factory.mktemp("comparison"))
    found = {
        "sweep": sweep,
        "hostile": hostile_run(tmp_path_factory.mktemp("hostile")),
        "comparison": written(controls(store, Fake(store, score)), store),
    }
    for folder in found.values():
        write_report(folder)
    root = tmp_path_factory.mktemp("searches")
    made = small_study(seeds=(0, 1))
    tabulate([made_sweep(root, made)], root / "t.parquet")
    done = compare(root, root / "t.parquet", "--search", "random,tpe", "--budget", 3)
    assert done.exit_code == 0, done.output
    found["searches"] = RunFolder.of(Store(root), "joint_space+searches")
    return found


def hostile_run(root):
    made = Study(
        name="hostile",
        question=f"Which? {EVIL}",
        paper=EVIL,
        base=TINY,
        axes=(
            Axis(field="options.note", values=(EVIL, "b"), label=f"note {EVIL}"),
            Axis(field="alpha", values=(1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="options.note", columns="alpha", title=EVIL),),
        fixed=EVIL,
    )
    store = Store(root)
    folder = RunFolder.of(store, "hostile")
    cells = []
    for number, cell in enumerate(made.cells()):
        request = TINY.with_values({"alpha": 1.0 + number}, source="test")
        spec = resolve(request, Runtime())
        cells.append((cell, spec))
        if number == 3:
            publish(store, spec, status="FAILED", error=f"Traceback\nEvil{EVIL}: {EVIL}")
            continue
        scores = scored(0.5 + 0.1 * number)
        groups = {f"head {EVIL}": 0.5}
        scores = scores.model_copy(update={"groups": groups, "groups_se": groups})
        scores = scores.model_copy(update={"distance": groups})
        publish(store, spec, select=scores, test=scores)
    folder.path.mkdir(parents=True)
    write_run(folder, made, cells, {"torch": EVIL})
    write_command(folder, Command(f"harness sweep --set x={EVIL}", EVIL))
    return folder


@pytest.fixture
def visit(browser, folders):  # noqa: F811
    """Opens a run's page; checks at the end that it asked for nothing and complained of nothing."""
    with visiting(browser, check_requests=True) as opened:
        yield lambda name, *args, **options: opened(folders[name], *args, **options)


@pytest.mark.slow
@browsers
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["sweep", "hostile", "comparison", "searches"])
def test_nothing_is_wider_than_the_window(visit, name, width):
    page = visit(name, width)
    if name != "searches":
        page.locator("#map button").first.click()
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """width => [...document.querySelectorAll('main *')]
            .filter(each => !each.closest('.scroll') && each.offsetWidth > width)
            .map(each => each.outerHTML.slice(0, 99))""",
        width,
    )
    assert outside == []


def column(page, table, number):
    cells = page.locator(f"{table} > tbody > tr:visible > *:nth-child({number})")
    return [" ".join(words.split()) for words in cells.all_inner_texts()]


@pytest.mark.slow
@browsers
def test_numbers_sort_as_numbers_with_missing_ones_last(visit):
    page = visit("sweep")
    table = "table[aria-labelledby=caption-heatmap_positions_depth]"
    head = page.locator(f"{table} thead th")
    assert head.all_inner_texts()[1:] == ["last:1", "last:2", "last:3", "mean"]
    head.nth(2).get_by_role("button").click()
    assert head.nth(2).get_attribute("aria-sort") == "ascending"
    assert column(page, table, 3) == ["56.0 ± 12.7 (chosen)", "-"]
    head.nth(2).get_by_role("button").click()
    assert head.nth(2).get_attribute("aria-sort") == "descending"
    assert column(page, table, 3) == ["56.0 ± 12.7 (chosen)", "-"]
    head.nth(1).get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, table, 2) == ["81.0 ± 12.7", "61.0 ± 12.7"]
    assert head.nth(2).get_attribute("aria-sort") is None
    means = page.locator(f"{table} > tfoot th").all_inner_texts()
    assert means == ["mean"]


@pytest.mark.slow
@browsers
def test_trials_sort_and_filter(visit):
    page = visit("sweep")
    head = page.locator("#trial-list thead th")
    names = head.all_inner_texts()
    test = names.index("test (%)") + 1
    head.nth(test - 1).get_by_role("button").click()
    assert column(page, "#trial-list", test) == (
        ["6.7", "41.0", "55.0", "57.0", "60.0", "62.0", "80.0", "82.0"] + ["-"] * 4
    )
    head.nth(2).get_by_role("button").click()
    assert column(page, "#trial-list", 3) == sorted(column(page, "#trial-list", 3))
    page.get_by_label("position", exact=True).select_option("q")
    page.get_by_label("status").select_option("missing")
    assert page.get_by_role("status").inner_text() == "3 of 12 shown"
    assert set(column(page, "#trial-list", 2)) == {"q"}
    page.get_by_role("button", name="Show all").click()
    assert page.get_by_role("status").inner_text() == "12 of 12 shown"
    page.get_by_label("Any text").fill("LAST:3")
    assert set(column(page, "#trial-list", 3)) == {"last:3"}
    assert len(column(page, "#trial-list", 3)) == 4
    page.get_by_label("Any text").fill("nothing like it")
    assert page.get_by_role("status").inner_text() == "0 of 12 shown"


@pytest.mark.slow
@browsers
def test_everything_is_there_without_scripts(visit):
    page = visit("sweep", java_script_enabled=False)
    words = page.locator("body").inner_text()
    for part in (
        "Which? (paper: Fig. 1(c))",
        "7 complete, 1 diverged, 1 failed, 3 missing",
        "position = mlp1, depth = last:2",
        "81.0 ± 12.7",
        "Paper, Fig. 1(c)",
        "88.8",
        "harness sweep --study made",
        "Every cell once.",
        "recipe.momentum",
        "device seconds",
    ):
        assert part in words
    assert page.locator("#trial-list > tbody > tr").count() == 12
    assert page.locator("#filters").is_hidden()
    chosen = page.locator("#trial-list tr", has_text="chosen")
    assert [row.split("\t")[1:3] for row in chosen.all_inner_texts()] == [["mlp1", "last:2"]] * 2
    assert page.locator("figure.paper .badge").inner_text() == "paper"
    first = page.locator("#trial-list summary").first
    assert not page.locator("#trial-list code").first.is_visible()
    first.click()
    assert page.locator("#trial-list code").first.inner_text().startswith("harness train ")


@pytest.mark.slow
@browsers
def test_hostile_text_is_text(visit, folders):
    page = visit("hostile")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2 and page.locator("[onerror]").count() == 0
    words = page.locator("body").inner_text()
    for part in ("Which? ", "note ", "head ", "harness sweep --set x="):
        assert f"{part}{EVIL}" in words
    assert f"Evil{EVIL}: {EVIL}" in page.locator("#failed pre").inner_text()
    assert EVIL in page.get_by_label(f"note {EVIL}", exact=True).inner_text()
    assert page.locator("#environment").inner_text().count(EVIL) == 1
    # The page's policy would stop a script too; so that this is not what is tested here:
    text = (folders["hostile"].report / "index.html").read_text()
    assert text.count("<script>") == 1 and "<img src=x" not in text


CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((each) => each.checkVisibility() && !["SCRIPT", "OPTION"].includes(each.tagName))
    .map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(behind(each))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.outerHTML.slice(0, 80)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.slow
@browsers
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_have_contrast_and_figures_a_white_card(visit, scheme):
    page = visit("sweep", color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
    card = page.locator(".drawing .scroll").first
    assert card.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(255, 255, 255)"
    page.locator("#map button").first.click()
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
@browsers
@pytest.mark.parametrize("name", ["sweep", "comparison"])
def test_landmarks_headers_and_labels(visit, name):
    page = visit(name)
    for role in ("banner", "navigation", "main"):
        assert page.get_by_role(role).count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    unlabelled = """[...document.querySelectorAll('input, select')]
        .filter(each => each.labels.length === 0).length"""
    assert page.evaluate(unlabelled) == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    targets = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert set(targets) <= set(ids)


@pytest.mark.slow
@browsers
def test_figures_are_readable_on_a_phone(visit):
    page = visit("sweep", 390)
    image = page.locator(".drawing img").first
    assert image.evaluate("each => each.complete && each.naturalWidth > 0")
    assert image.bounding_box()["width"] >= 900  # scrolls in its own box


def text_of(folder):
    return html.unescape((folder.report / "index.html").read_text())


@pytest.mark.slow
def test_a_comparison_lists_its_trials_and_what_they_cost(folders):
    text = text_of(folders["comparison"])
    store = folders["comparison"].store
    trials = {path.parent.name for path in store.trials.glob("*/record.json")}
    assert {trial for trial in trials if trial in text} == trials
    assert "tried for: lora, α = 1, all 4 sites, lr tuned (× 2)" in text
    assert "metapeft, one shot is better than" in text and 'src="data:image/png;base64,' in text


@pytest.mark.slow
def test_the_page_states_what_the_report_states(folders):
    words = re.sub(r"<[^>]+>", "", text_of(folders["sweep"]))
    report = (folders["sweep"].report / "report.md").read_text()
    notes = [
        line[2:] for line in report.splitlines() if line.startswith("- ") and ": 0" not in line
    ]
    plain = [note.replace("`", "") for note in notes]  # code, on a page
    assert len(notes) > 2 and not [note for note in plain if note not in words]
    for name in OVERALL:
        assert name.replace("_", " ") in words


@pytest.mark.slow
def test_same_results_same_page(folders):
    path = folders["sweep"].report / "index.html"
    first = path.read_bytes()
    folders["sweep"].drawn.unlink()
    write_report(folders["sweep"])
    assert path.read_bytes() == first


@pytest.mark.slow
def test_a_long_list_is_cut_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.reports.text.trials.MOST_TRIALS", 4)
    monkeypatch.setattr("harness.reports.text.trials.MOST_ERRORS", 1)
    results = [[r if r is not None else "FAILED" for r in row] for row in RESULTS]
    folder = made_run(tmp_path, study(views=()), results)
    write_report(folder)
    text = text_of(folder)
    assert "Listed are 4 of 12 trials" in text and "trials.csv" in text
    rows = re.findall(r'<tr class="(\w+)">', text)
    assert sorted(rows) == ["complete", "complete", "diverged", "failed"]
    assert "last:2</td>\n" in text and "72.0</td>" in text  # the best on validation
    assert "first 1 of 4;" in text


@pytest.mark.slow
@browsers
def test_searches_have_a_page_with_all_of_their_report(visit, folders):
    page = visit("searches")
    text = (folders["searches"].report / "report.md").read_text()
    titles = re.findall("^## (.*)$", text, re.M)
    assert titles[0] == "Answer" and "Yield" in titles and len(titles) >= 7
    shown = page.locator("main h2").all_inner_texts()
    assert [title for title in shown if title in titles] == titles
    assert page.locator("#trials").count() == 0
    assert "harness compare --search random,tpe" in page.locator("#reproduce").inner_text()
    head = page.locator("table[aria-labelledby=caption-choices] thead th")
    assert "number" in [each.get_attribute("data-kind") for each in head.all()][1:]
    assert page.locator("img").count() == 2
