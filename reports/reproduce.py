"""Run every study on the embedded benchmark and rebuild the gallery: `make reproduce`.

Owns: which commands make the gallery, and which of their files it keeps. A command is given to the
installed `harness`, so what has finished is not run again and an interruption costs nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from harness.study import load_study, study_names

GALLERY = Path(__file__).parent / "gallery"
KEPT = (
    "*.png",
    "metrics.csv",
    "trials.csv",
    "costs.csv",
    "arms*.csv",
    "gamma.csv",
    "counts.csv",
    "printed.csv",
    "searches.csv",
    "choices.csv",
    "curves.csv",
    "report.md",
)
WITH_PAGE = ("depth_vs_position", "metapeft_lora", "methods_tuned", "searches")
"""Whose page is kept too; it holds its figures once more."""
TABLE = "joint_space.parquet"


class Entry(NamedTuple):
    """One folder of the gallery."""

    command: str
    """Words after `harness`."""
    run: str
    """The run's folder in the store."""


def entries() -> dict[str, Entry]:
    """Folder of the gallery -> what makes it, in the order of running: what others need first."""
    depths = "sweep --study depth_vs_position"
    found = {
        "tsne": Entry("sweep --study tsne", "tsne"),  # keeps features of trials that others share
        "depth_vs_position_5_seeds": Entry(f"{depths} --seeds 5", "depth_vs_position"),
        "metapeft_lora": Entry(
            "train --method metapeft --base lora --seeds 5 --controls",
            "depth_vs_position+metapeft_lora",
        ),
        "depth_vs_position_3_seeds": Entry(f"{depths} --seeds 3", "depth_vs_position"),
        "methods_tuned": Entry("compare --methods all --seeds 3", "depth_vs_position+methods"),
    }
    for name in study_names():
        found[name] = Entry(f"sweep --study {name}", load_study(name).name)
    found["joint_space_metapeft"] = Entry(
        "sweep --study joint_space --search metapeft --budget 5", "joint_space+metapeft"
    )
    return found


def main(out: str = "runs") -> None:
    """Run everything into a store, and copy what the gallery keeps.

    Raises:
        SystemExit: a command failed, with its exit code; the same call goes on from there.
    """
    for name, entry in entries().items():
        _harness(*entry.command.split(), "--out", out)
        _keep(Path(out) / "studies" / entry.run, name)
    table = str(Path(out) / TABLE)
    _harness("tabulate", "joint_space", "joint_space+metapeft", "--file", table, "--out", out)
    _harness(
        "compare", "--study", "joint_space", "--search", "all", "--replay", table, "--out", out
    )
    _keep(Path(out) / "studies" / "joint_space+searches", "searches")


def _harness(*words: str) -> None:
    print("harness", *words, flush=True)
    done = subprocess.run([Path(sys.executable).parent / "harness", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _keep(run: Path, name: str) -> None:
    folder = GALLERY / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    patterns = (*KEPT, "index.html") if name in WITH_PAGE else KEPT
    for pattern in patterns:
        for path in (run / "report").glob(pattern):
            shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
