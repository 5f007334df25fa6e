"""What can be asked of a comparison of methods or of searches.

Owns: the requests, their defaults, and the names that `all` stands for. Must not know: torch, how a
comparison is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.driver.request import MOST_SEEDS, PlaceRequest, check_count, listed
from harness.errors import UserError, unknown
from harness.metrics import goals_of
from harness.search.catalogue import POPULATION
from harness.search.optuna_search import SEVERAL
from harness.store.run_folder import RunFolder
from harness.study.study import Study

ALL = ("random", "sobol", "tpe", "gp", "tpe+hyperband", POPULATION)
"""What `all` stands for, with every method that learns strengths in one trial."""
BUDGET = "24"
SMOKE_BUDGET = "4"
REPEATS_LIVE = 3


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often each search is run."""

    count: int | None = None
    """None: left to the comparison."""
    by: Mapping[str, int] = field(default_factory=dict)
    """Searches that are run another number of times, with that number."""

    @classmethod
    def parse(cls, given: int | str | None) -> Repeats:
        """Read `500`, or `500,gp=200` for 500 of each search but 200 of gp; None: nothing asked.

        Raises:
            UserError: it is neither, or names a search twice.
        """
        if given is None:
            return cls()
        count: int | None = None
        by: dict[str, int] = {}
        for part in str(given).split(","):
            name, equals, number = part.strip().rpartition("=")
            is_again = name in by if equals else count is not None
            if is_again or not number.isdecimal() or int(number) < 1 or (equals and not name):
                raise UserError(
                    f"--repeats {given}: write a whole number from 1 on, as in 500, and for a "
                    "search that is to have another one its name as well, as in 500,gp=200."
                )
            if equals:
                by[name] = int(number)
            else:
                count = int(number)
        return cls(count=count, by=by)

    def fields(self, default: int, searches: Sequence[str]) -> dict[str, Any]:
        """`SearchComparison`'s fields for these searches.

        Raises:
            UserError: another search is named.
        """
        for name in self.by:
            if name not in searches:
                raise unknown("search in --repeats:", name, searches)
        count = self.count or default
        return {
            "repeats": count,
            "repeats_by": {name: own for name, own in self.by.items() if own != count},
        }


@dataclass(frozen=True, kw_only=True)
class ComparisonRequest:
    """What is asked of a comparison, either of methods or of searches; None: left to it."""

    methods: str | None
    """Names with commas between them, or `all`."""
    search: str | None
    """Names with commas between them, or `all`."""
    study: str | Study | None
    replay: tuple[str | Literal[True], ...]
    """Tables that results are taken from, one for each space: files of `harness tabulate`, or names
    of tables that ship; True: the default of these. None at all: they are trained."""
    budget: str | None
    repeats: int | str | None
    """Of each search, in all; as `Repeats.parse` reads it."""
    half_width: float | None
    """Points that a replay's search chance may leave to each mean, instead of `repeats`."""
    seeds: int | None
    objective: str | None
    """What choices are made by; for searches also several, with commas between them; None: what the
    study chooses by."""
    confirm: int | None
    charge: tuple[str, ...]
    """Runs that tuned the methods that learn strengths."""
    controls: str | None
    """Run of `harness train --controls`."""
    smoke: bool
    workers: int | None
    settings: Mapping[str, Any]
    weights: str | None
    place: PlaceRequest
    line: str
    """The command line that asks for the same, for the run's `command.json`."""

    def __post_init__(self) -> None:
        for flag, names in (("methods", self.methods), ("search", self.search)):
            if names is not None and names != "all" and "all" in listed(flag, names):
                raise UserError(
                    f"--{flag} {names}: all stands alone; leave out the others, or name each."
                )
        Repeats.parse(self.repeats)
        check_count("seeds", self.seeds, most=MOST_SEEDS)
        check_count("workers", self.workers)
        check_count("confirm", self.confirm, 0)
        if self.objective is not None:
            goals_of(self.objective)
        if self.half_width is not None and not 0 < self.half_width < math.inf:
            raise UserError(
                f"--half-width {self.half_width:g}: write points of test accuracy above 0, as in "
                "1.0."
            )


@dataclass(frozen=True, kw_only=True)
class SearchesRequest:
    """Searches to be compared on a study or a table that is known; None: left to it."""

    searches: str
    """Names with commas between them, or `all`."""
    budget: str
    repeats: Repeats = Repeats()
    half_width: float | None = None
    """As of `ComparisonRequest`."""
    seeds: int | None = None
    objective: str | None = None
    """Of a replay, where the table's study would choose by another; None: by that."""
    workers: int = 1
    """Simulated ones in a replay; live, as many as the engine has."""
    confirm: int | None = None
    tuning: tuple[RunFolder, ...] = ()
    """Run folders whose cost found the settings of the searches that learn strengths."""
    controls: RunFolder | None = None
    """Folder of the comparison of a method that learns strengths with its controls."""
    line: str
    """As of `ComparisonRequest`."""

    @property
    def plan(self) -> str:
        """What will be done, in one sentence."""
        return f"Each search to a budget of {self.budget}."

    def names(self, learned: Sequence[str], *, several: bool = False) -> list[str]:
        """The searches, each once; `all` stands for those here and the learned ones, or with
        `several` objectives for those that seek a front."""
        return names_of(self.searches, learned, several=several)


def names_of(searches: str, learned: Sequence[str], *, several: bool = False) -> list[str]:
    """The searches that names with commas between them, or `all`, stand for."""
    if searches == "all":
        return [*SEVERAL] if several else [*ALL, *learned]
    return list(dict.fromkeys(name.strip() for name in searches.split(",")))


def default_budget(smoke: bool) -> str:
    """What each search may spend where nothing else is asked for."""
    return SMOKE_BUDGET if smoke else BUDGET
