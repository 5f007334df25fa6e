"""The register of what is said: contrasts of arms, each with the claim that it is about.

Owns: which two arms a claim compares, and its verdict. Must not know: archives, documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from harness.findings.arms import (
    ARMS,
    Looked,
    chosen_by_seed,
    exhausted,
    placed,
    random_by_seed,
    separately_best,
)
from harness.findings.scenario import Scenario
from harness.findings.searched import REPEATS, searched_by_seed
from harness.reports.numbers.verdict import Contrast, judge

Arms = Mapping[str, pd.DataFrame]
"""Name -> a row per seed, as of `chosen_by_seed`."""

FOR_CLAIMS: dict[str, Looked] = {
    "Q+V, tuned": placed("Q+V"),
    "MLP1, tuned": placed("MLP1"),
    "best values one by one": separately_best,
    "best cell of all": exhausted,
}
"""Arms that only claims need."""
LAST_6: dict[str, Looked] = {
    "synth_rs": placed("all", "last:6"),
    "mstar": placed("all, last 6"),
    "aid": placed("all, last 6"),
}


class Claim(NamedTuple):
    """One arm against another."""

    key: str
    """B and T are primary; C1 to C11 are the paper's claims, and exploratory here."""
    sentence: str
    arm: str
    other: str
    score: str = "test"
    """`test`, or `tail` for the last group."""
    paper: str = ""
    """The paper's figure, where it has one."""


CLAIMS = (
    Claim(
        "B",
        "MetaPEFT chooses better than GP at equal cost (12 runs)",
        "MetaPEFT, tuned",
        "GP",
    ),
    Claim(
        "T",
        "MetaPEFT (12 runs) adds to LoRA with a tuned strength (4 runs)",
        "MetaPEFT, tuned",
        "LoRA at every linear map, tuned",
    ),
    Claim(
        "C3",
        "The position matters: every linear map against Q+V, each tuned",
        "LoRA at every linear map, tuned",
        "Q+V, tuned",
    ),
    Claim(
        "C4",
        "More blocks are better: all against the last 6, each tuned",
        "LoRA at every linear map, tuned",
        "last 6 blocks, tuned",
    ),
    Claim(
        "C5",
        "Values that are best one by one fall behind the best cell",
        "best cell of all",
        "best values one by one",
    ),
    Claim(
        "C6",
        "One run of MetaPEFT is as good as exhausting LoRA's space",
        "MetaPEFT, defaults",
        "LoRA's space, exhausted",
    ),
    Claim(
        "C7",
        "The MLP is a better place than attention: MLP1 against Q+V, each tuned",
        "MLP1, tuned",
        "Q+V, tuned",
    ),
    Claim(
        "C9",
        "γ adds to LoRA in one run, at the paper's settings",
        "MetaPEFT, defaults",
        "LoRA at every linear map, α = 4, rate r",
        paper="+1.13 (DOTA)",
    ),
    Claim(
        "C9, tail",
        "and most for tail classes",
        "MetaPEFT, defaults",
        "LoRA at every linear map, α = 4, rate r",
        "tail",
        "+1.2 (DOTA)",
    ),
)
PRIMARY = ("B", "T")
NOT_ASKED = {
    "C1": "additive methods are better than others",
    "C2": "tail classes are separated better",
    "C8": "middle blocks are best",
    "C10": "the sampling ratio and a tail-heavy D_val matter",
    "C11": "γ costs little beside training",
}
"""Claims that other studies are about, on synth-rs alone."""


def arms_of(scenario: Scenario) -> dict[str, pd.DataFrame]:
    """Every arm of a whole scenario, cheapest first.

    Raises:
        ValueError: seeds are missing; before the last, nothing is computed.
        UserError: its replays are missing, or of other scores.
    """
    if not scenario.is_whole:
        raise ValueError(f"{scenario.name} is not whole")
    found = {name: chosen_by_seed(scenario, looked) for name, looked in ARMS.items()}
    last = len(found) - 2  # searches stand beside the arms that spend as much
    searches = {name.upper(): searched_by_seed(scenario, name) for name in REPEATS}
    beside = {"random": random_by_seed(scenario), **searches}
    items = list(found.items())
    return dict([*items[:last], *beside.items(), *items[last:]])


def contrasts_of(scenario: Scenario, arms: Arms) -> dict[str, Contrast]:
    """Claim's key -> its verdict."""
    looked = {**FOR_CLAIMS, "last 6 blocks, tuned": LAST_6[scenario.name]}
    every = {**arms, **{name: chosen_by_seed(scenario, each) for name, each in looked.items()}}
    found = {}
    for claim in CLAIMS:
        column = f"test_{scenario.groups[-1]}" if claim.score == "tail" else claim.score
        difference = every[claim.arm][column] - every[claim.other][column]
        found[claim.key] = judge(difference.loc[list(scenario.seeds)].to_numpy(float))
    return found
