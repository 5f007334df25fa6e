"""Getting a dataset with torchvision's own class, when a user asks for it.

Owns: what is said where there is no such class, and where it fails. Must not know: which dataset
has one; that is `contract.Downloadable`.
"""

from __future__ import annotations

import tarfile
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

from harness.data.contract import Downloadable, FileDataset
from harness.errors import UserError


def download(dataset: FileDataset[Any], name: str, options: Any, root: Path) -> None:
    """Put into the root what of a dataset can be had from its official page.

    Raises:
        UserError: there is no loader to download it with; or network, checksum or disk failed.
    """
    by_hand = f"get it by hand, as `harness data check {name}` says"
    if not isinstance(dataset, Downloadable):
        raise UserError(f"There is no loader to download {name} with: {by_hand}.")
    try:
        dataset.download(options, root)
    except UserError:
        raise
    # What network and disk raise, broken archives, and torchvision of a wrong checksum.
    except (OSError, HTTPException, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = str(getattr(error, "reason", error)).split("\n")[0]
        raise UserError(
            f"{name} could not be downloaded into {root} ({reason}): try again, or {by_hand}."
        ) from error
