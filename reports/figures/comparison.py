"""Figures of learned strengths, and of what they are compared with.

Owns: their drawing. Must not know: how a number was computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from harness.metrics import OVERALL, SHOWN
from harness.reports.figures.frame import head_and_foot
from harness.reports.figures.labels import Named, label_ends, label_points
from harness.reports.figures.style import COLOURS, MAP, cost_axis, heat_cells, looks, style
from harness.reports.numbers.comparison import Arms, front
from harness.reports.numbers.gamma import Learned, block_map, positions_of
from harness.reports.text.captions import setting
from harness.reports.text.comparison import arms_caption


@style()
def gamma(learned: Learned, title: str, words: str) -> Figure:
    """Learned strengths: maps of block x position along the run, and the paths of the positions.

    `words` say on what they were learned: `captions.setting`.
    """
    figure = Figure(figsize=(12.6, 6.8), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    top, bottom = parts
    _maps(top, learned)
    _paths(bottom, learned)
    head_and_foot(figure, title, words)
    return figure


def _maps(part: Any, learned: Learned) -> None:
    """Strengths at four moments on one scale of colours."""
    moments = (0.0, 0.25, 0.5, 1.0)
    maps = [block_map(learned, moment) for moment in moments]
    values = np.concatenate([table.to_numpy(dtype=float).ravel() for table in maps])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axes = part.subplots(1, len(moments), sharey=True)
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
    part.colorbar(axes[0].collections[0], ax=list(axes), label="strength γ", pad=0.01)


def _paths(part: Any, learned: Learned) -> None:
    """Strengths of all sites along the run, and where they ended, by position."""
    paths, ends = part.subplots(1, 2, width_ratios=[1.4, 1])
    named: list[Named] = []
    at_end: list[Named] = []
    for position, look in looks(positions_of(learned)).items():
        own = learned.paths[learned.paths["position"] == position]
        sites = own.groupby(["outer_step", "site"])["strength"].mean().unstack("site")
        mean, colour = sites.mean(axis=1), look["color"]
        paths.plot(sites.index, sites, color=colour, linewidth=0.5, alpha=0.35)
        paths.plot(sites.index, mean, **look, markevery=max(1, len(sites) // 8))
        last = learned.final[learned.final["position"] == position].sort_values("block")
        ends.errorbar(last["block"], last["strength"], yerr=last["sd"], capsize=2, **look)
        named.append(Named(float(sites.index[-1]), float(mean.iloc[-1]), position, colour))
        strength = float(last["strength"].iloc[-1])
        at_end.append(Named(float(last["block"].iloc[-1]), strength, position, colour))
    count = len(learned.trials)
    mean = f", mean over {count} seeds" if count > 1 else ""
    paths.set_title(f"every site (thin) and the mean of a position (thick){mean}")
    paths.set_xlabel("outer step")
    paths.set_ylabel("strength γ")
    ends.set_title("at the end" + (f", mean ± SD of {count} seeds" if count > 1 else ""))
    ends.set_xlabel("block")
    for axis in (paths, ends):
        axis.axhline(learned.final["start"].mean(), color="0.4", linestyle=(0, (1, 2)), linewidth=1)
        axis.grid(alpha=0.3)
    label_ends(paths, named)
    label_ends(ends, at_end)


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
    words = (
        f"Means over the same {seeds} seed{'s' if seeds > 1 else ''}; each map has a colour scale "
        f"of its own. {setting(compared.comparison.request, seeds)}"
    )
    head_and_foot(figure, "What is learned beside what is swept", words)
    return figure


@style()
def arms(compared: Arms) -> Figure:
    """Test accuracy of every arm, all classes and by group, with intervals and every seed's dot."""
    table, scores = compared.table, compared.scores
    names = [SHOWN, *compared.groups]
    figure = Figure(figsize=(13, 0.42 * len(table) + 2.0), layout="constrained")
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
    marks = "Dots: seeds. In brackets: cost per seed."
    words = f"{arms_caption(compared.comparison)} {marks}"
    head_and_foot(figure, compared.comparison.title, words)
    return figure


@style()
def pareto(compared: Arms) -> Figure:
    """Test accuracy of every arm against what finding it and training it cost, and its front."""
    table, score = compared.table, SHOWN
    figure = Figure(figsize=(11.5, 4.4 + 0.13 * len(table)), layout="constrained")
    axis = figure.subplots()
    best = front(table)
    named: list[Named] = []
    for _, row in table.iterrows():
        is_best = row["arm"] in best
        colour = COLOURS[0] if is_best else "0.45"
        half = row[f"{score}_ci"]
        axis.errorbar(
            row["runs_per_seed"],
            row[score],
            yerr=None if math.isnan(half) else half,
            fmt="D" if is_best else "o",
            color=colour,
            ms=6 if is_best else 4,
            elinewidth=0.8,
            ecolor=(colour, 0.35) if is_best else "0.85",
            capsize=2,
            zorder=3 if is_best else 2,
        )
        name = Named(row["runs_per_seed"], row[score], row["arm"], colour)
        named.insert(0 if is_best else len(named), name)  # the front's names choose first
    line = table.set_index("arm").loc[best]
    look: Any = {"color": "0.4", "lw": 0.9, "zorder": 1, "drawstyle": "steps-post"}
    (stepped,) = axis.plot(line["runs_per_seed"], line[score], **look)
    is_narrow = table["runs_per_seed"].max() < 10 * table["runs_per_seed"].min()
    cost_axis(axis, "cost per seed (full runs)", is_narrow=is_narrow)
    axis.margins(x=0.1)
    axis.set_ylabel("test accuracy, all classes (%)")
    axis.grid(alpha=0.3)
    title = f"{compared.comparison.title}: accuracy and cost"
    marks = "Blue and stepped: no arm has both a higher mean and a lower cost."
    head_and_foot(figure, title, f"{arms_caption(compared.comparison)} {marks}")
    label_points(axis, named, line=np.asarray(stepped.get_path().vertices).tolist())
    return figure
