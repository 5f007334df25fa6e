"""How time grows, drawn: a panel for each thing that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness.reports.figures.labels import Named, label_ends
from harness.reports.figures.save import save
from harness.reports.figures.style import looks, style

Line = Sequence[tuple[float, float]]
"""Points (x, seconds)."""


def draw_scaling(path: Path, panels: Mapping[str, Mapping[str, Line]], caption: str) -> list[Path]:
    """Panel -> line -> points, on logarithmic axes, above a caption, into `path.png` and `.svg`."""
    with style():
        figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            by_name = looks(lines)
            for name, points in lines.items():
                axis.plot(*zip(*points, strict=True), **by_name[name])
            axis.set(title=title, ylabel="seconds", xscale="log", yscale="log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.grid(alpha=0.3)
            last = {name: points[-1] for name, points in lines.items()}
            ends = [Named(*xy, name, by_name[name]["color"]) for name, xy in last.items()]
            label_ends(axis, ends, size=7)
        figure.supxlabel(caption, fontsize=7)
    return save(path, figure)
