"""Finding studies: the shipped ones by name, a user's by path.

A user's file may also register methods, datasets and backbones. Worker processes, on this machine
or another, do not see the driver's registries: they are given the text of every study file that the
driver has loaded, and run it once. Owns: running a study file, here and in workers, and its errors.
Must not know: what is done with a study.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from harness.errors import UserError, unknown
from harness.registry import registering
from harness.spec import explain
from harness.study.study import Study

FOLDERS = ("baselines", "reports", "studies")
"""Folders at the top of the repository that are packages of `harness`, and imported as such."""


@dataclass(frozen=True)
class StudyFile:
    """A study file as it was when it was loaded."""

    path: str
    """Absolute, on the machine that loaded it; elsewhere there may be no such file."""
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Its last part, for messages."""
        return Path(self.path).name

    @property
    def module(self) -> str:
        """Name of the module that it becomes: the same in every process, another if it changes."""
        key = hashlib.sha256(f"{self.path}\n{self.text}".encode()).hexdigest()
        return f"_study_{Path(self.path).stem}_{key[:12]}"


_loaded: dict[str, StudyFile] = {}
"""Users' study files that this process has run, by the names of their modules."""


def loaded_files() -> tuple[StudyFile, ...]:
    """Every study file of a user that this process has run: what its workers are to run too."""
    return tuple(_loaded.values())


def study_names() -> list[str]:
    """Names of the studies that ship with the harness."""
    package = importlib.import_module("harness.studies")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def known_study(study: str | Study) -> Study:
    """A study by its name or path, or itself.

    Raises:
        UserError: there is none.
    """
    return study if isinstance(study, Study) else load_study(study)


def typed_name(study: Study) -> str:
    """A shipped study's name; of another, the file that it would have to be written to."""
    is_shipped = study.name in study_names() and load_study(study.name) == study
    return study.name if is_shipped else f"{study.name}.py"


def load_study(name_or_path: str) -> Study:
    """Load a shipped study by its name, or a user's from the path of a file with a `study()`.

    Raises:
        UserError: there is no such study or file, or the file gives no valid study, or registers a
            name that is taken; names the file.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"Study file {name_or_path} does not exist.")
        file = StudyFile(str(path.resolve()), _text(path))
        with _run(file) as module:
            return _made(module)
    if name_or_path not in study_names():
        if path.is_file():
            raise UserError(f"Study file {name_or_path}: the name of one ends in .py.")
        if path.is_dir():
            raise UserError(
                f"Study {name_or_path!r} is a folder: name a file in it, which ends in .py, or one "
                "of `harness list studies`."
            )
        raise unknown("study", name_or_path, study_names())
    with _explained(f"{name_or_path}.py"):
        return _made(importlib.import_module(f"harness.studies.{name_or_path}"))


def load_in_worker(files: tuple[StudyFile, ...]) -> None:
    """Run study files that this process has not run yet, for what they register.

    Raises:
        UserError: one cannot be run here; names the file.
    """
    for file in files:
        with _run(file):
            pass


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Study file {path} cannot be read: {error}.") from error


@contextmanager
def _run(file: StudyFile) -> Iterator[ModuleType]:
    """The file as a module, which is run the first time; classes find each other in it by name.

    If an exception leaves the block at that time, nothing of the file stays.

    Raises:
        UserError: whatever is wrong with the file, in one sentence.
    """
    with _explained(file.name):
        if file.module in _loaded:
            yield sys.modules[file.module]
            return
        module = ModuleType(file.module)
        module.__file__ = file.path
        sys.modules[file.module] = module
        try:
            with registering(file.name, file.sha256):
                exec(compile(file.text, file.path, "exec"), vars(module))  # noqa: S102 - study files are code
                yield module
        except BaseException:
            del sys.modules[file.module]
            raise
        _loaded[file.module] = file


def _made(module: ModuleType) -> Study:
    define = vars(module).get("study")
    if define is None:
        raise UserError("it must define a function study() that returns a Study.")
    try:
        made = define()
    except (KeyboardInterrupt, ImportError, UserError, ValidationError):
        raise
    except BaseException as error:  # the file was read: what it does is what is wrong
        raise UserError(f"study() raised {_raised(error, str(module.__file__))}.") from error
    if not isinstance(made, Study):
        raise UserError(f"study() returned {type(made).__name__}, not a Study.")
    published = resources.files("harness.baselines") / "paper"
    names = {Path(file.name).stem for file in published.iterdir() if file.name.endswith(".csv")}
    for name in set(made.references) - names:
        raise unknown("reference", name, names)
    return made


def _raised(error: BaseException, path: str) -> str:
    """What was raised, and in which line of the file."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{type(error).__name__}({error.msg!r}) in line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == Path(path).name]
    return f"{error!r} in line {lines[-1]}" if lines else repr(error)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever goes wrong in a study file into one sentence.

    Raises:
        UserError: names the file.
    """
    try:
        yield
    except ValidationError as error:
        raise UserError(f"{name}: {explain(error)}") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except ImportError as error:
        folder = (error.name or "").partition(".")[0]
        if folder in FOLDERS:
            raise UserError(
                f"{name} cannot import {error.name}: what ships with the harness is imported "
                f"as harness.{folder}."
            ) from error
        raise UserError(f"{name} cannot be read as Python: {_raised(error, name)}.") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, or whatever else the file derives from it
        raise UserError(f"{name} cannot be read as Python: {_raised(error, name)}.") from error
