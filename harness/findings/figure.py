"""Figures of README and FINDINGS.md: what every arm reached and paid; how much validation it takes.

Owns: their tables and their drawing. Must not know: how a score was computed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from harness.catalogue.studies import load_study
from harness.findings.document import WORDS
from harness.findings.evidence import name_of
from harness.reports.figures.labels import Named, label_ends
from harness.reports.figures.style import COLOURS, cost_axis, line_look, style
from harness.reports.numbers.statistics import mean_and_half_width

METAPEFT = "MetaPEFT"
VALIDATION = (
    "LoRA's whole space, with 4 times that rate as well, chosen on parts of the dev set; "
    "long-tailed: imbalance 10, classes in a random order. 95\u00a0% intervals over seeds; test "
    "accuracy is the mean over classes."
)
CAPTION = (
    "LoRA of rank 4; tuned arms take 4 times that rate as well. 95\u00a0% intervals over seeds, "
    "each a replicate of the whole procedure, chosen on a dev set. Runs: what was paid, in FLOPs "
    "of one training of LoRA at every linear map. See docs/protocol.md."
)
SIDES = (0.97, 1.0, 1.03)
"""Factors that keep the intervals of lines apart which share their places."""


def arms_table(arms: Mapping[str, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row per scenario and arm: `test` class mean and its 95 % half-width `ci` in percent, `runs`
    paid per seed, and the number of `seeds`."""
    rows = []
    for scenario, by_name in arms.items():
        for name, own in by_name.items():
            mean, interval = mean_and_half_width(own["test"])
            row = {"scenario": scenario, "arm": name, "test": mean, "ci": interval}
            rows.append({**row, "runs": float(own["runs"].mean()), "seeds": len(own)})
    frame = pd.DataFrame(rows, columns=["scenario", "arm", "test", "ci", "runs", "seeds"])
    return frame.round({"test": 4, "ci": 4, "runs": 3})


@style()
def draw_arms(rows: pd.DataFrame) -> Figure:
    """A panel per scenario and a line per arm, cheapest on top; its runs stand at the right."""
    names = list(dict.fromkeys(rows["scenario"]))
    arms = list(dict.fromkeys(rows["arm"]))
    figure = Figure(figsize=(2.2 + 3.2 * len(names), 1.3 + 0.3 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        own = rows[rows["scenario"] == name].set_index("arm").loc[arms]
        for place, (arm, row) in enumerate(own.iterrows()):
            is_learned = str(arm).startswith(METAPEFT)
            panel.errorbar(
                row["test"],
                place,
                xerr=row["ci"],
                fmt="D" if is_learned else "o",
                color=COLOURS[1] if is_learned else COLOURS[0],
                capsize=2,
                markersize=5,
            )
            panel.annotate(
                f"{row['runs']:.1f}",
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
                color="0.35",
            )
        corner = {"xycoords": "axes fraction", "fontsize": 7, "color": "0.35"}
        panel.annotate("runs", (1.01, 1.01), **corner)
        panel.set_title(_title(name, own))
        panel.set_xlabel("test accuracy, mean over classes (%)")
        panel.set_yticks(range(len(arms)), arms)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    _footer(figure, names, CAPTION)
    return figure


@style()
def draw_validation(rows: pd.DataFrame) -> Figure:
    """Test score of what is chosen against the size of the dev set, a line per shape and score."""
    names = list(dict.fromkeys(rows["scenario"]))
    figure = Figure(figsize=(0.8 + 4.6 * len(names), 3.5), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    ends: list[list[Named]] = []
    for panel, name in zip(panels, names, strict=True):
        lines = rows[rows["scenario"] == name].groupby(["shape", "by"], sort=False)
        ends.append([])
        for index, ((shape, by), own) in enumerate(lines):
            look = line_look(index, COLOURS[index])
            label = shape if by == "either" else f"{shape}, by {by}"
            places = own["images"] * SIDES[index]
            panel.errorbar(places, own["test"], yerr=own["ci"], capsize=2, **look)
            last = own["images"].idxmax()
            ends[-1].append(Named(places[last], own["test"][last], label, look["color"]))
        cost_axis(panel, "images of the dev set")
        panel.tick_params(axis="x", which="both", labelsize=7)
        panel.set_title(_title(name, own))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy of the chosen cell (%)")
    _footer(figure, names, VALIDATION)
    for panel, named in zip(panels, ends, strict=True):
        label_ends(panel, named, size=7)
    return figure


def _title(name: str, rows: pd.DataFrame) -> str:
    return f"{WORDS[name]}, {int(rows['seeds'].max())} seeds"


def _footer(figure: Figure, names: list[str], caption: str) -> None:
    """Below the panels: each scenario's backbone and recipe, whose rate is the protocol's r."""
    on = []
    for name in names:
        base = load_study(name_of(name, "single")).base
        size = "" if base.backbone.img_size is None else f" at {base.backbone.img_size} px"
        on.append(f"{WORDS[name]}: {base.backbone.name}{size}, {base.recipe.in_words}")
    text = textwrap.fill(f"{'; '.join(on)}. {caption}", round(14 * figure.get_figwidth()))
    figure.supxlabel(text, fontsize=7, color="0.25")
