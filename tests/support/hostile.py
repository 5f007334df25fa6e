"""Users' searches that misbehave, as entry points; and an engine that needs no training."""

from __future__ import annotations

import sys
from collections import deque
from importlib.metadata import EntryPoint, EntryPoints

from harness.engines.base import Ended, Reported
from harness.search.base import Decision, tell_event
from harness.search.catalogue import GROUP
from harness.store.search_log import Ask, append_event, asks, read_log, tells
from support.records import publish


class Users:
    """An honest search: every configuration in its order, rebuilt from its log; no budget."""

    needs_epoch_reports = False

    def __init__(self, task):
        self.task = task
        events = read_log(task.log, mend=True)
        self.told = {event.trial_id for event in tells(events)}
        self.asked = {event.trial_id for event in asks(events)}
        self.left = deque(self.task.space.enumerate())

    def ask(self, count):
        while self.left:
            spec = self.trial(self.left.popleft())
            if spec.trial_id not in self.told:
                return [spec]
        return []

    def trial(self, params, **changes):
        values = self.task.space.at(params) | changes
        spec = self.task.make(values, self.task.seed)
        if spec.trial_id not in self.asked:
            self.asked.add(spec.trial_id)
            event = Ask(params=params, cell=values, seed=spec.seed, trial_id=spec.trial_id)
            append_event(self.task.log, event)
        return spec

    def report(self, trial_id, epoch, score):
        return Decision.GO_ON

    def tell(self, outcome):
        if outcome.trial_id not in self.told:
            self.told.add(outcome.trial_id)
            append_event(self.task.log, tell_event(outcome))


class Second(Users):
    """What goes wrong does so at the second proposal, while the first trial runs or is told."""

    def ask(self, count):
        return self.wrong() if self.asked else super().ask(count)


class NeverStops(Users):
    def ask(self, count):
        return [self.trial(self.left[0])]


class RaisesInAsk(Second):
    def wrong(self):
        raise ValueError("no idea\nof what to try")


class ExitsInAsk(Second):
    def wrong(self):
        sys.exit("enough")


class OutOfDomain(Second):
    def wrong(self):
        return [self.trial(self.left[0], alpha=12345.0)]


class OtherField(Second):
    def wrong(self):
        return [self.trial(self.left[0], **{"recipe.lr": 0.5})]


class OtherStudy(Second):
    def wrong(self):
        spec = self.trial(self.left[0])
        recipe = spec.recipe.model_copy(update={"lr": 0.123})
        return [spec.model_copy(update={"recipe": recipe})]


class NoTrial(Second):
    def wrong(self):
        return ["mlp1"]


class NoList(Second):
    def wrong(self):
        return None


class TooMany(Second):
    def wrong(self):
        return (self.trial(self.left[0]) for _ in iter(int, 1))  # endless


class RaisesInTell(Users):
    def tell(self, outcome):
        raise KeyError(outcome.trial_id)


class Reports(Users):
    needs_epoch_reports = True


class RaisesInReport(Reports):
    def report(self, trial_id, epoch, score):
        raise RuntimeError("unreadable")


class ReportsNothing(Reports):
    def report(self, trial_id, epoch, score):
        return None


class ReportsTrue(Reports):
    def report(self, trial_id, epoch, score):
        return True


class RaisesAtStart(Users):
    def __init__(self, task):
        raise OSError("no licence")


class OldStyle:
    """As searches were written for an earlier version."""

    watches = False
    ask = report = tell = None

    def __init__(self, task):
        pass


HOSTILE = {
    "NeverStops": "proposed .* trials in a row that cost nothing, because each was known",
    "RaisesInAsk": r"raised ValueError \(no idea\) in ask, at hostile.py, line ",
    "ExitsInAsk": r"raised SystemExit \(enough\) in ask",
    "OutOfDomain": "proposed .*alpha = 12345.0, which is not in the space",
    "OtherField": "proposed .*recipe.lr = 0.5, which is not in the space",
    "OtherStudy": "proposed trial .*, which is none of its study",
    "NoTrial": r"proposed 'mlp1' \(str\), which is no trial",
    "NoList": r"gave None \(NoneType\), not a list of trials",
    "TooMany": "was asked for one trial and gave more",
    "RaisesInTell": r"raised KeyError \(.*\) in tell",
    "RaisesInReport": r"raised RuntimeError \(unreadable\) in report",
    "ReportsNothing": "answered a report with None, not with GO_ON, PAUSE or STOP",
    "ReportsTrue": "answered a report with True, not with GO_ON, PAUSE or STOP",
    "RaisesAtStart": r"raised OSError \(no licence\) in its start",
    "OldStyle": "lacks needs_epoch_reports",
}
"""Name -> what is said of it, after the words `Search NAME`."""


def install(monkeypatch):
    """Have all of them found as installed searches."""
    found = EntryPoints(
        EntryPoint(name, f"{__name__}:{name}", GROUP) for name in ("Users", *HOSTILE)
    )
    monkeypatch.setattr("harness.registry.entry_points", lambda group: found)


class InstantEngine:
    """Trials end in the order of their start, with a record that was made up."""

    def __init__(self, store, *, slots=2, reports=0, **record):
        self.store, self.slots, self.reports, self.record = store, slots, reports, record
        self.submitted, self.answers = [], []
        self._running = deque()

    def submit(self, spec):
        self.submitted.append(spec.trial_id)
        self._running.append([spec, 0, True])

    def next(self):
        first = self._running[0]
        spec, epoch, goes_on = first
        if epoch < self.reports and goes_on:
            first[1] += 1
            return Reported(spec, epoch + 1, {"class_mean": 0.5})
        self._running.popleft()
        publish(self.store, spec, **({"status": "COMPLETE" if goes_on else "PRUNED"} | self.record))
        return Ended(spec, None)

    def answer(self, spec, goes_on):
        self.answers.append(goes_on)
        next(each for each in self._running if each[0] == spec)[2] = goes_on

    def close(self):
        pass
