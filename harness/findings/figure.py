"""The figure of README and FINDINGS.md: what every arm reached, and what it paid.

Owns: its table and its drawing. Must not know: how a score was computed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from harness.findings.scenario import Scenario
from harness.reports.figures.style import COLOURS, style
from harness.reports.numbers.statistics import mean_and_half_width

METAPEFT = "MetaPEFT"
CAPTION = (
    "vit_pico (synth-rs) and ViT-Tiny/16, 96 px; 95 % intervals over seeds, each a replicate of "
    "the whole procedure, chosen on a dev set. Runs: what was paid, in FLOPs of one training of "
    "LoRA at every linear map. See docs/protocol.md."
)


def table(arms: Mapping[str, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
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
def draw(rows: pd.DataFrame, scenarios: Sequence[Scenario], words: Mapping[str, str]) -> Figure:
    """A panel per scenario and a line per arm, cheapest on top; its runs stand at the right."""
    names = [each.name for each in scenarios if each.name in set(rows["scenario"])]
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
        panel.set_title(f"{words[name]}, {int(own['seeds'].max())} seeds")
        panel.set_xlabel("test accuracy, mean over classes (%)")
        panel.set_yticks(range(len(arms)), arms)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.supxlabel(
        textwrap.fill(CAPTION, round(14 * figure.get_figwidth())), fontsize=7, color="0.25"
    )
    return figure
