"""The tables in the report of a comparison of searches.

Owns: which numbers stand in which column. Must not know: sentences, how a number was computed.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.metrics import Scale
from harness.reports.numbers.choices import Choices
from harness.reports.numbers.landscape import Effects
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.text.model import Table
from harness.reports.text.names import beside_test
from harness.reports.text.numbers import chosen_by, informative, signed, with_interval


def choices_table(compared: Searches) -> Table:
    """A row per arm: what its choice scores, and how it compares to the reference."""
    choices, groups = compared.choices, compared.recorded.groups
    table, reference = choices.judged, choices.reference
    rows = {name: _expected(choices, name, groups) for name in _closed_forms(compared)}
    for name in table.index:
        own = table.loc[name]
        rows[name] = {
            "trials": f"{own['trials']:.0f}",
            "runs": f"{own['runs']:.1f}",
            "runs by FLOPs": f"{own['flop_runs']:.1f}",
            "test": with_interval(own["test"], own["test_ci"]),
            "search chance": _plus_minus(own["test_chance_ci"]),
            **{group: with_interval(own[group], own[f"{group}_ci"]) for group in groups},
            f"minus {reference}": "-" if name == reference else _against(own),
            "mean rank": _between(own, "rank"),
        }
        if table["improves"].notna().any():
            rows[name]["P(better than random as run)"] = _between(own, "improves")
    if groups:
        rows["binomial s.e. of one trial"] = {
            group: f"{table[f'binomial_{group}'].mean():.1f}" for group in groups
        }
    return _table("choices", "Test accuracy (%) of the choices within the budget", rows, "search")


def _against(row: Any, mean: str = "difference", half_width: str = "difference_ci") -> str:
    """A search's difference to the reference with its verdict; `-` where there is none.

    `mean` and `half_width` are the difference's columns.
    """
    if not isinstance(row["verdict"], str):
        return "-"
    if row["verdict"] == "not informative":
        return "not informative"
    return f"{signed(row[mean], row[half_width])}, {row['verdict']}"


def _closed_forms(compared: Searches) -> list[str]:
    return [part.random for part in compared.parts if part.expected is not None]


def _expected(choices: Choices, name: str, groups: tuple[str, ...]) -> dict[str, str]:
    own, against = choices.seeds[choices.seeds["search"] == name], choices.against
    return {
        **dict.fromkeys(("trials", "runs", "runs by FLOPs"), "-"),
        "test": with_interval(*mean_and_half_width(own["test"])),
        "search chance": "-",
        **{group: with_interval(*mean_and_half_width(own[group])) for group in groups},
        f"minus {choices.reference}": _against(against.loc[name]) if name in against.index else "-",
        "mean rank": "-",
    }


def pairs_table(contrasts: pd.DataFrame) -> Table:
    """A row per pair of arms: their difference, the verdict, and what search chance leaves."""
    rows = {}
    for _, row in contrasts.iterrows():
        is_silent = row["verdict"] == "not informative"
        p = row["p_holm"]
        rows[f"{row['first']} minus {row['second']}"] = {
            "seeds": f"{row['seeds']:.0f}",
            "difference": "-" if is_silent else signed(row["mean"], row["half_width"]),
            "verdict": f"{row['verdict']}: {row['reason']}" if is_silent else row["verdict"],
            "p (Holm)": "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
            "of search chance alone": informative(row["mean"], row["chance_half_width"]),
        }
    caption = "Every pair of searches, points of test accuracy, paired by training seed"
    return _table("pairs", caption, rows, "pair")


def within_table(within: pd.DataFrame, reference: str) -> Table:
    """A row per training seed: each search beside the reference, of its repeats there alone."""
    rows: dict[str, dict[str, str]] = {}
    for _, row in within.iterrows():
        words = _against(row, "mean", "half_width")
        rows.setdefault(str(row["seed"]), {})[row["search"]] = words
    caption = f"Points of test accuracy above {reference}, within each training seed"
    return _table("within_seeds", caption, rows, "training seed")


def regrets_table(compared: Searches) -> Table:
    """A row per search: its distance to the best of all cells, and the cost of finding that."""
    table, split = compared.choices.table, beside_test(compared.recorded.study.base.data)
    scale = compared.recorded.scale
    rows = {}
    for name in table.index:
        own = table.loc[name]
        # A learned search is one cell, whose regret is that of its mean over seeds: it is known.
        half_width, test_half_width = (
            math.nan if name in compared.learned else own[field]
            for field in ("regret_ci", "test_regret_ci")
        )
        missed = own["repeats"] - own["reached"]
        cost = "never" if math.isinf(own["cost_to"]) else f"{own['cost_to']:.1f}"
        rows[name] = {
            f"regret, {split}": with_interval(own["regret"], half_width, scale.digits),
            "regret, test": with_interval(own["test_regret"], test_half_width),
            "area under regret": with_interval(own["area"], own["area_ci"], scale.digits),
            "median cost to find the best": cost,
            "missed it": f"{missed:.0f} of {own['repeats']:.0f}",
        }
    points = scale.difference[:1].upper() + scale.difference[1:]
    below = "Points on test, and of the loss on the other," if scale.sign < 0 else points
    return _table("regrets", f"{below} below the best of all cells", rows, "search")


def bias_table(compared: Searches) -> Table:
    """A row per search: what its choice scored where it was chosen, and what elsewhere."""
    table, count = compared.choices.table, compared.recorded.comparison.confirm
    split, scale = beside_test(compared.recorded.study.base.data), compared.recorded.scale
    chosen = split if scale.unit else f"{split}, {scale.words}"
    has_seeds = compared.landscape is not None and len(compared.landscape.cells.seeds) > 1
    rows = {}
    for name in table.index:
        own = table.loc[name]
        rows[name] = {
            f"chosen: {chosen}": chosen_by(scale, own["select"], own["select_ci"]),
            "test": with_interval(own["test"], own["test_ci"]),
            "chosen minus the best on test among those tried": with_interval(
                0.0 - own["missed"], own["missed_ci"]
            ),
        }
        if has_seeds:
            # What is too wide to say a thing is a matter of points, not of a loss.
            words = signed if scale.sign < 0 else informative
            rows[name][f"{chosen} minus that of other seeds"] = words(
                scale.sign * own["luck"], own["luck_ci"]
            )
        if count:
            rows[name] |= {
                "test on unseen seeds, the best": with_interval(
                    own["first_again"], own["first_again_ci"]
                ),
                f"the confirmed of {count}": with_interval(own["confirmed"], own["confirmed_ci"]),
                "confirmation's cost (runs)": _number(own["confirm_runs"]),
            }
    return _table("choosing", "What a choice is worth on other data and seeds (%)", rows, "search")


def yields_table(compared: Searches) -> Table:
    """A row per search: what became of its proposals."""
    table = compared.choices.table
    rows = {}
    for name in table.index:
        own = table.loc[name]
        total = max(1, own["answers"])
        rows[name] = {"proposals": f"{own['proposals']:.0f}"}
        rows[name]["repeats of known ones (%)"] = _percent(own["repeated"], own["proposals"])
        for field, words in (
            ("PRUNED", "stopped early (%)"),
            ("DIVERGED", "diverged (%)"),
            ("collapsed", "below twice chance (%)"),
            ("FAILED", "failed (%)"),
        ):
            rows[name][words] = _percent(own[field], total)
    return _table("yield", "Percent of answers; of the first column, of proposals", rows, "search")


def fidelity_table(fidelity: pd.DataFrame, epochs: int) -> Table:
    """A row per rung of a pruner: how well its scores foretell the final ones."""
    rows = {
        f"{row['epoch']:.0f} of {epochs}": {
            "Kendall's τ with the final score": f"{row['tau']:.2f}",
            "of the final best tenth, in the best third (%)": f"{100 * row['recall']:.0f}",
        }
        for _, row in fidelity.iterrows()
    }
    caption = "Selection scores at the rungs of ASHA and Hyperband, against final ones"
    return _table("fidelity", caption, rows, "epoch")


def effects_tables(effects: Effects, split: str, scale: Scale) -> list[Table]:
    """What separate choices lose, and the analyses of variance; `split`: what is chosen on."""
    tables = [_gaps(effects.gaps, split, scale)]
    if effects.has_noise:
        tables.append(_anova("effects", effects.anova, "of all cells"))
    if effects.has_noise and effects.flat is not None:
        where = f"without {effects.left_out}, where some cell collapses"
        tables.append(_anova("effects_flat", effects.flat, where))
    return tables


def _anova(stem: str, effects: pd.DataFrame, where: str) -> Table:
    rows = {}
    for _, row in effects.iterrows():
        known = not math.isnan(row["F"])
        rows[row["effect"]] = {
            "share (%)": f"{100 * row['share']:.1f}",
            "df": f"{row['df']:.0f}",
            "F": f"{row['F']:.1f}" if known else "-",
            "p": "-" if not known else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
        }
    caption = f"Analysis of variance of the test scores, {where}"
    return _table(stem, caption, rows, "effect")


def _gaps(gaps: pd.DataFrame, split: str, scale: Scale) -> Table:
    rows = {}
    for place, (_, row) in enumerate(gaps.iterrows()):
        rows[row["choice"]] = {
            "cell": row["cell"],
            split: chosen_by(scale, row["select"]),
            "test": f"{row['test']:.1f}",
            f"lost on {split}": "-" if place == 0 else f"{row['select_gap']:.{scale.digits}f}",
            "lost on test": "-" if place == 0 else informative(row["test_gap"], row["test_gap_ci"]),
        }
    caption = "Choices by mean selection score; lost on test: paired by seed, 95 % interval"
    return _table("gaps", caption, rows, "choice")


def _between(row: pd.Series[Any], field: str) -> str:
    """An estimate with the bounds of its interval."""
    if math.isnan(row[field]):
        return "-"
    low, high = row[f"{field}_low"], row[f"{field}_high"]
    return f"{row[field]:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _plus_minus(half_width: float) -> str:
    return f"± {half_width:.1f}" if half_width > 0 else "-"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _table(stem: str, caption: str, rows: dict[str, dict[str, str]], corner: str) -> Table:
    """The rows' columns in their first order; a cell that a row lacks is empty."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    words = pd.DataFrame(
        [[row.get(column, "") for column in columns] for row in rows.values()],
        index=list(rows),
        columns=columns,
    )
    return Table(stem=stem, caption=caption, corner=corner, words=words)
