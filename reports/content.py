"""What a report says: sentences and tables of words, made once for Markdown, HTML and LaTeX.

Owns: the wording of numbers that `frames` computed. Must not know: any of those three formats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.index import OVERALL
from harness.study import AnyView, Bubbles, Embedding, Points, View
from reports.captions import DISTANCE, MARKED, caption, legend, setting, shows_accuracy
from reports.comparison_frames import Arms
from reports.embedding_frames import load_embedded
from reports.frames import (
    COST_UNITS,
    STATUSES,
    Choice,
    Paper,
    Run,
    bubbles_of,
    by_value,
    grid,
    minus_chosen,
    paper_by_dataset,
    paper_grid,
    paper_tables,
    projected,
    proposals,
)
from reports.gamma_frames import OFF, Learned, describe, load_learned
from reports.words import signed, with_interval


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it is to be read: `words` holds strings, its index the rows' names."""

    stem: str
    """Name of its file, without the ending."""
    caption: str
    """One sentence, without the full stop."""
    corner: str
    """What the rows' names are."""
    words: pd.DataFrame
    has_means: bool = False
    """The last row is the mean of the others."""
    chosen: tuple[Any, Any] | None = None
    """Row and column of the chosen cell."""
    is_paper: bool = False

    @property
    def markdown(self) -> str:
        return self.words.rename_axis(self.corner).to_markdown(disable_numparse=True)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The chosen cell and what is to be known about the choice."""

    rule: str
    cell: str
    scores: Table
    """Test accuracies in one row."""
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One view: its figure and the tables under it, the paper's last."""

    view: AnyView
    figure: str
    """Name of the figure's file, without the ending."""
    alt: str
    caption: str
    tables: list[Table]


@dataclass(frozen=True, kw_only=True)
class SweepContent:
    """A sweep's report. Words between backticks are code."""

    title: str
    question: str
    warning: str | None
    caption: str
    counts: str
    searches: str | None
    answer: Answer | None
    sections: list[Section]
    costs: Table
    environment: dict[str, str]

    @property
    def tables(self) -> list[Table]:
        chosen = [] if self.answer is None else [self.answer.scores]
        return [*chosen, *(t for section in self.sections for t in section.tables), self.costs]


@dataclass(frozen=True, kw_only=True)
class ComparisonContent:
    """A comparison's report."""

    title: str
    caption: str
    verdict: str
    arms: Table
    papers: list[Table]
    notes: list[str]
    learned: str | None
    has_swept: bool
    """Whether the map of a sweep stands beside what was learned."""
    environment: dict[str, str]


def sweep_content(run: Run, summary: pd.DataFrame, choice: Choice | None) -> SweepContent:
    """Words for a sweep, from its cells' summary and its choice."""
    warning = "SELECTED ON TEST (the paper's protocol): every choice below has seen the test set."
    return SweepContent(
        title=run.study.name,
        question=f"{run.study.question} (paper: {run.study.paper})",
        warning=warning if run.selected_on_test else None,
        caption=caption(run),
        counts=_counts(run),
        searches=_searches(run),
        answer=None if choice is None else _answer(run, summary, choice),
        sections=[_section(run, summary, choice, view) for view in views(run)],
        costs=_costs(run),
        environment=run.environment,
    )


def views(run: Run) -> tuple[AnyView, ...]:
    """Figures of the axes; a search on a space of its own fills none of them."""
    return run.study.views if run.on_axes else ()


def stem(view: AnyView) -> str:
    """Name of a view's files, without the ending."""
    fields = [view.rows, view.columns] if isinstance(view, View) else [view.rows]
    if isinstance(view, Points) and view.value != "accuracy":
        fields.append(view.value)
    return "_".join([view.kind, *fields]).replace(".", "-")


def say_learned(trials: list[Path]) -> str | None:
    """What these trials learned, in one sentence; None if they did not."""
    learned = load_learned(trials)
    return None if learned is None else _say(learned)


def _say(learned: Learned) -> str:
    words = _learned_words(learned)
    return (
        f"Strengths from {words['lowest']} to {words['highest']}, mean {words['mean']} (start "
        f"{words['start']}). Evenness (entropy over that of equal strengths) {words['evenness']}; "
        f"below {OFF:g}: {words['share_off']} % of the sites. Agreement between seeds (mean "
        f"Spearman correlation over sites): {words['agreement']}."
    )


def split_words(run: Run) -> str:
    """The part of the data that choices are made on."""
    return "test" if run.selected_on_test else "validation"


def cell_words(run: Run, cell: dict[str, Any]) -> str:
    """A configuration in a sentence."""
    return ", ".join(f"{run.label(field)} = {run.words(value)}" for field, value in cell.items())


def _metric_words(run: Run) -> str:
    return run.study.objective.replace("_", " ")


def _counts(run: Run) -> str:
    counts = {status: int((run.trials["status"] == status).sum()) for status in STATUSES}
    stopped = f" {counts['PRUNED']} stopped early," if counts["PRUNED"] else ""
    return (
        f"Trials: {counts['COMPLETE']} complete, {counts['DIVERGED']} diverged,{stopped} "
        f"{counts['FAILED']} failed, {counts['MISSING']} missing."
    )


def _searches(run: Run) -> str | None:
    count, repeated = proposals(run)
    if not count:
        return None
    return (
        f"Searches: {len(run.searches)}; {count} proposals, {repeated} of them repeats. Their "
        "answers in order, with costs: `search.csv`."
    )


def _answer(run: Run, summary: pd.DataFrame, choice: Choice) -> Answer:
    metric, row = run.study.objective, choice.row
    split = split_words(run)
    select = with_interval(row[f"select_{metric}"], row[f"select_{metric}_ci"])
    scores = summary[f"test_{metric}"].dropna()
    gap = choice.oracle_score - row[f"test_{metric}"]
    binomial = ", ".join(
        f"{group} {run.trials[f'binomial_{group}'].mean():.1f}" for group in run.groups
    )
    several = [
        f"Cells range from {scores.min():.1f} to {scores.max():.1f} % on test.",
        f"The best cell on test, which only hindsight knows, is {cell_words(run, choice.oracle)} "
        f"with {choice.oracle_score:.1f} %: choosing on {split} cost {gap:.1f} points.",
    ]
    notes = [
        *(several if len(summary) > 1 else ()),
        "Binomial standard error of one trial's group accuracy, from the number of test images "
        f"alone: {binomial} points.",
    ]
    if len(run.seeds) < 2 and len(summary) > 1:
        notes.append(
            "One seed: differences between cells have no interval. Run more with `--seeds N`."
        )
    notes += [
        f"The chosen {run.label(field)} lies at the end of its range: better values may lie beyond."
        for field in choice.at_edge
    ]
    return Answer(
        rule=f"Chosen by the best {_metric_words(run)} on {split} ({select} %)",
        cell=cell_words(run, choice.cell),
        scores=Table(
            stem="chosen",
            caption=f"The cell chosen on {split}: {cell_words(run, choice.cell)}",
            corner="test accuracy (%)",
            words=pd.DataFrame(
                {
                    name.replace("_", " "): [
                        with_interval(row[f"test_{name}"], row[f"test_{name}_ci"])
                    ]
                    for name in (*OVERALL, *run.groups)
                },
                index=["chosen cell"],
            ),
        ),
        notes=notes,
    )


def _section(run: Run, summary: pd.DataFrame, choice: Choice | None, view: AnyView) -> Section:
    over, what = run.axis(view.rows).label, "test accuracy"
    if isinstance(view, View):
        tables = _grid_tables(run, summary, choice, view)
        tables += _paper_grid(run, view)
        over = f"{over} and {run.axis(view.columns).label}"
    elif isinstance(view, Bubbles):
        tables = _bubble_tables(run, view)
        what = "tail against overall test accuracy"
    elif isinstance(view, Embedding):
        tables = [_silhouette_table(run, view)]
        what = "test images in the plane"
    else:
        tables = _point_tables(run, summary, choice, view)
        what = {"accuracy": what, "distance": "distances between classes", "cost": "costs"}[
            view.value
        ]
    scores = summary[f"test_{run.study.objective}"].dropna()
    is_accuracy = what == "test accuracy"
    span = ""
    if is_accuracy and len(scores):
        span = f", from {scores.min():.1f} to {scores.max():.1f} %"
    marks = MARKED if shows_accuracy(view) else ""
    has_paper = any(table.is_paper for table in tables)
    beside = ", the paper's numbers in panels of their own" if has_paper else ""
    groups = f", all classes and {', '.join(run.groups)}" if is_accuracy and run.groups else ""
    return Section(
        view=view,
        figure=stem(view),
        alt=f"{view.kind.capitalize()} of {what} by {over}{groups}{span}{beside}. Its numbers are "
        "in the tables below.",
        caption=f"{legend(run, choice, view)}{marks}",
        tables=tables,
    )


def _caption(run: Run, what: str) -> str:
    seeds = len(run.seeds)
    over = f", mean ± 95 % interval over {seeds} seeds" if seeds > 1 else ""
    return f"{what}{over}; choices are made on {split_words(run)}; × diverged, - no result"


def _accuracy_caption(run: Run, at: str = "") -> str:
    return _caption(run, f"Test accuracy (%), {_metric_words(run)}{at}")


def _paper_caption(title: str, source: str) -> str:
    exact = "some cells are less exact, see `baselines/paper`"
    how = exact if title.startswith(source) else f"{source}; {exact}"
    return f"Paper, {title} ({how}), beside ours and never mixed in"


def _paper_grid(run: Run, view: View) -> list[Table]:
    paper = paper_grid(run, view.rows, view.columns)
    if paper is None:
        return []
    return [
        Table(
            stem=f"{stem(view)}_paper",
            caption=_paper_caption(f"{run.study.paper}, DOTA, ViT-B/16", paper[1]),
            corner=_corner(run, view),
            words=paper[0].map(with_interval),
            is_paper=True,
        )
    ]


def _papers(of: str, papers: list[Paper], corner: str, digits: int = 1) -> list[Table]:
    return [
        Table(
            stem=f"{of}_paper" + (f"_{number}" if number else ""),
            caption=_paper_caption(paper.title, paper.source),
            corner=corner,
            words=paper.table.map(lambda value: with_interval(value, digits=digits)),
            is_paper=True,
        )
        for number, paper in enumerate(papers)
    ]


def _corner(run: Run, view: View) -> str:
    return f"{run.axis(view.rows).label} \\ {run.axis(view.columns).label}"


def _grid_tables(run: Run, summary: pd.DataFrame, choice: Choice | None, view: View) -> list[Table]:
    metric = run.study.objective
    mean = grid(run, summary, view.rows, view.columns, f"test_{metric}")
    half = grid(run, summary, view.rows, view.columns, f"test_{metric}_ci")
    diverged = grid(run, summary, view.rows, view.columns, "DIVERGED")
    cells = pd.DataFrame(
        {
            column: [
                with_interval(mean.loc[row, column], half.loc[row, column])
                + (" ×" if diverged.loc[row, column] > 0 else "")
                for row in mean.index
            ]
            for column in mean.columns
        },
        index=mean.index,
    )
    cells["mean"] = [with_interval(value) for value in mean.mean(axis=1)]
    cells.loc["mean"] = [*(with_interval(value) for value in mean.mean()), ""]
    params = grid(run, summary, view.rows, view.columns, "trainable_params")
    further = projected(run, view.rows, view.columns)
    at = f", at the {' and '.join(further)} that is best on {split_words(run)}" if further else ""
    counted = params.map(lambda value: "-" if pd.isna(value) else f"{int(value)}")
    return [
        Table(
            stem=stem(view),
            caption=_accuracy_caption(run, at),
            corner=_corner(run, view),
            words=cells,
            has_means=True,
            chosen=None if choice is None else (choice.cell[view.rows], choice.cell[view.columns]),
        ),
        Table(
            stem=f"{stem(view)}_parameters",
            caption="Trainable parameters beside the head",
            corner=_corner(run, view),
            words=counted,
        ),
    ]


def _bubble_tables(run: Run, view: Bubbles) -> list[Table]:
    table, overall = bubbles_of(run, view.rows), _metric_words(run)
    table.columns = pd.Index([overall, "tail", f"SD of the {overall} over seeds"])
    corner = run.axis(view.rows).label
    return [
        Table(
            stem=stem(view),
            caption="Test accuracy (%), mean over seeds, as drawn; - no result",
            corner=corner,
            words=table.map(with_interval),
        ),
        *_papers(stem(view), paper_tables(run, view.rows, "class_mean", "tail"), corner),
    ]


def _silhouette_table(run: Run, view: Embedding) -> Table:
    found = load_embedded(run, view.rows).silhouettes
    return Table(
        stem=stem(view),
        caption=_caption(run, "Silhouette of test images by cosine distance of features (-1 to 1)"),
        corner=run.axis(view.rows).label,
        words=pd.DataFrame(
            {
                group: [
                    with_interval(row[group], row[f"{group}_ci"], digits=2)
                    for _, row in found.iterrows()
                ]
                for group in ("all", *run.groups)
            },
            index=found.index,
        ).assign(**{"seeds with features": found["seeds"].map("{:.0f}".format)}),
    )


def _cost_table(run: Run, rows: pd.DataFrame, view: Points) -> Table:
    return Table(
        stem=stem(view),
        caption=_caption(run, "Costs of a trial; inference with nothing merged"),
        corner=run.axis(view.rows).label,
        words=pd.DataFrame(
            {
                unit.words: [
                    with_interval(row[name], row[f"{name}_ci"], digits=2)
                    for _, row in rows.iterrows()
                ]
                for name, unit in COST_UNITS.items()
            },
            index=rows.index,
        ),
    )


def _point_tables(
    run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points
) -> list[Table]:
    """As `_grid_tables`, with the groups and averages as columns."""
    is_accuracy = view.value == "accuracy"
    rows = by_value(run, summary, view)
    if view.value == "cost":
        return [_cost_table(run, rows, view)]
    part, digits = ("test", 1) if is_accuracy else ("distance", 2)
    cells = pd.DataFrame(
        {
            name.replace("_", " "): [
                with_interval(row[f"{part}_{name}"], row[f"{part}_{name}_ci"], digits)
                for _, row in rows.iterrows()
            ]
            for name in (*run.groups, *(OVERALL if is_accuracy else ()))
        },
        index=rows.index,
    )
    if is_accuracy and choice is not None:
        differences = minus_chosen(run, view.rows, choice)
        name = f"{_metric_words(run)} minus chosen's, paired"
        cells[name] = [
            "chosen" if value == choice.cell[view.rows] else with_interval(*differences[value])
            for value in rows.index
        ]
    cells["diverged"] = [f"{count:.0f}" for count in rows["DIVERGED"]]
    by = run.trials.groupby(view.rows, sort=False)
    seconds, counts = by["device_s"].mean(), by["trainable_params"].max()
    costs = pd.DataFrame(
        {
            "trainable parameters": [f"{counts.get(value):.0f}" for value in rows.index],
            "device s per trial": [f"{seconds.get(value):.1f}" for value in rows.index],
        },
        index=rows.index,
    )
    corner = run.axis(view.rows).label
    distances = _caption(run, DISTANCE.rstrip("."))
    found = [
        Table(
            stem=stem(view),
            caption=_accuracy_caption(run) if is_accuracy else distances,
            corner=corner,
            words=cells,
        ),
        Table(
            stem=f"{stem(view)}_parameters",
            caption="Trainable parameters beside the head, and time",
            corner=corner,
            words=costs,
        ),
    ]
    learned = _learned_by_value(run, view)
    if learned is not None:
        caption = (
            "Learned strengths, mean over seeds; agreement is the mean Spearman correlation over "
            "sites between pairs of seeds, without which differences between sites are chance"
        )
        found.append(
            Table(stem=f"{stem(view)}_learned", caption=caption, corner=corner, words=learned)
        )
    return found + _papers(stem(view), paper_tables(run, view.rows, "head"), corner, digits)


def _learned_by_value(run: Run, view: Points) -> pd.DataFrame | None:
    """What the trials of each value learned, where all of them learned strengths."""
    rows = {}
    for value in run.order(view.rows):
        own = run.trials[(run.trials[view.rows] == value) & (run.trials["status"] == "COMPLETE")]
        learned = load_learned([run.store / "trials" / trial_id for trial_id in own["trial_id"]])
        if learned is None:
            return None
        words = _learned_words(learned)
        rows[value] = {
            "mean": words["mean"],
            "lowest to highest site": f"{words['lowest']} to {words['highest']}",
            "evenness": words["evenness"],
            "sites below 0.1 (%)": words["share_off"],
            "agreement of seeds": words["agreement"],
        }
    return pd.DataFrame(rows).T


def _learned_words(learned: Learned) -> dict[str, str]:
    facts = describe(learned)
    words = {name: f"{value:.2f}" for name, value in facts.items()}
    agreement = facts["agreement"]
    words["agreement"] = "one seed" if math.isnan(agreement) else f"{agreement:.2f}"
    words["share_off"] = f"{100 * facts['share_off']:.0f}"
    words["start"] = f"{learned.final['start'].mean():g}"
    return words


def _costs(run: Run) -> Table:
    peak = {"peak memory of a trial (MB)": f"{run.trials['peak_memory_mb'].max():.0f}"}
    if run.searches:  # a trial may go on with another's training, so trials' costs do not add up
        answers = [event for log in run.searches.values() for event in log if "tell" in event]
        seconds, flops = (sum(event[name] for event in answers) for name in ("device_s", "flops"))
        totals = {
            "device seconds, as charged to the searches": f"{seconds:.0f}",
            "TFLOP, likewise": f"{flops / 1e12:.1f}",
        }
    else:
        totals = {
            "device seconds": f"{run.trials['device_s'].sum():.0f}",
            "images forward": f"{run.trials['images_forward'].sum():.0f}",
            "images backward": f"{run.trials['images_backward'].sum():.0f}",
            "TFLOP": f"{run.trials['flops'].sum() / 1e12:.1f}",
        }
    words = pd.DataFrame({"total": {**totals, **peak}})
    return Table(stem="costs", caption="Cost of all trials", corner="", words=words)


def comparison_content(arms: Arms, learned: Learned | None) -> ComparisonContent:
    """Words for a comparison, and for the strengths that its first arm learned."""
    compared = arms.comparison
    least = arms.table["inference_gflop"].min()
    rows = [_arm_words(arms, row, least) for _, row in arms.table.iterrows()]
    rows[0]["difference"] = "-"
    split = compared.request.data.chosen_on
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
    objective = compared.objective.replace("_", " ")
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
        papers=_papers("arms", found, "method"),
        notes=[
            f"Test accuracy (%), mean ± 95 % Student-t interval over {count} seeds. All arms share "
            "split, batches and initial values of their seed.",
            "Difference: class mean of the first arm minus that of this one, paired by seed; "
            "positive favours the first arm.",
            "Runs: cost per seed with everything that was run to find the setting, in full runs of "
            f'"{compared.unit}", by device seconds (which other work on the machine prolongs) and '
            "by FLOPs.",
            "Inference: FLOPs of one image beyond those of the cheapest arm, with nothing merged; "
            "LoRA can be merged into the weights and then costs none (-: not counted when it ran).",
            f"Choices (learning rates, cells) were made by the seeds' mean {objective} on {split}.",
            *time,
            *compared.notes,
        ],
        learned=None if learned is None else _say(learned),
        has_swept=learned is not None and arms.swept is not None,
        environment=arms.environment,
    )


def _arm_words(arms: Arms, row: pd.Series[Any], least: float) -> dict[str, str]:
    inference = f"+{100 * (row['inference_gflop'] / least - 1):.1f} %" if least > 0 else "-"
    objective = arms.comparison.objective
    return {
        "arm": row["arm"] + (f" (× {row['diverged']} diverged)" if row["diverged"] else ""),
        **{group: with_interval(row[group], row[f"{group}_ci"]) for group in arms.groups},
        "class mean": with_interval(row[objective], row[f"{objective}_ci"]),
        "difference": with_interval(row["first_minus_this"], row["first_minus_this_ci"]),
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
        mean, half = row["first_minus_this"], row["first_minus_this_ci"]
        shown = not math.isnan(half) and abs(mean) > half
        lists["open" if not shown else "better" if mean > 0 else "worse"].append(str(row["arm"]))
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
    objective = arms.comparison.objective
    chosen = arms.table.iloc[int(arms.table["select"].to_numpy().argmax())]
    score = with_interval(chosen[objective], chosen[f"{objective}_ci"])
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
