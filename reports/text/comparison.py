"""The words of a comparison of methods.

Owns: its verdict, notes and table. Must not know: how a number was computed.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.metrics import SHOWN
from harness.reports.numbers.comparison import Arms
from harness.reports.numbers.gamma import Learned
from harness.reports.numbers.paper import paper_by_dataset
from harness.reports.text.captions import setting
from harness.reports.text.gamma import describe_learned
from harness.reports.text.model import ComparisonContent, Table
from harness.reports.text.names import SHOWN_WORDS, metric_words
from harness.reports.text.numbers import signed, with_interval
from harness.reports.text.paper import papers_tables
from harness.store.comparisons import Comparison

MINUS_FIRST = "minus first"
"""The column of differences, as everywhere: positive is better."""


def comparison_content(arms: Arms, learned: Learned | None) -> ComparisonContent:
    """Words for a comparison, and for the strengths that its first arm learned."""
    compared = arms.comparison
    least = arms.table["inference_gflop"].min()
    rows = [_arm_words(arms, row, least) for _, row in arms.table.iterrows()]
    rows[0][MINUS_FIRST] = "-"
    steps = compared.inner_steps
    of_steps = ""
    if steps:
        limit = f"{1 + 1.5 / steps:.2f}"
        of_steps = f", with one outer step to {steps} inner steps (1 + 1.5/K = {limit})"
    time = []
    if compared.unit != compared.arms[0].name:
        ratio = f"{arms.time_ratio:.2f}"
        time = [f'Time of the first arm: {ratio} times that of "{compared.unit}"{of_steps}.']
    count = len(compared.seeds)
    found = paper_by_dataset(compared.reference, "variant") if compared.reference else []
    return ComparisonContent(
        title=compared.title,
        caption=setting(compared.request, count),
        verdict=_verdict(arms),
        arms=Table(
            stem="arms",
            caption=f"Test accuracy (%), mean ± 95 % interval over {count} seeds",
            corner="arm",
            words=pd.DataFrame(rows).set_index("arm"),
        ),
        papers=papers_tables("arms", found, "method"),
        notes=[
            f"Test accuracy (%), mean ± 95 % Student-t interval over {count} seeds. All arms share "
            "split, batches and initial values of their seed.",
            "Minus first: class mean of this arm minus that of the first one, paired by seed; "
            "positive favours this arm.",
            "Runs: cost per seed with everything that was run to find the setting, in full runs of "
            f'"{compared.unit}", by device seconds (which other work on the machine prolongs) and '
            "by FLOPs.",
            "Inference: FLOPs of one image beyond those of the cheapest arm, with nothing merged; "
            "LoRA can be merged into the weights and then costs none (-: not counted when it ran).",
            f"Choices (learning rates, cells): {choosing(compared)}",
            *time,
            *compared.notes,
        ],
        learned=None if learned is None else describe_learned(learned),
        has_swept=learned is not None and arms.swept is not None,
        environment=arms.environment,
    )


def choosing(compared: Comparison) -> str:
    """How learning rates and cells were chosen, in a sentence."""
    by = f"{metric_words(compared.objective)} on {compared.request.data.chosen_on}"
    if compared.chosen == "over seeds":
        return f"by the seeds' mean {by}, one for all seeds."
    return (
        f"by each seed for itself, by its own {by}, of ties the first that was tried. Every seed "
        "is charged for what it tried itself and scored by its own choice, so that it is one "
        "replicate of the whole procedure; an arm's name has the seeds' choices in their order, or "
        "the one that all have made."
    )


def arms_caption(compared: Comparison) -> str:
    """Under figures of arms: on what and how they were compared, and what costs are counted in."""
    by = "one for all seeds" if compared.chosen == "over seeds" else "by each seed for itself"
    return (
        f"{setting(compared.request, len(compared.seeds))} Settings chosen {by}. Means with 95 % "
        f'intervals over seeds. A run: one training of "{compared.unit}".'
    )


def _arm_words(arms: Arms, row: pd.Series[Any], least: float) -> dict[str, str]:
    inference = f"+{100 * (row['inference_gflop'] / least - 1):.1f} %" if least > 0 else "-"
    return {
        "arm": row["arm"] + (f" (× {row['diverged']} diverged)" if row["diverged"] else ""),
        **{group: with_interval(row[group], row[f"{group}_ci"]) for group in arms.groups},
        SHOWN_WORDS: with_interval(row[SHOWN], row[f"{SHOWN}_ci"]),
        MINUS_FIRST: with_interval(row["minus_first"], row["minus_first_ci"]),
        "runs": f"{row['runs_per_seed']:.1f}",
        "runs by FLOPs": f"{row['runs_by_flops']:.1f}",
        "inference": inference,
        "parameters": f"{row['trainable_params']}",
    }


def _verdict(arms: Arms) -> str:
    """One paragraph from the paired differences and their intervals."""
    first = arms.table["arm"].iloc[0]
    lists: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for _, row in arms.table.iloc[1:].iterrows():
        mean, half = row["minus_first"], row["minus_first_ci"]
        shown = not math.isnan(half) and abs(mean) > half
        lists["open" if not shown else "better" if mean < 0 else "worse"].append(str(row["arm"]))
    words = {
        "better": "is better than",
        "worse": "is worse than",
        "open": "shows no difference from",
    }
    said = [f"{words[k]} {'; '.join(v)}" for k, v in lists.items() if v]
    return (
        f"{_learned_against_plain(arms)}By paired 95 % intervals, not corrected for their number, "
        f"{first} {'. It '.join(said)}."
    )


def _learned_against_plain(arms: Arms) -> str:
    """What learned strengths add to each method, where a comparison has both."""
    if arms.pairs.empty:
        return ""
    chosen = arms.table.iloc[int(arms.table["select"].to_numpy().argmax())]
    score = with_interval(chosen[SHOWN], chosen[f"{SHOWN}_ci"])
    split = arms.comparison.request.data.chosen_on
    differences = [
        f"{signed(row['difference'], row['difference_ci'])} ({row['learned']})"
        for _, row in arms.pairs.iterrows()
    ]
    shown = arms.pairs[arms.pairs["difference"].abs() > arms.pairs["difference_ci"]]
    names = "; ".join(shown["learned"]) or "no method"
    return (
        f"Best on {split}: {chosen['arm']}, {score} % on test. Learned strengths minus fixed ones "
        f"of 1 at the same sites, each at its own rate: {', '.join(differences)} points; by paired "
        f"95 % intervals a difference is shown for {names}. "
    )
