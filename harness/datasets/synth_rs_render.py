"""Drawing the SYNTHETIC benchmark: one geometry, an optical-looking and a SAR-looking domain.

The same bytes on every machine: random numbers come from raw PCG64 integers, and pixels from
elementwise operations that IEEE 754 rounds correctly (+ - * / sqrt, comparisons). No sine,
exponential, matrix product or sum, whose last bit may depend on the library. Owns: pixels. Must not
know: torch.

Shapes: n images, 32 x 32 pixels; an object spans about -1..1 in its own coordinates x and y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from harness.datasets.dota import CLASSES as TARGET_CLASSES

Field = NDArray[np.float64]
"""`[n, 32, 32]`, or `[n, 1, 1]` for one number per image."""

SIZE = 32
SQRT_3 = 1.7320508075688772
CHUNK = 512
"""Images drawn at a time, which bounds memory."""


SOURCE_OBJECTS = (
    "bridge",
    "ground-track-field",
    "harbor",
    "helicopter",
    "large-vehicle",
    "plane",
    "roundabout",
    "ship",
    "small-vehicle",
    "storage-tank",
    "swimming-pool",
    "tennis-court",
)
SOURCE_SCENES = ("crop-rows", "fields", "houses", "forest", "river", "dunes", "crossroads", "coast")
SOURCE_CLASSES = SOURCE_OBJECTS + SOURCE_SCENES


class _Chance:
    """Random numbers made from raw integers of one stream."""

    def __init__(self, seed: int, stream: int) -> None:
        self._bits = np.random.PCG64([seed, stream])

    def uniform(self, n: int, low: float = 0.0, high: float = 1.0, *, size: int = 1) -> Field:
        """`[n, size, size]` numbers in [low, high)."""
        raw = self._bits.random_raw(n * size * size) >> np.uint64(11)
        unit: Field = (raw.astype(np.float64) * 2.0**-53).reshape(n, size, size)
        return low + (high - low) * unit

    def normal(self, n: int, size: int) -> Field:
        """Nearly Gaussian: the sum of four uniforms, centred, with variance 1."""
        total = self.uniform(n, size=size)
        for _ in range(3):
            total = total + self.uniform(n, size=size)
        return (total - 2.0) * SQRT_3

    def smooth(self, n: int, cells: int) -> Field:
        """`[n, 32, 32]` in 0..1: a coarse random grid, bilinearly enlarged."""
        coarse = self.uniform(n, size=cells + 1)
        place = (np.arange(SIZE) + 0.5) * (cells / SIZE)
        low = np.floor(place).astype(np.int64)
        part = place - low
        rows = coarse[:, low, :] * (1 - part)[:, None] + coarse[:, low + 1, :] * part[:, None]
        smooth: Field = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
        return smooth


# Signed distances, negative inside, in object units.


def _box(x: Field, y: Field, a: float, b: float) -> Field:
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def _disc(x: Field, y: Field, r: float) -> Field:
    return np.sqrt(x * x + y * y) - r


def _outline(distance: Field, width: float) -> Field:
    return np.abs(distance) - width


def _any(*shapes: Field) -> Field:
    result = shapes[0]
    for shape in shapes[1:]:
        result = np.minimum(result, shape)
    return result


def _repeat(x: Field, period: float) -> Field:
    return x - period * np.rint(x / period)


Shape = Callable[[Field, Field], tuple[Field, Field]]
"""Coordinates -> distances of the body and of its bright details."""


def _ship(x: Field, y: Field) -> tuple[Field, Field]:
    bow = np.clip(x, 0.0, 1.0)
    hull = np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.3 * (1.0 - bow * bow))
    return hull, _any(_box(x + 0.55, y, 0.18, 0.17), _box(x - 0.1, y, 0.3, 0.05))


def _small_vehicle(x: Field, y: Field) -> tuple[Field, Field]:
    return _box(x, y, 0.5, 0.27), _box(x - 0.12, y, 0.1, 0.2)


def _large_vehicle(x: Field, y: Field) -> tuple[Field, Field]:
    trailer, cab = _box(x + 0.18, y, 0.72, 0.25), _box(x - 0.82, y, 0.16, 0.21)
    return _any(trailer, cab), _box(x + 0.18, y, 0.6, 0.05)


def _plane(x: Field, y: Field) -> tuple[Field, Field]:
    body = _box(x, y, 1.0, 0.12)
    wings = np.maximum(np.abs(x - 0.15 + 0.45 * np.abs(y)) - 0.17, np.abs(y) - 0.95)
    tail = np.maximum(np.abs(x + 0.8 + 0.4 * np.abs(y)) - 0.11, np.abs(y) - 0.38)
    return _any(body, wings, tail), _box(x - 0.1, y, 0.7, 0.05)


def _harbor(x: Field, y: Field) -> tuple[Field, Field]:
    quay = _box(x, y + 0.85, 1.2, 0.2)
    piers = np.maximum(np.abs(_repeat(x, 0.55)) - 0.1, np.abs(y + 0.1) - 0.75)
    boats = np.maximum(np.abs(_repeat(x - 0.27, 0.55)) - 0.07, np.abs(_repeat(y, 0.5)) - 0.14)
    return _any(quay, piers), np.maximum(boats, np.abs(y + 0.1) - 0.7)


def _storage_tank(x: Field, y: Field) -> tuple[Field, Field]:
    return _disc(x, y, 0.75), _disc(x + 0.2, y + 0.1, 0.2)


def _court(a: float, b: float, x: Field, y: Field) -> tuple[Field, Field]:
    ground = _box(x, y, a, b)
    return ground, _any(_outline(ground + 0.1, 0.045), np.maximum(np.abs(x) - 0.045, ground))


def _tennis(x: Field, y: Field) -> tuple[Field, Field]:
    ground, lines = _court(0.9, 0.5, x, y)
    service = np.maximum(np.abs(np.abs(x) - 0.42) - 0.045, np.abs(y) - 0.4)
    return ground, _any(lines, service, _box(x, y, 0.42, 0.04))


def _basketball(x: Field, y: Field) -> tuple[Field, Field]:
    ground, lines = _court(0.9, 0.5, x, y)
    keys = _outline(_disc(np.abs(x) - 0.8, y, 0.35), 0.045)
    return ground, _any(lines, np.maximum(keys, ground), _outline(_disc(x, y, 0.18), 0.04))


def _soccer(x: Field, y: Field) -> tuple[Field, Field]:
    ground, lines = _court(1.05, 0.68, x, y)
    boxes = np.maximum(_outline(_box(np.abs(x) - 0.95, y, 0.25, 0.33), 0.045), ground)
    return ground, _any(lines, boxes, _outline(_disc(x, y, 0.25), 0.045))


def _track(x: Field, y: Field) -> tuple[Field, Field]:
    stadium = _disc(np.maximum(np.abs(x) - 0.45, 0.0), y, 0.6)
    return _outline(stadium, 0.13), _box(x, y, 0.4, 0.3)


def _bridge(x: Field, y: Field) -> tuple[Field, Field]:
    deck = _box(x, y, 2.5, 0.17)
    return deck, np.maximum(np.abs(np.abs(y) - 0.17) - 0.04, np.abs(x) - 0.75)


def _pool(x: Field, y: Field) -> tuple[Field, Field]:
    water = _any(_disc(x + 0.3, y, 0.36), _disc(x - 0.3, y - 0.1, 0.42), _box(x, y, 0.3, 0.3))
    return water, _outline(water, 0.06)


def _helicopter(x: Field, y: Field) -> tuple[Field, Field]:
    body = _disc(x / 1.4 - 0.15, y, 0.28)
    boom = _any(_box(x + 0.55, y, 0.5, 0.06), _box(x + 1.0, y, 0.05, 0.2))
    u, v = (x - 0.2) + y, (x - 0.2) - y
    return _any(body, boom), _any(_box(u, v, 1.1, 0.06), _box(u, v, 0.06, 1.1))


def _baseball(x: Field, y: Field) -> tuple[Field, Field]:
    u, v = x + 0.5, y + 0.5
    field = np.maximum(np.maximum(-u, -v), _disc(u, v, 1.35))
    return field, _outline(_box(u - 0.32, v - 0.32, 0.3, 0.3), 0.06)


def _roundabout(x: Field, y: Field) -> tuple[Field, Field]:
    ring = _outline(_disc(x, y, 0.55), 0.14)
    roads = np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.12, 0.5 - np.sqrt(x * x + y * y))
    return _any(ring, roads), _disc(x, y, 0.2)


OBJECTS: dict[str, Shape] = {
    "baseball-diamond": _baseball,
    "basketball-court": _basketball,
    "bridge": _bridge,
    "ground-track-field": _track,
    "harbor": _harbor,
    "helicopter": _helicopter,
    "large-vehicle": _large_vehicle,
    "plane": _plane,
    "roundabout": _roundabout,
    "ship": _ship,
    "small-vehicle": _small_vehicle,
    "soccer-ball-field": _soccer,
    "storage-tank": _storage_tank,
    "swimming-pool": _pool,
    "tennis-court": _tennis,
}


def _scene(name: str, x: Field, y: Field, chance: _Chance) -> tuple[Field, Field]:
    """Distances of a scene's two materials; scenes fill the frame and show no object."""
    n = len(x)
    if name == "crop-rows":
        return np.abs(_repeat(x, 0.36)) - 0.1, np.abs(_repeat(y, 1.1)) - 0.05
    if name == "fields":
        return np.maximum(_repeat(x, 1.3), _repeat(y, 0.9)), np.abs(_repeat(x, 1.3)) - 0.06
    if name == "houses":
        a, b = _repeat(x, 0.7), _repeat(y, 0.6)
        return _box(a, b, 0.22, 0.16), _box(a, b, 0.2, 0.03)
    if name == "forest":
        bumps = chance.smooth(n, 10) - 0.5
        return 0.5 * bumps, 0.5 * (bumps + 0.2)
    if name == "river":
        bend = y + 0.5 * x * x * chance.uniform(n, -1.0, 1.0)
        return np.abs(bend) - 0.3, np.abs(np.abs(bend) - 0.3) - 0.06
    if name == "dunes":
        wave = y + 0.4 * x * x + 0.3 * (chance.smooth(n, 3) - 0.5)
        return np.abs(_repeat(wave, 0.5)) - 0.14, np.abs(_repeat(wave, 0.5) - 0.14) - 0.04
    if name == "crossroads":
        return np.minimum(np.abs(x), np.abs(y)) - 0.16, np.minimum(np.abs(x), np.abs(y)) - 0.03
    edge = y + 0.5 * (chance.smooth(n, 4) - 0.5)
    return edge, np.abs(edge) - 0.08


def _pose(n: int, chance: _Chance, size: tuple[float, float]) -> tuple[Field, Field, Field]:
    """Object coordinates under a random turn, scale, aspect and shift; and pixels per unit."""
    t = chance.uniform(n, -0.41421356, 0.41421356)  # tan of an eighth: with quarter turns, a circle
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    turn = chance.uniform(n)
    cos, sin = (
        np.where(turn < 0.25, cos, np.where(turn < 0.5, -sin, np.where(turn < 0.75, -cos, sin))),
        np.where(turn < 0.25, sin, np.where(turn < 0.5, cos, np.where(turn < 0.75, -sin, -cos))),
    )
    scale = chance.uniform(n, *size)
    aspect = chance.uniform(n, 0.85, 1.18)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    u = axis[None, None, :] - chance.uniform(n, -2.5, 2.5)
    v = axis[None, :, None] - chance.uniform(n, -2.5, 2.5)
    x, y = (cos * u + sin * v) / scale, (cos * v - sin * u) / (scale * aspect)
    return x, y, scale


def _shapes(
    names: list[str], labels: NDArray[np.int64], chance: _Chance, size: tuple[float, float]
) -> tuple[Field, Field]:
    """Soft-edged coverage in 0..1 of bodies and of details, `[n, 32, 32]`."""
    x, y, scale = _pose(len(labels), chance, size)
    body, detail = np.zeros_like(x), np.zeros_like(x)
    for index, name in enumerate(names):
        rows = labels == index
        if not rows.any():
            continue
        a, b = x[rows], y[rows]
        parts = OBJECTS[name](a, b) if name in OBJECTS else _scene(name, a, b, chance)
        for target, distance in zip((body, detail), parts, strict=True):
            target[rows] = np.clip(0.5 - distance * scale[rows], 0.0, 1.0)
    return body, detail


def _shift(image: Field, rows: int, columns: int) -> Field:
    """The image moved down and right; what comes into view is empty."""
    moved = np.zeros_like(image)
    moved[:, rows:, columns:] = image[:, : SIZE - rows, : SIZE - columns]
    return moved


def _chunks(labels: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for start in range(0, len(labels), CHUNK):
        yield start // CHUNK, labels[start : start + CHUNK]


def _bytes(image: Field) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def render_source(labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Optical-looking RGB images `[n, 3, 32, 32]` of `SOURCE_CLASSES[labels]`."""
    out = np.empty((len(labels), 3, SIZE, SIZE), dtype=np.uint8)
    for part, some in _chunks(labels):
        chance = _Chance(seed, 2 * part)
        n = len(some)
        body, detail = _shapes(list(SOURCE_CLASSES), some, chance, (8.0, 13.0))
        texture = chance.smooth(n, 6) - 0.5
        light = 1.0 + 0.25 * (chance.smooth(n, 1) - 0.5)
        shadow = np.maximum(_shift(body, 2, 1) - body, 0.0) * chance.uniform(n, 0.0, 0.6)
        clutter = (chance.smooth(n, 9) > 0.8) * chance.uniform(n, 0.0, 0.3)
        grays = [chance.uniform(n, *span) for span in ((0.2, 0.65), (0.1, 0.9), (0.15, 0.95))]
        for channel in range(3):
            ground, paint, marks = (gray + chance.uniform(n, -0.15, 0.15) for gray in grays)
            ground = ground + 0.25 * texture
            image = (ground + clutter) * (1 - body) + paint * body
            image = image * (1 - detail) + marks * detail
            image = image * (1 - shadow) * light + 0.03 * chance.normal(n, SIZE)
            out[part * CHUNK : part * CHUNK + n, channel] = _bytes(image)
    return out


def render_target(labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """SAR-looking images `[n, 3, 32, 32]` of `TARGET_CLASSES[labels]`: one band, three times."""
    out = np.empty((len(labels), 3, SIZE, SIZE), dtype=np.uint8)
    for part, some in _chunks(labels):
        chance = _Chance(seed, 2 * part + 1)
        n = len(some)
        body, detail = _shapes(list(TARGET_CLASSES), some, chance, (8.0, 13.0))
        # The radar looks from the left: edges facing it shine, what lies behind is in shadow.
        facing = np.maximum(body - _shift(body, 0, 1), 0.0)
        shadow = np.maximum(_shift(body, 0, 3) - body, 0.0)
        clutter = 0.2 + 0.35 * chance.smooth(n, 5)
        echo = clutter * (1 - 0.7 * shadow) * (1 - body) + chance.uniform(n, 1.0, 1.6) * body
        echo = echo + chance.uniform(n, 0.5, 1.5) * facing + chance.uniform(n, 0.4, 1.2) * detail
        scatterers = chance.uniform(n, size=SIZE) > 0.995
        echo = echo + 1.5 * scatterers
        # Single-look speckle: the modulus of a complex Gaussian, times the echo.
        real, imaginary = chance.normal(n, SIZE), chance.normal(n, SIZE)
        speckle = np.sqrt((real * real + imaginary * imaginary) / 2)
        amplitude = echo * speckle * chance.uniform(n, 0.35, 0.65)
        out[part * CHUNK : part * CHUNK + n] = _bytes(amplitude)[:, None]
    return out
