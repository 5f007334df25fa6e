"""What the report of a comparison of searches says: its verdict and chapters.

Owns: sentences. Must not know: files, cells of tables, how a number was computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.reports.numbers.landscape import AllCells, Landscape
from harness.reports.numbers.searches import Searches
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import ComparisonContent
from harness.reports.text.names import SHOWN_WORDS, beside_test, metric_words
from harness.reports.text.numbers import signed, with_interval
from harness.reports.text.search_tables import (
    bias_table,
    choices_table,
    effects_tables,
    fidelity_table,
    regrets_table,
    yields_table,
)


def search_document(
    compared: Searches, controls: ComparisonContent | None, caption: str
) -> Document:
    """The whole report; `caption` says how the searches were compared, as under the figures.

    `controls` is the report of the run that the comparison names as its controls.
    """
    plan, study = compared.recorded.comparison, compared.recorded.study
    is_on_test, split = study.base.data.select_on == "test", study.base.data.chosen_on
    names = compared.choices.table.index
    learned = [_learned(compared, name) for name in plan.learned if name in names]
    warning = "SELECTED ON TEST (the paper's protocol): every choice below has seen the test set."
    standing = {
        "Baseline of every comparison": f"{' and '.join(plan.standing)}: LoRA at every linear map, "
        "in one run and with the best of several learning rates; charged for each that it tried"
    }
    return Document(
        title=f"Searches on {study.name}",
        question=f"Which search finds the best configuration for its cost? ({study.question})",
        warning=warning if is_on_test else None,
        caption=caption,
        answer=[verdict(compared), *learned, *_devices(compared)],
        chapters=list(_chapters(compared, controls, split)),
        definition={
            "Searches": ", ".join(plan.searches),
            **(standing if plan.standing else {}),
            "Budget of each": plan.budget,
            "Repeats": ", ".join(
                [f"{plan.repeats}", *(f"{n} {count}" for n, count in plan.repeats_by.items())]
            ),
            "Training seeds": ", ".join(map(str, plan.seeds)),
            "Results": "trained live" if plan.table is None else "replayed from a table",
            "Selection rule": f"The best {metric_words(study.objective)} on "
            f"{split} of a finished trial; ties go to the first.",
        },
        study=study,
        environment=compared.recorded.environment,
    )


def verdict(compared: Searches) -> str:
    """One paragraph: who is better than the reference, by how much, and who is not shown to be."""
    choices, plan = compared.choices, compared.recorded.comparison
    judged, table, reference = choices.judgement.table, choices.table, choices.reference
    lists: dict[str, list[str]] = {"better": [], "worse": [], "open": [], "unknown": []}
    for name in table.index:
        if name == reference:
            continue
        mean, half = judged["difference"].loc[name], judged["difference_ci"].loc[name]
        at = f" at {table['runs'].loc[name]:.1f} runs" if name in plan.learned else ""
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
    parts = [
        f"At the cost of {choices.at:.1f} full runs, {reference} finds configurations of "
        f"{score} % test {SHOWN_WORDS}."
    ]
    parts += [f"{said_of[k]}: {', '.join(v)}." for k, v in lists.items() if v]
    if not lists["better"] and not lists["worse"]:
        parts.append(f"So no search is shown to be better or worse than {reference} here.")
    percent = f"{100 * choices.judgement.confidence:.1f}"
    parts.append(
        f"Points of test accuracy, paired by repeat, with {percent} % intervals, which hold "
        "together at 95 %."
    )
    if plan.table is not None:
        parts.append(
            "They speak for the chance of the searches on this table, not for other data or "
            "backbones."
        )
    return " ".join(parts)


def _learned(compared: Searches, name: str) -> str:
    """What must be said beside a search that finds strengths in one trial."""
    plan, curves = compared.recorded.comparison, compared.curves
    own = compared.choices.table["runs"].loc[name]
    words = (
        f"{name} is one trial per training seed ({own:.1f} full runs), so its line starts at its "
        "own cost and it has no rank. Its strengths, one per site, are more than this space has. "
    )
    if curves.random is not None:
        drawn = curves.random[curves.random["runs"] <= own]["test"]
        words += (
            f"For its cost, random search is expected to find {drawn.iloc[-1]:.1f} %. "
            if len(drawn)
            else "For its cost, random search cannot train one configuration. "
        )
    again = curves.restarts[curves.restarts["search"] == name]
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


def _devices(compared: Searches) -> list[str]:
    kinds = compared.recorded.devices
    if len(kinds) < 2:
        return []
    return [
        f"Trials ran on {len(kinds)} kinds of device ({', '.join(kinds)}): their seconds are not "
        "comparable."
    ]


def _chapters(
    compared: Searches, controls: ComparisonContent | None, split: str
) -> Iterator[Chapter]:
    """The chapters in their order; `split` is the part of the data that choices are made on."""
    landscape, notes = compared.landscape, compared.recorded.comparison.notes
    yield _incumbents(compared, split)
    yield _choices(compared)
    if landscape is not None:
        yield _regrets(compared, landscape.cells, split)
        if len(landscape.fidelity):
            yield _fidelity(compared, landscape)
    yield _bias(compared, split)
    yield Chapter(
        title="Yield",
        tables=[yields_table(compared)],
        notes=["A proposal that is known already costs nothing."],
    )
    if landscape is not None and landscape.effects is not None:
        column, scale = beside_test(compared.recorded.study.base.data), compared.recorded.scale
        yield Chapter(
            title="Can the axes be chosen one after the other?",
            tables=effects_tables(landscape.effects, column, scale),
            notes=[
                "Share: of the variation between cells; seeds are blocks; diverged cells count as "
                "chance."
            ],
        )
    if controls is not None:
        yield _controls(compared, controls)
    if notes:
        yield Chapter(title="Left out", notes=list(notes))


def _incumbents(compared: Searches, split: str) -> Chapter:
    regret = (
        f", and how far its cell's mean {split} score over seeds lies below that of the best cell"
        if compared.landscape is not None
        else ""
    )
    line = (
        " The black line is what random search without repetition is expected to find."
        if compared.curves.random is not None
        else ""
    )
    return Chapter(
        title="Incumbents against cost",
        figure="anytime",
        alt="Lines per search over cost on a log scale: the test score of the incumbent, and its "
        f"regret on {split} where every cell is known. The numbers are in curves.csv.",
        text=[
            f"The incumbent is the trial with the best {compared.recorded.scale.words} "
            f"on {split} that has finished by "
            f"that cost; shown is its test score{regret}. Lines are medians over repeats, bands "
            "their quartiles (they may leave the frame), from where every repeat has a choice. "
            "Cost is in device seconds, over those of a full run, of everything that was trained, "
            f"stopped trials included.{line}"
        ],
    )


def _choices(compared: Searches) -> Chapter:
    choices = compared.choices
    confidence = f"{100 * choices.judgement.confidence:.1f}"
    return Chapter(
        title=f"Choices at {choices.at:.1f} full runs",
        figure="choices",
        alt="Points per search with intervals: the test score of its choice, all classes and by "
        "group, a dot for every repeat. The numbers are in the table below.",
        text=[
            "This is the smallest of the searches' median costs, so that none is judged by more "
            "than another was given; a search that ended earlier keeps its last choice. Budgets "
            "in trials are counted by their epochs."
        ],
        tables=[choices_table(compared)],
        notes=[
            f"Test accuracy (%), {SHOWN_WORDS} and by group: mean "
            "± 95 % Student-t interval over "
            f"repeats. Differences: {confidence} % intervals, which hold together at 95 %.",
            f"P: probability that a repeat of this search is better than one of "
            f"{choices.reference} trained with the same seed, ties by half; mean rank: 1 is best. "
            "Both with 95 % bootstrap intervals over repeats, from 5 repeats on. Critical "
            "differences need about 8 tasks; this is one.",
        ],
    )


def _regrets(compared: Searches, cells: AllCells, split: str) -> Chapter:
    count, scale = len(cells.seeds), compared.recorded.scale
    best = ", ".join(f"{field} = {value}" for field, value in cells.best.items())
    spread = (
        "the standard deviation over seeds of the best tenth of the cells"
        if count > 1
        else "as there is one seed, so no spread to judge by"
    )
    return Chapter(
        title="How far from the best of all cells",
        text=[
            f"The best cell by mean {split} score over {count} seed{'s' if count > 1 else ''} "
            f"of the table is {best}."
        ],
        tables=[regrets_table(compared)],
        notes=[
            f"Regret ({scale.difference}): {split} score of that cell minus that of the search's "
            "choice, both means over seeds; on test, against the cell that is best there, which "
            "only hindsight knows.",
            f"Area: mean regret on {split} over log cost, from where all searches have a "
            f"choice to {compared.choices.at:.1f} runs.",
            f"Found: regret of at most {cells.target:.{scale.digits + 1}f} {scale.difference}, "
            f"{spread}; over a "
            "search's whole run.",
        ],
    )


def _fidelity(compared: Searches, landscape: Landscape) -> Chapter:
    epochs = compared.recorded.study.base.recipe.epochs
    return Chapter(
        title="What an early epoch tells",
        tables=[fidelity_table(landscape.fidelity, epochs)],
        notes=[
            "Over all cells of the table, by seed. A pruner can find the best only if it is "
            "still among those that go on."
        ],
    )


def _bias(compared: Searches, split: str) -> Chapter:
    notes = [f"A choice looks better on {split} than it is, because it was chosen for it."]
    count = compared.recorded.comparison.confirm
    if count:
        notes.append(
            f"Confirmation: the {count} best of a search's whole run, with seeds it has not "
            f"trained with; the best of them by mean {split} score there. Its cost comes on top."
        )
    return Chapter(title="What choosing costs", tables=[bias_table(compared)], notes=notes)


def _controls(compared: Searches, controls: ComparisonContent) -> Chapter:
    return Chapter(
        title=controls.title,
        figure="controls",
        alt="Points with intervals: test accuracy of what was learned and of its controls, all "
        "classes and by group, a dot for every seed. The numbers are in the table below.",
        text=[
            f"From the run `{compared.recorded.comparison.controls}`: what is it that learned "
            f"strengths add, if they add anything? {controls.verdict}"
        ],
        tables=[controls.arms],
        notes=controls.notes,
    )
