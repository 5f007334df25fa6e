"""What a command ends with: a run's answer in a few lines.

No line is stronger than its interval, and none says what the data does not have. Owns: the words of
the lines. Must not know: how they are laid out, files, how a number was computed.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.catalogue.registered import file_needed
from harness.catalogue.rerun import study_file
from harness.catalogue.studies import study_names
from harness.console import duration
from harness.metrics import SHOWN, Objective, scale_of
from harness.reports.brief import Brief
from harness.reports.numbers.comparison import Arms, paired_with
from harness.reports.numbers.counts import Counts
from harness.reports.numbers.run import Run
from harness.reports.numbers.searches import Searches
from harness.reports.numbers.sweep import Choice
from harness.reports.text.names import SHOWN_WORDS, cell_words, data_words, split_words
from harness.reports.text.numbers import chosen_by, signed, with_interval
from harness.spec import DataSpec, TrialSpec
from harness.store.records import TrialRecord
from harness.store.search_log import tells
from harness.store.store import Store

SHOWN_TESTS = f"% {SHOWN_WORDS}"
NO_TEST = "none yet"
ONE_SEED = "one seed, so the score has no interval"
KEPT = ("--study", "--set", "--weights", "--data-root", "--objective")
"""Options of a comparison that a search of its own needs too."""


def sweep_brief(name: str, line: str | None, run: Run, choice: Choice | None) -> Brief:
    """Of a sweep or a search. `line` is the command that the run was asked for by, if known."""
    again = () if line is None else tuple(shlex.split(line)[1:])
    counts = run.trials["status"].value_counts()
    lacking = int(counts.get("MISSING", 0) + counts.get("FAILED", 0))
    cost = _sweep_cost(run)
    if choice is None:
        why = "no trial has both a selection score and a test score"
        return Brief("Choice", f"{NO_TEST}: {why}", cost=cost, next=again if lacking else ())
    row, scale = choice.row, run.scale
    select = chosen_by(scale, row[run.select], row[f"{run.select}_ci"])
    best = f"best {scale.words} on {split_words(run)}: {select}{scale.unit}"
    own = run.trials[run.cell_numbers == row.name]
    whole = own[own["status"] == "COMPLETE"]["trial_id"]
    spec = None if whole.empty else Store(run.store).spec(whole.iloc[0])
    export = () if spec is None else _export(("export", name, "--best", "best"), spec, line)
    return Brief(
        title="Choice",
        choice=f"{cell_words(run, choice.cell)} ({best})",
        test=_test(row[run.test], row[f"{run.test}_ci"], int(row["n"]), run.study.base.data),
        hindsight=_sweep_hindsight(run, choice),
        cost=cost,
        caveat=_clauses(_sweep_caveats(run, choice, own["status"], counts)),
        next=again if lacking else export,
    )


def _sweep_cost(run: Run) -> str | None:
    trials = run.trials.drop_duplicates("trial_id")
    ended = int((trials["status"] != "MISSING").sum())
    if not ended:
        return None
    if run.searches:  # a trial may go on with another's training, so trials' costs do not add up
        seconds = sum(event.device_s for log in run.searches.values() for event in tells(log))
        return f"{_many(ended, 'trial')}, {duration(seconds)} of device time charged"
    return f"{_many(ended, 'trial')}, {duration(trials['device_s'].sum())} of device time"


def _sweep_hindsight(run: Run, choice: Choice) -> str | None:
    if choice.scored < 2:
        return None
    of = f"of {choice.scored} cells"
    if choice.oracle_score <= choice.row[run.test]:
        return _none_above(of)
    return _above(cell_words(run, choice.oracle), of, choice.oracle_score, *choice.gap)


def _above(name: str, of: str, score: float, gap: float, half_width: float) -> str:
    more = with_interval(gap, half_width)
    return f"{name} is best {of} on test: {score:.1f} %, {more} points more than the choice"


def _none_above(of: str) -> str:
    return f"the choice is also the best {of} on test"


def _sweep_caveats(
    run: Run, choice: Choice, own: pd.Series[Any], counts: pd.Series[Any]
) -> list[str]:
    found = _seen_test(run.study.base.data)
    for status, words in (("FAILED", "failed"), ("MISSING", "not run yet")):
        if count := int(counts.get(status, 0)):
            found.append(f"{count} of {_many(len(run.trials), 'trial')} {words}")
    if diverged := int((own == "DIVERGED").sum()):
        found.append(f"{diverged} of the choice's {_many(len(own), 'trial')} diverged")
    if choice.row["n"] < 2:
        more = "" if run.searches else _more_seeds(run.seeds)
        found.append(f"{ONE_SEED}{more}")
    ends = [f"{run.label(f)} = {run.words(choice.cell[f])}" for f in choice.at_edge]
    return [*found, *(f"{words} is the end of its range" for words in ends)]


def arms_brief(line: str | None, arms: Arms) -> Brief:
    """Of a comparison of arms: the one that is best on the selection split."""
    compared, table = arms.comparison, arms.table
    place = int(table["select"].to_numpy().argmax())
    row, scale, data = table.iloc[place], scale_of(compared.objective), compared.request.data
    select = chosen_by(scale, row["select"], row["select_ci"])
    oracle = table.iloc[int(table[SHOWN].to_numpy().argmax())]
    differences = paired_with(arms, str(row["arm"]))
    of = f"of {len(table)} arms"
    hindsight = _none_above(of)
    if oracle[SHOWN] > row[SHOWN]:
        mean, half = differences[str(oracle["arm"])]
        hindsight = _above(str(oracle["arm"]), of, oracle[SHOWN], -mean, half)
    count = len(compared.seeds)
    undecided = [n for n, (mean, half) in differences.items() if not abs(mean) > half]
    caveats = _seen_test(data)
    if row["diverged"]:
        caveats.append(f"{row['diverged']} of the choice's {_many(count, 'trial')} diverged")
    if count < 2:
        caveats.append("one seed, so no arm is shown to differ from another")
    elif undecided:
        caveats.append(
            f"not shown to differ from {len(undecided)} of the {len(differences)} other arms on "
            "test, by paired 95 % intervals, which are not corrected for their number"
        )
    records = arms.records.values()
    own = [arms.records[trial_id] for trial_id in compared.arms[place].trials]
    seconds = sum(record.cost.device_s for record in records)
    return Brief(
        title="Choice",
        choice=f"{row['arm']} (best {scale.words} on {data.chosen_on}: {select}{scale.unit})",
        test=_test(row[SHOWN], row[f"{SHOWN}_ci"], count, data),
        hindsight=hindsight,
        cost=f"{_many(len(records), 'trial')}, {duration(seconds)} of device time",
        caveat=_clauses(caveats),
        next=_export_best(own, compared.objective, line),
    )


def searches_brief(line: str | None, compared: Searches) -> Brief:
    """Of a comparison of searches: the one whose choices have the best selection scores."""
    choices, recorded = compared.choices, compared.recorded
    plan, data = recorded.comparison, recorded.study.base.data
    table = choices.table[choices.table["select"].notna()]
    if table.empty:
        return Brief("Choice", f"{NO_TEST}: no search has a choice within {plan.budget}")
    row = table.iloc[int(table["select"].to_numpy().argmax())]
    name, scale = str(row.name), recorded.scale
    own = compared.choices.final
    # Fewer repeats than the study has seeds leave some of them out.
    seeds = own[(own["search"] == name) & own["test"].notna()]["seed"].nunique()
    select = chosen_by(scale, row["select"], row["select_ci"])
    caveats = _seen_test(data)
    if seeds < 2:
        caveats.append("one training seed, so no interval holds the chance of training")
    against = choices.against
    said = ""
    if name in against.index:
        word = against["verdict"].loc[name]
        difference = signed(against["difference"].loc[name], against["difference_ci"].loc[name])
        if word in ("better", "worse"):
            said = f", {difference} points to {choices.reference}: {word}"
        elif word == "equivalent":
            caveats.append(f"equivalent to {choices.reference} ({difference})")
        else:
            why = against["reason"].loc[name] or word
            caveats.append(f"not shown to differ from {choices.reference} ({why})")
    runs = f"a repeat spends {row['runs']:.1f} full runs"
    seconds = compared.answers["device_s"].sum()
    is_live = plan.table is None
    return Brief(
        title="Choice",
        choice=f"{name} (best {scale.words} of its choices on {data.chosen_on}: {select}"
        f"{scale.unit}, within {plan.budget})",
        test=f"{_test(row['test'], row['test_ci'], seeds, data, 'training seed')}{said}",
        hindsight=_searches_hindsight(row),
        cost=f"{duration(seconds)} of device time charged; {runs}"
        if is_live
        else f"nothing was trained, a table was replayed; {runs}",
        caveat=_clauses(caveats),
        next=_search(compared, name, line),
    )


def _searches_hindsight(row: pd.Series[Any]) -> str | None:
    gap = with_interval(row["test_regret"], row["test_regret_ci"])
    if gap != "-":
        return f"its choices lie {gap} points below the best cell on test"
    gap = with_interval(row["missed"], row["missed_ci"])
    if gap == "-":
        return None
    return f"its choices lie {gap} points below the best on test among those it tried"


def _search(compared: Searches, name: str, line: str | None) -> tuple[str, ...]:
    """The command that seeks with the chosen search alone."""
    plan, study = compared.recorded.comparison, compared.recorded.study.name
    if len(compared.parts) > 1 or name in plan.standing:
        return ()
    words = _options([] if line is None else shlex.split(line), KEPT)
    if "--study" not in words:
        if study not in study_names():
            return ()
        words = ["--study", study, *words]
    if line is not None and "--smoke" in shlex.split(line):
        words = [*words, "--smoke"]
    budget = plan.budget.partition(" (")[0].replace(" ", "").removesuffix("trials")
    given = [] if name in plan.learned else ["--budget", budget]
    return ("sweep", *words, "--search", name, *given)


def counts_brief(counts: Counts) -> Brief:
    """Of a study that trains nothing."""
    return Brief("Counted", f"the trainable parameters of {_many(len(counts.cells), 'cell')}")


def train_brief(
    name: str,
    records: Sequence[TrialRecord],
    objective: Objective,
    test: tuple[float, float],
    line: str | None,
) -> Brief:
    """Of one configuration; `test` is its mean score in percent, with the half-width.

    `line` is the command that it was asked for by, if known.
    """
    spec, count = records[0].spec, len(records)
    where = ", ".join(spec.placement.root) if len(spec.placement) <= 6 else ""
    where = where or (f"{len(spec.placement)} sites" if len(spec.placement) else "no sites")
    diverged = sum(record.status == "DIVERGED" for record in records)
    caveats = _seen_test(spec.data)
    if diverged:
        caveats.append(f"{diverged} of {_many(count, 'seed')} diverged, and counts as chance")
    elif count < 2:
        caveats.append(f"{ONE_SEED}{_more_seeds([spec.seed])}")
    seconds = sum(record.cost.device_s for record in records)
    seeds = ", ".join(str(record.spec.seed) for record in records)
    return Brief(
        title="Trained",
        choice=f"{name} at {where}, seed{'s' if count > 1 else ''} {seeds}",
        test=_test(*test, count, spec.data),
        cost=f"{_many(count, 'trial')}, {duration(seconds)} of device time",
        caveat=_clauses(caveats),
        next=_export_best(records, objective, line),
    )


def _test(mean: float, half_width: float, count: int, data: DataSpec, unit: str = "seed") -> str:
    over = f"over {_many(count, unit)}, 95 % interval, " if count > 1 else ""
    return f"{with_interval(mean, half_width)} {SHOWN_TESTS} {over}on {data_words(data)}"


def _seen_test(data: DataSpec) -> list[str]:
    is_seen = data.select_on == "test"
    return ["SELECTED ON TEST, which flatters every choice"] if is_seen else []


def _more_seeds(seeds: Sequence[int]) -> str:
    """How to add to one seed: `--seeds` begins at 0, so it would replace any other."""
    return "; `--seeds 3` adds more" if list(seeds) == [0] else ""


def _clauses(found: list[str]) -> str | None:
    return "; ".join(found) or None


def _export_best(
    records: Sequence[TrialRecord], objective: Objective, line: str | None
) -> tuple[str, ...]:
    """The command that puts the best of these trials to use, of ties the first; none of them has
    weights if all diverged."""
    whole = [record for record in records if record.status == "COMPLETE"]
    if not whole:
        return ()
    best = max(whole, key=lambda record: record.objective(objective))
    words = ("export", best.trial_id, "--weights", "best")
    return _export(words, best.spec, line)


def _export(words: tuple[str, ...], spec: TrialSpec, line: str | None) -> tuple[str, ...]:
    """With the file of the backbone and the study, where the trial cannot be made without."""
    file = ("--backbone", "FILE") if spec.backbone.weights == "file" else ()
    study = file_needed(study_file(line), spec)
    return (*words, *file, *(("--study", study) if study else ()))


def _options(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Those options of a command line, each with its value."""
    return [
        word for flag, value in itertools.pairwise(words) if flag in flags for word in (flag, value)
    ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
