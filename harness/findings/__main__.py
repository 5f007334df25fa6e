"""`python -m harness.findings`: README.md and FINDINGS.md, from the archives, without training.

Owns: which documents and files are made. Must not know: what stands in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.findings.claims import arms_of
from harness.findings.document import WORDS, blocks, fill
from harness.findings.evidence import ARCHIVES, SCENARIOS
from harness.findings.figure import draw, table
from harness.findings.scenario import Scenario, read_scenario
from harness.findings.searched import replay
from harness.reports.figures.style import DPI

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "FINDINGS.md")
FIGURE = "reports/findings/arms"


def rendered(scenarios: Sequence[Scenario], root: Path = ROOT) -> dict[Path, str]:
    """File -> its text: documents with every measured block made anew, and the figure's table.

    Raises:
        UserError: replays are missing, or of other scores.
    """
    arms = {each.name: arms_of(each) for each in scenarios if each.is_whole}
    made = blocks(scenarios, arms)
    files = {root / name: fill((root / name).read_text(), made) for name in DOCUMENTS}
    if arms:
        files[root / f"{FIGURE}.csv"] = table(arms).to_csv(index=False, lineterminator="\n")
    return files


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
    whole = [each for each in scenarios if each.is_whole]
    for scenario in whole if again else []:
        print(replay(scenario))
    (ROOT / FIGURE).parent.mkdir(exist_ok=True)
    for path, text in rendered(scenarios).items():
        path.write_text(text)
        print(path.relative_to(ROOT))
    if whole:
        figure = draw(table({each.name: arms_of(each) for each in whole}), whole, WORDS)
        figure.savefig(ROOT / f"{FIGURE}.png", dpi=DPI)
        figure.savefig(ROOT / f"{FIGURE}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
