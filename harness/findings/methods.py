"""Newer methods against LoRA at every linear map, each at a rate of its own: how many beat it.

Owns: which arms of the archived comparison are judged, and their table. Must not know: documents.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from harness.archive.importing import import_archives
from harness.comparison.baseline import LABEL
from harness.findings.evidence import ARCHIVES
from harness.metrics import SHOWN
from harness.reports.numbers.comparison import Arms, load_arms
from harness.reports.numbers.contrasts import contrasts
from harness.store.store import Store

ARCHIVE = "methods.parquet"
"""Of the gallery's `methods_newer`, of six seeds because with fewer the rule says nothing."""
EVERYWHERE = (", all positions", " with MetaPEFT")
"""How the arms are called that are placed at every linear map."""
ONE_RUN = f"{LABEL}, one run"
ITSELF = {
    "lora, all positions": "lora, α = 1, all linear maps",
    "rslora, all positions": "rslora, α = 1 (LoRA's α = 2), all linear maps",
}
"""Label -> what it is: LoRA with another strength is no other method, and where all sites have one
rank r, rsLoRA's α / √r is LoRA's α / r with √r times the α."""


def methods_table(archives: Path = ARCHIVES) -> pd.DataFrame | None:
    """A row per method at every linear map, as of `contrasts`, minus LoRA there; None: not run.

    Beside them `arm`, `test` class mean in percent and its 95 % half-width `ci`, `runs` that a seed
    paid, in trainings of the second row by FLOPs, `parameters`, the number of `seeds`, and in how
    many of them validation `prefers` the arm to the first. The first rows are LoRA's own, without a
    contrast: tuned, in one run at the recipe's rate, and with other strengths.

    Raises:
        UserError: the archive is damaged.
    """
    path = archives / ARCHIVE
    if not path.is_file():
        return None
    with TemporaryDirectory() as place:
        [imported] = import_archives([path], Store(Path(place)))
        arms = load_arms(imported.run)
    labels = {name: label_of(name) for name in arms.table["arm"]}
    [reference] = [name for name, label in labels.items() if label == LABEL]
    everywhere = [name for name, label in labels.items() if label.endswith(EVERYWHERE)]
    rivals = [name for name in everywhere if labels[name] not in ITSELF]
    judged = [reference, *rivals]
    found = contrasts(_scores(arms, judged), judged, tuple(judged), reference)
    itself = [name for name in everywhere if labels[name] in ITSELF]
    chosen_by = arms.scores.pivot(index="seed", columns="arm", values=f"select_{SHOWN}")
    own = arms.table.set_index("arm").loc[[reference, ONE_RUN, *itself, *rivals]]
    runs = own["runs_by_flops"]
    beside = pd.DataFrame(
        {
            "arm": [ITSELF.get(labels[name], labels[name]) for name in own.index],
            "test": own[SHOWN],
            "ci": own[f"{SHOWN}_ci"],
            "runs": runs / runs[ONE_RUN],
            "parameters": own["trainable_params"],
            "prefers": chosen_by.gt(chosen_by[reference], axis=0).sum()[own.index],
        }
    )
    return beside.join(found.set_index("first").drop(columns="second")).reset_index(drop=True)


def label_of(name: str) -> str:
    """An arm's name without the rates that its seeds chose."""
    return name.split(" (×")[0]


def _scores(arms: Arms, judged: list[str]) -> pd.DataFrame:
    rows = arms.scores[arms.scores["arm"].isin(judged)]
    rows = rows.rename(columns={"arm": "search", f"test_{SHOWN}": "test"})
    return rows[["search", "seed", "test"]]
