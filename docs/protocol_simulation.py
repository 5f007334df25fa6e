"""What the procedure of docs/protocol.md does when all of it is repeated: coverage, errors, power.

    python docs/protocol_simulation.py          # writes docs/protocol_simulation.csv

Cells, seeds and noise are those of our own sweep of five seeds over 72 cells
(reports/gallery/depth_vs_position_5_seeds): scores are y = cell + seed + cell × seed, with a dev
score that has the same cell × seed part and noise of its own. Two ways to settle a question are
repeated 2,000 times: *one choice, confirmed* (choose on the mean over 3 seeds, score it on 12
fresh ones) and *a seed is a replicate* (choose, charge and score within each seed).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.reports.numbers.statistics import half_width
from harness.reports.numbers.verdict import judge

Array = NDArray[np.float64]
HERE = Path(__file__).parent
SWEEP = HERE.parent / "reports" / "gallery" / "depth_vs_position_5_seeds" / "trials.csv"
REPEATS = 2_000
WORDS = ("better", "worse", "equivalent", "undecided", "not informative")


class World(NamedTuple):
    """What decides scores, in points."""

    cells: Array
    """True means `[cells]`."""
    seed_sd: float
    own_sd: float
    """Of cell × seed."""
    dev_sd: float
    """Of the dev score around the test score's expectation."""

    def draw(self, seeds: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Dev and test scores `[cells, seeds]`."""
        shape = (len(self.cells), seeds)
        common = self.cells[:, None] + rng.normal(0, self.seed_sd, seeds)
        test = common + rng.normal(0, self.own_sd, shape)
        dev = test + rng.normal(0, self.dev_sd, shape)
        return dev, test

    def chosen(self, rng: np.random.Generator) -> float:
        """Expected test score of the choice of one seed: the estimand."""
        dev, test = self.draw(20_000, rng)
        return float(test[dev.argmax(axis=0), np.arange(test.shape[1])].mean())


def calibrated(count: int, rng: np.random.Generator, dev_images: int) -> World:
    """A world of the best `count` cells of our sweep, with a balanced dev set of so many images."""
    trials = pd.read_csv(SWEEP)
    table = trials.pivot_table(
        index=["positions", "depth"], columns="seed", values="test_class_mean"
    ).to_numpy(dtype=float)
    means, seeds = table.mean(axis=1), table.mean(axis=0)
    rest = table - means[:, None] - seeds[None, :] + table.mean()
    own = float(np.sqrt((rest**2).sum() / ((len(means) - 1) * (len(seeds) - 1))))
    level = float(means.mean()) / 100
    noise = 100 * float(np.sqrt(level * (1 - level) / dev_images))
    best = np.sort(means)[-count:]
    return World(rng.permutation(best), float(seeds.std(ddof=1)), own, noise)


def coverage(world: World, seeds: int, rng: np.random.Generator) -> dict[str, float]:
    """How often the 95 % interval of each way covers what it is taken for."""
    truth = world.chosen(rng)
    confirmed, replicated = [], []
    errors = []
    for _ in range(REPEATS):
        dev, _ = world.draw(3, rng)
        place = int(dev.mean(axis=1).argmax())
        _, fresh = world.draw(seeds, rng)
        values = fresh[place]
        # What people read from it: the score of the procedure "choose on 3 seeds".
        confirmed.append((float(values.mean()), half_width(values, 0.95)))
        dev, test = world.draw(seeds, rng)
        values = test[dev.argmax(axis=0), np.arange(seeds)]
        replicated.append((float(values.mean()), half_width(values, 0.95)))
        errors.append(values.mean() - truth)
    of_three = float(np.mean([mean for mean, _ in confirmed]))

    def share(found: list[tuple[float, float]], true: float) -> float:
        return float(np.mean([abs(mean - true) <= width for mean, width in found]))

    return {
        "confirmed": share(confirmed, of_three),
        "replicated": share(replicated, truth),
        "bias": float(np.mean(errors)),
    }


def rates(true: float, sd: float, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Share of every verdict for paired differences of a true mean, in points."""
    words = [judge(rng.normal(true, sd, n)).word for _ in range(REPEATS)]
    return {word: words.count(word) / REPEATS for word in WORDS}


def rows() -> list[dict[str, object]]:
    """Every figure of the protocol that comes from here."""
    rng = np.random.default_rng(0)
    found: list[dict[str, object]] = []
    for cells, dev_images in ((16, 1000), (16, 300), (32, 1500)):
        world = calibrated(cells, rng, dev_images)
        for seeds in (12, 16):
            for way, value in coverage(world, seeds, rng).items():
                name = f"{cells} cells, dev set of {dev_images}, {seeds} seeds"
                found.append({"what": "coverage", "setting": name, "of": way, "value": value})
    for n in (12, 16):
        for sd in (0.95, 1.2, 1.5):
            for true in (0.0, 0.4, 1.0, 1.13, 2.0):
                name = f"true {true:+.2f}, sd {sd:.2f}, {n} seeds"
                for word, value in rates(true, sd, n, rng).items():
                    found.append({"what": "verdict", "setting": name, "of": word, "value": value})
    return found


def write(path: Path) -> None:
    """The table, three digits."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "setting", "of", "value"])
        for row in rows():
            value = row["value"]
            assert isinstance(value, float)
            writer.writerow([row["what"], row["setting"], row["of"], f"{value:.3f}"])


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "protocol_simulation.csv")
