"""A sample of finished trials trained again, and compared with what is recorded of them.

Owns: the sample, a store of its own for it, and what the comparison says. Must not know: terminals.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.archive.agree import ROUNDING, TOLERANCE, Agreement, compare
from harness.archive.collect import collect
from harness.archive.importing import checked_archive
from harness.catalogue.registered import refuse_unregistered
from harness.console import Console
from harness.driver.batch import Batch
from harness.driver.request import EngineRequest, PlaceRequest
from harness.driver.setup import engine_starter, make_runtime, refuse_root
from harness.errors import UserError
from harness.runner.resolve import refuse_other_inputs
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest, TrialSpec
from harness.store.checked import semantics_of
from harness.store.records import TrialRecord, state_of
from harness.store.runs import find_run, known_run, why_not_reused
from harness.store.store import Store


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What is asked of `verify`."""

    source: str
    """Name or folder of a run, or the file of an archive."""
    sample: int
    seed: int
    """That the sample is drawn with."""
    weights: str | None
    place: PlaceRequest
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One trial, as recorded and as trained again."""

    recorded: TrialRecord
    again: TrialRecord
    cell: str | None
    """Its configuration in the run, as JSON."""
    agreement: Agreement

    @property
    def in_words(self) -> str:
        """In what a trial that disagrees differs."""
        found, trial_id = self.agreement, self.recorded.trial_id
        if not found.same_status:
            words = f"it was {self.recorded.status}, and is {self.again.status} now"
        elif found.difference:
            words = f"{found.where} differs by {found.difference:.3g}"
        else:
            words = "scores of its epochs, or what it learned, differ"
        return f"Trial {trial_id} disagrees: {words}."


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of a sample."""

    trials: tuple[Verified, ...]
    finished: int
    """Trials that it was drawn from."""

    @property
    def disagreeing(self) -> tuple[Verified, ...]:
        return tuple(each for each in self.trials if not each.agreement.is_verified)

    @property
    def sentence(self) -> str:
        """The answer, and by which rule it was found."""
        alike = sum(each.agreement.alike for each in self.trials)
        rules = []
        if alike:
            rules.append(
                f"{alike} to the last bit, on the same type of CPU and versions, but for feature "
                f"distances (to {ROUNDING:g})"
            )
        unlike = [each.agreement for each in self.trials if not each.agreement.alike]
        if others := [each for each in unlike if not each.collapsed]:
            same = sum(each.same_bits for each in others)
            most = 100 * max(each.largest for each in others)
            rules.append(
                f"{len(others)} within {100 * TOLERANCE:g} points, on another machine or other "
                f"versions, where {same} came out with the same bits, and accuracies differ by "
                f"{most:.3g} points at most"
            )
        if collapsed := [each for each in unlike if each.collapsed]:
            most = 100 * max(each.largest for each in collapsed)
            rules.append(
                f"{len(collapsed)} to have collapsed there as well, on another machine or other "
                "versions, because rounding decides what is left of a training whose loss ended "
                "above that of its first epoch, near chance; their accuracies, which are not "
                f"compared, differ by {most:.3g} points at most"
            )
        found = len(self.trials) - len(self.disagreeing)
        return (
            f"{found} of {len(self.trials)} trials agree, of {self.finished} finished ones "
            f"(asked: {'; '.join(rules)})."
        )


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """What is known of the finished trials of a run or an archive."""

    records: dict[str, TrialRecord]
    histories: Mapping[str, list[dict[str, Any]]]
    cells: Mapping[str, str | None]


def verify(asked: VerifyRequest, console: Console) -> Verification:
    """Train a sample of a run's finished trials again, in a store that is then deleted.

    Raises:
        UserError: there is no such run or archive, none of its trials has finished, or what they
            need (data, weights, this version's `SEMANTICS`) is not there.
        TrialsFailed: a trial that had finished failed now.
        Interrupted: the user stopped.
    """
    known = _finished(asked)
    ids = sorted(known.records)
    chosen = sorted(random.Random(asked.seed).sample(ids, min(asked.sample, len(ids))))  # noqa: S311 - a sample
    specs = [known.records[trial_id].spec for trial_id in chosen]
    refuse_root(asked.place, {spec.data.name for spec in specs}, "leave it out")
    weights = None if asked.weights is None else Path(asked.weights).absolute()
    if weights and all(spec.backbone.weights != "file" for spec in specs):
        raise UserError(
            f"--weights {asked.weights}: no trial of this sample had its weights from a file; "
            "leave it out."
        )
    uncached = replace(asked.place, cache=0)  # what is verified is computed, all of it
    runtime = make_runtime(uncached, weights=weights, console=console)
    for spec in specs:
        refuse_unregistered(spec)
        refuse_other_inputs(spec, runtime)
    with TemporaryDirectory(prefix="harness-verify-") as place:
        store = Store(Path(place))
        again = _train(specs, store, runtime, asked, console)
        trials = [
            Verified(
                recorded=known.records[key],
                again=again[key],
                cell=known.cells[key],
                agreement=compare(
                    known.records[key], again[key], known.histories[key], store.history(key)
                ),
            )
            for key in chosen
        ]
    return Verification(trials=tuple(trials), finished=len(ids))


def _finished(asked: VerifyRequest) -> _Finished:
    """The trials that can be trained again.

    Raises:
        UserError: there are none.
    """
    path, run = Path(asked.source), find_run(asked.source, Path(asked.place.out))
    if run is not None and path.is_file():
        raise UserError(
            f"{asked.source} is a file, and a run in {asked.place.out}: name the run by its "
            f"folder, {run}, or the file by its whole path."
        )
    if path.is_file() or path.suffix == ".parquet":
        archive = checked_archive(path)
        all_records: Sequence[TrialRecord] = archive.records
        trials = archive.archive.trials
    else:
        trials = collect(known_run(asked.source, Path(asked.place.out)))[0].trials
        all_records = [TrialRecord.model_validate_json(trial.text) for trial in trials]
    records = {r.trial_id: r for r in all_records if state_of(r.status) == "done"}
    own = {key: record for key, record in records.items() if record.spec.trial_id == key}
    if records and not own:
        theirs = {str(semantics_of(record)) for record in records.values()}
        raise UserError(
            f"{asked.source}: {why_not_reused(', '.join(sorted(theirs)))}: verify it with the "
            "version that made it."
        )
    if not own:
        raise UserError(f"{asked.source} has no finished trial yet, so there is nothing to verify.")
    return _Finished(
        records=own,
        histories={trial.trial_id: trial.history for trial in trials},
        cells={trial.trial_id: trial.cell for trial in trials},
    )


def _train(
    specs: Sequence[TrialSpec],
    store: Store,
    runtime: Runtime,
    asked: VerifyRequest,
    console: Console,
) -> dict[str, TrialRecord]:
    batch = Batch(
        store=store,
        runtime=runtime,
        base=TrialRequest(data=specs[0].data),
        start_engine=engine_starter(EngineRequest(workers=asked.workers), runtime),
        console=console,
    )
    with batch:
        batch.complete(specs, title="trained again", objective="class_mean")
    found = {spec.trial_id: store.record(spec.trial_id) for spec in specs}
    return {key: record for key, record in found.items() if record is not None}
