"""The paper's averages, recomputed from its own cells: which rule gives which printed number.

Owns: the rules and the verdicts. Must not know: our results. Everything is computed from
`baselines/paper/*.csv`, in decimal arithmetic, because what matters is the last printed digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from importlib import resources
from itertools import combinations
from statistics import mean
from typing import Literal, NamedTuple

import pandas as pd

TABLES = {
    "Table 1": "table1",
    "Table 2": "table2",
    "Table 3": "table3",
    "Table 4": "table4",
    "Table 6": "table6",
    "Table S1": "table_s1",
    "Table S3": "table_s3",
    "Table S4": "table_s4",
    "Table S5": "table_s5",
    "Table S6": "table_s6",
}
"""Those that print averages."""
GROUPS = ("head", "medium", "tail")

Verdict = Literal["rounded", "half", "truncated", "differs"]
"""The rule's value is printed rounded; it lies half way between two printable numbers and the lower
one is printed; the digits after the printed ones were cut off; or it is another number."""

Cells = dict[str, tuple[Decimal | None, ...]]
"""Dataset -> accuracies of its groups, None where the table has no such group."""


class Row(NamedTuple):
    """A row of a table: its cells and what is printed beside them."""

    name: str
    cells: Cells
    printed: dict[str, str]
    """`average`, `tail` (mean over datasets) or `drop`, as far as the table has them."""


class Checked(NamedTuple):
    """One printed average under one rule."""

    table: str
    row: str
    of: str
    rule: str
    printed: str
    computed: Decimal
    verdict: Verdict


class Clash(NamedTuple):
    """Two rows of the same cells, with different names or averages."""

    dataset: str
    """`all`: the cells agree on every dataset of both."""
    one: str
    other: str


Rule = Callable[[Cells], Decimal]


def class_mean(cells: Cells) -> Decimal:
    """Mean over the classes of a single dataset: groups weighted by their numbers of classes."""
    (dataset,) = cells
    return _class_mean(dataset, cells[dataset])


def group_mean(cells: Cells) -> Decimal:
    """Mean over the groups of a single dataset."""
    (dataset,) = cells
    return mean(_known(cells[dataset]))


def flat_mean(cells: Cells) -> Decimal:
    """Mean over all printed cells of several datasets."""
    return mean(value for groups in cells.values() for value in _known(groups))


def mean_of_class_means(cells: Cells) -> Decimal:
    """Mean over datasets of the mean over each one's classes."""
    return mean(_class_mean(dataset, groups) for dataset, groups in cells.items())


def mean_of_group_means(cells: Cells) -> Decimal:
    """Mean over datasets of the mean over each one's groups (where all have the same, flat)."""
    return mean(mean(_known(groups)) for groups in cells.values())


def tail_mean(cells: Cells) -> Decimal:
    """Mean over datasets of their tails."""
    return mean(tail for *_, tail in cells.values() if tail is not None)


RULES_OF_ONE: tuple[Rule, ...] = (class_mean, group_mean)
RULES_OF_SEVERAL: tuple[Rule, ...] = (flat_mean, mean_of_group_means, mean_of_class_means)


def check() -> list[Checked]:
    """Every printed average under every rule that could have made it."""
    return [each for table in TABLES for each in _check_table(table, read_rows(table))]


def _check_table(table: str, rows: list[Row]) -> Iterator[Checked]:
    averages = RULES_OF_ONE if len(rows[0].cells) == 1 else RULES_OF_SEVERAL
    for row in rows:
        for of, printed in row.printed.items():
            values: dict[str, Decimal]
            if of == "drop":
                values = _drops(rows, row)
            else:
                rules = averages if of == "average" else (tail_mean,)
                values = {words(rule.__name__): rule(row.cells) for rule in rules}
            for name, value in values.items():
                yield Checked(table, row.name, of, name, printed, value, compare(value, printed))


def _drops(rows: list[Row], row: Row) -> dict[str, Decimal]:
    """Distance to the table's best, of the tail and of the printed average."""
    best = max(Decimal(each.printed["average"]) for each in rows)
    loss = best - Decimal(row.printed["average"])
    best_tail = max(_tail(each) for each in rows)
    return {
        "loss of average, percent of the best": 100 * loss / best,
        "loss of average, points": loss,
        "change of tail, points": _tail(row) - best_tail,
    }


def _tail(row: Row) -> Decimal:
    (groups,) = row.cells.values()
    tail = groups[-1]
    assert tail is not None
    return tail


def compare(value: Decimal, printed: str) -> Verdict:
    """How a rule's value relates to a printed number."""
    wanted = Decimal(printed)
    step = Decimal(1).scaleb(int(wanted.as_tuple().exponent))
    if value.quantize(step, ROUND_HALF_UP) == wanted:
        return "rounded"
    below = value - wanted
    if below == step / 2 or value.quantize(step, ROUND_HALF_EVEN) == wanted:
        return "half"
    return "truncated" if 0 < below < step else "differs"


def by_table(checked: list[Checked]) -> pd.DataFrame:
    """One row per table and printed quantity: the best rules, what they give, and all others."""
    best, missed = best_rules(checked), exceptions(checked)
    rows = []
    for (table, of), rules in best.items():
        own = [each for each in checked if (each.table, each.of) == (table, of)]
        wrong = [each for each in missed if (each.table, each.of) == (table, of)]
        count = sum(each.rule == rules[0] for each in own)
        others = [rule for rule in dict.fromkeys(each.rule for each in own) if rule not in rules]
        rows.append(
            {
                "table": table,
                "printed": of,
                "rule": " or ".join(rules),
                "gives": f"{count - len(wrong)} of {count}",
                "not to rounding": "; ".join(
                    f"{e.row} {e.printed} is {e.computed.normalize():f}, {e.verdict}" for e in wrong
                ),
                "others tried": "; ".join(
                    f"{rule} {sum(e.rule == rule and e.verdict == 'rounded' for e in own)}"
                    for rule in others
                ),
            }
        )
    return pd.DataFrame(rows)


def best_rules(checked: list[Checked]) -> dict[tuple[str, str], list[str]]:
    """(table, printed quantity) -> the rules that fit it best, several where cells cannot tell."""
    misses: dict[tuple[str, str], dict[str, int]] = {}
    for each in checked:
        rules = misses.setdefault((each.table, each.of), {})
        rules[each.rule] = rules.get(each.rule, 0) + (each.verdict != "rounded")
    return {
        key: [rule for rule, count in rules.items() if count == min(rules.values())]
        for key, rules in misses.items()
    }


def mixture(checked: list[Checked]) -> dict[str, list[str]]:
    """Rule -> the tables whose averages it gives; more than one rule where the paper mixes them."""
    rules: dict[str, list[str]] = {}
    for (table, of), names in best_rules(checked).items():
        if of == "average":
            rules.setdefault(names[0], []).append(table)
    return rules


def exceptions(checked: list[Checked]) -> list[Checked]:
    """The printed numbers that their table's best rule does not give to rounding."""
    best = best_rules(checked)
    return [
        each
        for each in checked
        if each.verdict != "rounded" and each.rule == best[each.table, each.of][0]
    ]


def clashes() -> list[Clash]:
    """Rows of the same cells on every common dataset whose averages differ, then cells of one
    dataset that stand under different names."""
    rows = [(table, row) for table in TABLES for row in read_rows(table)]
    pairs = list(combinations(rows, 2))
    averages = [
        Clash("all", _said(one, "average"), _said(other, "average"))
        for one, other in pairs
        if one[1].cells == other[1].cells and _differ(one[1], other[1])
    ]
    names = [
        Clash(dataset, _said(one), _said(other))
        for one, other in pairs
        for dataset in one[1].cells.keys() & other[1].cells.keys()
        if one[1].cells[dataset] == other[1].cells[dataset]
        and one[1].name.lower() != other[1].name.lower()
    ]
    return averages + sorted(names)


def _differ(one: Row, other: Row) -> bool:
    """The averages are not the same number, printed to the digits of the shorter."""
    a, b = Decimal(one.printed["average"]), Decimal(other.printed["average"])
    step = Decimal(1).scaleb(max(int(a.as_tuple().exponent), int(b.as_tuple().exponent)))
    return abs(a - b) >= step


def _said(named: tuple[str, Row], of: str | None = None) -> str:
    table, row = named
    return f"{table} {row.name}" + (f" ({row.printed[of]})" if of else "")


def read_rows(table: str) -> list[Row]:
    """A table's rows, with every number as it is printed."""
    file = resources.files("harness.baselines") / "paper" / f"{TABLES[table]}.csv"
    content = pd.read_csv(str(file), dtype=str, keep_default_na=False)
    name = content.columns[0]
    rows = []
    for value, part in content.groupby(name, sort=False):
        lines = part.to_dict("records")
        single = len(lines) == 1
        printed = {
            of: line[of]
            for line in lines
            for of in ("average", "tail", "drop")
            if line.get(of) and (line["dataset"] == "all" or (single and of != "tail"))
        }
        cells = {
            line["dataset"]: tuple(Decimal(line[g]) if line[g] else None for g in GROUPS)
            for line in lines
            if line["dataset"] != "all"
        }
        rows.append(Row(str(value), cells, printed))
    return rows


def words(name: str) -> str:
    """A rule's name in a sentence."""
    return name.replace("_", " ")


def _known(groups: tuple[Decimal | None, ...]) -> list[Decimal]:
    return [value for value in groups if value is not None]


def _class_mean(dataset: str, groups: tuple[Decimal | None, ...]) -> Decimal:
    counts = class_counts()[dataset]
    pairs = [(value, n) for value, n in zip(groups, counts, strict=True) if value is not None]
    return sum((value * n for value, n in pairs), Decimal(0)) / sum(n for _, n in pairs)


def class_counts() -> dict[str, tuple[int, ...]]:
    """Dataset -> numbers of classes in its groups."""
    file = resources.files("harness.baselines") / "paper" / "class_counts.csv"
    content = pd.read_csv(str(file))
    return {row["dataset"]: tuple(int(row[g]) for g in GROUPS) for _, row in content.iterrows()}
