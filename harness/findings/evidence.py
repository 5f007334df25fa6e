"""Run docs/protocol.md seed by seed: `python -m harness.findings.evidence SCENARIO`.

Owns: the order of its runs, and their archives in `reports/archives`, from which any machine goes
on: they are imported first, and written again after every seed. Must not know: what is concluded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.catalogue.studies import load_study
from harness.reports.reproduce import run_harness

ARCHIVES = Path(__file__).parents[2] / "reports" / "archives"
SCENARIOS = ("synth_rs", "mstar", "aid")
KINDS = ("single", "lora", "gamma")
"""Of the studies of a scenario, in the order in which a seed is run."""


def name_of(scenario: str, kind: str) -> str:
    """Study, run and archive of a scenario's arms."""
    return f"protocol_{scenario}_{kind}"


def archive_of(study: str, folder: Path = ARCHIVES) -> Path:
    """Where a study's run is archived."""
    return folder / f"{study}.parquet"


def command_of(scenario: str) -> str:
    """What runs a scenario, as it is typed."""
    files = "" if scenario == "synth_rs" else " --data-root FOLDER --weights FILE"
    return f"python -m harness.findings.evidence {scenario}{files}"


def run_pilot(scenario: str, given: list[str], out: str, archives: Path) -> None:
    """Run the scenario's pilot, which charges nobody, and archive it."""
    _run([name_of(scenario, "pilot")], out, given, archives)


def run_seeds(scenario: str, given: list[str], out: str, archives: Path) -> None:
    """Run what is left of a scenario, all arms of a seed before the next."""
    studies = [name_of(scenario, kind) for kind in KINDS]
    for count in range(1, len(load_study(studies[0]).seeds) + 1):
        _run(studies, out, given, archives, count)


def _run(
    studies: list[str],
    out: str,
    given: list[str],
    archives: Path,
    seeds: int | None = None,
) -> None:
    place = ["--out", out]
    for name in studies:
        cells = len(load_study(name).cells())
        budget = [] if seeds is None else ["--budget", str(cells * seeds)]
        run_harness("sweep", "--study", name, *budget, *given, *place)
    archives.mkdir(exist_ok=True)
    for name in studies:
        run_harness(
            "archive", _run_of(name, out), "--file", str(archive_of(name, archives)), *place
        )


def _run_of(study: str, out: str) -> str:
    """The folder of a study's run, which is named after the weights as well, where some are given.

    Raises:
        ValueError: there is none, or more than one.
    """
    [folder] = (path for path in Path(out, "studies").iterdir() if path.name.split("+")[0] == study)
    return str(folder)


def main() -> None:
    """Parse the command line; what is not known to it is given to `harness sweep`.

    Raises:
        SystemExit: as `run_harness`.
    """
    parser = argparse.ArgumentParser(
        description="Run a scenario of docs/protocol.md, and archive it after every seed.",
        epilog="Other options are for `harness sweep`, as in --workers 2 --data-root mstar.",
    )
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--pilot", action="store_true", help="Only the pilot, which chooses r.")
    parser.add_argument("--out", default="runs", help="Folder of the store.  [default: runs]")
    parser.add_argument(
        "--archives",
        type=Path,
        default=ARCHIVES,
        help="Folder of the archives; another keeps a checkout clean.  [default: reports/archives]",
    )
    asked, given = parser.parse_known_args()
    if asked.pilot:
        run_pilot(asked.scenario, given, asked.out, asked.archives)
        return
    files = [archive_of(name_of(asked.scenario, kind), asked.archives) for kind in KINDS]
    known = [str(file) for file in files if file.exists()]
    if known:
        run_harness("import", *known, "--out", asked.out)
    run_seeds(asked.scenario, given, asked.out, asked.archives)


if __name__ == "__main__":
    main()
