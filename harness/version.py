"""The version of the package, and which state of its source this is.

Owns: both. Must not know: what they decide.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

__version__ = "0.2.0"

OF_SOURCE = (".py", ".jinja", ".css", ".js", ".csv")
"""Files of the package that decide what it says, by the ends of their names."""
NO_SOURCE = ("__pycache__", "reports/gallery", "reports/archives", "reports/findings")
"""Folders that hold results, by the ends of their paths."""


@functools.cache
def source_hash() -> str:
    """Hash of the package's own files, which changes with every edit of a checkout."""
    found = hashlib.sha256(__version__.encode())
    for folder, below, names in os.walk(Path(__file__).parent, followlinks=True):
        places = {name: Path(folder, name).as_posix() for name in below}
        below[:] = sorted(name for name in below if not places[name].endswith(NO_SOURCE))
        for name in sorted(names):
            if name.endswith(OF_SOURCE):
                found.update(f"\n{name}\n".encode() + Path(folder, name).read_bytes())
    return found.hexdigest()
