"""Downloading a dataset with torchvision's own class, when a user asks for it.

Owns: the messages when there is no such class and when it fails. Must not know: any dataset; those
that torchvision can download are `Downloadable`.
"""

from __future__ import annotations

import tarfile
import zipfile
from http.client import HTTPException
from pathlib import Path

from harness.data.contract import Downloadable, FileDataset
from harness.errors import UserError
from harness.spec import Frozen


def download(dataset: type[FileDataset], name: str, options: Frozen, root: Path) -> None:
    """Download into the root what is missing of a dataset, from its official page.

    Raises:
        UserError: there is no loader to download it with; or network, checksum or disk failed.
    """
    by_hand = f"get it by hand, as `harness data check {name}` says"
    if not issubclass(dataset, Downloadable):
        raise UserError(f"There is no loader to download {name} with: {by_hand}.")
    try:
        dataset.download(options, root)
    except UserError:
        raise
    # What network and disk raise, broken archives, and what torchvision raises for a bad checksum.
    except (OSError, HTTPException, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = str(getattr(error, "reason", error)).split("\n")[0]
        raise UserError(
            f"{name} could not be downloaded into {root} ({reason}): try again, or {by_hand}."
        ) from error
