"""Names to implementations: those that ship, those that a study file registers, those installed.

A file placed in the package registers itself; an installed package names its own by an entry point;
a study file calls `register` or `add`. Owns: lookup, which of two of one name counts, and the
errors. Must not know: what is registered; each registry stands beside the contract of its entries
(`insertion.method.METHODS`, `data.contract.DATASETS`, `model.backbones.BACKBONES`).
"""

from __future__ import annotations

import importlib
import inspect
import logging
import multiprocessing
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, NamedTuple, TypeVar

from harness.errors import UserError, unknown

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


def installed(group: str) -> dict[str, list[EntryPoint]]:
    """Every installed package's entry points of a group, by name. Nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        same = found.setdefault(entry.name, [])
        if entry not in same:  # a folder that stands twice on the path has everything twice
            same.append(entry)
    return found


def origin(entry: EntryPoint) -> str:
    """The distribution that an entry point is of, with its version."""
    of = entry.dist
    return "no distribution" if of is None else f"{of.name} {of.version}"


def load_entry(kind: str, entries: list[EntryPoint]) -> Any:
    """Import what the entry points of one name stand for.

    Raises:
        UserError: it cannot be imported, or two distributions claim the name.
    """
    entry, *more = entries
    if more:
        raise UserError(
            f"{kind.capitalize()} {entry.name!r} is in {origin(entry)} and in {origin(more[0])}: "
            "uninstall one of them."
        )
    try:
        return entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of others may end in any way, SystemExit included
        reason = " ".join(repr(error).split())
        of = "" if entry.dist is None else f", of distribution {entry.dist.name}"
        raise UserError(
            f"{kind.capitalize()} {entry.name!r} (entry point {entry.value}{of}) is installed but "
            f"cannot be imported: {reason}."
        ) from error


class _Loading(NamedTuple):
    """A study file that is being run."""

    name: str
    sha256: str
    added: list[tuple[dict[str, Any], dict[str, Any], str]]


_loading: list[_Loading] = []


@contextmanager
def registering(name: str, sha256: str) -> Iterator[None]:
    """What is registered meanwhile is of the file `name`, whose text has this hash.

    If an exception leaves the block, all of it is forgotten again.
    """
    loading = _Loading(name, sha256, [])
    _loading.append(loading)
    try:
        yield
    except BaseException:
        for entries, sources, entry in loading.added:
            entries.pop(entry, None)
            sources.pop(entry, None)
        raise
    finally:
        _loading.remove(loading)


class Registry(Generic[T]):
    """Implementations of one kind.

    Args:
        kind: what one is called in messages.
        package: its modules, imported on first use, register what ships.
        group: of entry points, by which installed packages add theirs.
        misfit: in words, why something cannot be an entry; None if it can.
        reserved: names that are taken, beside those that ship as entries.
    """

    def __init__(
        self,
        kind: str,
        package: str | None,
        *,
        group: str,
        misfit: Callable[[object], str | None],
        reserved: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._misfit = misfit
        self._reserved = reserved
        self._entries: dict[str, T] = {}
        self._sources: dict[str, _Loading | None] = {}
        """Of entries that do not ship: the study file they are from; None for other code."""
        self._said: set[str] = set()
        self._refused: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an implementation under `name`; see `add`."""

        def add(entry: T) -> T:
            self.add(name, entry)
            return entry

        return add

    def add(self, name: str, entry: T) -> None:
        """Add an implementation under `name`.

        A study file that is loaded again registers nothing new.

        Raises:
            UserError: the name is taken, or the entry is not of this kind.
        """
        if self._ships(entry):
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            return
        source = _loading[-1] if _loading else None
        self._check(name, entry)
        if self._is_built_in(name):
            raise UserError(
                f"{self.kind.capitalize()} {name!r} is built in: register yours under another name."
            )
        if self._entries.get(name) is entry:
            return
        theirs = installed(self._group).get(name)
        if theirs and not _is_of(entry, theirs):
            raise UserError(
                f"{self.kind.capitalize()} {name!r} is of {origin(theirs[0])}: register yours "
                "under another name."
            )
        if name in self._entries:
            first = self._sources[name]
            again = first is not None and source is not None and first.sha256 == source.sha256
            if again and first is not source:
                return
            where = "elsewhere" if first is None else f"by {first.name}"
            raise UserError(
                f"{self.kind.capitalize()} {name!r} is already registered {where}, with other "
                "code: rename one of them, or start Python anew if you have edited the file."
            )
        self._entries[name] = entry
        self._sources[name] = source
        if source is not None:
            source.added.append((self._entries, self._sources, name))

    def refuse(self, name: str, sentence: str) -> None:
        """Say why there is none of this name, though somebody who knows the field may ask for it.

        Such a name is not listed.
        """
        self._refused[name] = sentence

    def _check(self, name: str, entry: object, source: str = "") -> None:
        misfit = self._misfit(entry)
        if misfit is not None:
            found = getattr(entry, "__qualname__", None) or type(entry).__qualname__
            raise UserError(f"{self.kind.capitalize()} {name!r} is {found}, {misfit}{source}.")

    def _ships(self, entry: T) -> bool:
        of = str(getattr(entry, "__module__", ""))
        return self._package is not None and of.startswith(f"{self._package}.")

    def _import_package(self) -> None:
        if self._package is not None:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__, f"{self._package}."):
                importlib.import_module(module.name)

    def _is_built_in(self, name: str) -> bool:
        if self._reserved(name):
            return True
        self._import_package()
        return name in self._entries and name not in self._sources

    def _installed(self) -> dict[str, list[EntryPoint]]:
        """Entry points whose names are not taken by what ships or was registered."""
        return {
            name: entries
            for name, entries in installed(self._group).items()
            if name not in self._entries and not self._reserved(name)
        }

    def names(self) -> list[str]:
        """All names, sorted; of what is installed too, none of which is imported for this."""
        self._import_package()
        return sorted({*self._entries, *self._installed()})

    def get(self, name: str) -> T:
        """The implementation called `name`.

        One that ships keeps its name against an installed one, which is said once, in one sentence.

        Raises:
            UserError: there is none, and the message gives the nearest name and all of them; or it
                is installed and cannot be imported.
        """
        self._import_package()
        if name not in self._entries:
            found = self._installed().get(name)
            if found is None and name in self._refused:
                raise UserError(self._refused[name])
            if found is None:
                raise unknown(self.kind, name, self.names())
            entry: T = load_entry(self.kind, found)
            self._check(name, entry, f"; it is from {origin(found[0])}")
            self._entries[name], self._sources[name] = entry, None
        elif name not in self._said and multiprocessing.parent_process() is None:
            self._said.add(name)
            for sentence in self.clashes(name):
                _LOG.warning(sentence)
        return self._entries[name]

    def is_found_without_a_file(self, name: str) -> bool:
        """Whether an entry ships or is installed, so that every command knows it."""
        return self._is_built_in(name) or name in installed(self._group)

    def knows(self, name: str) -> bool:
        """Whether there is an entry here; if it is installed, it may be broken."""
        return self._is_built_in(name) or name in self._entries or name in installed(self._group)

    def working(self) -> dict[str, T]:
        """Everything that can be had; an installed one that cannot be imported is left out."""
        return {name: entry for name, entry in self.look() if not isinstance(entry, UserError)}

    def look(self) -> Iterator[tuple[str, T | UserError]]:
        """Every name with its implementation, or with the error why there is none."""
        for name in self.names():
            try:
                yield name, self.get(name)
            except UserError as error:
                yield name, error

    def distribution(self, name: str) -> str | None:
        """The distribution and version that an implementation was installed with, if it was."""
        entries = installed(self._group).get(name)
        return origin(entries[0]) if entries and not self.clashes(name) else None

    def clashes(self, name: str | None = None) -> list[str]:
        """A sentence for every installed implementation whose name is built in, or for that one."""
        return [
            f"{self.kind.capitalize()} {each!r} of {origin(entry)} is not used: the name is built "
            "in."
            for each, entries in installed(self._group).items()
            if name in (None, each) and self._is_built_in(each)
            for entry in entries
        ]


def unlike(entry: object, options: type, *contracts: type) -> str | None:
    """Why something is no class that can stand for one of the contracts, which are of one module.

    What a contract declares must have a value in the class, and `Options` derive from `options`.
    """
    if not isinstance(entry, type) or not issubclass(entry, contracts):
        return f"not a class from {' or '.join(each.__name__ for each in contracts)}"
    absent = set(getattr(entry, "__abstractmethods__", ()))
    for base in entry.__mro__:
        if base.__module__ == contracts[0].__module__:
            absent |= {name for name in inspect.get_annotations(base) if not hasattr(entry, name)}
    if absent:
        return f"a class without {', '.join(sorted(absent))}"
    given = getattr(entry, "Options", None)
    if not isinstance(given, type) or not issubclass(given, options):
        return f"whose Options are not a class from {options.__name__}"
    return None


def _is_of(entry: object, entries: list[EntryPoint]) -> bool:
    """Whether an implementation is from the package that an entry point names."""
    package = str(getattr(entry, "__module__", "")).partition(".")[0]
    return any(each.module.partition(".")[0] == package for each in entries)
