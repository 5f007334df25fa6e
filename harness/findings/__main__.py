"""`python -m harness.findings`: README.md and FINDINGS.md, from the archives, without training.

Owns: which documents and files are made. Must not know: what stands in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from harness.findings.claims import arms_of
from harness.findings.document import blocks, fill
from harness.findings.evidence import ARCHIVES, SCENARIOS
from harness.findings.figure import arms_table, draw_arms, draw_validation
from harness.findings.methods import methods_table
from harness.findings.scenario import Scenario, read_scenario
from harness.findings.searched import replay, replayed
from harness.findings.validation import validation_table
from harness.reports.figures.style import DPI

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "FINDINGS.md")
FIGURES = "reports/findings"
"""Folder of the figures and their tables."""


class Made(NamedTuple):
    """What there is to be written."""

    texts: dict[Path, str]
    """Documents with every measured block made anew, and the tables of the figures."""
    figures: dict[Path, Figure]
    """By path without a suffix."""


def make(scenarios: Sequence[Scenario], root: Path = ROOT, archives: Path = ARCHIVES) -> Made:
    """Compute all that README.md and FINDINGS.md say was measured; `archives` as of scenarios.

    Raises:
        UserError: replays are of other scores.
    """
    whole = [each for each in scenarios if each.is_whole and replayed(each) == each.seeds]
    arms = {each.name: arms_of(each) for each in whole}
    by_name = blocks(scenarios, arms, methods_table(archives))
    texts = {root / name: fill((root / name).read_text(), by_name) for name in DOCUMENTS}
    if not whole:
        return Made(texts, {})
    reached = arms_table(arms)
    needed = pd.concat([validation_table(each) for each in whole], ignore_index=True)
    tables = {root / FIGURES / "arms": reached, root / FIGURES / "validation": needed}
    for path, rows in tables.items():
        texts[path.with_suffix(".csv")] = rows.to_csv(index=False, lineterminator="\n")
    drawn = (draw_arms(reached), draw_validation(needed))
    return Made(texts, dict(zip(tables, drawn, strict=True)))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.findings", description=__doc__)
    parser.add_argument(
        "--replay",
        action="store_true",
        help="First replay the searches within every seed of each complete scenario.",
    )
    again = parser.parse_args().replay
    scenarios = [read_scenario(name, ARCHIVES) for name in SCENARIOS]
    if again:
        # forked processes would share threads that torch has started
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            for scenario in scenarios:
                if scenario.is_whole:
                    print(replay(scenario, pool.map))
    made = make(scenarios)
    for path, text in made.texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
    with rc_context({"svg.hashsalt": "findings"}):  # or else ids in the file would be drawn
        for path, figure in made.figures.items():
            figure.savefig(path.with_suffix(".png"), dpi=DPI)
            figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
