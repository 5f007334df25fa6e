"""Arguments of the Python interface: plain values, each of the type that its function names.

Owns: scalars and arrays of numpy and torch as what Python itself has, and the refusal of a value of
another type. Must not know: any function of the interface, what a value means.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, KeysView, Mapping, ValuesView
from itertools import starmap
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.errors import LONGEST_GIVEN, UserError

P = ParamSpec("P")
R = TypeVar("R")
NAMED = ("Literal['", "Objective", "Console")
"""In annotations of what is refused with more words where it is used."""


def with_plain_arguments(**later: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function whose arguments are made plain and checked before it runs.

    `later` are classes in its annotations, with the modules that these are in.

    Raises:
        UserError: an argument is of another type than its annotation; names both.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            names = {**function.__globals__, **dict(starmap(_imported, later.items()))}
            for name, value in bound.arguments.items():
                bound.arguments[name] = made = _plain(value)
                _check(name, made, signature.parameters[name].annotation, names)
            return function(*bound.args, **bound.kwargs)

        return called

    return decorated


def _imported(name: str, module: str) -> tuple[str, Any]:
    """A class, when it is needed: `import harness` is to need no torch."""
    return name, getattr(importlib.import_module(module), name)


def _plain(value: Any) -> Any:
    """Without numpy's and torch's types, however deep; what is read once is a list."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _as_setting(each) for key, each in value.items()}
    if isinstance(value, (Iterator, KeysView, ValuesView)):
        return list(map(_plain, value))
    if isinstance(value, os.PathLike):
        return Path(value)
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _as_setting(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else _plain(value)


def _check(name: str, value: Any, annotation: str, names: dict[str, Any]) -> None:
    if any(words in annotation for words in NAMED):
        return
    shown = repr(value)[:LONGEST_GIVEN]
    kind = eval(annotation, names)  # noqa: S307 - of a function of this package
    try:
        TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value, strict=True
        )
    except ValidationError as error:
        raise UserError(f"{name}={shown}: it takes {annotation}.") from error
    if isinstance(value, Mapping):
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}={shown}: {error}, so no field can have it.") from error
