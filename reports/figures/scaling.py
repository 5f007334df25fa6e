"""How time grows, drawn: a panel for each thing that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness.reports.figures.style import COLOURS, DPI, line_look, style

Line = Sequence[tuple[float, float]]
"""Points (x, seconds)."""


def draw_scaling(path: Path, panels: Mapping[str, Mapping[str, Line]], caption: str) -> None:
    """Panel -> line -> points, on logarithmic axes, above a caption, into a PNG file."""
    with style():
        figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for index, (name, points) in enumerate(lines.items()):
                look = line_look(index, COLOURS[index])
                axis.plot(*zip(*points, strict=True), label=name, **look)
            axis.set(title=title, ylabel="seconds", xscale="log", yscale="log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)
        figure.supxlabel(caption, fontsize=7)
        figure.savefig(path, dpi=DPI)
