"""The paper's published numbers, read from `baselines/paper`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from harness.reports.numbers.run import (
    Run,
)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Numbers of the paper for a single axis, on one of its datasets."""

    dataset: str
    """`all` for averages over several."""
    title: str
    table: pd.DataFrame
    """A row per value, the axis's first, and a column per group or average."""
    source: str


def paper_tables(run: Run, rows: str, *columns: str) -> list[Paper]:
    """What the paper prints for the values of an axis, from its tables that have these columns."""
    found = []
    for name in run.study.references:
        if {rows, "dataset", *columns} <= set(read_paper(name).columns):
            found += paper_by_dataset(name, rows, run.order(rows))
    return found


def paper_by_dataset(name: str, rows: str, first: Sequence[Any] = ()) -> list[Paper]:
    """A file of the paper's numbers, a table per dataset; the values in `first` come first."""
    found = []
    for dataset, part in read_paper(name).groupby("dataset", sort=False):
        table = part.drop(columns=["dataset", "source"]).set_index(rows).dropna(axis=1, how="all")
        order = [*first, *(value for value in table.index if value not in first)]
        source = str(part["source"].iloc[0])
        where = {"all": ", all datasets", "not stated": ""}.get(str(dataset), f", {dataset}")
        found.append(
            Paper(
                dataset=str(dataset),
                title=source.split(",")[0] + where,
                table=table.reindex(order),
                source=source,
            )
        )
    return found


def read_paper(name: str) -> pd.DataFrame:
    """A file of the paper's numbers."""
    return pd.read_csv(str(resources.files("harness.baselines") / "paper" / f"{name}.csv"))


def paper_grid(run: Run, rows: str, columns: str) -> tuple[pd.DataFrame, str] | None:
    """The paper's numbers in the same shape and where they were read; None without a reference."""
    for name in run.study.references:
        published = read_paper(name)
        if {rows, columns} <= set(published.columns):
            table = published.set_index([rows, columns])["class_mean"].unstack(columns)
            source = str(published["source"].mode()[0])
            return table.reindex(index=run.order(rows), columns=run.order(columns)), source
    return None
