"""Randomness by purpose: every use of chance has its own generator, derived from the trial's seed.

So two configurations with one seed see the same batches, and adding a method, a block or an option
never shifts another module's initialisation. Owns: this derivation. Must not know: the purposes.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator that depends only on `seed` and the words of `purpose`.

    Numbers are drawn on the CPU and then moved, so that every device sees the same ones.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
