"""Any search, held to its budget and to its contract: the form in which it is driven or replayed.

Owns: when a search is asked no more, and what of its answers is refused. Must not know: which
search it is, where its trials run. Whatever a search does, what comes out is a trial to run, none,
or one sentence (`UserError`) that names the search; it is not asked again after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from harness.errors import UserError, code_of
from harness.search.base import Decision, Make, Outcome, Search, SearchMaker, SearchTask
from harness.search.budget import UNLIMITED, Spending
from harness.search.resumed import fields_of, is_inside, refuse_another
from harness.spec import Recipe, TrialSpec
from harness.store.search_log import Event, Spent, asks, read_log, tells
from harness.study.axes import cell_words
from harness.study.space import Values

IDLE_PER_CONFIGURATION = 20
LEAST_IDLE, MOST_IDLE = 1_000, 100_000
"""Proposals in a row that cost nothing, after which a search is ended: 20 for each configuration of
its space, within these limits, and one for each trial that its log has. Even a search that draws
blindly, and lacks one last configuration of N, finds it within 20 N proposals but in one case of
e^20; and one that begins anew after an interruption proposes first what it had been told."""

CONTRACT = ("ask", "report", "tell", "needs_epoch_reports")

T = TypeVar("T")


class BoundedSearch:
    """A search, asked only while its budget has room.

    A trial that has failed or was stopped is not run again in this process, and one that is running
    not a second time: proposed again, they are answered from what is known. Raises `UserError` from
    every method for a search that raises, `SystemExit` included, or breaks its contract.
    """

    def __init__(
        self,
        name: str,
        search: Search,
        *,
        spending: Spending | None = None,
        most_idle: int = LEAST_IDLE,
        made: dict[str, TrialSpec] | None = None,
    ) -> None:
        """`made` are the trials that the search may propose, as they come to be; None: any."""
        self.name, self._search = name, search
        self.needs_epoch_reports = search.needs_epoch_reports
        self._spending = spending or Spending(UNLIMITED)
        self._made, self._most_idle = made, most_idle
        self._idle = 0
        self._held: TrialSpec | None = None
        """Proposed when there was room, but not for so long a trial."""
        self._running: dict[str, TrialSpec] = {}
        self._repeated: Counter[str] = Counter()
        """How often a running trial was proposed again."""
        self._decided: dict[str, Decision] = {}
        self._closed: dict[str, Outcome] = {}
        """Of trials that failed or were stopped."""

    def ask(self, count: int) -> Sequence[TrialSpec]:
        """Up to `count` specs to run now; none when the budget has no room or the search is over.

        Raises:
            UserError: the search raised, proposed no trial of its study, or proposes known ones
                for ever.
        """
        specs: list[TrialSpec] = []
        while len(specs) < count:
            spec, self._held = self._held or self._next(), None
            if spec is None:
                break
            if not self._spending.affords(spec):
                self._held = spec
                break
            self._idle = 0 if self._spending.begin(spec) else self._idle
            self._running[spec.trial_id] = spec
            specs.append(spec)
        return specs

    def report(self, trial_id: str, epoch: int, score: float) -> Decision:
        """As the search decides.

        Raises:
            UserError: the search raised, or gave no `Decision`.
        """
        decision = _call(self.name, "report", self._search.report, trial_id, epoch, score)
        if not isinstance(decision, Decision):
            raise UserError(
                f"Search {self.name!r} answered a report with {decision!r}, not with GO_ON, PAUSE "
                "or STOP of harness.search.base.Decision."
            )
        self._decided[trial_id] = decision
        return decision

    def tell(self, outcome: Outcome) -> None:
        """Charge an asked trial, and tell it to the search.

        Raises:
            UserError: the search raised.
        """
        trial_id = outcome.trial_id
        decision = self._decided.pop(trial_id, Decision.GO_ON)
        is_cut, has_failed = outcome.status == "PRUNED", outcome.status == "FAILED"
        trained_further = self._spending.end(
            self._running.pop(trial_id),
            Spent(outcome.epochs, outcome.device_s, outcome.flops),
            failed=has_failed,
            paused=is_cut and decision is Decision.PAUSE,
        )
        if trained_further:
            self._idle = 0
        if has_failed or (is_cut and decision is not Decision.PAUSE):
            self._closed[trial_id] = outcome
        for _ in range(1 + self._repeated.pop(trial_id, 0)):
            _call(self.name, "tell", self._search.tell, outcome)

    def _next(self) -> TrialSpec | None:
        """A proposal that has to be run, or to be looked up in the store."""
        while self._spending.has_room:
            spec = self._proposal()
            if spec is None:
                return None
            if spec.trial_id in self._running:
                self._repeated[spec.trial_id] += 1
                return None
            self._idle += 1
            if self._idle > self._most_idle:
                raise UserError(
                    f"Search {self.name!r} proposed {self._most_idle} trials in a row that cost "
                    "nothing, because each was known or failed, so it would never end."
                )
            if spec.trial_id not in self._closed:
                return spec
            _call(self.name, "tell", self._search.tell, self._closed[spec.trial_id])
        return None

    def _proposal(self) -> TrialSpec | None:
        asked: object = _call(self.name, "ask", self._search.ask, 1)
        if not isinstance(asked, Iterable):
            raise UserError(f"Search {self.name!r} gave {_words(asked)}, not a list of trials.")
        specs: list[object] = _call(self.name, "ask", lambda: list(islice(asked, 2)))
        if not specs:
            return None
        if len(specs) > 1:
            raise UserError(f"Search {self.name!r} was asked for one trial and gave more.")
        (spec,) = specs
        if not isinstance(spec, TrialSpec):
            raise UserError(f"Search {self.name!r} proposed {_words(spec)}, which is no trial.")
        if self._made is not None and spec.trial_id not in self._made:
            raise UserError(
                f"Search {self.name!r} proposed trial {spec.trial_id}, which is none of its study: "
                "it did not come from the task's make."
            )
        if self.needs_epoch_reports:
            refuse_unscored(spec.recipe, f"search {self.name!r}")
        return spec


def refuse_unscored(recipe: Recipe, watcher: str) -> None:
    """Raises `UserError` for trials that would not be scored when `watcher` looks at them."""
    if recipe.score_epochs == "last":
        raise UserError(
            f"recipe.score_epochs=last: {watcher} watches the scores of every epoch; leave one of "
            "the two out."
        )


def bounded(search: Search) -> BoundedSearch:
    """A search in the form that is driven; one without a budget, such as a grid, gets none."""
    if isinstance(search, BoundedSearch):
        return search
    return BoundedSearch(type(search).__name__, search)


def start_search(
    name: str, maker: SearchMaker, task: SearchTask, *, beyond: Container[object] = ()
) -> BoundedSearch:
    """Start a search, or go on with the one in the task's log, whose spending counts.

    `beyond` are configurations outside the space that it may propose as well.

    Raises:
        UserError: it cannot be started, what was started is no search, or the log is of other
            trials than would come of it now.
    """
    refuse_another(task.log, task.space, task.make, beyond=beyond)
    spending = _spending(task)
    told = spending.restore(read_log(task.log))
    made: dict[str, TrialSpec] = {}
    own = replace(task, make=_checked(name, task, beyond, made))
    search = _call(name, "its start", maker, own)
    lacking = [part for part in CONTRACT if not hasattr(search, part)]
    if lacking:
        raise UserError(
            f"Search {name!r} started as {_words(search)}, which lacks {', '.join(lacking)} (see "
            "harness.search.base.Search)."
        )
    per_space = min(max(LEAST_IDLE, IDLE_PER_CONFIGURATION * task.space.size), MOST_IDLE)
    return BoundedSearch(
        name, search, spending=spending, most_idle=told + int(per_space), made=made
    )


def is_over(task: SearchTask, events: Sequence[Event]) -> bool:
    """Whether a search, started again from the events of the task's log, would find nothing to do.

    So it is if all that it asked for was told and its budget has no room. One that ended for
    another reason is not seen to be over; started again, it ends again.
    """
    told = {tell.trial_id for tell in tells(events) if tell.objective is not None}
    if not events or any(ask.trial_id not in told for ask in asks(events)):
        return False
    spending = _spending(task)
    spending.restore(events)
    return not spending.has_room


def _spending(task: SearchTask) -> Spending:
    return Spending(
        task.budget,
        full_run_flops=task.full_run_flops,
        fewest_epochs=min(task.epochs, task.space.fewest_epochs),
    )


def _checked(
    name: str, task: SearchTask, beyond: Container[object], made: dict[str, TrialSpec]
) -> Make:
    """The task's `make`, which refuses what is not in the space and notes what it makes."""
    fields = fields_of(task.space)

    def make(values: Values, seed: int) -> TrialSpec:
        if values not in beyond and not is_inside(task.space, fields, values):
            raise UserError(
                f"Search {name!r} proposed {cell_words(values)}, which is not in the space of "
                "the study."
            )
        spec = task.make(values, seed)
        made[spec.trial_id] = spec
        return spec

    return make


def _call(name: str, part: str, function: Callable[..., T], *arguments: object) -> T:
    """Call a part of a search.

    A `UserError` is its own sentence, unsaved results end everything, and Ctrl-C is the user's.

    Raises:
        UserError: it raised anything else.
    """
    with code_of(f"Search {name!r}", part):
        return function(*arguments)


def _words(thing: object) -> str:
    """What it is, in a line."""
    return f"{repr(thing)[:60]} ({type(thing).__name__})"
