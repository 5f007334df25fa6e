"""`python -m harness.findings`: README.md and FINDINGS.md, from the archives, without training.

Owns: which documents and files are made. Must not know: what stands in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.findings.document import blocks, fill
from harness.findings.evidence import ARCHIVES, SCENARIOS
from harness.findings.scenario import read_scenario
from harness.findings.searched import replay

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "FINDINGS.md")


def rendered(root: Path = ROOT, archives: Path = ARCHIVES) -> dict[Path, str]:
    """Document -> its text with every measured block made anew.

    Raises:
        UserError: an archive is damaged, or its replays are missing or of other scores.
    """
    made = blocks([read_scenario(name, archives) for name in SCENARIOS])
    return {root / name: fill((root / name).read_text(), made) for name in DOCUMENTS}


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.findings", description=__doc__)
    parser.add_argument(
        "--replay",
        action="store_true",
        help="First replay the searches within every seed of each complete scenario.",
    )
    if parser.parse_args().replay:
        for name in SCENARIOS:
            scenario = read_scenario(name)
            if scenario.is_whole:
                print(replay(scenario))
    for path, text in rendered().items():
        path.write_text(text)
        print(path.name)


if __name__ == "__main__":
    main()
