"""A comparison of searches with logs written by hand, on a table that a test has made."""

from __future__ import annotations

import json
import shutil

from harness.store.comparisons import SearchComparison
from harness.store.files import append_line
from harness.store.run_folder import RunFolder
from harness.store.runs import write_run, write_search_comparison
from harness.store.store import Store
from harness.store.table import read_table

SEEDS = (0, 1, 2)


def comparison(table, **changes):
    fields = dict(
        searches=("random", "a"),
        learned=(),
        repeats=1,
        budget="4 trials",
        seeds=SEEDS,
        workers=1,
        table="t",
        reference=table.info.reference,
        confirm=0,
        confirm_seeds=(),
        tuning=(),
        tuning_s=0.0,
        notes=(),
    )
    return SearchComparison(**{**fields, **changes})


def folder_of(tmp_path, path, logs, **changes):
    """A run's folder with logs written by hand: search -> repeats -> (row of the table, change)."""
    table = read_table(path)
    folder = RunFolder.of(Store(tmp_path), "joint_space+searches")
    folder.path.mkdir(parents=True)
    shutil.copyfile(path, folder.table)
    repeats = max(len(each) for each in logs.values())
    plan = comparison(table, searches=tuple(logs), repeats=repeats, **changes)
    write_search_comparison(folder, plan)
    write_run(folder, table.info.study, [], {"device": "made up"})
    for name, each in logs.items():
        for repeat, events in enumerate(each):
            for trial, change in events:
                log = folder.log(repeat, name)
                ask = {"ask": {"x": int(trial["trial_id"], 16)}, "cell": json.loads(trial["cell"])}
                append_line(log, {**ask, "seed": trial["seed"], "trial": trial["trial_id"]})
                append_line(log, tell(trial, **change))
    return folder


def tell(trial, **changes):
    diverged = trial["status"] == "DIVERGED"
    event = {
        "tell": trial["trial_id"],
        "status": trial["status"],
        "objective": 1 / 15 if diverged else trial["final_class_mean"],
        "epochs": trial["epoch"],
        "device_s": trial["device_s"],
        "flops": trial["flops"],
    }
    return {**event, **changes}


def rows(path, seed, order="final_class_mean"):
    """The grid's trials of one seed, by rising score; diverged ones first."""
    trials = read_table(path).trials
    own = trials[(trials["seed"] == seed) & trials["method"].isna()]
    return own.sort_values(order, na_position="first").to_dict("records")


def logs_of(made, orders):
    """Repeats over the three seeds, each with one trial: the n-th best on test of its seed."""
    found = [rows(made, seed, "test_class_mean")[-1 - n] for seed, n in orders]
    return [[(trial, {"device_s": 5.0})] for trial in found]
