"""Numbers of learned strengths: every site's path, where it ended, and how even the end is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from harness.spec import POSITIONS, Site

OFF = 0.1
"""A strength below this counts as switched off."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What one or more trials learned on the same sites."""

    paths: pd.DataFrame
    """Columns trial, outer_step, progress (0 to 1), site, block, position, strength."""
    final: pd.DataFrame
    """One row per site: block, position, start, strength (mean over trials), sd (over trials)."""

    @property
    def trials(self) -> list[str]:
        return list(self.paths["trial"].unique())


def load_learned(trials: Sequence[Path]) -> Learned | None:
    """Read the trajectories of trial folders; None if one of them learned nothing."""
    files = [trial / "trajectory.csv" for trial in trials]
    if not files or not all(path.is_file() for path in files):
        return None
    parts = []
    for path in files:
        wide = pd.read_csv(path)
        names = [c for c in wide.columns if c not in ("outer_step", "inner_step", "outer_loss")]
        part = wide.melt(["outer_step"], names, var_name="site", value_name="strength")
        steps = wide["outer_step"].max()  # 0 in a run that was over before the first
        part["progress"] = part["outer_step"] / steps if steps else 1.0
        parts.append(part.assign(trial=path.parent.name))
    paths = pd.concat(parts, ignore_index=True)
    sites = {name: Site.parse(name) for name in paths["site"].unique()}
    paths["block"] = paths["site"].map(lambda name: sites[name].block)
    paths["position"] = paths["site"].map(lambda name: sites[name].position)
    last = paths[paths["progress"] == 1].groupby("site", sort=False)
    first = paths[paths["outer_step"] == 0].groupby("site", sort=False)["strength"].mean()
    final = last.agg(
        block=("block", "first"),
        position=("position", "first"),
        strength=("strength", "mean"),
        sd=("strength", "std"),
    )
    final.insert(2, "start", first)
    return Learned(paths=paths, final=final.reset_index())


def positions_of(learned: Learned) -> list[str]:
    """The positions that have a strength, in the order of a block."""
    return [p for p in POSITIONS if (learned.final["position"] == p).any()]


def block_map(learned: Learned, progress: float) -> pd.DataFrame:
    """Strengths at a share of the run, position x block, mean over trials; NaN without a site."""
    rows = []
    for _, path in learned.paths.groupby("trial", sort=False):
        steps = path["progress"].unique()
        nearest = steps[np.abs(steps - progress).argmin()]
        rows.append(path[path["progress"] == nearest])
    now = pd.concat(rows).groupby(["position", "block"])["strength"].mean().unstack("block")
    blocks = range(int(learned.final["block"].max()) + 1)
    table: pd.DataFrame = now.reindex(index=positions_of(learned), columns=list(blocks))
    return table


def normalised_entropy(strengths: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Entropy of the strengths as shares, over that of equal shares: 1 is even, 0 is one site."""
    shares = np.abs(strengths) / np.abs(strengths).sum()
    shares = shares[shares > 0]
    if len(strengths) == 1:
        return 1.0
    return float(-(shares * np.log(shares)).sum() / np.log(len(strengths)))


def describe(learned: Learned) -> dict[str, float]:
    """How much was selected: level, range, evenness, sites off, and agreement between trials.

    `agreement` is the mean Spearman correlation of the strengths between pairs of trials, NaN for
    one trial: without it, what differs between sites is chance.
    """
    ends = learned.paths[learned.paths["progress"] == 1]
    wide = ends.pivot(index="trial", columns="site", values="strength")
    pairs = [
        stats.spearmanr(wide.loc[a], wide.loc[b]).statistic for a, b in combinations(wide.index, 2)
    ]
    even = [normalised_entropy(row.to_numpy(dtype=float)) for _, row in wide.iterrows()]
    values = learned.final["strength"].to_numpy(dtype=float)
    return {
        "mean": float(values.mean()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "evenness": float(np.mean(even)),
        "share_off": float((wide < OFF).to_numpy().mean()),
        "agreement": float(np.mean(pairs)) if pairs else float("nan"),
    }
