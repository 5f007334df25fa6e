"""The register of what is said: contrasts of arms, each with the claim that it is about.

Owns: which two arms a claim compares, and its verdict. Must not know: archives, documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from harness.findings.arms import (
    ARMS,
    TUNED_LORA,
    Looked,
    chosen_by_seed,
    exhausted,
    metapeft,
    placed,
    random_by_seed,
    separately_best,
)
from harness.findings.bootstrap import bootstrap, tested
from harness.findings.scenario import Scenario
from harness.findings.searched import REPEATS, chosen_in_replays, searched_by_seed
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.numbers.verdict import Contrast, judge

Arms = Mapping[str, pd.DataFrame]
"""Name -> a row per seed, as of `chosen_by_seed`."""

FOR_CLAIMS: dict[str, Looked] = {
    "Q+V, tuned": placed("Q+V"),
    "MLP1, tuned": placed("MLP1"),
    "ATTN, tuned": placed("ATTN"),
    "LoRA at Q+V, α = 1, rate r": placed("Q+V", alpha=1.0, strengths=1),
    "LoRA at every linear map, α = 1, rate r": placed("all", alpha=1.0, strengths=1),
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
    only: tuple[str, ...] = tuple(LAST_6)
    """Scenarios whose spaces have both arms."""


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
        "The position matters: every linear map (4.5 × the parameters) against Q+V, each tuned",
        "LoRA at every linear map, tuned",
        "Q+V, tuned",
    ),
    Claim(
        "C4",
        "More blocks are better: all (2 × the parameters) against the last 6, each tuned",
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
        "C7, ATTN",
        "and MLP1 against all four maps of attention, each tuned",
        "MLP1, tuned",
        "ATTN, tuned",
        only=("synth_rs",),
    ),
    Claim(
        "C9",
        "γ adds to LoRA in one run: at the same rate and α = 1, with which γ starts",
        "MetaPEFT, defaults",
        "LoRA at every linear map, α = 1, rate r",
        paper="+1.13 (mean of the eight cells of Table 4)",
    ),
    Claim(
        "C9, tail",
        "and for tail classes",
        "MetaPEFT, defaults",
        "LoRA at every linear map, α = 1, rate r",
        "tail",
        "+1.20 (mean of three datasets)",
    ),
    Claim(
        "C9, α = 4",
        "and against LoRA with α = 4",
        "MetaPEFT, defaults",
        "LoRA at every linear map, α = 4, rate r",
    ),
    Claim(
        "C9, Q+V",
        "and against LoRA at Q+V, as the released code has it, with α = 1",
        "MetaPEFT, defaults",
        "LoRA at Q+V, α = 1, rate r",
    ),
)
PRIMARY = ("B", "T")
OVERHEAD = ("C11", "γ costs little beside training: of LoRA's cost at the same sites")
"""Key and sentence of the claim that is about costs, and needs no score."""


class OfOtherStudies(NamedTuple):
    """A claim that no archive of the protocol is about."""

    key: str
    sentence: str
    study: str
    """A run of it bears on it."""


NOT_RUN = (
    OfOtherStudies("C1", "additive methods are better than others", "methods"),
    OfOtherStudies("C2", "tail classes are separated better", "feature_distance"),
    OfOtherStudies("C8", "middle blocks are best", "depth_groups"),
    OfOtherStudies(
        "C10", "the sampling ratio and a tail-heavy D_val matter", "protocol_synth_rs_variants"
    ),
)


NOT_RUN_ON = "synth_rs"
"""Whose data those studies are of."""


class Overhead(NamedTuple):
    """Costs of MetaPEFT's trials over those of LoRA's at the same sites: means over seeds, each
    with its 95 % half-width."""

    flops: tuple[float, float]
    """Of training and dev scoring."""
    seconds: tuple[float, float]
    """Of the device."""


def overhead_of(scenario: Scenario) -> Overhead:
    """MetaPEFT's mean cost over LoRA's at every linear map in all blocks, within every seed.

    Both are trained to their end on the same images and on a device of the same name, so where a
    seed has several, each has a ratio of its own. A trial that diverged stops before its end, and
    is left out.

    Raises:
        ValueError: seeds are missing.
    """
    if not scenario.is_whole:
        raise ValueError(f"{scenario.name} is not whole")
    rows = []
    for seed in scenario.seeds:
        looked = (metapeft(scenario, seed), TUNED_LORA(scenario, seed))
        ended = [own[own["status"] == "COMPLETE"] for own in looked]
        gamma, lora = (own.groupby("device")[["flops", "device_s"]].mean() for own in ended)
        rows.append((gamma / lora).mean())  # NaN for a device that ran one of the two alone
    ratios = pd.DataFrame(rows)
    return Overhead(
        flops=mean_and_half_width(ratios["flops"]), seconds=mean_and_half_width(ratios["device_s"])
    )


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
    """Claim's key -> its verdict, of those that the scenario's space has arms for."""
    claims = [claim for claim in CLAIMS if scenario.name in claim.only]
    looked = {**FOR_CLAIMS, "last 6 blocks, tuned": LAST_6[scenario.name]}
    needed = {name for claim in claims for name in (claim.arm, claim.other)} & set(looked)
    every = {**arms, **{name: chosen_by_seed(scenario, looked[name]) for name in needed}}
    found = {}
    for claim in claims:
        column = f"test_{scenario.groups[-1]}" if claim.score == "tail" else claim.score
        difference = every[claim.arm][column] - every[claim.other][column]
        found[claim.key] = judge(difference.loc[list(scenario.seeds)].to_numpy(float))
    return found


def bootstraps_of(scenario: Scenario, arms: Arms) -> dict[str, tuple[float, float]]:
    """Key of a primary claim -> its 95 % limits by a bootstrap over seeds × test images."""
    found = tested(scenario)
    by_seed = {
        name: {seed: {str(own.loc[seed, "trial_id"]): 1.0} for seed in scenario.seeds}
        for name, own in arms.items()
        if "trial_id" in own
    }
    by_seed |= {name.upper(): chosen_in_replays(scenario, name) for name in REPEATS}
    return {
        claim.key: bootstrap(found, by_seed[claim.arm], by_seed[claim.other])
        for claim in CLAIMS
        if claim.key in PRIMARY
    }
