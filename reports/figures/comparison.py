"""Figures of learned strengths, and of what they are compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from harness.metrics import OVERALL, SHOWN
from harness.reports.figures.style import (
    COLOURS,
    MAP,
    MARKERS,
    cost_axis,
    heat_cells,
    line_look,
    style,
)
from harness.reports.numbers.comparison import Arms, front
from harness.reports.numbers.gamma import Learned, block_map, positions_of
from harness.reports.text.captions import setting


@style()
def gamma(learned: Learned, title: str) -> Figure:
    """Learned strengths: maps of block x position along the run, and the paths of the positions."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    top, bottom = parts
    moments = (0.0, 0.25, 0.5, 1.0)
    maps = [block_map(learned, moment) for moment in moments]
    values = np.concatenate([table.to_numpy(dtype=float).ravel() for table in maps])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axes = top.subplots(1, len(moments), sharey=True)
    for axis, moment, table in zip(axes, moments, maps, strict=True):
        axis.set_facecolor("0.85")
        sns.heatmap(
            table,
            ax=axis,
            cmap=MAP,
            vmin=low,
            vmax=high,
            cbar=False,
            linewidths=0.3,
            linecolor="white",
        )
        names = {0.0: "start", 1.0: "end"}
        axis.set_title(names.get(moment, f"{100 * moment:.0f} % of the outer steps"))
        axis.set_xlabel("block (0 is next to the input)")
        axis.set_ylabel("position" if axis is axes[0] else "")
        axis.tick_params(axis="both", rotation=0, length=0)
    top.colorbar(axes[0].collections[0], ax=list(axes), label="strength γ", pad=0.01)
    paths, ends = bottom.subplots(1, 2, width_ratios=[1.4, 1])
    for index, position in enumerate(positions_of(learned)):
        own = learned.paths[learned.paths["position"] == position]
        sites = own.groupby(["outer_step", "site"])["strength"].mean().unstack("site")
        paths.plot(sites.index, sites, color=COLOURS[index], linewidth=0.5, alpha=0.35)
        look = line_look(index, COLOURS[index]) | {"markevery": max(1, len(sites) // 8)}
        paths.plot(sites.index, sites.mean(axis=1), label=position, **look)
        last = learned.final[learned.final["position"] == position]
        look = line_look(index, COLOURS[index])
        ends.errorbar(last["block"], last["strength"], yerr=last["sd"], capsize=2, **look)
    count = len(learned.trials)
    mean = f", mean over {count} seeds" if count > 1 else ""
    paths.set_title(f"every site (thin) and the mean of a position (thick){mean}")
    paths.set_xlabel("outer step")
    paths.set_ylabel("strength γ")
    paths.legend(title="position", ncols=2, fontsize=8)
    ends.set_title("at the end" + (f", mean ± SD of {count} seeds" if count > 1 else ""))
    ends.set_xlabel("block")
    for axis in (paths, ends):
        axis.axhline(learned.final["start"].mean(), color="0.4", linestyle=(0, (1, 2)), linewidth=1)
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


@style()
def gamma_and_sweep(learned: Learned, compared: Arms) -> Figure:
    """The strengths where learning ended, and the map of the sweep that they stand in for."""
    swept, found = compared.swept, compared.comparison.swept
    assert swept is not None and found is not None
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    heat_cells(left, block_map(learned, 1.0), size=6.5, fmt=".2f", unit="strength γ")
    left.set_title(f"learned: {compared.comparison.arms[0].name}")
    left.set_xlabel("block (0 is next to the input)")
    left.set_ylabel("position")
    heat_cells(right, swept, size=6.5)
    right.set_title(f"swept: test accuracy, {found.study} ({found.fixed})")
    rows, columns = found.labels.values()
    right.set_xlabel(columns)
    right.set_ylabel(rows)
    seeds = len(compared.comparison.seeds)
    figure.suptitle("What is learned beside what is swept", fontsize=12, fontweight="bold")
    words = (
        f"Means over the same {seeds} seed{'s' if seeds > 1 else ''}; each map has a colour scale "
        f"of its own. {setting(compared.comparison.request, seeds)}"
    )
    figure.supxlabel(words, fontsize=8, color="0.25")
    return figure


@style()
def arms(compared: Arms) -> Figure:
    """Test accuracy of every arm, all classes and by group, with intervals and every seed's dot."""
    table, scores = compared.table, compared.scores
    names = [SHOWN, *compared.groups]
    figure = Figure(figsize=(13, 0.42 * len(table) + 1.6), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, width_ratios=[1.5] + [1] * (len(names) - 1))
    for axis, name in zip(axes, names, strict=True):
        for y, (_, row) in enumerate(table.iterrows()):
            colour = COLOURS[0] if y == 0 else "0.25"
            own = scores[scores["arm"] == row["arm"]][f"test_{name}"]
            axis.plot(own, [y] * len(own), "o", color=colour, alpha=0.3, markersize=3)
            half = row[f"{name}_ci"]
            error = None if math.isnan(half) else half
            axis.errorbar(row[name], y, xerr=error, fmt="D", color=colour, ms=5, capsize=3)
        axis.axvline(table[name].iloc[0], color=COLOURS[0], linestyle=":", linewidth=1)
        axis.set_title("all classes" if name in OVERALL else f"{name} classes")
        axis.set_xlabel("test accuracy (%)")
        axis.grid(alpha=0.3, axis="x")
    labels = [f"{row['arm']}  [{row['runs_per_seed']:.1f} runs]" for _, row in table.iterrows()]
    axes[0].set_yticks(range(len(table)), labels)
    axes[0].invert_yaxis()
    figure.suptitle(compared.comparison.title, fontsize=12, fontweight="bold")
    return figure


@style()
def pareto(compared: Arms) -> Figure:
    """Test accuracy of every arm against what finding it and training it cost, and its front."""
    table, score = compared.table, SHOWN
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    axis = figure.subplots()
    best = front(table, "runs_per_seed", score)
    for index, (_, row) in enumerate(table.iterrows()):
        half = row[f"{score}_ci"]
        axis.errorbar(
            row["runs_per_seed"],
            row[score],
            yerr=None if math.isnan(half) else half,
            fmt=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            ms=8 if row["arm"] in best else 5,
            elinewidth=0.8,
            capsize=2,
            label=row["arm"],
        )
    line = table.set_index("arm").loc[best]
    axis.step(line["runs_per_seed"], line[score], where="post", color="0.4", lw=0.9, zorder=0)
    is_narrow = table["runs_per_seed"].max() < 10 * table["runs_per_seed"].min()
    cost_axis(axis, "cost per seed (full runs)", is_narrow=is_narrow)
    axis.set_ylabel("test accuracy, all classes (%)")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    title = f"{compared.comparison.title}: accuracy and cost"
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure
