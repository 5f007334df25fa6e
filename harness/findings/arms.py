"""The arms of docs/protocol.md: what each would have chosen in every seed, and what it paid.

Owns: which trials an arm looks at, its choice, its charge. Must not know: searches that ask for
trials one by one (see `searched`), contrasts, words.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from harness.findings.scenario import Scenario
from harness.reports.numbers.random_search import expected_by_cost, in_steps
from harness.reports.numbers.replicates import choices_by_seed

RUNS = 12.0
"""Of the arms that are compared at equal cost."""
DIGITS = 9
"""Of dev scores in percent, when they are compared: which images a trial got right decides what is
a tie, and not in which order their shares were added."""
Looked = Callable[[Scenario, int], pd.DataFrame]
"""A scenario and a seed -> the trials that an arm looks at, in the order of trying."""


def chosen_by_seed(scenario: Scenario, looked: Looked) -> pd.DataFrame:
    """A row per seed: the trial with the best dev score, of ties the earlier; `runs` are all paid.

    Indexed by seed; `test` and `test_GROUP` in percent, `runs` and `device_s` summed over what was
    looked at, `looked` how many that were.
    """
    rows = pd.concat([looked(scenario, seed) for seed in scenario.seeds], ignore_index=True)
    compared = {"cell": rows["trial_id"], "cost": rows["runs"]}
    found = choices_by_seed(rows.assign(select=rows["select"].round(DIGITS), **compared))
    found = found.set_index("seed")
    chosen = rows.loc[found["row"]].set_index("seed")
    seconds = rows.groupby("seed")["device_s"].sum()
    return chosen.assign(runs=found["cost"], device_s=seconds, looked=found["tried"])


def random_by_seed(scenario: Scenario) -> pd.DataFrame:
    """As `chosen_by_seed`, of random search over LoRA's cells in closed form.

    It is charged the whole budget, though what is left before a trial that does not fit stays
    unspent. No time is its own.
    """
    names = ["test", *(f"test_{group}" for group in scenario.groups)]
    rows = []
    for seed in scenario.seeds:
        own = scenario.of_seed("lora", seed)
        costs, limit = in_steps(own["runs"].to_numpy(float), RUNS)
        values = own[names].to_numpy(float).T
        found, _ = expected_by_cost(
            own["select"].round(DIGITS).to_numpy(float), values, costs, costs, limit
        )
        scores = dict(zip(names, map(float, found[:, -1]), strict=True))
        rows.append({"seed": seed, **scores, "runs": RUNS})
    return pd.DataFrame(rows).set_index("seed")


def grid(scenario: Scenario, seed: int) -> pd.DataFrame:
    """LoRA's cells, those with the larger alpha first, as far as `RUNS` reach."""
    own = scenario.of_seed("lora", seed)
    order = own.sort_values("alpha", ascending=False, kind="stable")
    return order[order["runs"].cumsum() <= RUNS]


def exhausted(scenario: Scenario, seed: int) -> pd.DataFrame:
    """Every cell of LoRA's space."""
    return scenario.of_seed("lora", seed)


def metapeft(scenario: Scenario, seed: int) -> pd.DataFrame:
    """Every cell of MetaPEFT's space, and its defaults."""
    return pd.concat([scenario.of_seed("gamma", seed), defaults(scenario, seed)], ignore_index=True)


def defaults(scenario: Scenario, seed: int) -> pd.DataFrame:
    """MetaPEFT as the paper sets it, at rate r."""
    return _single(scenario, seed, "MetaPEFT, defaults")


def linear_probe(scenario: Scenario, seed: int) -> pd.DataFrame:
    """The head alone."""
    return _single(scenario, seed, "linear probe")


def _single(scenario: Scenario, seed: int, arm: str) -> pd.DataFrame:
    own = scenario.of_seed("single", seed)
    return own[own["arm"] == arm]


def placed(
    where: str,
    depth: str = "last:12",
    *,
    alpha: float | None = None,
    strengths: int | None = None,
) -> Looked:
    """LoRA at a placement with its strength tuned; with `alpha`, its rate alone.

    With `strengths`, at the first of them only: those of alpha 4, rate r first. Where a space has
    no axis of depth, its placements name theirs.
    """

    def looked(scenario: Scenario, seed: int) -> pd.DataFrame:
        own = scenario.of_seed("lora", seed)
        own = own[own["where"] == where]
        if "depth" in own:
            own = own[own["depth"] == depth]
        if alpha is not None:
            own = own[own["alpha"] == alpha]
        order = own.sort_values(["alpha", "recipe.lr"], ascending=[False, True], kind="stable")
        return order.iloc[:strengths]

    return looked


def separately_best(scenario: Scenario, seed: int) -> pd.DataFrame:
    """The cell of the values that are best by themselves: each by its mean dev score over the rest.

    One trial; what finding it costs is the whole space, which `exhausted` states.
    """
    own = scenario.of_seed("lora", seed)
    fields = [name for name in ("where", "depth", "alpha", "recipe.lr") if name in own]
    for name in fields:
        means = scenario.of_seed("lora", seed).groupby(name, sort=False)["select"].mean()
        own = own[own[name] == means.idxmax()]
    return own


TUNED_LORA = placed("all")
"""The strongest simple baseline: LoRA at every linear map in all blocks, four strengths."""

ARMS: dict[str, Looked] = {
    "linear probe": linear_probe,
    "LoRA at Q+V, α = 4, rate r": placed("Q+V", strengths=1),
    "LoRA at every linear map, α = 4, rate r": placed("all", strengths=1),
    "MetaPEFT, defaults": defaults,
    "LoRA at every linear map, tuned": TUNED_LORA,
    "grid": grid,
    "MetaPEFT, tuned": metapeft,
    "LoRA's space, exhausted": exhausted,
}
"""Name -> arm, cheapest first; beside them stand random search in closed form and the searches."""
