"""How `recommend` does on the tables that ship: `python -m harness.findings.recommended`.

Its plan is followed within every seed of a table, by the same code as live, and nothing is trained.
A table's space is not that of a live plan: where it stands in for it, `ORDER` says how. Owns: this
judgement, and its folder in the gallery. Must not know: how a plan is made, how tables are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import JsonValue

from harness.reports.numbers.random_search import expected_by_cost, in_steps
from harness.reports.numbers.statistics import half_width, mean_and_half_width
from harness.reports.numbers.verdict import judge
from harness.reports.text.numbers import signed, with_interval
from harness.search.recommend import Key, Steps
from harness.store.shipped import file_of
from harness.store.table import Table, read_table
from harness.study.axes import in_a_list
from harness.study.space import Values, cell_key

FOLDER = Path(__file__).parents[2] / "reports" / "gallery" / "recommend"
BUDGETS = (3.0, 5.0, 8.0)
"""In full runs."""
SHOWN_BUDGET = 5.0
"""The command's default."""
ORDER: dict[str, tuple[str, ...]] = {
    "where": ("all", "all, last 6", "MLP1", "ATTN", "Q+V"),
    "positions": ("mlp1", "mlp2", "q", "k", "v", "out"),
}
"""Field of a table's axis -> its values, as a live plan would try them. A table of single positions
has no place that is wider than one of the MLP's."""
PLAIN = {"where": ("Q+V",), "positions": ("q", "v")}
"""Where LoRA is by default elsewhere, in all blocks."""
ALPHA = 4.0
"""Of the plan's first training and of the defaults; with rank 4, peft's own default scale of 1."""
WHOLE, HALF = "last:12", "last:6"


class Chosen(NamedTuple):
    """What the plan comes to in one seed of a table."""

    seed: int
    cell: str
    trainings: int
    runs: float
    test: float
    """Class mean, percent; so are the next ones."""
    best: float
    """The highest of any cell in this seed, which only hindsight knows; chance is in it."""
    fixed: float
    """Of the cell whose mean over all seeds is highest, which only hindsight knows, too."""
    exhausted: float
    """Of the choice on validation among all cells of the table."""
    random: float
    """Expected of random search within the same budget, in closed form."""
    defaults: tuple[float, ...]


class Judge:
    """A table, made ready to follow plans in."""

    def __init__(self, table: Table) -> None:
        study, last = table.info.study, table.trials
        self.seeds = study.seeds
        rows = pd.DataFrame(
            {
                "cell": last["cell"],
                "seed": last["seed"],
                "select": table.final_worths(study.objective),
                "test": table.tests,
                "flops": last["flops"],
            }
        )
        own = {cell_key(cell) for cell in study.cells()}
        self.rows = rows[rows["cell"].isin(own) & rows["seed"].isin(study.seeds)]
        self.fixed = str(self.rows.groupby("cell", sort=False)["test"].mean().idxmax())
        axes = {axis.field: axis.values for axis in study.axes}
        [field] = [name for name in ORDER if name in axes]
        first, *others = [value for value in ORDER[field] if value in axes[field]]
        depths = (WHOLE, HALF) if "depth" in axes else (None,)
        places = [_cell({field: first, "depth": depth}) for depth in depths]
        places += [_cell({field: name, "depth": depths[0]}) for name in others]
        strengths = _strengths(axes["alpha"], axes.get("recipe.lr", (None,)))
        start = next(n for n, each in enumerate(strengths) if each["alpha"] == ALPHA)
        self.plain = {
            f"{name}, α = {ALPHA:g}": _cell({field: name, "depth": depths[0]}) | strengths[start]
            for name in (first, *PLAIN[field])
        }
        flops = [self._flops({**place, **strengths[start]}) for place in places]
        self.full = flops[0]
        self.steps = Steps(
            places=tuple(places),
            strengths=strengths,
            runs=tuple(each / self.full for each in flops),
            start=start,
            stride=1,  # neighbours are a factor of 4 in α² × rate apart already
        )

    def chosen(self, seed: int, budget: float) -> Chosen:
        """Follow the plan in a seed; see `Chosen`."""
        own = self.rows[self.rows["seed"] == seed].set_index("cell")
        scores, flops = own["select"].to_dict(), own["flops"].to_dict()
        told: dict[Key, float] = {}
        spent = 0.0
        while wave := self.steps.wave(told, budget - spent, count_trials=False):
            for key in wave:
                cell = cell_key(self.steps.cell(key))
                told[key] = float(scores[cell])
                spent += float(flops[cell]) / self.full
        best = cell_key(self.steps.cell(max(told, key=told.__getitem__)))
        tests = own["test"]
        costs, limit = in_steps((own["flops"] / self.full).to_numpy(float), budget)
        select, values = own["select"].to_numpy(float), tests.to_numpy(float)[None]
        expected, _ = expected_by_cost(select, values, costs, costs, limit)
        return Chosen(
            seed=seed,
            cell=best,
            trainings=len(told),
            runs=spent,
            test=float(tests[best]),
            best=float(tests.max()),
            fixed=float(tests[self.fixed]),
            exhausted=float(tests[str(own["select"].idxmax())]),
            random=float(expected[0, -1]),
            defaults=tuple(float(tests[cell_key(cell)]) for cell in self.plain.values()),
        )

    def _flops(self, cell: Values) -> float:
        """The most of any seed; one that diverged took fewer."""
        return float(self.rows.loc[self.rows["cell"] == cell_key(cell), "flops"].max())


def _cell(fields: dict[str, JsonValue]) -> Values:
    return {field: value for field, value in fields.items() if value is not None}


def _strengths(alphas: Sequence[Any], rates: Sequence[Any]) -> tuple[Values, ...]:
    """Every pair, by rising α² × rate; of equal ones the smaller rate first."""
    pairs = [(alpha, rate) for rate in rates for alpha in alphas]
    pairs.sort(key=lambda pair: pair[0] ** 2 * (pair[1] or 1.0))
    return tuple(_cell({"alpha": alpha, "recipe.lr": rate}) for alpha, rate in pairs)


def judged(name: str, table: Table) -> pd.DataFrame:
    """A row per budget and seed of a table, as `Chosen` has it, a column for each default."""
    judge_ = Judge(table)
    rows = []
    for budget in BUDGETS:
        for seed in judge_.seeds:
            found = judge_.chosen(seed, budget)._asdict()
            plain = dict(zip(judge_.plain, found.pop("defaults"), strict=True))
            rows.append({"table": name, "budget": budget, **found, **plain})
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per budget and what the choice is held against: mean difference in points, the 95 %
    half-width over seeds (NaN with one), and the verdict of `harness.reports.numbers.verdict`:
    none with one seed, and none against `best`, which nothing can be better than."""
    known = ("table", "budget", "seed", "cell", "trainings", "runs", "test")
    found = []
    for budget, own in rows.groupby("budget"):
        for other in [column for column in rows if column not in known]:
            differences = (own["test"] - own[other]).to_numpy(float)
            is_judged = len(differences) > 1 and other != "best"
            found.append(
                {
                    "budget": budget,
                    "against": other,
                    "points": differences.mean(),
                    "half_width": half_width(differences, 0.95),
                    "verdict": judge(differences).word if is_judged else "",
                }
            )
    return pd.DataFrame(found)


TEXT = """# Recommendations, judged on the tables of LoRA that ship

Made by `python -m harness.findings.recommended`, which trains nothing: the plan of `harness
recommend` is followed within every seed of a table, chooses on its validation scores, and is held
against what else could have been had. Differences are in points of test class mean, the plan minus
the other, with 95 % intervals over seeds and the verdict of the rule of the
[protocol](../../../docs/protocol.md), by which fewer than six seeds are not informative. There are
too few tables to say anything of tasks in general, so nothing is pooled. `choices.csv` has every
seed, `judged.csv` every budget. [live.md](live.md) is what the command printed on real images.

- *best*: the highest test score of any cell in the same seed, which only hindsight knows. The
  difference is minus the plan's regret, which nothing is judged by; a maximum over many cells has
  their chance in it.
- *fixed*: the one cell whose test score is highest on average over seeds, also by hindsight.
- *exhausted*: the choice on validation among all cells of the table, whatever they cost.
- *random*: random search within the same budget, in closed form.
- The others are defaults: one training each.

{tables}
"""
NOTES = {
    "joint_space": "SYNTHETIC, three seeds of training. Single positions alone: MLP1 in all blocks "
    "stands in for every linear map, and α for the rate. The rate, batch and crop of this table "
    "were fixed at MLP1 in all blocks and α = 4 with test scores in view. There the plan begins, "
    "to its gain.",
    "synth_rs": "SYNTHETIC, sixteen seeds, each a replicate of the whole procedure. Its rates lie "
    "around one that a pilot on another seed chose at every linear map and α = 4, where the plan "
    "begins.",
    "mstar": "Not synthetic: MSTAR, twelve seeds, each a replicate of the whole procedure. Its "
    "rates lie around one that a pilot on another seed chose, as those of synth_rs do.",
    "aid": "Not synthetic: AID, twelve seeds, each a replicate of the whole procedure. Its "
    "rates lie around one that a pilot on another seed chose, as those of synth_rs do.",
}


def section(name: str, rows: pd.DataFrame) -> str:
    """What the gallery's page says of a table, of the rows of `judged`."""
    own = rows[rows["budget"] == SHOWN_BUDGET]
    lines = [
        f"| {row['against']} | {signed(row['points'], row['half_width'])} | {row['verdict']} |"
        for row in summary(own).to_dict("records")
    ]
    cells = [_words(cell, count) for cell, count in Counter(own["cell"]).most_common()]
    mean, half = mean_and_half_width(own["test"])
    return (
        f"## {name}\n\n{NOTES[name]}\n\nWithin {SHOWN_BUDGET:g} runs: "
        f"{own['trainings'].mean():.1f} trainings, {own['runs'].mean():.2f} runs spent, "
        f"{with_interval(mean, half)} % test class mean. Chosen: {'; '.join(cells)}.\n\n"
        "| against | points | verdict |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def _words(cell: str, count: int) -> str:
    words = ", ".join(f"{field} {in_a_list(value)}" for field, value in json.loads(cell).items())
    return words if count == 1 else f"{words} ({count} seeds)"


def texts(tables: Mapping[str, Table]) -> dict[str, str]:
    """Name of a file of the folder -> its content."""
    found = {name: judged(name, table) for name, table in tables.items()}
    every = pd.concat(found.values(), ignore_index=True)
    sums = [summary(rows).assign(table=name) for name, rows in found.items()]
    files = {"choices.csv": every, "judged.csv": pd.concat(sums, ignore_index=True)}
    made = {
        name: frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        for name, frame in files.items()
    }
    parts = [section(name, rows) for name, rows in found.items()]
    return made | {"report.md": TEXT.format(tables="\n".join(parts).rstrip())}


def table_named(name: str) -> Table:
    """A table that ships."""
    return read_table(file_of(name))


def main() -> None:
    """Write the folder anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts({name: table_named(name) for name in NOTES}).items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
