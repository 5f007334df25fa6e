"""What the report of a comparison of searches says: its verdict and tables, made from the numbers.

Owns: sentences and cells of tables. Must not know: files, how a number was computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from harness.reports.numbers.searches import Searches
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import ComparisonContent, Table
from harness.reports.text.numbers import signed, with_interval


def search_document(
    compared: Searches, controls: ComparisonContent | None, caption: str
) -> Document:
    """The whole report; `caption` says how the searches were compared, as under the figures.

    `controls` is the report of the run that the comparison names as its controls.
    """
    plan, study = compared.comparison, compared.study
    is_on_test = study.base.data.select_on == "test"
    learned = [_learned(compared, name) for name in plan.learned if name in compared.table.index]
    warning = "SELECTED ON TEST (the paper's protocol): every choice below has seen the test set."
    return Document(
        title=f"Searches on {study.name}",
        question=f"Which search finds the best configuration for its cost? ({study.question})",
        warning=warning if is_on_test else None,
        caption=caption,
        answer=[verdict(compared), *learned, *_devices(compared)],
        chapters=[
            *_chapters(compared, "test" if is_on_test else "validation"),
            *_controls(compared, controls),
            *_left_out(compared),
        ],
        definition={
            "Searches": ", ".join(plan.searches),
            "Budget of each": plan.budget,
            "Repeats": f"{plan.repeats}",
            "Training seeds": ", ".join(map(str, plan.seeds)),
            "Results": "trained live" if plan.table is None else "replayed from a table",
            "Selection rule": f"The best {_metric(compared)} on "
            f"{'test' if is_on_test else 'validation'} of a finished trial; ties go to the first.",
        },
        study=study,
        environment=compared.environment,
    )


def _metric(compared: Searches) -> str:
    return compared.study.objective.replace("_", " ")


def _devices(compared: Searches) -> list[str]:
    kinds = compared.devices
    if len(kinds) < 2:
        return []
    return [
        f"Trials ran on {len(kinds)} kinds of device ({', '.join(kinds)}): their seconds are not "
        "comparable."
    ]


def _chapters(compared: Searches, split: str) -> Iterator[Chapter]:
    metric, plan, exhaustive = _metric(compared), compared.comparison, compared.exhaustive
    confidence = f"{100 * compared.judgement.confidence:.1f}"
    regret = (
        f", and how far its cell's mean {split} score over seeds lies below that of the best cell"
        if exhaustive is not None
        else ""
    )
    line = (
        " The black line is what random search without repetition is expected to find."
        if compared.random is not None
        else ""
    )
    yield Chapter(
        title="Incumbents against cost",
        figure="anytime",
        alt="Lines per search over cost on a log scale: the test score of the incumbent, and its "
        "regret on validation where every cell is known. The numbers are in curves.csv.",
        text=[
            f"The incumbent is the trial with the best {metric} on {split} that has finished by "
            f"that cost; shown is its test score{regret}. Lines are medians over repeats, bands "
            "their quartiles (they may leave the frame), from where every repeat has a choice. "
            "Cost is in device seconds, over those of a full run, of everything that was trained, "
            f"stopped trials included.{line}"
        ],
    )
    yield Chapter(
        title=f"Choices at {compared.at:.1f} full runs",
        figure="choices",
        alt="Points per search with intervals: the test score of its choice, all classes and by "
        "group, a dot for every repeat. The numbers are in the table below.",
        text=[
            "This is the smallest of the searches' median costs, so that none is judged by more "
            "than another was given; a search that ended earlier keeps its last choice. Budgets "
            "in trials are counted by their epochs."
        ],
        tables=[_choices(compared)],
        notes=[
            f"Test accuracy (%), {metric} and by group: mean ± 95 % Student-t interval over "
            f"repeats. Differences: {confidence} % intervals, which hold together at 95 %.",
            f"P: probability that a repeat of this search is better than one of "
            f"{compared.reference} trained with the same seed, ties by half; mean rank: 1 is best. "
            "Both with 95 % bootstrap intervals over repeats, from 5 repeats on. Critical "
            "differences need about 8 tasks; this is one.",
        ],
    )
    if exhaustive is not None:
        count = len(exhaustive.seeds)
        best = ", ".join(f"{field} = {value}" for field, value in exhaustive.best.items())
        spread = (
            "the standard deviation over seeds of the best tenth of the cells"
            if count > 1
            else "as there is one seed, so no spread to judge by"
        )
        yield Chapter(
            title="How far from the best of all cells",
            text=[
                f"The best cell by mean {split} score over {count} seed{'s' if count > 1 else ''} "
                f"of the table is {best}."
            ],
            tables=[_regrets(compared)],
            notes=[
                f"Regret (points): {split} score of that cell minus that of the search's choice, "
                "both means over seeds; on test, against the cell that is best there, which only "
                "hindsight knows.",
                f"Area: mean regret on {split} over log cost, from where all searches have a "
                f"choice to {compared.at:.1f} runs.",
                f"Found: regret of at most {exhaustive.target:.2f} points, {spread}; over a "
                "search's whole run.",
            ],
        )
    if compared.fidelity is not None and len(compared.fidelity):
        yield Chapter(
            title="What an early epoch tells",
            tables=[_fidelity(compared.fidelity, compared.study.base.recipe.epochs)],
            notes=[
                "Over all cells of the table, by seed. A pruner can find the best only if it is "
                "still among those that go on."
            ],
        )
    notes = [f"A choice looks better on {split} than it is, because it was chosen for it."]
    if plan.confirm:
        notes.append(
            f"Confirmation: the {plan.confirm} best of a search's whole run, with seeds it has not "
            f"trained with; the best of them by mean {split} score there. Its cost comes on top."
        )
    yield Chapter(title="What choosing costs", tables=[_bias(compared)], notes=notes)
    yield Chapter(
        title="Yield",
        tables=[_yields(compared)],
        notes=["A proposal that is known already costs nothing."],
    )
    gaps = _gaps(compared)
    if gaps is not None and compared.effects is not None:
        tables = [gaps, _effects("effects", compared.effects, "of all cells")]
        if compared.flat_effects is not None:
            where = f"without {compared.left}, where some cell collapses"
            tables.append(_effects("effects_flat", compared.flat_effects, where))
        yield Chapter(
            title="Can the axes be chosen one after the other?",
            tables=tables,
            notes=[
                "Share: of the variation between cells; seeds are blocks; diverged cells count as "
                "chance."
            ],
        )


def _controls(compared: Searches, controls: ComparisonContent | None) -> Iterator[Chapter]:
    if controls is None:
        return
    yield Chapter(
        title=controls.title,
        figure="controls",
        alt="Points with intervals: test accuracy of what was learned and of its controls, all "
        "classes and by group, a dot for every seed. The numbers are in the table below.",
        text=[
            f"From the run `{compared.comparison.controls}`: what is it that learned strengths "
            f"add, if they add anything? {controls.verdict}"
        ],
        tables=[controls.arms],
        notes=controls.notes,
    )


def _left_out(compared: Searches) -> Iterator[Chapter]:
    if compared.comparison.notes:
        yield Chapter(title="Left out", notes=list(compared.comparison.notes))


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


def _choices(compared: Searches) -> Table:
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
    return _table("choices", "Test accuracy (%) of the choices at that cost", rows, "search")


def _regrets(compared: Searches) -> Table:
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
    return _table("regrets", "Points below the best of all cells", rows, "search")


def _bias(compared: Searches) -> Table:
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
    return _table("choosing", "What a choice is worth on other data and seeds (%)", rows, "search")


def _yields(compared: Searches) -> Table:
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
    return _table("yield", "Percent of answers; of the first column, of proposals", rows, "search")


def _fidelity(fidelity: pd.DataFrame, epochs: int) -> Table:
    rows = {
        f"{row['epoch']:.0f} of {epochs}": {
            "Kendall's τ with the final score": f"{row['tau']:.2f}",
            "of the final best tenth, in the best third (%)": f"{100 * row['recall']:.0f}",
        }
        for _, row in fidelity.iterrows()
    }
    caption = "Selection scores at the rungs of ASHA and Hyperband, against final ones"
    return _table("fidelity", caption, rows, "epoch")


def _effects(stem: str, effects: pd.DataFrame, where: str) -> Table:
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


def _gaps(compared: Searches) -> Table | None:
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
    caption = "Choices by mean selection score; lost on test: paired by seed, 95 % interval"
    return _table("gaps", caption, rows, "choice")


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
    again = compared.restarts[compared.restarts["search"] == name]
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


def _table(stem: str, caption: str, rows: dict[str, dict[str, str]], corner: str) -> Table:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    words = pd.DataFrame(
        [[row.get(column, "") for column in columns] for row in rows.values()],
        index=list(rows),
        columns=columns,
    )
    return Table(stem=stem, caption=caption, corner=corner, words=words)
