"""MetaPEFT: one learned strength γ per site, trained by bi-level optimisation (Eq. 6 to 9)."""

from harness.baselines.metapeft.method import MetaPEFT

__all__ = ["MetaPEFT"]
