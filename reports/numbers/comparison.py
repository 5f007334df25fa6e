"""Numbers of a comparison: scores, paired differences and costs of its arms."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.errors import UserError
from harness.metrics import OVERALL, SHOWN, scale_of
from harness.reports.numbers.positions import in_block_order
from harness.reports.numbers.statistics import mean_and_half_width
from harness.store.comparisons import Comparison
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import read_comparison, read_environment


@dataclass(frozen=True, kw_only=True)
class Arms:
    """A comparison with its results. `scores` has a row per arm and seed, in percent."""

    comparison: Comparison
    environment: dict[str, str]
    groups: tuple[str, ...]
    scores: pd.DataFrame
    table: pd.DataFrame
    """A row per arm: means and 95 % half-widths `_ci`, its test score minus the first arm's
    (`minus_first`, in points), costs. Of `select`, higher is better: a loss is negated. What the
    seeds of an arm do not share, because each chose for itself, is its mean over them."""
    pairs: pd.DataFrame
    """A row per pair: the arm with `learned` strengths, the `plain` one, and their `difference` in
    test score with its half-width `_ci`, paired by seed, in points."""
    time_ratio: float
    """Device seconds of the first arm over those of the unit arm."""
    swept: pd.DataFrame | None
    """Mean test score (percent) of the sweep's cells, first axis x second; None without a sweep
    over two axes."""
    records: dict[str, TrialRecord]
    """Of every trial of an arm, and of those that its setting cost."""

    @property
    def names(self) -> list[str]:
        """Groups and averages that `table` has columns for."""
        return [*self.groups, *OVERALL]


def front(table: pd.DataFrame) -> list[str]:
    """Arms that no other beats in one of runs and shown score without losing in the other, by runs.

    Means alone decide, so that two arms whose intervals overlap may both be named or not.
    """
    ranked = table.sort_values(["runs_per_seed", SHOWN], ascending=[True, False], kind="stable")
    best = ranked[SHOWN].astype(float).cummax()
    return list(ranked["arm"][best > best.shift(fill_value=float("-inf"))])


def load_arms(folder: RunFolder) -> Arms:
    """Read a comparison's run folder and the records of its trials.

    Raises:
        UserError: a record is gone, or every trial diverged.
    """
    comparison = read_comparison(folder)
    environment = read_environment(folder)
    records = _records(folder, comparison)
    tested = [record.test for record in records.values() if record.test is not None]
    if not tested:
        raise UserError(
            f"{folder.name}: every trial diverged, so there is nothing to compare; try a smaller "
            "--set recipe.lr."
        )
    groups = tuple(tested[0].groups)
    rows, scale = [], scale_of(comparison.objective)
    select = scale.column
    for arm in comparison.arms:
        for seed, trial_id in zip(comparison.seeds, arm.trials, strict=True):
            record = records[trial_id]
            worth = {select: scale.factor * record.objective(comparison.objective)}
            rows.append({"arm": arm.name, "seed": seed, **_scores(record, groups), **worth})
    scores = pd.DataFrame(rows)
    unit = next(arm for arm in comparison.arms if arm.name == comparison.unit)
    seconds = {key: record.cost.device_s for key, record in records.items()}
    one_run = sum(seconds[i] for i in unit.trials) / len(unit.trials)
    flops = {key: record.cost.charged_flops for key, record in records.items()}
    one_run_flops = sum(flops[i] for i in unit.trials) / len(unit.trials)
    table = []
    for arm in comparison.arms:
        own = scores[scores["arm"] == arm.name]
        row: dict[str, object] = {"arm": arm.name}
        for name in (*groups, *OVERALL):
            row[name], row[f"{name}_ci"] = mean_and_half_width(own[f"test_{name}"])
        metric = f"test_{SHOWN}"
        base = scores[scores["arm"] == comparison.arms[0].name]
        difference = pd.Series(own[metric].to_numpy() - base[metric].to_numpy())
        row["minus_first"], row["minus_first_ci"] = mean_and_half_width(difference)
        row["select"], row["select_ci"] = mean_and_half_width(own[select])
        row["diverged"] = int(own["diverged"].sum())
        count = len(arm.trials)
        trained = [records[trial_id] for trial_id in arm.trials]
        row["trainable_params"] = round(sum(each.trainable_params for each in trained) / count)
        row["inference_gflop"] = sum(each.cost.inference_flops for each in trained) / count / 1e9
        row["runs_per_seed"] = sum(seconds[i] for i in arm.charged) / one_run / count
        row["runs_by_flops"] = sum(flops[i] for i in arm.charged) / one_run_flops / count
        table.append(row)
    main = comparison.arms[0]
    return Arms(
        comparison=comparison,
        environment=environment,
        groups=groups,
        scores=scores,
        table=pd.DataFrame(table),
        pairs=_pairs(comparison, scores),
        time_ratio=sum(seconds[i] for i in main.trials) / len(main.trials) / one_run,
        swept=_swept(comparison, records, groups),
        records=records,
    )


def _records(folder: RunFolder, comparison: Comparison) -> dict[str, TrialRecord]:
    """Of every trial that an arm has or is charged for."""
    records: dict[str, TrialRecord] = {}
    for arm in comparison.arms:
        for trial_id in {*arm.trials, *arm.charged}:
            record = folder.store.record(trial_id)
            if record is None:
                raise UserError(f"{folder}: trial {trial_id} is not in the store; compare again.")
            records[trial_id] = record
    return records


def paired_with(arms: Arms, name: str) -> dict[str, tuple[float, float]]:
    """Every other arm -> the test score of arm `name` minus its own: mean and 95 % half-width of
    the differences paired by seed, in points."""
    scores = arms.scores.pivot(index="seed", columns="arm", values=f"test_{SHOWN}")
    others = [arm for arm in arms.table["arm"] if arm != name]
    return {arm: mean_and_half_width(scores[name] - scores[arm]) for arm in others}


def _pairs(comparison: Comparison, scores: pd.DataFrame) -> pd.DataFrame:
    metric = scores.set_index(["arm", "seed"])[f"test_{SHOWN}"]
    rows = []
    for learned, plain in comparison.pairs:
        mean, half = mean_and_half_width(metric.loc[learned] - metric.loc[plain])
        rows.append({"learned": learned, "plain": plain, "difference": mean, "difference_ci": half})
    return pd.DataFrame(rows, columns=["learned", "plain", "difference", "difference_ci"])


def _swept(
    comparison: Comparison, records: dict[str, TrialRecord], groups: tuple[str, ...]
) -> pd.DataFrame | None:
    if comparison.swept is None or len(comparison.swept.labels) != 2:
        return None
    rows, columns = comparison.swept.labels
    scores = []
    for each in comparison.swept.cells:
        own = [_scores(records[trial_id], groups) for trial_id in each.trials]
        mean = sum(score[f"test_{SHOWN}"] for score in own) / len(own)
        scores.append((str(each.cell[rows]), str(each.cell[columns]), mean))
    frame = pd.DataFrame(scores, columns=["row", "column", "score"])
    table: pd.DataFrame = frame.pivot(index="row", columns="column", values="score")
    return table.reindex(
        index=in_block_order(frame["row"].drop_duplicates()),
        columns=in_block_order(frame["column"].drop_duplicates()),
    )


def _scores(record: TrialRecord, groups: tuple[str, ...]) -> dict[str, float]:
    """Percent; a diverged trial scores chance."""
    chance = 100 / record.num_classes
    row: dict[str, float] = {"diverged": float(record.status == "DIVERGED")}
    for part, found in (("test", record.test), ("select", record.select)):
        for name in OVERALL:
            row[f"{part}_{name}"] = 100 * getattr(found, name) if found else chance
        for group in groups:
            share = found.groups.get(group, float("nan")) if found else 0.0
            row[f"{part}_{group}"] = 100 * share if found else chance
    return row
