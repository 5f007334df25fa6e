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
from itertools import pairwise
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
    ("runner",),
    ("search", "engines", "export"),
    ("driver", "reports"),
    ("comparison", "archive"),
    ("entry", "bench", "findings"),
    ("harness", "cli", "testing"),
    ("__main__",),
)
"""Lowest first. `harness` is the package's own `__init__`, the import name of `entry`."""


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


def essential(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The imports that do not follow from others: a -> c is left out beside a -> b -> c."""
    names = {name for arrow in arrows for name in arrow}
    reached = {name: _reached(name, arrows) for name in names}
    return {
        (source, target)
        for source, target in arrows
        if not any(
            (source, between) in arrows and target in reached[between]
            for between in names
            if between not in (source, target)
        )
    }


WIDTH, GAP, BEND = 124, 20, 16
"""Pixels: a box's width, the distance of two neighbours, the room that a passing line takes."""
HIGH, STEP, LEFT, TOP = 36, 88, 56, 20
"""Pixels: a box's height, the distance of two layers, and where the first box begins."""
OF_USERS = ("baselines", "studies", "reports")
"""Folders at the top of the repository, linked into the package."""


def draw(arrows: set[tuple[str, str]], path: Path) -> None:
    """Draw the layers, highest first, with a line for every essential import between units."""
    lines = sorted(essential(arrows))
    place = _places(lines)
    boxes: dict[bool, list[str]] = {True: [], False: []}
    names = []
    for name, (x, y) in place.items():
        if ":" not in name:
            box = f'<rect x="{x - WIDTH / 2:g}" y="{y:g}" width="{WIDTH}" height="{HIGH}" rx="6"/>'
            boxes[name in OF_USERS].append(box)
            names.append(f'<text x="{x:g}" y="{y + 23:g}">{name}</text>')
    labels = [
        f'<text x="24" y="{TOP + (len(LAYERS) - 1 - number) * STEP + 23}">{number}</text>'
        for number in range(len(LAYERS))
    ]
    right = max(x for x, _ in place.values()) + WIDTH / 2 + 24
    bottom = TOP + len(LAYERS) * STEP
    note = (
        f"A line is an import; {len(arrows) - len(lines)} of {len(arrows)}, which follow from "
        "others, are left out. Green: folders at the top of the repository."
    )
    shapes = (
        ('fill="none" stroke="#6b7c95" stroke-width="1.3"', [_line(a, place) for a in lines]),
        ('fill="#eef3fa" stroke="#35507a"', boxes[False]),
        ('fill="#e6f4e6" stroke="#3f7a46"', boxes[True]),
        ('fill="#1b2b44"', names),
        ('fill="#8894a6"', labels),
    )
    drawn = "".join(f"<g {style}>\n" + "\n".join(each) + "\n</g>\n" for style, each in shapes)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:g} {bottom}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle">\n'
        f'<rect width="{right:g}" height="{bottom}" fill="white"/>\n{drawn}'
        f'<text x="{right / 2:g}" y="{bottom - 16}" font-size="13" fill="#5b6675">{note}</text>\n'
        "</svg>\n"
    )


def _stops(arrow: tuple[str, str]) -> list[str]:
    """The names that a line joins, from the top: its units and a point in each layer between."""
    source, target = arrow
    between = range(layer(source) - 1, layer(target), -1)
    return [source, *(f"{source}:{target}:{number}" for number in between), target]


def _line(arrow: tuple[str, str], place: dict[str, tuple[float, float]]) -> str:
    stops = [place[name] for name in _stops(arrow)]
    text = f"M{stops[0][0]:g} {stops[0][1] + HIGH:g}"
    for (x1, y1), (x2, y2) in pairwise(stops):
        bend = (y2 - y1 - HIGH) / 2
        text += f" C{x1:g} {y1 + HIGH + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
        text += f" V{y2 + HIGH:g}" if (x2, y2) != stops[-1] else ""
    return f'<path d="{text}"/>'


def _places(lines: list[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Middle of the upper edge of every box, and of every point where a line passes a layer.

    Rows are sorted by where their neighbours are, up and down in turn, so that few lines cross;
    then boxes move towards their neighbours as far as there is room.
    """
    rows = [list(names) for names in LAYERS]
    near: dict[str, dict[int, list[str]]] = {}
    for arrow in lines:
        stops = _stops(arrow)
        for name in stops[1:-1]:
            rows[int(name.rpartition(":")[2])].append(name)
        for upper, lower in pairwise(stops):
            near.setdefault(upper, {}).setdefault(-1, []).append(lower)
            near.setdefault(lower, {}).setdefault(+1, []).append(upper)
    across = {name: float(index) for row in rows for index, name in enumerate(row)}

    def wish(name: str, side: int) -> float:
        towards = near.get(name, {}).get(side, [])
        return sum(across[n] for n in towards) / len(towards) if towards else across[name]

    for turn in range(40):
        side = -1 if turn % 2 else +1
        for row in rows if side == -1 else reversed(rows):
            row.sort(key=lambda name: (wish(name, side), across[name]))
            across.update({name: index - len(row) / 2 for index, name in enumerate(row)})
    for row in rows:
        across.update(_spread(row, {name: 150 * across[name] for name in row}))
    for turn in range(60):
        side = -1 if turn % 2 else +1
        for row in rows if side == -1 else reversed(rows):
            across.update(_spread(row, {name: wish(name, side) for name in row}))
    first = min(x - WIDTH / 2 for name, x in across.items() if ":" not in name)
    return {
        name: (round(across[name] - first + LEFT), TOP + (len(LAYERS) - 1 - number) * STEP)
        for number, row in enumerate(rows)
        for name in row
    }


def _spread(row: list[str], wishes: dict[str, float]) -> dict[str, float]:
    """Places in a row, in order and without overlap, as near to the wishes as that allows.

    Names that would overlap form a group without gaps, placed by the mean of its wishes.
    """
    room = {name: BEND if ":" in name else WIDTH + GAP for name in row}

    def ends(group: list[str]) -> tuple[float, float]:
        """Where a group is to begin and to end."""
        begin, before = 0.0, 0.0
        for name in group:
            begin += (wishes[name] - room[name] / 2 - before) / len(group)
            before += room[name]
        return begin, begin + before

    groups: list[list[str]] = []
    for name in row:
        groups.append([name])
        while len(groups) > 1 and ends(groups[-2])[1] > ends(groups[-1])[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    found: dict[str, float] = {}
    for group in groups:
        at = ends(group)[0]
        for name in group:
            found[name] = at + room[name] / 2
            at += room[name]
    return found


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
