"""Blocks of README.md and FINDINGS.md that state what was measured.

A block stands between `<!-- measured: NAME -->` and `<!-- end -->`; what is between the two is
computed from the archives; all around it is written by hand, and states no measured number. Owns:
the blocks' texts, and the replacing. Must not know: how a verdict is come to.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from harness.errors import UserError
from harness.findings.claims import (
    CLAIMS,
    NOT_RUN,
    NOT_RUN_ON,
    OVERHEAD,
    PRIMARY,
    Claim,
    bootstraps_of,
    contrasts_of,
    overhead_of,
)
from harness.findings.scenario import Scenario
from harness.findings.searched import MONTE_CARLO, monte_carlo, replayed
from harness.findings.strengths import strengths_table
from harness.reports.numbers.statistics import mean_and_half_width
from harness.reports.numbers.verdict import Contrast
from harness.reports.text.numbers import with_interval

BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WORDS = {"synth_rs": "synth-rs (synthetic)", "mstar": "MSTAR (SAR)", "aid": "AID (optical)"}
Found = Mapping[str, Mapping[str, Contrast]]
"""Scenario -> claim's key -> verdict; of whole scenarios."""


ByScenario = Mapping[str, Mapping[str, pd.DataFrame]]
"""Scenario -> arm -> a row per seed; of whole scenarios."""


def blocks(
    scenarios: Sequence[Scenario], arms: ByScenario, methods: pd.DataFrame | None = None
) -> dict[str, str]:
    """Name -> Markdown of every block; `methods` as of `methods_table`."""
    whole = [each for each in scenarios if each.name in arms]
    found = {each.name: contrasts_of(each, arms[each.name]) for each in whole}
    return {
        "figure": FIGURE_LINE if whole else "",
        "validation": VALIDATION_LINE if whole else NOTHING,
        "progress": _progress(scenarios),
        "headline": _headline(scenarios, found),
        "contrasts": _contrasts(scenarios, found, arms),
        "arms": "\n".join(_arms(each, arms[each.name]) for each in whole) or NOTHING,
        "strengths": "\n".join(_strengths(each, arms[each.name]) for each in whole) or NOTHING,
        "claims": _claims(scenarios, found, [c for c in CLAIMS if c.key not in PRIMARY]),
        "register": _claims(scenarios, found, CLAIMS),
        "methods": "Not run.\n" if methods is None else _methods(methods),
    }


FIGURE_LINE = "![What every arm reached, and what it paid](reports/findings/arms.png)\n"
VALIDATION_LINE = "![Test score against the dev set's size](reports/findings/validation.png)\n"
NOTHING = "No scenario is complete, so no arm is compared.\n"


def fill(text: str, by_name: Mapping[str, str]) -> str:
    """A document with its blocks made anew.

    Raises:
        UserError: it names a block that there is not.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[2] not in by_name:
            raise UserError(
                f"There is no block {match[2]!r} of measured text; there are {', '.join(by_name)}."
            )
        return match[1] + by_name[match[2]] + match[3]

    return BLOCK.sub(replaced, text)


def _progress(scenarios: Sequence[Scenario]) -> str:
    rows = [
        [WORDS[each.name], f"{len(each.seeds)} of {len(each.wanted)}", str(_trials(each))]
        for each in scenarios
    ]
    return _table(["scenario", "seeds", "trials"], rows)


def _trials(scenario: Scenario) -> int:
    return sum(map(len, scenario.trials.values()))


def _not_run(scenario: Scenario) -> str:
    return f"not run ({_so_far(scenario)})"


def _so_far(scenario: Scenario) -> str:
    seeds = f"{len(scenario.seeds)} of {len(scenario.wanted)} seeds"
    if not scenario.is_whole:
        return seeds
    return f"{seeds} trained, {len(replayed(scenario))} replayed"


def _headline(scenarios: Sequence[Scenario], found: Found) -> str:
    if not found:
        seeds = ", ".join(f"{WORDS[each.name]} {_so_far(each)}" for each in scenarios)
        return f"No scenario is complete ({seeds}), so nothing is concluded yet.\n"
    sentences = []
    for claim in CLAIMS:
        if claim.key not in PRIMARY:
            continue
        words = [
            f"{_verdict(found[each.name][claim.key])} on {WORDS[each.name]}"
            if each.name in found
            else f"{_not_run(each)} on {WORDS[each.name]}"
            for each in scenarios
        ]
        sentences.append(f"*{claim.sentence}*: {'; '.join(words)}.")
    return "\n".join(f"- {each}" for each in [*sentences, _in_all(found)]) + "\n"


def _in_all(found: Found) -> str:
    """How often each word was the verdict on a primary contrast."""
    words = Counter(own[key].word for own in found.values() for key in PRIMARY)
    counted = ", ".join(f"{words[word]} *{word}*" for word in ("better", "worse", "equivalent"))
    rest = words["undecided"] + words["not informative"]
    return (
        f"Of these {words.total()} verdicts {counted}, {rest} *undecided* or *not informative*. "
        "[What each answer means](docs/protocol.md#what-the-answers-mean) was written before."
    )


def _verdict(contrast: Contrast) -> str:
    return f"**{contrast.word}** ({_difference(contrast)})"


def _difference(contrast: Contrast) -> str:
    return f"{contrast.mean:+.2f} ± {contrast.half_width:.2f}"


def _contrasts(scenarios: Sequence[Scenario], found: Found, arms: ByScenario) -> str:
    whole = [each for each in scenarios if each.name in found]
    beside = {each.name: bootstraps_of(each, arms[each.name]) for each in whole}
    rows = []
    for claim in CLAIMS:
        if claim.key not in PRIMARY:
            continue
        for each in scenarios:
            row = [f"**{claim.key}**: {claim.arm} − {claim.other}", WORDS[each.name]]
            if each.name not in found:
                rows.append([*row, "", "", "", "", _not_run(each)])
                continue
            contrast, (low, high) = found[each.name][claim.key], beside[each.name][claim.key]
            said = (
                str(contrast.n),
                _difference(contrast),
                f"± {contrast.deciding_half_width:.2f}",
                f"{low:+.2f} to {high:+.2f}",
            )
            rows.append([*row, *said, f"**{contrast.word}**"])
    header = ["contrast", "scenario", "seeds", "points (95 %)", "97.5 %", "bootstrap", "verdict"]
    return _table(header, rows)


def _arms(scenario: Scenario, arms: Mapping[str, pd.DataFrame]) -> str:
    rows = []
    for name, own in arms.items():
        scores = [_score(own, "test"), *(_score(own, f"test_{each}") for each in scenario.groups)]
        rows.append([name, *scores, f"{own['runs'].mean():.1f}", _minutes(own)])
    header = ["arm", "class mean", *scenario.groups, "runs", "CPU minutes"]
    title = f"**{WORDS[scenario.name]}**, {len(scenario.seeds)} seeds"
    return f"{title}\n\n{_table(header, rows)}\n{_monte_carlo(arms)}\n"


def _monte_carlo(arms: Mapping[str, pd.DataFrame]) -> str:
    errors = {name: monte_carlo(own) for name, own in arms.items() if "monte_carlo" in own}
    parts = [f"{name} {error:.2f}" for name, error in errors.items()]
    said = f"Standard error that replaying leaves to a mean, at most: {', '.join(parts)} points."
    if max(errors.values()) > MONTE_CARLO:
        said += f" The protocol asks for {MONTE_CARLO:g} at most, so more replays are due."
    return said


def _strengths(scenario: Scenario, arms: Mapping[str, pd.DataFrame]) -> str:
    table = strengths_table(scenario, arms)
    rows = [
        [str(arm), *("" if pd.isna(count) else f"{count:.0f}" for count in row)]
        for arm, row in table.iterrows()
    ]
    return f"**{WORDS[scenario.name]}**\n\n{_table(['arm', *table.columns], rows)}"


def _score(own: pd.DataFrame, column: str) -> str:
    return with_interval(*mean_and_half_width(own[column])) if column in own else ""


def _minutes(own: pd.DataFrame) -> str:
    return f"{own['device_s'].mean() / 60:.1f}" if "device_s" in own else ""


def _claims(scenarios: Sequence[Scenario], found: Found, claims: Sequence[Claim]) -> str:
    rows = []
    for claim in claims:
        cells = [_of_claim(claim, each, found.get(each.name)) for each in scenarios]
        rows.append([claim.key, claim.sentence, claim.paper, *cells])
    key, sentence = OVERHEAD
    rows.append([key, sentence, "", *map(_overhead, scenarios)])
    for each in NOT_RUN:
        answered = f"{each.sentence} (study `{each.study}`)"
        cells = ["not run" if scenario.name == NOT_RUN_ON else "–" for scenario in scenarios]
        rows.append([each.key, answered, "", *cells])
    return _table(["", "claim", "paper", *(WORDS[each.name] for each in scenarios)], rows)


def _of_claim(claim: Claim, scenario: Scenario, found: Mapping[str, Contrast] | None) -> str:
    if scenario.name not in claim.only:
        return "–"
    if found is None:
        return _not_run(scenario)
    return f"{found[claim.key].word} ({_difference(found[claim.key])})"


def _methods(rows: pd.DataFrame) -> str:
    lines = []
    for _, row in rows.iterrows():
        is_judged = pd.notna(row["mean"])
        lines.append(
            [
                row["arm"],
                with_interval(row["test"], row["ci"]),
                f"{row['mean']:+.2f} ± {row['half_width']:.2f}" if is_judged else "",
                f"{row['p_holm']:.3f}" if is_judged else "",
                row["verdict"] if is_judged else "",
                f"{row['runs']:.1f}",
                str(row["parameters"]),
            ]
        )
    judged = rows.dropna(subset="mean")
    better = int((judged["verdict"] == "better").sum())
    seeds = int(judged["seeds"].min())
    said = f"**{better} of {len(judged)}** beat LoRA at every linear map ({seeds} seeds)."
    tuned, untuned = rows["test"].iloc[:2]
    prefers = int(rows["prefers"].iloc[1])
    if prefers:
        said += (
            " The rates that were tried leave out the recipe's own, which LoRA is trained with in "
            f"one run: validation prefers it in {prefers} of {seeds} seeds, so LoRA tuned stands "
            "too low here, and what that rate does for the others is not known."
        )
    elif untuned > tuned:
        said += (
            " LoRA in one run, at the recipe's rate, had a higher mean than with its rate tuned: "
            "choosing on so few validation images may cost more than it gains. The others were not "
            "run without tuning, so nothing is known of what the choice does to them."
        )
    header = ["arm", "class mean", "minus LoRA (95 %)", "p (Holm)", "verdict", "runs", "parameters"]
    return f"{said}\n\n{_table(header, lines)}"


def _overhead(scenario: Scenario) -> str:
    """Costs are known before searches are replayed, and no score is looked at."""
    if not scenario.is_whole:
        return _not_run(scenario)
    found = overhead_of(scenario)
    return f"{_times(found.flops)} in FLOPs, {_times(found.seconds)} in CPU seconds"


def _times(ratio: tuple[float, float]) -> str:
    """An interval is left out where it is shorter than what is shown."""
    mean, half_width = ratio
    return f"× {with_interval(mean, half_width if half_width >= 0.005 else math.nan, 2)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
