"""What the report of a comparison of searches says: its chapters.

Owns: sentences. Must not know: files, cells of tables, how a number was computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.reports.numbers.contrasts import FEWEST_REPEATS
from harness.reports.numbers.landscape import AllCells, Landscape
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.verdict import FEWEST, LEAST, MARGIN, TOO_WIDE
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import ComparisonContent
from harness.reports.text.names import SHOWN_WORDS, beside_test, metric_words
from harness.reports.text.search_answer import of_learned, verdict
from harness.reports.text.search_tables import (
    bias_table,
    choices_table,
    effects_tables,
    fidelity_table,
    pairs_table,
    regrets_table,
    within_table,
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
    learned = [
        of_learned(compared, part, name)
        for part in compared.parts
        for name in part.recorded.comparison.learned
        if part.recorded.arm(name) in names
    ]
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
    if len(compared.choices.contrasts):
        yield _every_pair(compared)
    if len(compared.choices.within):
        yield _within_seeds(compared)
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
                if landscape.effects.has_noise
                else "Shares of the variation are not stated: with one seed, noise would count as "
                "interaction."
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
        " The black line is what random search is expected to find, in closed form."
        if compared.parts[0].expected is not None
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
            f"Cost is in {_unit(compared)}, over those of a full run, of everything that was "
            f"trained, stopped trials included.{line}"
        ],
    )


def _unit(compared: Searches) -> str:
    return "FLOPs" if compared.recorded.budget.unit == "runs" else "device seconds"


def _choices(compared: Searches) -> Chapter:
    choices, plan = compared.choices, compared.recorded.comparison
    over = "training seeds (Student's t), each the mean of its repeats"
    notes = [
        f"Test accuracy (%), {SHOWN_WORDS} and by group: mean over "
        f"seeds, ± 95 % interval over {over}. Search chance: half of the 95 % interval that the "
        "chance of the repeats leaves to that mean (Monte-Carlo error).",
        f"Differences to {choices.reference} are paired by seed; the next chapter has every pair.",
        "Mean rank: 1 is best, with 95 % bootstrap intervals over repeats, from 5 repeats on. "
        "Critical differences need about 8 tasks; this is one.",
    ]
    if choices.table["improves"].notna().any():
        notes.append(
            "P: probability that a repeat of this search is better than one of random search as it "
            "was run with the same seed, ties by half, with its bootstrap interval."
        )
    if len(plan.used_seeds) == 1:
        notes.append("One training seed: no interval over seeds; what is known is search chance.")
    return Chapter(
        title=f"Choices within {plan.budget}",
        figure="choices",
        alt="Points per search with intervals: the test score of its choice, all classes and by "
        "group, a dot for every seed or, with one, for every repeat. The numbers are in the table "
        "below.",
        text=[
            "The choice of a repeat is the trial with the best selection score that ended within "
            "the budget. Budgets in trials are counted by their epochs."
        ],
        tables=[choices_table(compared)],
        notes=notes,
    )


def _every_pair(compared: Searches) -> Chapter:
    contrasts = compared.choices.contrasts
    return Chapter(
        title="Every pair",
        tables=[pairs_table(contrasts)],
        notes=[
            f"Better or worse: the interval at Holm's level over all {len(contrasts)} pairs lies "
            f"off 0, and the mean is at least {LEAST} points. Equivalent: the 95 % interval lies "
            f"within ± {MARGIN}. Not informative: fewer than {FEWEST} seeds, or undecided with a "
            f"half-width above {TOO_WIDE}. The numbers behind each are in contrasts.csv.",
            "Of search chance alone: the same difference with the 95 % interval that the repeats "
            "leave to it on these seeds; it does not speak for other seeds. Without an interval, "
            "neither has chance of its own.",
        ],
    )


def _within_seeds(compared: Searches) -> Chapter:
    count = len(compared.choices.within)
    return Chapter(
        title="Within each seed",
        text=[
            "What the repeats within one training seed say: there every cell was trained once, and "
            "the search's chance is all there is. It does not speak for other seeds, and is "
            "exploratory: the protocol has no repeat as a replicate."
        ],
        tables=[within_table(compared.choices.within, compared.choices.reference)],
        notes=[
            "Mean of the repeats minus the reference, ± 95 % interval over repeats, of which a "
            f"seed has at least {FEWEST_REPEATS}. Words by the limits of the same rule with a "
            f"repeat as the replicate: better and worse with Holm's correction over {count}, "
            "equivalent by the 95 % interval. The numbers behind each are in within_seeds.csv.",
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
            f"choice to {compared.choices.at:.1f} full runs.",
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
