"""Answers that take long to find, kept for the next command in the user's cache folder.

Owns: where they lie, and that they are found again where they are not, or cannot, be kept. Must not
know: what they answer.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.version import source_hash

FOLDER = "peft-hpo-harness"


def cache_folder() -> Path:
    """Where this program may keep what it can find again, by the customs of the platform."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # a relative one is to be ignored
        return Path(named, FOLDER)
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser() / FOLDER
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / FOLDER / "Cache"
    return Path("~/.cache").expanduser() / FOLDER


def machine() -> list[object]:
    """What a timing depends on beside the package: processor, GPUs, and what computes."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = [line for line in lines if line.startswith("model name")][:1]
    gpus = sorted(str(path) for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    versions = [importlib.metadata.version(name) for name in ("torch", "timm", "numpy")]
    return [platform.node(), platform.machine(), processor, gpus, visible, versions]


def kept(name: str, find: Callable[[], Any], *, of: object = None) -> Any:
    """The answer `name`, which `find` finds where it is not known yet: JSON data.

    It is known as long as neither the package's source changes nor `of`, by its text.
    """
    key = hashlib.sha256(f"{source_hash()} {of!r}".encode()).hexdigest()
    try:
        path = cache_folder() / f"{name}.json"
        content = json.loads(path.read_text())
        if content["key"] == key:
            return content["answer"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        pass  # there is none, it is damaged, or there is no such folder
    answer = json.loads(json.dumps(find()))
    try:
        path = cache_folder() / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps({"key": key, "answer": answer}))
        part.replace(path)
    except (OSError, RuntimeError):
        pass  # found again next time
    return answer
