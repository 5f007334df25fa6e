"""The answer of a comparison of searches: what the rule says of every pair of them.

Owns: these sentences; their words are the rule's. Must not know: chapters, tables, files.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.reports.numbers.choices import Part
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.text.names import SHOWN_WORDS
from harness.reports.text.numbers import informative, signed, with_interval

WORDS = {
    "better": "Better than {reference}",
    "worse": "Worse than {reference}",
    "equivalent": "Equivalent to {reference}",
    "undecided": "Undecided beside {reference}",
    "not informative": "Not informative",
}
"""The rule's words, and how a list of searches begins that they are said of."""
UNSETTLED = ("equivalent", "undecided", "not informative")


def verdict(compared: Searches) -> str:
    """One paragraph: what the rule says of each search beside the reference, and of each pair."""
    choices, plan = compared.choices, compared.recorded.comparison
    found, reference = choices.against, choices.reference
    own = choices.seeds[choices.seeds["search"] == reference]
    score = with_interval(*mean_and_half_width(own["test"]))
    is_exact = reference in {part.random for part in compared.parts}
    does = (
        "random search is expected (in closed form) to find" if is_exact else f"{reference} finds"
    )
    parts = [
        f"With a budget of {plan.budget}, {does} configurations of {score} % test {SHOWN_WORDS}."
    ]
    for word, beginning in WORDS.items():
        for reason, own in found[found["verdict"] == word].groupby("reason", sort=False):
            why = f" ({reason!s}), of search chance alone" if reason else ""
            said = ", ".join(_said(compared, str(name), row) for name, row in own.iterrows())
            parts.append(f"{beginning.format(reference=reference)}{why}: {said}.")
    silent = [name for name in choices.table.index if name not in (reference, *found.index)]
    if silent:
        parts.append(f"Without a choice within the budget: {', '.join(silent)}.")
    if not found["verdict"].isin(["better", "worse"]).any():
        parts.append(f"So no search is shown to be better or worse than {reference} here.")
    parts += [_pairs(compared), _within_seeds(compared), _rule(compared)]
    return " ".join(each for each in parts if each)


def _said(compared: Searches, name: str, row: pd.Series[Any]) -> str:
    """A search with its difference to the reference; without a verdict, of search chance alone."""
    table = compared.choices.table
    at = f" at {table['runs'].loc[name]:.1f} runs" if name in compared.learned else ""
    if row["verdict"] != "not informative":
        return f"{name}{at} ({signed(row['difference'], row['difference_ci'])})"
    if not row["chance_half_width"]:
        return f"{name}{at} ({row['difference']:+.2f}, has none)"
    return f"{name}{at} ({informative(row['difference'], row['chance_half_width'])})"


def _pairs(compared: Searches) -> str:
    """The pairs without the reference: those that differ one by one, the others by their number."""
    choices = compared.choices
    others = choices.contrasts[choices.contrasts["second"] != choices.reference]
    differing = [
        f"{row['first']} is {row['verdict']} than {row['second']} "
        f"({signed(row['mean'], row['half_width'])})"
        for _, row in others.iterrows()
        if row["verdict"] in ("better", "worse")
    ]
    counts = others["verdict"].value_counts()
    rest = [f"{counts[word]} {word}" for word in UNSETTLED if word in counts.index]
    words = f"Of the {len(others)} pairs without it: {', '.join([*differing, *rest])}."
    return words if len(others) else ""


def _within_seeds(compared: Searches) -> str:
    """What repeats say in each seed alone: the number of seeds in which each word is said."""
    within, choices = compared.choices.within, compared.choices
    if within.empty:
        return ""
    said = []
    for name, own in within.groupby("search", sort=False):
        counts = own["verdict"].value_counts()
        said.append(f"{name} {', '.join(f'{counts[w]} {w}' for w in WORDS if w in counts.index)}")
    count = within["seed"].nunique()
    each = f"Within each of the {count} seeds alone" if count > 1 else "Within this seed"
    return (
        f"{each}, where nothing but search chance is left, beside {choices.reference} "
        f"(exploratory, and of no other seed): {'; '.join(said)}."
    )


def _rule(compared: Searches) -> str:
    plan, contrasts = compared.recorded.comparison, compared.choices.contrasts
    count = len(contrasts)
    words = (
        "Points of test accuracy, paired by training seed, each of which is one replicate of the "
        f"whole procedure; 95 % intervals of Student's t; words by the rule of docs/protocol.md, "
        f"with Holm's correction over {count} pair{'s' if count > 1 else ''}."
    )
    if len(plan.seeds) == 1:
        words += (
            " There is one training seed: an interval holds the chance of the search alone, not "
            "that of training."
        )
    return words if count else ""


def of_learned(compared: Searches, part: Part, search: str) -> str:
    """What must be said beside a search that finds strengths in one trial."""
    plan, name = part.recorded.comparison, part.recorded.arm(search)
    own = compared.choices.table["runs"].loc[name]
    cost = part.told.loc[part.told["search"] == name, "cost"].median()
    words = (
        f"{name} is one trial per training seed ({own:.1f} full runs), so its line starts at its "
        "own cost and it has no rank. Its strengths, one per site, are more than this space has. "
    )
    if part.expected is not None:
        drawn = part.expected.curve[part.expected.curve["runs"] <= cost]["test"]
        words += (
            f"For its cost, random search is expected to find {drawn.iloc[-1]:.1f} %. "
            if len(drawn)
            else "For its cost, random search cannot train one configuration for sure. "
        )
    again = compared.curves.restarts[compared.curves.restarts["search"] == name]
    if len(again):
        most = again.iloc[-1]
        words += (
            f"Started on {most['starts']:.0f} seeds ({most['runs']:.1f} full runs), with the best "
            f"by selection kept, it is expected to reach {most['test']:.1f} %. "
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
            "cost that is not charged here; name those runs with `--charge`. "
        )
    if plan.controls:
        return words + "Its controls are at the end."
    return words + (
        "Its controls: `harness train --method metapeft --controls`, and that run's name with "
        "`--controls`."
    )
