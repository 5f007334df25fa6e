"""The trials of a scenario of docs/protocol.md, from its archives.

Owns: which seeds are whole, and a table of their trials. Must not know: what is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from harness.archive.importing import import_archives
from harness.catalogue.studies import load_study
from harness.findings.evidence import ARCHIVES, KINDS, archive_of, name_of
from harness.reports.numbers.run import Run, load_run
from harness.store.records import DONE
from harness.store.store import Store
from harness.store.summaries import summaries
from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario as far as it has been run."""

    name: str
    wanted: tuple[int, ...]
    """The protocol's seeds."""
    seeds: tuple[int, ...]
    """Those of which every trial of every study has ended."""
    trials: Mapping[str, pd.DataFrame]
    """Kind of study -> a row per ended trial, seed by seed in the study's order: its cell's fields,
    `seed`, `trial_id`, `status`, `select` and `test` class mean and `test_GROUP` in percent,
    `flops` charged (training and dev scoring), `device_s` on the `device` of that name, and `runs`:
    FLOPs over those of one *run*, the training of LoRA at every linear map in all blocks."""
    records: Mapping[str, Mapping[str, dict[str, Any]]]
    """Kind of study -> trial's id -> its record as plain data, in the archive's order."""
    groups: tuple[str, ...]
    """Head first; empty without a trial."""
    archives: Path
    """Folder that they were read from."""

    @property
    def is_whole(self) -> bool:
        """Whether every seed of the protocol is there. Before, no contrast is computed."""
        return self.seeds == self.wanted

    def archive(self, kind: str) -> Path:
        """The file of a kind's study."""
        return archive_of(name_of(self.name, kind), self.archives)

    def of_seed(self, kind: str, seed: int) -> pd.DataFrame:
        """A seed's trials of a kind, in the study's order."""
        rows = self.trials[kind]
        return rows[rows["seed"] == seed].reset_index(drop=True)


def read_scenario(name: str, archives: Path = ARCHIVES) -> Scenario:
    """Read what there is of a scenario's archives.

    Raises:
        UserError: an archive is damaged.
    """
    studies = {kind: load_study(name_of(name, kind)) for kind in KINDS}
    files = {kind: archive_of(study.name, archives) for kind, study in studies.items()}
    by_kind, records = _read({kind: file for kind, file in files.items() if file.is_file()})
    wanted = studies["lora"].seeds
    whole = [_whole_seeds(studies[kind], by_kind.get(kind)) for kind in KINDS]
    trials = {kind: _trials(run) for kind, run in by_kind.items()}
    if "lora" in trials:
        full = run_flops(trials["lora"])
        trials = {kind: rows.assign(runs=rows["flops"] / full) for kind, rows in trials.items()}
    some = next(iter(by_kind.values()), None)
    return Scenario(
        name=name,
        wanted=wanted,
        seeds=tuple(seed for seed in wanted if all(seed in seeds for seeds in whole)),
        trials=trials,
        records=records,
        groups=() if some is None else some.groups,
        archives=archives,
    )


def run_flops(lora: pd.DataFrame) -> float:
    """FLOPs of one *run*; NaN before the first seed has one."""
    everywhere = lora[lora["where"] == "all"]
    depth = everywhere.get("depth")
    own = everywhere if depth is None else everywhere[depth == "last:12"]
    return float(own["flops"].max())


def _read(files: dict[str, Path]) -> tuple[dict[str, Run], dict[str, dict[str, Any]]]:
    """By kind, each file's run, whose trials have their `device` as well, and its records."""
    runs, records = {}, {}
    with TemporaryDirectory() as place:
        store = Store(Path(place))
        imported = import_archives(list(files.values()), store)
        for kind, done in zip(files, imported, strict=True):
            run = load_run(done.run)
            ended = summaries(store, set(run.trials["trial_id"]))
            devices = [ended[key].device if key in ended else "" for key in run.trials["trial_id"]]
            runs[kind] = replace(run, trials=run.trials.assign(device=devices))
            records[kind] = {trial.trial_id: trial.record for trial in done.archive.trials}
    return runs, records


def _whole_seeds(study: Study, run: Run | None) -> set[int]:
    if run is None:
        return set()
    done = run.trials[run.trials["status"].isin(DONE)]
    counts = done.groupby("seed").size()
    return {seed for seed in study.seeds if counts.get(seed, 0) == len(study.cells())}


def _trials(run: Run) -> pd.DataFrame:
    rows = run.trials[run.trials["status"].isin(DONE)].copy()
    rows["select"], rows["test"] = rows["select_class_mean"], rows["test_class_mean"]
    rows["flops"] = rows["flops"] - rows["test_flops"].fillna(0)
    scores = ["select", "test", *(f"test_{group}" for group in run.groups)]
    kept = [*run.fields, "seed", "trial_id", "status", *scores, "flops", "device_s", "device"]
    return rows[kept].reset_index(drop=True)
