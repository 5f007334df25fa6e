"""The tables that ship with the harness, by name.

Owns: which there are, what each is in a line, and which file a name or a path means. Must not know:
pandas, what stands in a table, how it was made (`harness.findings.tables`, `harness.reports`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from harness.errors import UserError, unknown

ASSETS = Path(__file__).parent.parent / "assets"
DEFAULT = "joint_space"
"""The table that `--replay` takes if none is named."""
LINES = {
    "joint_space": "LoRA on synth-rs (SYNTHETIC): position, depth and alpha; and MetaPEFT",
    "synth_rs": "LoRA on synth-rs (SYNTHETIC): placement, depth, alpha and rate; and MetaPEFT",
    "synth_rs_gamma": "MetaPEFT on synth-rs (SYNTHETIC): start of gamma, rate and outer rate",
    "mstar": "LoRA on MSTAR (SAR): placement, alpha and rate; and MetaPEFT",
    "mstar_gamma": "MetaPEFT on MSTAR (SAR): start of gamma, rate and outer rate",
    "aid": "LoRA on AID (optical): placement, alpha and rate; and MetaPEFT",
    "aid_gamma": "MetaPEFT on AID (optical): start of gamma, rate and outer rate",
}
"""Name -> what it is. One whose trials are not all there yet has no file, and does not ship."""


def shipped() -> dict[str, Path]:
    """Name -> file of the tables that are there, in the order of `LINES`."""
    files = {name: file_of(name) for name in LINES}
    return {name: file for name, file in files.items() if file.is_file()}


def file_of(name: str) -> Path:
    """Where the table of a name lies, or would lie."""
    return ASSETS / f"{name}.parquet"


def find_table(given: str | Literal[True]) -> Path:
    """The file of a table that is given by its name or its path; True: `DEFAULT`.

    What has a folder or a suffix is a path, so that a file which is called as a table that ships
    is named `./synth_rs`.

    Raises:
        UserError: no table of this name ships.
    """
    if given is True:
        return file_of(DEFAULT)
    tables, path = shipped(), Path(given)
    if given in tables:
        return tables[given]
    if path.suffix or os.sep in given or path.is_file():
        return path
    if given in LINES:
        raise UserError(
            f"--replay {given}: this table does not ship yet, because not every seed of its trials "
            f"has been trained; there are {', '.join(tables)}."
        )
    raise unknown("table", given, tables)
