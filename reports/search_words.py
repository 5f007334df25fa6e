"""What the report of a comparison of searches says: its verdict and tables, made from the numbers.

Owns: sentences and cells of tables. Must not know: files, how a number was computed.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.search_frames import Searches
from reports.words import signed, with_interval


def search_words(compared: Searches) -> dict[str, Any]:
    """All that the template `searches.md.jinja` states."""
    plan = compared.comparison
    return {
        "compared": compared,
        "verdict": verdict(compared),
        "metric": compared.study.objective.replace("_", " "),
        "split": "test" if compared.study.base.data.select_on == "test" else "validation",
        "choices": _choices(compared),
        "regrets": _regrets(compared) if compared.exhaustive is not None else None,
        "bias": _bias(compared),
        "yields": _yields(compared),
        "effects": _effects(compared.effects),
        "flat_effects": _effects(compared.flat_effects),
        "gaps": _gaps(compared),
        "learned": [
            _learned(compared, name) for name in plan.learned if name in compared.table.index
        ],
        "best": None
        if compared.exhaustive is None
        else ", ".join(f"{f} = {v}" for f, v in compared.exhaustive.best.items()),
        "confidence": f"{100 * compared.judgement.confidence:.1f}",
    }


def verdict(compared: Searches) -> str:
    """One paragraph: who is better than the reference, by how much, and who is not shown to be."""
    judged, table = compared.judgement.table, compared.table
    reference = compared.reference
    lists: dict[str, list[str]] = {"better": [], "worse": [], "open": [], "unknown": []}
    one_trial = compared.comparison.learned
    for name in table.index:
        if name == reference:
            continue
        mean, half = judged["difference"].loc[name], judged["difference_ci"].loc[name]
        at = f" at {table['runs'].loc[name]:.1f} runs" if name in one_trial else ""
        words = f"{name}{at} ({signed(mean, half)})"
        if math.isnan(mean):
            lists["unknown"].append(f"{name} ({table['runs'].loc[name]:.1f} runs)")
        elif math.isnan(half) or abs(mean) <= half:
            lists["open"].append(words)
        else:
            lists["better" if mean > 0 else "worse"].append(words)
    said_of = {
        "better": f"Better than {reference}",
        "worse": f"Worse than {reference}",
        "open": f"No difference from {reference} is shown",
        "unknown": "Without a choice at that cost",
    }
    score = with_interval(table["test"].loc[reference], table["test_ci"].loc[reference])
    metric = compared.study.objective.replace("_", " ")
    parts = [
        f"At the cost of {compared.at:.1f} full runs, {reference} finds configurations of "
        f"{score} % test {metric}."
    ]
    parts += [f"{said_of[k]}: {', '.join(v)}." for k, v in lists.items() if v]
    if not lists["better"] and not lists["worse"]:
        parts.append(f"So no search is shown to be better or worse than {reference} here.")
    percent = f"{100 * compared.judgement.confidence:.1f}"
    parts.append(
        f"Points of test accuracy, paired by repeat, with {percent} % intervals, which hold "
        "together at 95 %."
    )
    if compared.comparison.table is not None:
        parts.append(
            "They speak for the chance of the searches on this table, not for other data or "
            "backbones."
        )
    return " ".join(parts)


def _choices(compared: Searches) -> str:
    table, judged = compared.table, compared.judgement.table
    rows = {}
    for name in table.index:
        own, other = table.loc[name], judged.loc[name]
        rows[name] = {
            "trials": f"{own['trials']:.0f}",
            "runs": f"{own['runs']:.1f}",
            "runs by FLOPs": f"{own['flop_runs']:.1f}",
            "test": with_interval(own["test"], own["test_ci"]),
            **{group: with_interval(own[group], own[f"{group}_ci"]) for group in compared.groups},
            f"minus {compared.reference}": "-"
            if name == compared.reference
            else signed(other["difference"], other["difference_ci"]),
            f"P(better than {compared.reference})": _between(other, "improves"),
            "mean rank": _between(other, "rank"),
        }
    rows["binomial s.e. of one trial"] = {
        group: f"{table[f'binomial_{group}'].mean():.1f}" for group in compared.groups
    }
    return _markdown(rows, "search")


def _regrets(compared: Searches) -> str:
    table = compared.table
    rows = {}
    for name in table.index:
        own = table.loc[name]
        missed = own["repeats"] - own["reached"]
        cost = "never" if math.isinf(own["cost_to"]) else f"{own['cost_to']:.1f}"
        rows[name] = {
            "regret, validation": with_interval(own["regret"], own["regret_ci"]),
            "regret, test": with_interval(own["test_regret"], own["test_regret_ci"]),
            "area under regret": with_interval(own["area"], own["area_ci"]),
            "median cost to find the best": cost,
            "missed it": f"{missed:.0f} of {own['repeats']:.0f}",
        }
    return _markdown(rows, "search")


def _bias(compared: Searches) -> str:
    table = compared.table
    rows = {}
    for name in table.index:
        own = table.loc[name]
        rows[name] = {
            "chosen: validation": with_interval(own["select"], own["select_ci"]),
            "test": with_interval(own["test"], own["test_ci"]),
            "best on test among those tried, minus chosen": with_interval(
                own["missed"], own["missed_ci"]
            ),
        }
        if compared.exhaustive is not None and len(compared.exhaustive.seeds) > 1:
            rows[name]["validation minus that of other seeds"] = signed(own["luck"], own["luck_ci"])
        if compared.comparison.confirm:
            count = compared.comparison.confirm
            rows[name] |= {
                "test on unseen seeds, the best": with_interval(
                    own["first_again"], own["first_again_ci"]
                ),
                f"the confirmed of {count}": with_interval(own["confirmed"], own["confirmed_ci"]),
                "confirmation's cost (runs)": _number(own["confirm_runs"]),
            }
    return _markdown(rows, "search")


def _yields(compared: Searches) -> str:
    table = compared.table
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
    return _markdown(rows, "search")


def _effects(effects: pd.DataFrame | None) -> str | None:
    if effects is None:
        return None
    rows = {}
    for _, row in effects.iterrows():
        known = not math.isnan(row["F"])
        rows[row["effect"]] = {
            "share (%)": f"{100 * row['share']:.1f}",
            "df": f"{row['df']:.0f}",
            "F": f"{row['F']:.1f}" if known else "-",
            "p": "-" if not known else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
        }
    return _markdown(rows, "effect")


def _gaps(compared: Searches) -> str | None:
    if compared.gaps is None:
        return None
    rows = {}
    for place, (_, row) in enumerate(compared.gaps.iterrows()):
        rows[row["choice"]] = {
            "cell": row["cell"],
            "validation": f"{row['select']:.1f}",
            "test": f"{row['test']:.1f}",
            "lost on validation": "-" if place == 0 else f"{row['select_gap']:.1f}",
            "lost on test": "-" if place == 0 else signed(row["test_gap"], row["test_gap_ci"]),
        }
    return _markdown(rows, "choice")


def _learned(compared: Searches, name: str) -> str:
    """What must be said beside a search that finds strengths in one trial."""
    plan = compared.comparison
    own = compared.table["runs"].loc[name]
    words = (
        f"{name} is one trial per training seed ({own:.1f} full runs), so its line starts at its "
        "own cost and it has no rank. Its strengths, one per site, are more than this space has. "
    )
    if compared.random is not None:
        drawn = compared.random[compared.random["runs"] <= own]["test"]
        words += (
            f"For its cost, random search is expected to find {drawn.iloc[-1]:.1f} %. "
            if len(drawn)
            else "For its cost, random search cannot train one configuration. "
        )
    if plan.tuning:
        tuned = plan.tuning_s / plan.reference.device_s
        words += (
            f"Its own settings (learning rate of the strengths, K, ratio) were found in "
            f"{', '.join(plan.tuning)} at {tuned:.1f} full runs, which are charged apart: "
            f"{own + tuned:.1f} with them. "
        )
    else:
        words += (
            "Its own settings (learning rate of the strengths, K, ratio) were tuned before, at a "
            "cost that is not charged here; name those runs with --charge. "
        )
    return words + (
        "Its controls: `harness train --method metapeft --controls`, and "
        "`reports/gallery/metapeft_lora`."
    )


def _between(row: pd.Series[Any], field: str) -> str:
    """An estimate with the bounds of its interval."""
    if math.isnan(row[field]):
        return "-"
    low, high = row[f"{field}_low"], row[f"{field}_high"]
    return f"{row[field]:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _markdown(rows: dict[str, dict[str, str]], corner: str) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = pd.DataFrame(
        [[row.get(column, "") for column in columns] for row in rows.values()],
        index=list(rows),
        columns=columns,
    )
    return table.rename_axis(corner).to_markdown(disable_numparse=True)
