"""Run every study on the embedded benchmark and rebuild the gallery: `make reproduce`.

Owns: which commands make the gallery, and which files it keeps. A command is given to the installed
`harness`, so what has finished is not run again and an interruption costs nothing. Must not know:
the protocol's studies, which `harness.findings.evidence` runs, and how tables that ship are made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from harness.catalogue.studies import load_study, study_names
from harness.spec import SEMANTICS
from harness.store.run_folder import RunFolder
from harness.store.store import Store

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
    "choices_by_seed.csv",
    "search.csv",
    "front.csv",
    "volumes.csv",
    "seeds.csv",
    "within_seeds.csv",
    "contrasts.csv",
    "pairs.csv",
    "curves.csv",
    "restarts.csv",
    "interactions.csv",
    "report.md",
)
WITH_PAGE = ("depth_vs_position", "methods_newer", "metapeft_lora", "methods_tuned", "searches")
"""Whose page is kept too; it holds its figures once more."""
NEWER = ("lora", "hf:dora", "hf:adalora", "hf:ia3", "lora_plus", "rslora", "metapeft")
"""Methods that FINDINGS.md compares with LoRA at every linear map."""
README = """# Reference results

Report folders as the commands below wrote them, without the SVG and LaTeX files; `make reproduce`
gives the commands in this order. All are on the SYNTHETIC embedded benchmark, on the device that
`report.md` names. Pages are kept for {pages}.

{older}What is concluded of MetaPEFT stands in [the findings](../../FINDINGS.md). A live comparison
of three repeats on one seed (`search_comparison`) is not informative and is not kept; `searches`
has many more, replayed.

| folder | command |
|---|---|
{rows}

`searches` and `several_objectives` were replayed from the table that ships with the harness, which
`python -m harness.findings.tables` makes from `reports/archives`.

`recommend` is not a run: `python -m harness.findings.recommended` judges that command on tables.

`bench` is not a run: `harness bench train --case q+v --case 'six positions'` measured it, on the
device and with the versions that its CSV names.
"""


OLDER = """Still as an earlier version wrote them: {names}.
Some of their words are wrong, as they judge fewer than six seeds.{more}
*What was wrong before* in [the protocol](../../docs/protocol.md) says what stands in their place.

"""
"""Added where `SEMANTICS` of a report is not the one of now."""
WRONG = {
    "methods_tuned": "was tuned at five rates, over all seeds at once",
    "metapeft_lora": "names a cell of one site as nearest, and corrects nothing",
}
"""What else is wrong in an older report."""


LISTED = re.compile(r'^ *<li><a href="([^"#:]+)">.*</a></li>\n', re.MULTILINE)
"""A file in a page's list of files."""
NAMED = re.compile(r'<a href="([^"#:]+)">([^<]*)</a>')
"""A file that is named elsewhere, as below a figure."""


class Entry(NamedTuple):
    """One folder of the gallery."""

    command: str
    """Words after `harness`."""
    run: str
    """The run's folder in the store."""


def entries() -> dict[str, Entry]:
    """Folder of the gallery -> what makes it, in the order of running: what others need first."""
    found = {
        "joint_space": Entry("sweep --study joint_space --seeds 3", "joint_space"),
        "tsne": Entry("sweep --study tsne", "tsne"),  # keeps features of trials that others share
    }
    for name in study_names():
        is_protocol = name.startswith("protocol_")
        # A live comparison on one seed is not informative.
        if not is_protocol and not load_study(name).searches:
            found.setdefault(name, Entry(f"sweep --study {name}", name))
    depths = "sweep --study depth_vs_position"
    return found | {
        "depth_vs_position_3_seeds": Entry(f"{depths} --seeds 3", "depth_vs_position"),
        "methods_tuned": Entry("compare --methods all --seeds 3", "depth_vs_position+methods"),
        "methods_newer": Entry(
            f"compare --methods {','.join(NEWER)} --seeds 6",
            f"depth_vs_position+methods={'_'.join(NEWER)}",
        ),
        "depth_vs_position_5_seeds": Entry(f"{depths} --seeds 5", "depth_vs_position"),
        "metapeft_lora": Entry(
            "train --method metapeft --base lora --seeds 5 --controls",
            "depth_vs_position+metapeft_lora",
        ),
        "joint_space_metapeft": Entry(
            "sweep --study joint_space --search metapeft --budget 3", "joint_space+metapeft"
        ),
        "searches": Entry(
            "compare --search all --replay --repeats 1500,gp=600", "joint_space+searches"
        ),
        "several_objectives": Entry(
            "compare --search all --replay --objective class_mean,trainable_params --budget 48 "
            "--repeats 300",
            "joint_space+objective=class_mean,trainable_params+searches",
        ),
    }


def main(out: str = "runs") -> None:
    """Run everything into a store, and copy what the gallery keeps.

    Raises:
        SystemExit: a command failed, with its exit code; the same call goes on from there.
    """
    for name, entry in entries().items():
        run_harness(*entry.command.split(), "--out", out)
        _keep(RunFolder.of(Store(Path(out)), entry.run), name)
    (GALLERY / "README.md").write_text(readme())


def readme() -> str:
    """The gallery's page: what is there, what made it, and which of it is older."""
    found = entries()
    rows = [f"| `{name}` | `harness {entry.command}` |" for name, entry in found.items()]
    pages = [f"`{name}`" for name in found if (GALLERY / name / "index.html").is_file()]
    older = [
        name
        for name in found
        if f"- semantics: {SEMANTICS}\n" not in (GALLERY / name / "report.md").read_text()
    ]
    return README.format(
        rows="\n".join(rows),
        pages=", ".join(pages),
        older=_of_older(older) if older else "",
    )


def _of_older(names: list[str]) -> str:
    more = "".join(f" `{name}` {WRONG[name]}." for name in names if name in WRONG)
    return OLDER.format(names=", ".join(f"`{name}`" for name in names), more=more)


def run_harness(*words: str) -> None:
    """Give a command; it goes on where it was stopped.

    Raises:
        SystemExit: it failed, with its exit code.
    """
    print("harness", *words, flush=True)
    done = subprocess.run([Path(sys.executable).parent / "harness", *words], check=False)  # noqa: S603 - our own command
    if done.returncode:
        sys.exit(done.returncode)


def _keep(run: RunFolder, name: str) -> None:
    folder = GALLERY / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    patterns = (*KEPT, "index.html") if name in WITH_PAGE else KEPT
    for pattern in patterns:
        for path in run.report.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    page = folder / "index.html"
    if page.is_file():
        page.write_text(without_dead_links(page.read_text(), folder))


def without_dead_links(page: str, folder: Path) -> str:
    """A page without the items of its list of files that are not in the folder, and with the mere
    names of those that it links to elsewhere.

    The gallery keeps some of a report's files, and a page lists all that were written beside it.
    """

    def is_here(link: re.Match[str]) -> bool:
        return (folder / unquote(link[1])).is_file()

    page = LISTED.sub(lambda item: item[0] if is_here(item) else "", page)
    return NAMED.sub(lambda link: link[0] if is_here(link) else f"<code>{link[2]}</code>", page)


if __name__ == "__main__":
    main(*sys.argv[1:])
