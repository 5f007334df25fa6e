"""What is said of searches with several objectives: the report, the caption, the answer in brief.

Owns: these sentences. Must not know: files, drawings, how a number was computed.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from harness.console import duration
from harness.metrics import COSTS, SHOWN, TAIL, Goal, scale_of
from harness.reports.brief import Brief
from harness.reports.numbers.fronts import Fronts
from harness.reports.numbers.verdict import FEWEST
from harness.reports.text.captions import setting
from harness.reports.text.document import Chapter, Document
from harness.reports.text.model import Table
from harness.reports.text.names import SHOWN_WORDS, data_words
from harness.reports.text.numbers import signed, with_interval
from harness.study.axes import in_words

COST_NOTE: dict[Goal, str] = {
    "trainable_params": "Trainable parameters are those beside the head's.",
    "inference_flops": "Inference FLOPs are of the adapted model on one image, nothing merged.",
}
RANDOM = "random search, in closed form"


def value_words(goal: Goal, value: float) -> str:
    """A value as it is read: `62.2 %`, `1.234`, `6,144` or `22.5 M`."""
    if goal in COSTS:
        return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.2f} M"
    scale = scale_of(goal)
    return f"{value:.{scale.digits}f}{scale.unit}"


def front_words(found: Fronts, cell: str) -> str:
    """A configuration, by its fields' labels."""
    labels = {axis.field: axis.label for axis in found.study.axes}
    values: dict[str, Any] = json.loads(cell)
    return ", ".join(f"{labels.get(name, name)} {in_words(v)}" for name, v in values.items())


def fronts_caption(found: Fronts) -> str:
    """Under the figure: data, backbone, recipe, seeds, what was chosen on, what the volume is."""
    base = found.study.base
    where = "Replayed from a table of every cell" if found.space is not None else "Trained live"
    budget = "" if found.budget is None else f", budget {found.budget} of each search"
    return (
        f"{where}{budget}: {setting(base, len(found.seeds))} Objectives and front on "
        f"{base.data.chosen_on}. {_box(found)}"
    )


def _box(found: Fronts) -> str:
    corner = ", ".join(
        f"{scale_of(goal).words} {value_words(goal, value)}"
        for goal, value in zip(found.goals, found.corner, strict=True)
    )
    return (
        "Hypervolume: share of the box that the trials so far dominate, from its corner "
        f"({corner}: chance, and 1.1 times the largest cost) to all right at no cost."
    )


def fronts_document(found: Fronts) -> Document:
    """The whole report."""
    study, base = found.study, found.study.base
    goals = " and ".join(scale_of(goal).words for goal in found.goals)
    is_on_test = base.data.select_on == "test"
    warning = "SELECTED ON TEST (the paper's protocol): the whole front has seen the test set."
    return Document(
        title=f"{study.name}: {goals}",
        question=f"Which configurations are best in one objective without loss in another? "
        f"({study.question})",
        warning=warning if is_on_test else None,
        caption=fronts_caption(found),
        answer=[_front_sentence(found), *_volume_sentences(found)],
        chapters=[
            Chapter(
                title="The front",
                figure="front",
                alt=f"Left: {goals} of every trial, and the front. Right: hypervolume over trials. "
                "The numbers are in front.csv and points.csv.",
                tables=[_front_table(found)],
                notes=_notes(found),
            ),
            Chapter(title="Hypervolume", tables=[_volume_table(found)], text=[_box(found)]),
        ],
        definition={
            "Searches": ", ".join(found.volumes.index),
            "Objectives": ", ".join(f"{scale_of(g).words} ({_direction(g)})" for g in found.goals),
            "Objectives are of": base.data.chosen_on_in_full,
            **({} if found.budget is None else {"Budget of each": found.budget}),
            "Training seeds": ", ".join(map(str, found.seeds)),
            "Results": "trained live" if found.space is None else "replayed from a table",
        },
        study=study,
        environment=found.environment,
    )


def _direction(goal: Goal) -> str:
    return "least" if scale_of(goal).sign < 0 else "most"


def _span(found: Fronts, goal: Goal) -> str:
    values = found.front[goal]
    low, high = value_words(goal, values.min()), value_words(goal, values.max())
    return f"{scale_of(goal).words} {low}" + ("" if low == high else f" to {high}")


def _tests(found: Fronts) -> str:
    tests = found.front[f"test_{SHOWN}"]
    low, high = f"{tests.min():.1f}", f"{tests.max():.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _front_sentence(found: Fronts) -> str:
    if found.front.empty:
        return "No trial is better than chance, so the front is empty."
    whole = found.points["trial_id"].nunique() if found.space is None else len(found.space)
    what = "trials" if found.space is None else f"cells of the table{_in_seed(found)}"
    spans = ", ".join(_span(found, goal) for goal in found.goals)
    return (
        f"The front on {found.study.base.data.chosen_on} has {len(found.front)} of {whole} {what}: "
        f"{spans}. On test, which nothing was chosen by, its {SHOWN_WORDS} is {_tests(found)}."
    )


def _in_seed(found: Fronts) -> str:
    """Which seed's front it is, where the table has several."""
    return f" in seed {found.seeds[0]}" if len(found.seeds) > 1 else ""


def _volume_sentences(found: Fronts) -> list[str]:
    said = []
    for arm, row in found.volumes.iterrows():
        times, seeds = int(row["repeats"]), int(row["seeds"])
        of = "over seeds" if seeds > 1 else "of search chance"
        over = f" (mean of {times} repeats, 95 % interval {of})" if times > 1 else ""
        words = f"{arm}: hypervolume {with_interval(row['volume'], row['volume_ci'])} %{over}"
        if math.isnan(row["minus_random"]):
            said.append(f"{words} by {row['trials']:.0f} trials.")
        else:
            difference = signed(row["minus_random"], row["minus_random_ci"])
            at = row["volume"] - row["minus_random"]  # in the seeds of its repeats
            said.append(
                f"{words}, {difference} points to the {at:.1f} % that random search is expected to "
                f"dominate with as many trials ({row['trials']:.0f})."
            )
    if 1 < len(found.seeds) < FEWEST:
        said.append(
            f"{len(found.seeds)} seeds of at least {FEWEST} are not informative by the rule of "
            "docs/protocol.md, so these intervals decide nothing."
        )
    if found.random is None:
        said.append(_no_random(found))
    return said


def _random_at(found: Fronts, trials: float) -> float | None:
    """Closed form after so many trials, a mean over repeats that need not be whole."""
    if found.random is None or not len(found.random):
        return None
    count = min(max(round(trials), 1), len(found.random))
    return float(found.random[count - 1])


def _no_random(found: Fronts) -> str:
    if "random" in found.volumes.index:
        return "Random search was run to the same budget; in closed form it needs every cell."
    goals = ",".join(found.goals)
    return (
        "Random search of equal cost is not in this run: `harness compare --search "
        f"random,{','.join(found.volumes.index)} --study {found.study.name} --objective {goals}` "
        "runs it beside, and `--replay` of a table has it in closed form."
    )


def _front_table(found: Fronts) -> Table:
    rows: dict[str, list[str]] = {}
    split = found.study.base.data.chosen_on
    for goal in found.goals:
        name = scale_of(goal).words + ("" if goal in COSTS else f", {split}")
        rows[name] = [value_words(goal, value) for value in found.front[goal]]
    for name in (SHOWN, TAIL):
        if f"test_{name}" in found.front:
            words = [f"{value:.1f} %" for value in found.front[f"test_{name}"]]
            rows[f"{scale_of(name).words}, test"] = words
    if found.space is not None:
        for arm in found.volumes.index:
            rows[f"found by {arm}"] = [f"{100 * v:.0f} %" for v in found.front[f"found_by_{arm}"]]
    index = [front_words(found, cell) for cell in found.front["cell"]]
    whole = "all cells" if found.space is not None else "all trials of the run"
    return Table(
        stem="front",
        caption=f"The front of {whole}, by falling {scale_of(found.goals[0]).words}",
        corner="configuration",
        words=pd.DataFrame(rows, index=index),
    )


def _volume_table(found: Fronts) -> Table:
    rows = {
        str(arm): {
            "repeats": f"{row['repeats']:.0f}",
            "trials": f"{row['trials']:.1f}",
            "hypervolume (%)": with_interval(row["volume"], row["volume_ci"]),
            "points on its front": f"{row['front']:.1f}",
        }
        for arm, row in found.volumes.iterrows()
    }
    if found.random is not None and len(found.random):
        rows[RANDOM] = {
            "repeats": "all orders",
            "trials": str(len(found.random)),
            "hypervolume (%)": f"{found.random[-1]:.1f}",
            "points on its front": "-",
        }
    return Table(
        stem="hypervolume",
        caption="What each search dominates, means over its repeats with 95 % intervals",
        corner="search",
        words=pd.DataFrame.from_dict(rows, "index"),
    )


def _notes(found: Fronts) -> list[str]:
    notes = [COST_NOTE[goal] for goal in found.goals if goal in COSTS]
    if len(found.seeds) < 2 or found.space is not None:
        notes.append(
            "Each point is one training run: which cells are on the front is partly chance, and "
            "its scores flatter; the test scores beside do not."
        )
    if found.space is not None:
        notes.append(
            f"Found by: share of a search's repeats{_in_seed(found)} that had trained the cell."
        )
    diverged = int((found.points["status"] == "DIVERGED").sum())
    if diverged:
        notes.append(f"{diverged} trials diverged; they count as chance and are on no front.")
    return [*notes, *found.notes]


def fronts_brief(found: Fronts) -> Brief:
    """What the command ends with."""
    front = _front_sentence(found).partition(". On test")[0]
    means = [
        f"{arm} {with_interval(row['volume'], row['volume_ci'])} %"
        for arm, row in found.volumes.iterrows()
    ]
    at = _random_at(found, float(found.volumes["trials"].max()))
    volumes = f"hypervolume: {', '.join(means)}"
    if at is not None:
        volumes += f"; random search of equal cost, in closed form, {at:.1f} %"
    caveats = []
    if len(found.seeds) < 2:
        caveats.append("one training seed, so intervals are of the searches' chance alone")
    elif len(found.seeds) < FEWEST:
        caveats.append(f"{len(found.seeds)} seeds of at least {FEWEST}, which decide nothing")
    if found.study.base.data.select_on == "test":
        caveats.insert(0, "SELECTED ON TEST, which flatters every choice")
    if found.random is None and "random" not in found.volumes.index:
        caveats.append("random search of equal cost is not in this run (see the report)")
    count = found.points["trial_id"].nunique()
    trained = f"{count} trials, {duration(found.device_s)} of device time charged"
    return Brief(
        title="Front",
        choice=f"{front[:1].lower()}{front[1:].removesuffix('.')}; {volumes}",
        test=None
        if found.front.empty
        else f"{_tests(found)} {SHOWN_WORDS} along the front, on "
        f"{data_words(found.study.base.data)}",
        cost="nothing was trained, a table was replayed" if found.space is not None else trained,
        caveat="; ".join(caveats) or None,
    )
