"""docs/protocol.md: its figures are its simulation's, its studies are those that it describes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from harness.catalogue.studies import load_study
from harness.findings.claims import CLAIMS
from harness.findings.evidence import SCENARIOS, name_of

DOCS = Path(__file__).parent.parent / "docs"
TEXT = " ".join((DOCS / "protocol.md").read_text().split())
SDS = ("0.95", "1.20", "1.50")


def simulated():
    with (DOCS / "protocol_simulation.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["setting"], row["of"]): float(row["value"]) for row in rows}


def percent(values, digits=0):
    return [f"{100 * value:.{digits}f}" for value in values]


def test_power_and_errors_are_those_of_the_simulation():
    found = simulated()

    def at(true, word, seeds=12):
        return [found[f"true {true}, sd {sd}, {seeds} seeds", word] for sd in SDS]

    def range_of(values):
        return " to ".join(percent([min(values), max(values)], 1))

    def wrong(seeds):
        sides = (at("+0.00", "better", seeds), at("+0.00", "worse", seeds))
        return range_of(list(map(sum, zip(*sides, strict=True))))

    better = percent(at("+1.13", "better"))
    equal = percent(at("+0.00", "equivalent"))
    assert f"is called better with {' / '.join(better)} %" in TEXT
    assert f"is called equivalent with {' / '.join(equal)} % (s)" in TEXT
    assert f"better or worse in {wrong(12)} %" in TEXT
    assert f"says equivalent in {range_of(at('+1.00', 'equivalent'))} % (s)" in TEXT
    of_16 = (wrong(16), range_of(at("+1.00", "equivalent", 16)))
    assert "of n = 16 they are {} % and {} %".format(*of_16) in TEXT


def test_coverage_is_that_of_the_simulation():
    found = simulated()
    for way, opening in (("confirmed", "such choices in"), ("replicated", "over replicates in")):
        values = [value for (_, of), value in found.items() if of == way]
        low, high = percent([min(values), max(values)])
        assert f"{opening} {low} to {high} %" in TEXT, (way, low, high)


@pytest.mark.parametrize(
    "scenario,placements,seeds", [("synth_rs", 8, 16), ("mstar", 4, 12), ("aid", 4, 12)]
)
def test_the_studies_are_those_described(scenario, placements, seeds):
    lora, gamma, single, pilot = (
        load_study(f"protocol_{scenario}_{kind}") for kind in ("lora", "gamma", "single", "pilot")
    )
    assert len(lora.cells()) == 4 * placements
    assert len(gamma.cells()) + 1 == 9 and len(single.cells()) == 2
    for study in (lora, gamma, single):
        assert study.seeds == tuple(range(100, 100 + seeds))
        assert study.base.data == lora.base.data
        assert study.base.data.options["tail_seed"] == "trial"
        assert study.base.recipe.score_epochs == "last" and study.base.recipe.batch_size == 32
    rates = next(axis.values for axis in lora.axes if axis.field == "recipe.lr")
    assert rates == next(axis.values for axis in gamma.axes if axis.field == "recipe.lr")
    assert rates[1] == 4 * rates[0] == 4 * single.base.recipe.lr
    assert rates[0] in pilot.axes[0].values and pilot.seeds == (99,)
    assert {request.alpha for _, request in pilot.cell_requests()} == {4.0}


@pytest.mark.parametrize("kind", ["variants", "controls"])
def test_what_is_explored_is_one_cell_of_the_space_but_for_what_is_named(kind):
    study = load_study(f"protocol_synth_rs_{kind}")
    (default, *others) = [request for _, request in study.cell_requests()]
    space = load_study("protocol_synth_rs_gamma")
    assert default in [request for _, request in space.cell_requests()]
    assert study.seeds == space.seeds
    for request in others:
        assert request.model_copy(update={"options": default.options}) == default
        assert request.options != default.options


def test_each_contrast_is_named():
    for name in (
        "**B**: MetaPEFT − GP, both at 12 runs",
        "**T**: MetaPEFT at 12 runs − tuned LoRA at 4",
    ):
        assert name in TEXT


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_claim_is_made_where_the_space_has_its_arms(name):
    where = next(axis for axis in load_study(name_of(name, "lora")).axes if axis.field == "where")
    made = {claim.key for claim in CLAIMS if name in claim.only}
    assert ("C7, ATTN" in made) is ("ATTN" in where.values)
    assert {"B", "T", "C7", "C9, Q+V"} <= made
