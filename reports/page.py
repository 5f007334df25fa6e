"""Writes a run's report folder: figures, CSV tables and `report.md`."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from harness.index import COSTS, OVERALL
from harness.store import write_atomically
from harness.study import Points, View
from reports import render
from reports.comparison_frames import Arms, load_arms
from reports.frames import (
    STATUSES,
    Choice,
    Run,
    choose,
    grid,
    load_run,
    minus_chosen,
    over_nuisance,
    paper_grid,
    paper_points,
    proposals,
    search_answers,
    summarise,
)
from reports.gamma_frames import OFF, Learned, describe, load_learned
from reports.search_frames import load_searches
from reports.search_words import search_words
from reports.words import with_interval


def write_report(folder: Path) -> list[Path]:
    """Write `report/` in the folder of a sweep or a comparison, and return the files written.

    `metrics.csv` and `trials.csv` hold no times or paths, so the same results give the same bytes.

    Raises:
        UserError: the folder is not a run.
    """
    if (folder / "comparison.json").is_file():
        return _write_comparison(folder)
    if (folder / "searches.json").is_file():
        return _write_searches(folder)
    run = load_run(folder)
    everything = summarise(run)
    choice = choose(run, everything)
    summary = over_nuisance(run, everything)
    selected_on = run.study.base.data.select_on
    out = folder / "report"
    out.mkdir(exist_ok=True)
    written = [
        _csv(out / "metrics.csv", everything.assign(selected_on=selected_on)),
        _csv(out / "trials.csv", _metrics_of_trials(run).assign(selected_on=selected_on)),
        _csv(out / "costs.csv", run.trials[[*run.fields, "seed", "trial_id", "status", *COSTS]]),
    ]
    for view in _views(run):
        written += _save(out / _stem(view), render.draw(run, summary, choice, view))
    if run.searches:
        written.append(_csv(out / "search.csv", search_answers(run)))
    written.append(_markdown(out / "report.md", run, summary, choice))
    return written


def write_gamma(trial: Path) -> list[Path]:
    """Write `gamma.csv` and `gamma.png|svg` into a trial's folder, if it learned strengths."""
    learned = load_learned([trial])
    return [] if learned is None else _gamma(trial, learned, f"Learned strengths, {trial.name}")


def say_learned(trials: list[Path]) -> str | None:
    """What these trials learned, in one sentence; None if they did not."""
    learned = load_learned(trials)
    if learned is None:
        return None
    words = _learned_words(learned)
    return (
        f"Strengths from {words['lowest']} to {words['highest']}, mean {words['mean']} (start "
        f"{words['start']}). Evenness (entropy over that of equal strengths) {words['evenness']}; "
        f"below {OFF:g}: {words['share_off']} % of the sites. Agreement between seeds (mean "
        f"Spearman correlation over sites): {words['agreement']}."
    )


def _gamma(folder: Path, learned: Learned, title: str) -> list[Path]:
    table = _csv(folder / "gamma.csv", learned.final)
    return [table, *_save(folder / "gamma", render.gamma(learned, title))]


def _write_comparison(folder: Path) -> list[Path]:
    arms = load_arms(folder)
    compared = arms.comparison
    out = folder / "report"
    out.mkdir(exist_ok=True)
    trials = folder.parent.parent / "trials"
    paths = [trials / trial_id for trial_id in compared.arms[0].trials]
    learned = load_learned(paths)
    written = [_csv(out / "arms.csv", arms.table), _csv(out / "arms_by_seed.csv", arms.scores)]
    written += _save(out / "arms", render.arms(arms))
    if learned is not None:
        written += _gamma(out, learned, f"Learned strengths, {compared.title}")
    rows = [
        {
            "arm": row["arm"] + (f" (× {row['diverged']} diverged)" if row["diverged"] else ""),
            "groups": [with_interval(row[g], row[f"{g}_ci"]) for g in arms.groups],
            "overall": with_interval(row[compared.objective], row[f"{compared.objective}_ci"]),
            "difference": with_interval(row["first_minus_this"], row["first_minus_this_ci"])
            if index
            else "-",
            "runs": f"{row['runs_per_seed']:.1f}",
            "parameters": row["trainable_params"],
        }
        for index, (_, row) in enumerate(arms.table.iterrows())
    ]
    steps = compared.inner_steps
    text = _template("comparison.md.jinja").render(
        arms=arms,
        caption=render.setting(compared.request, len(compared.seeds)),
        verdict=_verdict(arms),
        rows=rows,
        split="test" if compared.request.data.select_on == "test" else "validation",
        ratio=f"{arms.time_ratio:.2f}",
        limit=f"{1 + 1.5 / steps:.2f}" if steps else None,
        learned=say_learned(paths),
    )
    write_atomically(out / "report.md", text)
    return [*written, out / "report.md"]


def _write_searches(folder: Path) -> list[Path]:
    compared = load_searches(folder)
    out = folder / "report"
    out.mkdir(exist_ok=True)
    judged = compared.table.join(compared.judgement.table)
    written = [
        _csv(out / "searches.csv", judged.reset_index()),
        _csv(out / "choices.csv", compared.final),
        _csv(out / "answers.csv", compared.answers),
        _csv(out / "curves.csv", compared.curves),
    ]
    if compared.effects is not None:
        written.append(_csv(out / "interactions.csv", compared.effects))
    written += _save(out / "anytime", render.anytime(compared))
    written += _save(out / "choices", render.finals(compared))
    text = _template("searches.md.jinja").render(
        **search_words(compared), caption=render.searches_caption(compared)
    )
    write_atomically(out / "report.md", text)
    return [*written, out / "report.md"]


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
        f"By paired 95 % intervals, not corrected for their number, {first} "
        + ". It ".join(said)
        + "."
    )


def _learned_words(learned: Learned) -> dict[str, str]:
    facts = describe(learned)
    words = {name: f"{value:.2f}" for name, value in facts.items()}
    agreement = facts["agreement"]
    words["agreement"] = "one seed" if math.isnan(agreement) else f"{agreement:.2f}"
    words["share_off"] = f"{100 * facts['share_off']:.0f}"
    words["start"] = f"{learned.final['start'].mean():g}"
    return words


def _metrics_of_trials(run: Run) -> pd.DataFrame:
    return run.trials.drop(columns=list(COSTS))


def _csv(path: Path, table: pd.DataFrame) -> Path:
    # Formatted here, because pandas takes six times as long, which shows with 100,000 trials.
    text = {
        name: ["" if x != x else f"{x:.4f}" for x in column.to_list()]
        if column.dtype.kind == "f"
        else column
        for name, column in table.items()
    }
    content = pd.DataFrame(text, index=table.index, columns=table.columns)
    write_atomically(path, content.to_csv(index=False, lineterminator="\n"))
    return path


def _views(run: Run) -> tuple[View | Points, ...]:
    """Figures of the axes; a search on a space of its own fills none of them."""
    return run.study.views if run.on_axes else ()


def _stem(view: View | Points) -> str:
    fields = [view.rows, view.columns] if isinstance(view, View) else [view.rows]
    return "_".join([view.kind, *fields]).replace(".", "-")


def _save(path: Path, figure: Figure) -> list[Path]:
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    figure.savefig(paths[0], dpi=200)
    figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("reports") / "templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)


def _markdown(path: Path, run: Run, summary: pd.DataFrame, choice: Choice | None) -> Path:
    text = _template("report.md.jinja").render(
        run=run,
        caption=render.caption(run),
        choice=choice,
        facts=_facts(run, summary, choice),
        tables=[_tables(run, summary, choice, view) for view in _views(run)],
        costs=_cost_totals(run),
    )
    write_atomically(path, text)
    return path


def _facts(run: Run, summary: pd.DataFrame, choice: Choice | None) -> dict[str, Any]:
    """The figures that the report's summary paragraph states."""
    counts = run.trials["status"].value_counts()
    facts: dict[str, Any] = {s.lower(): int(counts.get(s, 0)) for s in STATUSES}
    facts["proposals"], facts["repeated"] = proposals(run)
    facts["metric"] = run.study.objective.replace("_", " ")
    facts["split"] = "test" if run.selected_on_test else "validation"
    if choice is None:
        return facts
    metric = run.study.objective
    scores = summary[f"test_{metric}"].dropna()
    facts["scores"] = {
        name: with_interval(choice.row[f"test_{name}"], choice.row[f"test_{name}_ci"])
        for name in (*OVERALL, *run.groups)
    }
    facts["select_score"] = with_interval(
        choice.row[f"select_{metric}"], choice.row[f"select_{metric}_ci"]
    )
    chosen = choice.row[f"test_{metric}"]
    facts["gap"] = f"{choice.oracle_score - chosen:.1f}"
    facts["oracle"] = f"{choice.oracle_score:.1f}"
    facts["lowest"], facts["highest"] = f"{scores.min():.1f}", f"{scores.max():.1f}"
    facts["binomial"] = {
        group: f"{run.trials[f'binomial_{group}'].mean():.1f}" for group in run.groups
    }
    return facts


def _tables(
    run: Run, summary: pd.DataFrame, choice: Choice | None, view: View | Points
) -> dict[str, Any]:
    if isinstance(view, Points):
        return _point_tables(run, summary, choice, view)
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
    counted = params.map(lambda value: "-" if pd.isna(value) else f"{int(value)}")
    paper = paper_grid(run, view.rows, view.columns)
    corner = f"{run.axis(view.rows).label} \\ {run.axis(view.columns).label}"
    return {
        "view": view,
        "stem": _stem(view),
        "accuracy": _to_markdown(cells, corner),
        "params": _to_markdown(counted, corner),
        "learned": None,
        "paper": _to_markdown(paper[0].map(with_interval), corner) if paper else None,
        "source": paper[1] if paper else None,
    }


def _point_tables(
    run: Run, summary: pd.DataFrame, choice: Choice | None, view: Points
) -> dict[str, Any]:
    """As `_tables`, with the groups and averages as columns."""
    rows = summary.set_index(view.rows).reindex(run.order(view.rows))
    accuracy = pd.DataFrame(
        {
            name.replace("_", " "): [
                with_interval(row[f"test_{name}"], row[f"test_{name}_ci"])
                for _, row in rows.iterrows()
            ]
            for name in (*run.groups, *OVERALL)
        },
        index=rows.index,
    )
    if choice is not None:
        differences = minus_chosen(run, view.rows, choice)
        name = f"{run.study.objective.replace('_', ' ')} minus chosen's, paired"
        accuracy[name] = [
            "chosen" if value == choice.cell[view.rows] else with_interval(*differences[value])
            for value in rows.index
        ]
    accuracy["diverged"] = [f"{count:.0f}" for count in rows["DIVERGED"]]
    seconds = run.trials.groupby(view.rows, sort=False)["device_s"].mean()
    costs = pd.DataFrame(
        {
            "trainable parameters": [f"{count:.0f}" for count in rows["trainable_params"]],
            "device s per trial": [f"{seconds.get(value):.1f}" for value in rows.index],
        },
        index=rows.index,
    )
    corner = run.axis(view.rows).label
    paper = paper_points(run, view.rows)
    learned = _learned_by_value(run, view)
    return {
        "view": view,
        "stem": _stem(view),
        "accuracy": _to_markdown(accuracy, corner),
        "params": _to_markdown(costs, corner),
        "learned": None if learned is None else _to_markdown(learned, corner),
        "paper": _to_markdown(paper[0].map(with_interval), corner) if paper else None,
        "source": paper[1] if paper else None,
    }


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


def _to_markdown(table: pd.DataFrame, corner: str) -> str:
    return table.rename_axis(corner).to_markdown(disable_numparse=True)


def _cost_totals(run: Run) -> dict[str, str]:
    peak = {"peak memory of a trial (MB)": f"{run.trials['peak_memory_mb'].max():.0f}"}
    if run.searches:  # a trial may go on with another's training, so trials' costs do not add up
        answers = [event for log in run.searches.values() for event in log if "tell" in event]
        seconds, flops = (sum(event[name] for event in answers) for name in ("device_s", "flops"))
        return {
            "device seconds, as charged to the searches": f"{seconds:.0f}",
            "TFLOP, likewise": f"{flops / 1e12:.1f}",
            **peak,
        }
    return {
        "device seconds": f"{run.trials['device_s'].sum():.0f}",
        "images forward": f"{run.trials['images_forward'].sum():.0f}",
        "images backward": f"{run.trials['images_backward'].sum():.0f}",
        "TFLOP": f"{run.trials['flops'].sum() / 1e12:.1f}",
        **peak,
    }
