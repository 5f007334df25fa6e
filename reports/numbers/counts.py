"""Parameter counts of a study that trains nothing, beside those that the paper prints.

Owns: which printed cell which formula gives. Must not know: how parameters are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.reports.numbers.paper import read_paper
from harness.store.run_folder import RunFolder
from harness.store.runs import read_counts, read_run
from harness.study.study import Study

AS_NAMED = "as named"
NOTHING = "none of those above"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Every cell with its parameters, and what became of each printed number."""

    study: Study
    environment: dict[str, str]
    cells: pd.DataFrame
    """A row per cell: its fields, `trainable_params` and the backbone's feature `width`."""
    printed: pd.DataFrame | None
    """A row per printed cell; None without a reference."""


def load_counts(folder: RunFolder) -> Counts:
    """Read the folder of a study that trains nothing.

    Raises:
        UserError: the folder is not a run.
    """
    files = read_run(folder)
    counts = read_counts(folder)
    cells = pd.DataFrame(
        [{**asked.cell, **counts[asked.trial_id]._asdict()} for asked in files.asked]
    ).drop_duplicates(ignore_index=True)
    tables = [read_paper(name) for name in files.study.references]
    explained = [_explain(files.study, cells, table) for table in tables]
    printed = pd.concat(explained, ignore_index=True) if explained else None
    return Counts(study=files.study, environment=files.environment, cells=cells, printed=printed)


def _explain(study: Study, cells: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """For every printed number, in millions, the cells that round to it on the same backbone."""
    first, *others = (axis.field for axis in study.axes)
    rows = []
    for _, printed in table.iterrows():
        same = cells
        for field in others:
            if field in table.columns:
                same = same[same[field] == printed[field]]
        fitting = same[(same["trainable_params"] / 1e6).round(3) == printed["tuner_millions"]]
        own = same[same[first] == printed[first]]
        ours = "-" if own.empty else f"{own['trainable_params'].iloc[0] / 1e6:.3f}"
        free = [field for field in others if field not in table.columns]
        # Cells that differ only in a field without effect on the count are named once.
        names = [
            ", ".join(str(cell[field]) for field in (first, *free))
            for _, cell in fitting.drop_duplicates([first, "trainable_params"]).iterrows()
        ]
        is_own = ours == f"{printed['tuner_millions']:.3f}"
        width = int(same["width"].iloc[0]) if len(same) else 0
        rows.append(
            {
                "dataset": printed["dataset"],
                first: printed[first],
                "printed (M)": f"{printed['tuner_millions']:.3f}",
                "formula (M)": ours,
                "printed number is": AS_NAMED if is_own else "; ".join(names) or NOTHING,
                "head printed (M)": f"{printed['head_millions']:.3f}",
                "width × classes (M)": _head(width * int(printed["classes"]), printed),
            }
        )
    return pd.DataFrame(rows)


def _head(count: int, printed: pd.Series[float]) -> str:
    """The head's size, with a word where rounding does not give the printed one."""
    wanted = round(1000 * printed["head_millions"])
    if round(count / 1000) == wanted:
        return f"{count / 1e6:.3f}"
    return f"{count / 1e6:.6f}, {'truncated' if count // 1000 == wanted else 'differs'}"


def disagreements(printed: pd.DataFrame) -> list[str]:
    """A sentence per printed cell that its own name does not explain."""
    name = printed.columns[1]
    said = []
    for _, row in printed[printed["printed number is"] != AS_NAMED].iterrows():
        cell = f"{row['dataset']}, {row[name]}: {row['printed (M)']} M is"
        given = row["printed number is"]
        if given == NOTHING:
            said.append(f"{cell} given by no formula here ({row['formula (M)']} M by its name).")
        else:
            said.append(f"{cell} that of {given.replace('; ', ' or of ')}.")
    return said
