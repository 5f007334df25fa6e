"""Tensors of finished trials that kept none: the trials are trained again, and must score the same.

They run in a store of their own, `OUT/again`, so that no record is replaced and nothing that has
finished is counted twice; what they kept moves to the finished trial. Owns: which trials this
concerns, and what is compared. Must not know: what the tensors are for, terminals, reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event

from harness.console import Console
from harness.driver.drive import drive
from harness.engines.base import StartEngine
from harness.errors import Interrupted, UserError
from harness.runner.resolve import refuse_other_inputs
from harness.runner.runtime import Runtime
from harness.search.base import GridSearch
from harness.store.checked import semantics_of
from harness.store.records import TrialRecord
from harness.store.runs import why_not_reused
from harness.store.store import Store

AGAIN = "again"
"""Folder in a store where trials are trained again; gone when all of them have ended."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """What trains finished trials again."""

    store: Store
    runtime: Runtime
    """It keeps tensors (`keep_weights`)."""
    start_engine: StartEngine
    max_retries: int
    console: Console

    def keep_weights(self, trial_ids: Iterable[str]) -> None:
        """See to it that the store has the tensors of these trials, as far as they are complete.

        Raises:
            UserError: one is of another version, its data or backbone is not there, it fails now,
                or its test scores are not those of its record; names it, and keeps nothing of it.
            Interrupted: the user stopped; the same call goes on.
        """
        lacking = self.lacking(trial_ids)
        if not lacking:
            return
        for record in lacking:
            if record.spec.trial_id != record.trial_id:
                raise UserError(
                    f"Trial {record.trial_id} kept no weights, and cannot be trained again, "
                    f"because {why_not_reused(str(semantics_of(record)))}."
                )
            refuse_other_inputs(record.spec, self.runtime)
        self.console.warn(_said(lacking))
        self._train(lacking)

    def lacking(self, trial_ids: Iterable[str]) -> list[TrialRecord]:
        """Records of those that would be trained again."""
        return [record for key in dict.fromkeys(trial_ids) if (record := self._lacking(key))]

    def _lacking(self, trial_id: str) -> TrialRecord | None:
        """A complete trial's record, where its tensors are not there."""
        if self.store.weights(trial_id).is_file():
            return None
        record = self.store.record(trial_id)
        if record is None or record.status != "COMPLETE" or record.test is None:
            return None
        return record

    def _train(self, lacking: list[TrialRecord]) -> None:
        recorded = {record.trial_id: record for record in lacking}
        again, stop = Store(self.store.root / AGAIN), Event()
        problems: list[str] = []
        engine = self.start_engine(again, False)
        shown = self.console.progress("trained again", len(lacking), "trials")
        with self.console.interruptible(stop), shown as advance:

            def ended(found: TrialRecord, is_fresh: bool) -> None:
                problem = _differs(recorded[found.trial_id], found)
                advance("as recorded" if problem is None else "otherwise than recorded")
                if problem is None:
                    self.store.take_weights(found.trial_id, again.weights(found.trial_id))
                else:
                    problems.append(problem)
                shutil.rmtree(again.trials / found.trial_id, ignore_errors=True)

            try:
                drive(
                    GridSearch([record.spec for record in lacking]),
                    engine,
                    store=again,
                    runtime=self.runtime,
                    objective="class_mean",
                    max_retries=self.max_retries,
                    stop=stop,
                    on_end=ended,
                )
            finally:
                engine.close()
        if not any(again.trials.glob("*")):
            shutil.rmtree(again.root, ignore_errors=True)
        if problems:
            raise UserError(problems[0])
        if stop.is_set():
            raise Interrupted("Stopped. The same command continues from here.")


def _said(lacking: list[TrialRecord]) -> str:
    first, count = lacking[0].trial_id, len(lacking)
    what = f"Trial {first}" if count == 1 else f"{count} finished trials"
    return (
        f"{what} kept no weights, and {'is' if count == 1 else 'are'} trained again for them; "
        "records stay as they are."
    )


def _differs(recorded: TrialRecord, found: TrialRecord) -> str | None:
    """In one sentence, why a trial's tensors are not those of its record; None where they are."""
    key = f"Trial {recorded.trial_id}"
    if found.status == "FAILED":
        last = (found.error or "").strip().splitlines()[-1]
        return f"{key} failed when it was trained again for its weights, with: {last}"
    one, other = recorded.test, found.test
    if found.status == recorded.status and one is not None and other is not None:
        if (one.micro, one.per_class) == (other.micro, other.per_class):
            return None
        was, now = (f"{100 * scores.micro:.2f} %" for scores in (one, other))
        found_words = f"scored {now} of the test images when trained again, and {was} before"
    else:
        found_words = f"was {recorded.status}, and is {found.status} when trained again"
    return (
        f"{key} {found_words}, so these weights are not those of its record and are not kept; on "
        "another machine or device than the record's, train it in another --out."
    )
