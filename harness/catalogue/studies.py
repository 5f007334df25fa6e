"""Finding studies: the shipped ones by name, a user's by path.

Owns: loading a study file and its errors. Must not know: what is done with a study.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UserError, unknown
from harness.spec import explain
from harness.study.study import Study

FOLDERS = ("baselines", "reports", "studies")
"""Folders at the top of the repository that are packages of `harness`, and imported as such."""


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


def load_study(name_or_path: str) -> Study:
    """Load a shipped study by its name, or a user's from the path of a file with a `study()`.

    Raises:
        UserError: there is no such study or file, or the file gives no valid study; names the file.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"Study file {name_or_path} does not exist.")
    elif name_or_path in study_names():
        found = importlib.util.find_spec(f"harness.studies.{name_or_path}")
        assert found is not None and found.origin is not None
        path = Path(found.origin)
    else:
        raise unknown("study", name_or_path, study_names())
    spec = importlib.util.spec_from_file_location(f"_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        define = vars(module).get("study")
        if define is None:
            raise UserError("it must define a function study() that returns a Study.")
        made = define()
    except ValidationError as error:
        raise UserError(f"{path.name}: {explain(error)}") from error
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    except ImportError as error:
        folder = (error.name or "").partition(".")[0]
        if folder in FOLDERS:
            raise UserError(
                f"{path.name} cannot import {error.name}: what ships with the harness is imported "
                f"as harness.{folder}."
            ) from error
        raise UserError(f"{path.name} cannot be read as Python: {error!r}.") from error
    except Exception as error:
        raise UserError(f"{path.name} cannot be read as Python: {error!r}.") from error
    if not isinstance(made, Study):
        raise UserError(f"{path.name}: study() returned {type(made).__name__}, not a Study.")
    return made
