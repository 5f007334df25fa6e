"""A figure's files: PNG for pages and documents, SVG for everything that scales.

Owns: their formats; the same figure gives the same bytes. Must not know: what is drawn.
"""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from harness.errors import saving
from harness.reports.figures.style import DPI, style


def save(path: Path, figure: Figure) -> list[Path]:
    """Write `path.png` and `path.svg`, and return both; `path` has no ending.

    Raises:
        NotSavedError: a file cannot be written; names it.
    """
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    drawn = io.BytesIO()
    with style(), saving(paths[1]):
        figure.savefig(drawn, format="png", dpi=DPI)
        figure.savefig(paths[1], metadata={"Date": None})
    # Drawings have few colours: 256 of them are a third of the bytes, in the page as well.
    few = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with saving(paths[0]):
        few.save(paths[0], optimize=True, dpi=(DPI, DPI))
    return paths
