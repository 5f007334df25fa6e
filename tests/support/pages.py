"""Pages in a real browser, and a run of three axes whose trials have curves and classes."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

from harness.driver.plan import make_plan
from harness.runner.runtime import Runtime
from harness.store.files import append_line
from harness.store.runs import Command, write_command, write_run
from harness.store.store import Store
from harness.study.axes import Axis
from support.records import make_record, publish
from support.runs import scored, study

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
browsers = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium (as .ci/run does)"
)
CLASSES = ("airport", "harbour", "<b>forest</b>", *(f"class {n}" for n in range(12)))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()


@contextmanager
def visiting(browser, *, check_requests=False):
    """Opens the page of a report's folder; checks at the end that it complained of nothing.

    With `check_requests`, that it asked for nothing either.
    """
    problems, contexts = [], []

    def opened(folder, width=1280, at="", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        address = (folder.report / "index.html").as_uri()
        if check_requests:
            page.on("requestfailed", lambda request: problems.append(request.url[:99]))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith((address, "data:"))
                    else problems.append(request.url)
                ),
            )
        page.goto(address + at)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def three_axes(root, *, missing=()):
    """A run of 2 x 2 x 2 cells and two seeds; `missing` are numbers of trials not run."""
    made = study(
        name="three",
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="depth", values=("last:1", "last:2"), label="depth"),
            Axis(field="alpha", values=(1.0, 2.0), label="alpha"),
        ),
        views=(),
        reference=None,
    )
    store = Store(root)
    plan = make_plan(made, store=store, run_name=made.name, runtime=Runtime())
    plan.folder.path.mkdir(parents=True, exist_ok=True)
    write_run(plan.folder, plan.study, plan.cells, {"torch": "0"})
    write_command(plan.folder, Command("harness sweep --study three --out there", "Every cell."))
    for number in range(len(plan.cells)):
        if number not in missing:
            publish_cell(plan, number)
    return plan


def publish_cell(plan, number):
    """The trial's score: position counts 0.2, depth 0.1, alpha nothing, seeds 0.01."""
    store, (cell, spec) = plan.folder.store, plan.cells[number]
    value = 0.4 + 0.2 * (cell["positions"] == "q") + 0.1 * (cell["depth"] == "last:2")
    value += 0.01 * spec.seed
    if number == 1:
        publish(store, spec, status="DIVERGED")
        return
    scores = scored(value)
    with store.claim(spec) as claim:
        for epoch in range(3):
            row = {"class_mean": value * (epoch + 1) / 3, "loss": 1.0}
            line = {"epoch": epoch, "lr": 0.1, "train_loss": 2.0 - epoch / 2, "select": row}
            append_line(store.trials / spec.trial_id / "history.jsonl", line)
        record = make_record(spec, select=scores, test=scores, class_names=CLASSES)
        claim.publish(record)
