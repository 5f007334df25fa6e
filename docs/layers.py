"""The packages in layers, made from the imports that stand in the code.

    python docs/layers.py            # layers, upward imports and circles, as text
    python docs/layers.py --draw     # the same as a picture, docs/layers.svg

A unit is a package of `harness/` or one of its own modules. `LAYERS` says which unit belongs to
which layer; a unit imports from lower layers and from itself. Every import counts, also those
inside functions and those for type checkers. Files are read as text, so nothing is installed.
`tests/test_layering.py` holds that there is no upward import and no circle.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "layers.svg"

LAYERS = (
    ("version", "errors", "rng", "console"),
    ("spec", "registry"),
    ("metrics", "data", "model"),
    ("study", "insertion", "datasets"),
    ("studies", "catalogue", "store", "training", "baselines"),
    ("runner", "export"),
    ("search", "engines"),
    ("driver", "reports"),
    ("harness", "comparison"),
    ("bench",),
    ("cli",),
)
"""Lowest first. `harness` is the package's own `__init__`, the entry from Python."""


class Import(NamedTuple):
    """A module that imports another."""

    source: str
    target: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by name, with those in folders that are links."""
    found = {}
    for path in _files(ROOT / "harness"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            yield from _files(path)
        elif path.suffix == ".py":
            yield path


def imports(known: dict[str, Path]) -> list[Import]:
    """Every import of one of these modules by another, wherever in the file it stands."""
    found = []
    for source, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in known else node.module for name in inside]
            found += [
                Import(source, target, getattr(node, "lineno", 0))
                for target in sorted(set(targets))
                if target in known and target != source
            ]
    return found


def unit(module: str) -> str:
    """The package or module of `harness/` that a module belongs to."""
    return module.split(".")[1] if "." in module else "harness"


def layer(name: str) -> int:
    """The layer of a unit.

    Raises:
        LookupError: it has none yet.
    """
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise LookupError(f"give {name} a layer in docs/layers.py")


def between(every: list[Import]) -> set[tuple[str, str]]:
    """Which unit imports which other."""
    return {(unit(i.source), unit(i.target)) for i in every if unit(i.source) != unit(i.target)}


def upward(every: list[Import]) -> list[Import]:
    """Imports of a unit in a higher layer, or of another unit in the same one."""
    return [
        i
        for i in every
        if unit(i.source) != unit(i.target) and layer(unit(i.target)) >= layer(unit(i.source))
    ]


def circles(arrows: set[tuple[str, str]]) -> list[list[str]]:
    """Groups of names that all reach each other."""
    names = {name for arrow in arrows for name in arrow}
    reached = {name: _reached(name, arrows) for name in names}
    groups = {frozenset(n for n in reached[name] if name in reached[n]) for name in names}
    return sorted(sorted(group) for group in groups if group)


def _reached(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        source = left.pop()
        new = {target for name, target in arrows if name == source} - found
        found |= new
        left += new
    return found


def draw(arrows: set[tuple[str, str]], path: Path) -> None:
    """Draw the layers, highest first, with a line for every import between units."""
    width, gap, height, left = 118, 24, 84, 92
    place: dict[str, tuple[float, float]] = {}
    widest = max(len(names) for names in LAYERS)
    for number, names in enumerate(LAYERS):
        indent = (widest - len(names)) * (width + gap) / 2 + (number % 2) * (width + gap) / 4
        for index, name in enumerate(names):
            x = left + indent + index * (width + gap)
            place[name] = (x, 24 + (len(LAYERS) - 1 - number) * height)
    lines, boxes = [], []
    for source, target in sorted(arrows):
        (x1, y1), (x2, y2) = place[source], place[target]
        x1, x2, y1 = x1 + width / 2, x2 + width / 2, y1 + 34
        bend = (y2 - y1) / 2
        lines.append(
            f'<path d="M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'
        )
    for name, (x, y) in place.items():
        boxes.append(f'<rect x="{x:g}" y="{y:g}" width="{width}" height="34" rx="6"/>')
        boxes.append(f'<text x="{x + width / 2:g}" y="{y + 22:g}">{name}</text>')
    total = left + widest * (width + gap) + width / 2
    tall = len(LAYERS) * height
    labels = "".join(
        f'<text x="40" y="{46 + (len(LAYERS) - 1 - n) * height}">{n}</text>'
        for n in range(len(LAYERS))
    )
    parts = (
        ('fill="none" stroke="#7a8aa0" stroke-opacity=".45"', lines),
        ('fill="#eef3fa" stroke="#35507a"', [box for box in boxes if box.startswith("<rect")]),
        ('fill="#1b2b44"', [*(box for box in boxes if box.startswith("<text")), labels]),
    )
    groups = "".join(f"<g {style}>\n" + "\n".join(shapes) + "\n</g>\n" for style, shapes in parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:g} {tall}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle">\n'
        f'<rect width="{total:g}" height="{tall}" fill="white"/>\n{groups}</svg>\n'
    )


def main() -> None:
    """Print the layers; with `--draw`, draw them too."""
    known = modules()
    every = imports(known)
    arrows = between(every)
    units = {unit(name) for name in known}
    for number in reversed(range(len(LAYERS))):
        print(f"{number:>2}  {'  '.join(LAYERS[number])}")
    print(f"{len(units)} units in {len(LAYERS)} layers, {len(arrows)} imports between them")
    found = upward(every)
    print(f"{len(found)} upward imports")
    for each in found:
        print(f"    {each.source}:{each.line} imports {each.target}")
    for kind, pairs in (("units", arrows), ("modules", {(i.source, i.target) for i in every})):
        groups = circles(pairs)
        print(f"{len(groups)} circles of {kind}")
        for group in groups:
            print(f"    {', '.join(group)}")
    if "--draw" in sys.argv[1:]:
        draw(arrows, PICTURE)


if __name__ == "__main__":
    main()
