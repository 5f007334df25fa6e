"""Names to implementations. A file placed in the package registers itself; nothing else is edited.

Owns: lookup and its error. Must not know: what is registered; each registry stands beside the
contract of its entries (`insertion.method.METHODS`, `data.contract.DATASETS`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from harness.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Implementations of one kind, found by importing every module of `package` on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an implementation under `name`."""

        def add(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            return entry

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, f"{self._package}."):
            importlib.import_module(module.name)
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """The implementation called `name`.

        Raises:
            UserError: there is none; the message gives the nearest name and all of them.
        """
        names = self.names()
        if name not in names:
            raise unknown(self._kind, name, names)
        return self._entries[name]
