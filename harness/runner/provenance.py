"""Where a record comes from: versions, commit, device.

Owns: what is recorded of it. Must not know: trials.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from harness.spec import SEMANTICS
from harness.version import __version__


@functools.cache
def provenance(device: str) -> dict[str, str]:
    """Versions, device and the state of the harness's own source (not of the user's folder)."""
    versions = {n: importlib.metadata.version(n) for n in ("torch", "timm", "numpy")}
    is_gpu = torch.device(device).type == "cuda"
    return {
        "harness": __version__,
        "semantics": str(SEMANTICS),
        "git": _git_state(Path(__file__).parent),
        "python": platform.python_version(),
        **versions,
        "device": torch.cuda.get_device_name(device) if is_gpu else _cpu_name(),
        "platform": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_state(folder: Path) -> str:
    """The commit of a folder with this file; that of a repository around it is another's."""
    own = ("ls-files", "--error-unmatch", Path(__file__).name)
    state = ""
    for words in (own, ("describe", "--always", "--dirty", "--abbrev=12")):
        command = ["git", "-C", str(folder), *words]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - git and such
        except (OSError, subprocess.CalledProcessError):
            return "not a git checkout"
        state = run.stdout.strip()
    return state
