"""Writes a run's report folder: figures, CSV tables and `report.md`."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from harness.store import write_atomically
from harness.study import View
from reports import render
from reports.frames import (
    OVERALL,
    STATUSES,
    Choice,
    Run,
    choose,
    grid,
    load_run,
    over_nuisance,
    paper_grid,
    summarise,
)

DRAW = {"heatmap": render.heatmap, "curves": render.curves}
COSTS = ("wall_s", "device_s", "images_forward", "images_backward", "flops", "peak_memory_mb")


def write_report(folder: Path) -> list[Path]:
    """Write `report/` in a run's folder and return the files written.

    `metrics.csv` and `trials.csv` hold no times or paths, so the same results give the same bytes.

    Raises:
        UserError: the folder is not a run.
    """
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
    for view in run.study.views:
        written += _figure(out, view, DRAW[view.kind](run, summary, choice, view))
    written.append(_markdown(out / "report.md", run, summary, choice))
    return written


def _metrics_of_trials(run: Run) -> pd.DataFrame:
    return run.trials.drop(columns=list(COSTS))


def _csv(path: Path, table: pd.DataFrame) -> Path:
    write_atomically(path, table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    return path


def _figure(out: Path, view: View, figure: Figure) -> list[Path]:
    stem = "_".join([view.kind, view.rows, view.columns]).replace(".", "-")
    paths = [out / f"{stem}.png", out / f"{stem}.svg"]
    figure.savefig(paths[0], dpi=200)
    figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _markdown(path: Path, run: Run, summary: pd.DataFrame, choice: Choice | None) -> Path:
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("reports") / "templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("report.md.jinja")
    text = template.render(
        run=run,
        caption=render.caption(run),
        choice=choice,
        facts=_facts(run, summary, choice),
        tables=[_tables(run, summary, view) for view in run.study.views],
        costs=_cost_totals(run),
    )
    write_atomically(path, text)
    return path


def _facts(run: Run, summary: pd.DataFrame, choice: Choice | None) -> dict[str, Any]:
    """The figures that the report's summary paragraph states."""
    counts = run.trials["status"].value_counts()
    facts: dict[str, Any] = {s.lower(): int(counts.get(s, 0)) for s in STATUSES}
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


def _tables(run: Run, summary: pd.DataFrame, view: View) -> dict[str, Any]:
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
    return {
        "view": view,
        "stem": "_".join([view.kind, view.rows, view.columns]).replace(".", "-"),
        "accuracy": _to_markdown(cells, run, view),
        "params": _to_markdown(counted, run, view),
        "paper": _to_markdown(paper[0].map(lambda v: f"{v:.1f}"), run, view) if paper else None,
        "source": paper[1] if paper else None,
    }


def _to_markdown(table: pd.DataFrame, run: Run, view: View) -> str:
    named = table.rename_axis(f"{run.axis(view.rows).label} \\ {run.axis(view.columns).label}")
    return named.to_markdown(disable_numparse=True)


def with_interval(mean: float, half_width: float = float("nan")) -> str:
    """`61.3`, or `61.3 ± 0.8` where there is an interval, or `-` where there is no score."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" if math.isnan(half_width) else f"{mean:.1f} ± {half_width:.1f}"


def _cost_totals(run: Run) -> dict[str, str]:
    return {
        "device seconds": f"{run.trials['device_s'].sum():.0f}",
        "images forward": f"{run.trials['images_forward'].sum():.0f}",
        "images backward": f"{run.trials['images_backward'].sum():.0f}",
        "TFLOP": f"{run.trials['flops'].sum() / 1e12:.1f}",
        "peak memory of a trial (MB)": f"{run.trials['peak_memory_mb'].max():.0f}",
    }
